"""FSC: what it measures, how it is corrected, and the resolution read from it."""

import copy

import numpy as np
import pytest

from cryorefine.maps import filters, fourier, fsc, masks, solvent
from cryorefine.maps.shells import cross_sums, shell_index


def half_maps(rng, size=32, signal=12.0, decay=5.0):
    """Two halves of one map: a smooth particle in the middle, and noise of their own everywhere."""
    structure = rng.standard_normal((size, size, size)) * masks.soft_sphere((size,) * 3, size / 5, 3)
    radius = np.arange(3 * (size // 2) ** 2 + 1) ** 0.5
    structure = signal * filters.apply_filter(structure, np.exp(-((radius / decay) ** 2)))
    return [(structure + rng.standard_normal(structure.shape)).astype(np.float32) for _ in range(2)]


def test_a_map_correlates_fully_with_itself_at_any_scale(rng):
    volume = rng.standard_normal((16, 16, 16))
    np.testing.assert_allclose(fsc.fourier_shell_correlation(volume, 3 * volume), 1.0)
    np.testing.assert_allclose(fsc.fourier_shell_correlation(volume, -volume)[1:], -1.0)


def test_each_shell_is_the_correlation_of_its_voxels(rng):
    first, second = rng.standard_normal((2, 12, 12, 12))
    a, b, index = fourier.forward(first), fourier.forward(second), shell_index((12, 12, 12))
    result = fsc.fsc_of_spectra(a, b)
    for shell in range(1, 7):
        x, y = a[index == shell], b[index == shell]
        expected = np.vdot(x, y).real / np.sqrt(np.vdot(x, x).real * np.vdot(y, y).real)
        assert result[shell] == pytest.approx(expected, abs=1e-12)


def test_ring_correlation_of_images_is_the_same_function(rng):
    image = rng.standard_normal((16, 16))
    np.testing.assert_allclose(fsc.fourier_shell_correlation(image, image), 1.0)


def test_independent_noise_does_not_correlate(rng):
    first, second = rng.standard_normal((2, 48, 48, 48))
    assert np.abs(fsc.fourier_shell_correlation(first, second)[8:]).max() < 0.1


def test_shells_without_power_are_zero_and_the_origin_is_one():
    empty = np.zeros((8, 8, 8))
    assert fsc.fourier_shell_correlation(empty, empty).tolist() == [1, 0, 0, 0, 0]


def test_resolution_is_that_of_the_last_shell_before_the_first_drop():
    curve = np.array([1, 0.9, 0.5, 0.143, 0.1429, 0.9, 0.0])
    assert fsc.resolution_shell(curve) == 3
    assert fsc.resolution(curve, 12, 2.0) == 8.0
    assert fsc.resolution(curve, 12, 2.0, threshold=0.5) == 12.0
    assert fsc.resolution_shell(np.ones(7)) == 6
    assert fsc.resolution(np.zeros(7), 12, 2.0) == np.inf


def test_first_shell_below_never_is_the_origin():
    assert fsc.first_shell_below(np.array([0.0, 0.9, 0.79]), 0.8) == 2
    assert fsc.first_shell_below(np.array([0.0, 0.9, 0.8]), 0.8) is None


def test_correction_starts_two_shells_late_and_may_be_negative():
    masked, noise = np.array([1, 0.9, 0.8, 0.6, 0.1]), np.array([1, 0.9, 0.7, 0.2, 0.2])
    result = fsc.corrected_fsc(masked, noise, 1)
    np.testing.assert_allclose(result, [1, 0.9, 0.8, 0.5, -0.125])


def test_part_fsc_removes_the_noise_of_the_solvent(rng):
    # Signal 1 and noise 1 in the particle, whose volume is a fifth of the box: the box has 5 times the noise.
    whole, particle = 1 / (1 + 5), 1 / (1 + 1)
    assert fsc.part_fsc(np.array([whole]), 5.0)[0] == pytest.approx(particle)


def test_a_tight_mask_raises_the_fsc_and_random_phases_show_it(rng):
    """Correlation that comes from the mask alone must not survive the correction."""
    halves = half_maps(rng, decay=3.0)
    sharp = masks.soft_sphere((32, 32, 32), 5, 0).astype(np.float32)
    pair = solvent.HalfMaps(*halves)
    start = fsc.first_shell_below(pair.unmasked, 0.8)
    curves = solvent.solvent_corrected_fsc(pair, sharp)
    assert curves.first_randomised_shell == start
    assert curves.randomised[start + 2] > 0.1
    assert curves.corrected[start + 2] < curves.masked[start + 2]
    assert (curves.corrected[: start + 2] == curves.masked[: start + 2]).all()


def test_a_good_mask_reveals_what_solvent_noise_hid(rng):
    halves = half_maps(rng)
    mask = masks.soft_sphere((32, 32, 32), 10, 4)
    pair = solvent.HalfMaps(*halves)
    curves = solvent.solvent_corrected_fsc(pair, mask)
    assert fsc.resolution(curves.corrected, 32, 1.0) < fsc.resolution(pair.unmasked, 32, 1.0)
    assert np.abs(curves.randomised[12:]).max() < 0.1


def test_the_number_of_threads_changes_nothing(rng):
    pair = solvent.HalfMaps(*half_maps(rng))
    mask = masks.soft_sphere((32, 32, 32), 10, 4)
    for phases in (None, np.random.default_rng(3)):
        curves = [
            solvent.solvent_corrected_fsc(pair, mask, rng=copy.deepcopy(phases), threads=threads)
            for threads in (1, 4)
        ]
        assert (curves[0].masked == curves[1].masked).all()
        assert (curves[0].randomised == curves[1].randomised).all()


def test_masked_curves_are_those_of_the_masked_maps(rng):
    """Off the centre, so that the window around the mask is seen to lie where it does."""
    halves = half_maps(rng)
    mask = np.zeros((32, 32, 32), dtype=np.float32)
    mask[9:27, 3:20, 12:32] = rng.random((18, 17, 20))
    curves = solvent.solvent_corrected_fsc(solvent.HalfMaps(*halves), mask)
    first, second = (fourier.forward(half * mask) for half in halves)
    np.testing.assert_allclose(curves.masked, fsc.fsc_of_spectra(first, second), atol=1e-5)
    sums = cross_sums(first, second)
    np.testing.assert_allclose(curves.masked_power, np.sqrt(sums[1] * sums[2]), rtol=1e-5)


@pytest.mark.parametrize("width", [0, 6])
def test_averaged_random_phases_are_what_draws_tend_to(rng, width):
    pair = solvent.HalfMaps(*half_maps(rng))
    mask = masks.soft_sphere((32, 32, 32), 7, width).astype(np.float32)
    average = solvent.solvent_corrected_fsc(pair, mask).randomised
    draws = np.array([solvent.solvent_corrected_fsc(pair, mask, rng=rng).randomised for _ in range(100)])
    start = pair.first_randomised_shell + 2
    error = draws.std(axis=0) / 10
    difference = (average - draws.mean(axis=0))[start:]
    assert np.abs(difference).max() < 0.02
    assert np.sqrt(np.mean((difference / error[start:]) ** 2)) < 1.6
    assert np.abs(draws[0] - average)[start:].max() > 0.05  # a single one is far off


def test_weight_of_a_combined_map():
    result = fsc.combined_map_correlation(np.array([1.0, 0.143, 0.0, -0.2]))
    np.testing.assert_allclose(result, [1.0, 0.5002, 0.0, 0.0], atol=1e-4)
