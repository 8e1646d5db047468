"""Local resolution: small windows stand for the whole box, and good parts are told from poor ones."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.maps import filters, fourier, fsc, masks, shells
from cryorefine.maps.local_resolution import LocalFsc, LocalResolution, Sphere, sampling_points
from cryorefine.maps.randomise import randomise_phases
from cryorefine.maps.solvent import HalfMaps

PIXEL = 2.0


def noise(rng, size):
    return rng.standard_normal((size,) * 3).astype(np.float32)


def in_box(window, corner, size):
    box = np.zeros((size,) * 3, dtype=np.float32)
    box[tuple(slice(c, c + n) for c, n in zip(corner, window.shape, strict=True))] = window
    return box


def test_the_expected_curve_is_the_average_of_draws_of_random_phases(rng):
    size, start, sphere = 32, 5, Sphere(8, 5, 4)
    structure = filters.lowpass(noise(rng, size), PIXEL, 10.0)
    halves = tuple(structure + 0.05 * noise(rng, size) for _ in range(2))
    centre = (16, 14, 20)
    _, expected, _ = LocalFsc(HalfMaps(*halves), sphere, start).curves(centre, 17)

    mask = in_box(sphere.mask(), [c - sphere.reach for c in centre], size)
    spectra = [fourier.forward(half) for half in halves]
    sums = np.zeros((3, 17))
    for _ in range(60):
        drawn = (fourier.inverse(randomise_phases(s, start, size, rng), size) for s in spectra)
        sums += shells.cross_sums(*(fourier.forward(volume * mask) for volume in drawn))
    # Below the first shell with random phases nothing is corrected.
    np.testing.assert_allclose(expected[start:], fsc.fsc_of_sums(sums)[start:], atol=0.05)
    assert expected[5] > 0.2  # the sphere alone makes neighbouring shells correlate
    assert abs(expected[12:]).max() < 0.05


def measured(halves, sphere, threads=1, expected_shell=8, within=None):
    size = halves[0].shape[0]
    average = fourier.forward((halves[0] + halves[1]) / 2)
    local = LocalResolution(LocalFsc(HalfMaps(*halves), sphere, 4), PIXEL, 50.0, average, expected_shell)
    for _ in local.visit(sampling_points(size, sphere, within), threads):
        pass
    return local


@pytest.fixture(scope="module")
def two_parts():
    """Half maps whose upper part is good to 5 A and whose lower part is good to 12 A."""
    rng, size = np.random.default_rng(7), 64
    upper = masks.soft_sphere((size,) * 3, 12, 4)
    lower = np.roll(upper, 15, 0)
    upper = np.roll(upper, -15, 0)
    fine = filters.lowpass(noise(rng, size), PIXEL, 5.0) * upper
    coarse = filters.lowpass(noise(rng, size), PIXEL, 12.0) * lower
    structure = fine / fine.std() + 0.4 * coarse / coarse.std()
    return tuple(structure + 2.0 * noise(rng, size) for _ in range(2))


def test_good_parts_are_told_from_poor_ones(two_parts):
    resolution, filtered = measured(two_parts, Sphere(10, 6, 8)).maps()
    assert resolution[17, 32, 32] < 5.5
    assert resolution[47, 32, 32] > 8
    assert resolution[0, 0, 0] == filtered[0, 0, 0] == 0
    assert resolution[resolution > 0].max() <= 50.0 + 1e-4


def test_neither_threads_nor_the_shells_tried_first_change_the_maps(two_parts):
    sphere = Sphere(16, 6, 8)
    one = measured(two_parts, sphere, threads=1, expected_shell=24).maps()
    three = measured(two_parts, sphere, threads=3, expected_shell=4).maps()
    np.testing.assert_array_equal(one[0], three[0])
    np.testing.assert_array_equal(one[1], three[1])


def test_inside_a_mask_nothing_changes_when_only_what_matters_is_measured(two_parts):
    sphere = Sphere(12, 6, 8)
    inside = np.roll(masks.soft_sphere(two_parts[0].shape, 7, 2), -15, 0) > 0
    everywhere, there = measured(two_parts, sphere), measured(two_parts, sphere, within=inside)
    assert len(there.points) < 0.7 * len(everywhere.points)
    for all_of_it, part in zip(everywhere.maps(), there.maps(), strict=True):
        np.testing.assert_array_equal(all_of_it[inside], part[inside])


def test_the_smooth_map_keeps_to_what_was_measured_and_has_no_steps(two_parts):
    local = measured(two_parts, Sphere(10, 6, 8))
    smooth = local.smooth_map()
    found = [point.resolution for point in local.points]
    assert min(found) - 1e-3 <= smooth.min() < smooth.max() <= max(found) + 1e-3
    assert smooth[17, 32, 32] < 6
    assert smooth[47, 32, 32] > 7.5
    frequency = 1 / smooth[:, 32, 32].astype(np.float64)
    assert np.abs(np.diff(frequency)).max() < 0.25 * np.ptp(1 / np.array(found))

    assert np.abs(np.diff(frequency, 2)).max() < 0.1 * np.ptp(1 / np.array(found))
