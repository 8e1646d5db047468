"""Maps from slices of known orientation."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.geometry.euler import matrices
from cryorefine.geometry.symmetry import point_group
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.particle_reconstruction import (
    cropped,
    empty_sums,
    insert_images,
    solve,
    split_sums,
    symmetric_mean,
)

BOX = 24


def gaussians(points, box=BOX, width=1.2):
    """Density of dots at (x, y, z) from the centre at box // 2."""
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return sum(
        np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / (2 * width**2)) for p in points
    ).astype(np.float32)


def projections(points, orientations, box=BOX, width=1.2):
    """Transforms of projections of the dots: view = A @ reference, summed along the view's z."""
    axis = np.arange(box) - box // 2
    images = []
    for a in orientations:
        u = (a @ np.asarray(points, float).T).T
        images.append(
            np.sqrt(2 * np.pi)
            * width
            * sum(np.exp(-((axis - p[0]) ** 2 + (axis[:, None] - p[1]) ** 2) / (2 * width**2)) for p in u)
        )
    return np.fft.rfft2(np.array(images)).astype(np.complex64)


@pytest.fixture
def views(rng):
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, 300)))
    return matrices(rng.uniform(-180, 180, 300), tilt, rng.uniform(-180, 180, 300))


POINTS = [(4.0, 1, -2), (-3, 2.5, 3), (0, -4, 1)]


def reconstruction(spectra, gain, views, **settings):
    sums = empty_sums(BOX)
    insert_images(sums, spectra * gain.reshape(spectra.shape), gain, np.ones(gain.shape, bool), views)
    return cropped(solve(*split_sums(sums), BOX, **settings), BOX)


def test_projections_give_back_the_map_on_its_grey_scale_and_in_its_hand(views):
    spectra = projections(POINTS, views)
    gain = np.ones((len(views), BOX * (BOX // 2 + 1)), np.float32)
    found, truth = reconstruction(spectra, gain, views), cropped(gaussians(POINTS), BOX)
    assert fourier_shell_correlation(found, truth)[:9].min() > 0.99
    assert np.isclose(np.polyfit(truth.ravel(), found.ravel(), 1)[0], 1, atol=0.05)
    mirrored = np.roll(found[:, :, ::-1], 1, axis=2)
    assert fourier_shell_correlation(mirrored, truth)[3:10].max() < 0.9


def test_a_ctf_is_divided_out(views, rng):
    spectra = projections(POINTS, views)
    k = np.hypot(np.fft.fftfreq(BOX)[:, None], np.arange(BOX // 2 + 1) / BOX).ravel()
    gain = np.sin(0.3 + rng.uniform(20, 40, (len(views), 1)) * k**2).astype(np.float32)
    flat = np.ones_like(gain)
    modulated = spectra * gain.reshape(spectra.shape)
    corrected = reconstruction(modulated, gain, views)
    assert fourier_shell_correlation(corrected, reconstruction(spectra, flat, views))[:9].min() > 0.99
    assert (
        fourier_shell_correlation(reconstruction(modulated, flat, views), gaussians(POINTS))[:9].min() < 0.9
    )


def test_a_wiener_filter_damps_what_few_images_tell(views):
    spectra = projections(POINTS, views)
    gain = np.ones((len(views), BOX * (BOX // 2 + 1)), np.float32)
    plain = reconstruction(spectra, gain, views)
    filtered = reconstruction(spectra, gain, views, snr=0.1)
    assert 0 < np.std(filtered) < np.std(plain)
    assert fourier_shell_correlation(filtered, plain)[:9].min() > 0.98


def test_symmetry_fills_in_the_copies(views):
    group = point_group("C3")
    points = [tuple(s @ np.array([5.0, 1, 2])) for s in group.operators]
    few = views[:40]
    spectra = projections(points, few)
    gain = np.ones((len(few), BOX * (BOX // 2 + 1)), np.float32)
    sums = empty_sums(BOX)
    insert_images(sums, spectra, gain, np.ones(gain.shape, bool), few)
    numerator, weight = split_sums(sums)
    truth = gaussians(points)
    maps = [
        cropped(solve(*symmetric_mean(numerator, weight, operators), BOX), BOX)
        for operators in (group.operators, point_group("C1").operators)
    ]
    scores = [fourier_shell_correlation(volume, truth)[5:10].mean() for volume in maps]
    assert scores[0] > scores[1]


def test_images_in_larger_boxes_land_at_the_same_frequencies(views):
    gain = np.ones((len(views), 36 * 19), np.float32)
    sums = empty_sums(BOX)
    insert_images(sums, projections(POINTS, views, 36), gain, np.ones(gain.shape, bool), views, 36 / BOX)
    found = cropped(solve(*split_sums(sums), BOX), BOX)
    assert fourier_shell_correlation(found, cropped(gaussians(POINTS), BOX))[:9].min() > 0.98


def test_what_is_not_kept_counts_as_missing(views):
    spectra = projections(POINTS, views[:1])
    gain = np.ones((1, BOX * (BOX // 2 + 1)), np.float32)
    keep = np.ones(gain.shape, bool).reshape(BOX, -1)
    keep[:, 5:] = False
    sums = empty_sums(BOX)
    insert_images(sums, spectra, gain, keep.reshape(1, -1), np.eye(3)[None])
    _, weight = split_sums(sums)
    plane = weight[BOX // 2, BOX // 2]
    assert (plane[:5] == 1).all()
    assert not plane[5:].any()
    assert not weight[BOX // 2 + 1 :].any()


def test_cropping_takes_the_mean_away_and_fades_out(rng):
    volume = (rng.normal(size=(40, 40, 40)) + 5).astype(np.float32)
    cut = cropped(volume, 32)
    assert cut.shape == (32, 32, 32)
    assert abs(cut.mean()) < 0.01
    assert not cut[0, 0].any()
    difference = cut[14:19, 14:19, 14:19] - volume[18:23, 18:23, 18:23]
    assert np.ptp(difference) < 1e-5
