import numpy as np
import pytest
from scipy.spatial import cKDTree

from cryorefine.geometry import healpix
from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.symmetry import point_group


def vectors(order, pixels=slice(None)):
    rot, tilt = healpix.directions(order)
    return view_directions(rot[pixels], tilt[pixels])


def degrees(chord):
    return np.rad2deg(2 * np.arcsin(chord / 2))


def test_orders_2_and_3_have_the_counts_and_steps_of_relion():
    assert healpix.angular_step(2) == 15
    assert healpix.angular_step(3) == 7.5
    assert len(healpix.directions(2)[0]) * len(healpix.psi_angles(2)) == 4608
    assert len(healpix.directions(3)[0]) * len(healpix.psi_angles(3)) == 36864


def test_directions_are_spread_evenly_in_range():
    rot, tilt = healpix.directions(3)
    assert rot.min() > -180
    assert rot.max() <= 180
    assert np.all((tilt > 0) & (tilt < 180))
    np.testing.assert_allclose(vectors(3).mean(axis=0), 0, atol=1e-14)
    nearest = degrees(cKDTree(vectors(3)).query(vectors(3), k=2)[0][:, 1])
    assert nearest.min() > 0.6 * healpix.pixel_spacing(3)


def test_directions_come_in_the_order_that_relion_writes():
    # first rows of data_sampling_directions of a RELION 3.1.3 run at order 2 without symmetry
    rot, tilt = healpix.directions(2)
    np.testing.assert_allclose(rot[:6], [45, 56.25, 33.75, 45, 67.5, 78.75], atol=1e-9)
    np.testing.assert_allclose(tilt[:6], [80.405932, 70.528779, 70.528779, 60, 60, 48.189685], atol=1e-6)


def test_children_lie_in_their_parents():
    pixels = np.arange(192)
    kids = healpix.children(pixels)
    assert sorted(kids.ravel()) == list(range(768))
    mean = vectors(3)[kids].mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1)[:, None]
    nearest = cKDTree(vectors(2)).query(mean)[1]
    np.testing.assert_array_equal(nearest, pixels)


def test_oversampled_psi_halves_each_cell():
    psi = healpix.psi_angles(2)
    fine = np.sort(healpix.oversampled_psi(psi, 15.0).ravel())
    np.testing.assert_allclose(np.diff(fine), 7.5)
    np.testing.assert_allclose(fine[:2], [-3.75, 3.75])


GROUPS = [
    "C2",
    "C3",
    "C4",
    "C5",
    "C6",
    "C7",
    "C13",
    "D1",
    "D2",
    "D3",
    "D5",
    "D7",
    "T",
    "O",
    "I1",
    "I2",
    "I3",
    "I4",
]


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("name", GROUPS)
def test_every_direction_has_a_mate_near_a_kept_one(name, order, rng):
    operators = point_group(name).operators
    kept = vectors(order, healpix.asymmetric_unit(order, name))
    anywhere = rng.normal(size=(4000, 3))
    anywhere /= np.linalg.norm(anywhere, axis=1)[:, None]
    axes = np.array([[0, 0, 1.0], [0, 0, -1.0], [1.0, 0, 0]])
    distance = degrees(cKDTree((kept @ operators).reshape(-1, 3)).query(np.concatenate([anywhere, axes]))[0])
    assert distance.max() < healpix.pixel_spacing(order)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("name", GROUPS)
def test_the_unit_holds_one_pixel_of_each_orbit(name, order):
    operators = point_group(name).operators
    pixels = healpix.asymmetric_unit(order, name)
    expected = 12 * 4**order / len(operators)
    border = 1.5 + 0.07 * expected  # where grid and symmetry do not match
    assert abs(len(pixels) - expected) <= border
    kept = vectors(order, pixels)
    tree = cKDTree(kept)
    for operator in operators[1:]:
        distance, index = tree.query(kept @ operator)
        twins = distance[index != np.arange(len(kept))]
        assert degrees(twins).min(initial=180) > 0.49 * healpix.pixel_spacing(order)


def test_known_sizes_of_units():
    assert len(healpix.asymmetric_unit(2, "D2")) == 48
    assert len(healpix.asymmetric_unit(3, "D2")) == 192
    # RELION keeps 118 and has no view within 11 degrees of the axis
    assert 118 <= len(healpix.asymmetric_unit(3, "C6")) <= 140
    assert len(healpix.asymmetric_unit(2, "C1")) == 192


def test_shared_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        healpix.directions(2)[0][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        healpix.asymmetric_unit(2, "C3")[0] = 1
