"""Shells: which voxel belongs where, and sums over them."""

import numpy as np
import pytest

from cryorefine.maps import shells


def test_halves_round_away_from_zero():
    assert shells.round_half_away([0.5, 1.5, 2.5, -0.5, -2.5, 2.49]).tolist() == [1, 2, 3, -1, -3, 2]


def test_nyquist_is_positive():
    assert shells.logical_indices(6).tolist() == [0, 1, 2, 3, -2, -1]
    assert shells.logical_indices(5).tolist() == [0, 1, 2, -2, -1]


def test_shell_of_a_voxel_is_its_rounded_distance_from_the_origin():
    index = shells.shell_index((8, 8, 8))
    assert index.shape == (8, 8, 5)
    assert index[0, 0, 3] == 3
    assert index[-1, -2, 2] == 3  # |(-1, -2, 2)| = 3
    assert index[4, 4, 4] == 7  # sqrt(48) = 6.93
    assert index[1, 1, 0] == 1
    assert index[2, 1, 1] == 2  # sqrt(6) = 2.449


@pytest.mark.parametrize("shape", [(12, 12, 12), (12, 12), (9, 9, 9)])
def test_radial_average_is_the_mean_over_each_shell(rng, shape):
    values = rng.random(shapes_half(shape))
    index = shells.shell_index(shape)
    expected = [values[index == i].mean() for i in range(shape[0] // 2 + 1)]
    np.testing.assert_allclose(shells.radial_average(values), expected, rtol=1e-12)


def test_sums_do_not_depend_on_the_number_of_threads(rng):
    values = rng.random((20, 20, 11), dtype=np.float32)
    one, _ = shells.radial_sums(values, threads=1)
    many, _ = shells.radial_sums(values, threads=7)
    assert (one == many).all()


def test_sums_by_squared_radius_hold_every_voxel(rng):
    values = rng.random((10, 10, 6))
    sums, counts = shells.sums_by_squared_radius(values)
    assert counts.sum() == values.size
    np.testing.assert_allclose(sums.sum(), values.sum())
    squared = shells.squared_radius((10, 10, 10))
    np.testing.assert_allclose(sums[9], values[squared == 9].sum())


def test_of_complex_numbers_the_modulus_is_summed(rng):
    values = rng.standard_normal((8, 8, 5)) + 1j * rng.standard_normal((8, 8, 5))
    np.testing.assert_allclose(shells.radial_average(values), shells.radial_average(np.abs(values)))


def test_sums_to_the_corners_go_on_where_the_others_end(rng):
    first, second = rng.standard_normal((2, 8, 8, 5)) + 1j * rng.standard_normal((2, 8, 8, 5))
    sums = shells.cross_sums(first, second, corners=True)
    np.testing.assert_allclose(sums[:, :5], shells.cross_sums(first, second))
    assert sums[1].sum() == pytest.approx(np.sum(np.abs(first) ** 2))


@pytest.mark.parametrize("size", [8, 9])
def test_voxels_are_counted_as_stored_or_with_their_mates(size):
    squared = shells.squared_radius((size,) * 3)
    counts = np.bincount(squared.ravel(), minlength=len(shells.radius_table(size)))
    assert (shells.voxels_by_squared_radius(size) == counts).all()
    assert shells.voxels_by_squared_radius(size, whole=True).sum() == size**3


def test_gain_multiplies_by_radius(rng):
    spectrum = rng.random((10, 10, 6)) + 1j * rng.random((10, 10, 6))
    radius = np.sqrt(shells.squared_radius((10, 10, 10)))
    expected = spectrum * np.exp(-radius)
    result = shells.apply_gain(spectrum.copy(), np.exp(-shells.radius_table(10)))
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_boxes_that_are_not_cubes_are_refused():
    with pytest.raises(ValueError, match="cubic"):
        shells.shell_index((8, 8, 10))
    with pytest.raises(ValueError, match="half-complex"):
        shells.radial_average(np.zeros((8, 8, 8)))


def shapes_half(shape):
    return (*shape[:-1], shape[-1] // 2 + 1)
