"""Counts of views, and how slices sample Fourier space, for distributions whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.healpix import directions, nearest_pixels
from cryorefine.geometry.orientation_distribution import (
    count_views,
    fourier_sampling,
    sampling_compensation_factor,
)

COUNT = 20_000


@pytest.fixture
def rot(rng):
    return rng.uniform(-180, 180, COUNT)


@pytest.fixture
def even(rng):
    return np.rad2deg(np.arccos(rng.uniform(-1, 1, COUNT)))


def test_each_particle_counts_once_in_its_pixel():
    counts = count_views([40.0, 40.0, -100.0], [60.0, 60.0, 130.0], 3)
    assert counts.sum() == 3
    assert counts[nearest_pixels(40.0, 60.0, 3)] == 2
    assert counts[nearest_pixels(-100.0, 130.0, 3)] == 1


def test_symmetry_mates_of_a_view_count_where_they_look():
    """D2 has two-folds along x, y and z."""
    counts = count_views([40.0], [60.0], 3, "D2")
    mates = [(40.0, 60.0), (-140.0, 60.0), (140.0, 120.0), (-40.0, 120.0)]
    assert counts.sum() == 4
    for mate_rot, mate_tilt in mates:
        assert counts[nearest_pixels(mate_rot, mate_tilt, 3)] == 1


def test_even_views_sample_evenly(rot, even):
    sampling = fourier_sampling(rot, even, 3)
    np.testing.assert_allclose(sampling, 1, atol=0.25)
    assert sampling.mean() == pytest.approx(1, abs=0.01)
    assert sampling_compensation_factor(sampling, COUNT) == pytest.approx(1, abs=0.01)


def test_one_view_samples_the_plane_across_it():
    sampling = fourier_sampling([30.0], [50.0], 4, radius=10.0)
    across = np.abs(view_directions(*directions(4)) @ view_directions(30.0, 50.0))
    np.testing.assert_allclose(sampling, 20 * np.maximum(0, 1 - 10 * across), atol=1e-9)


def test_side_views_have_the_factor_of_baldwin_and_lyumkis(rot):
    """Views across z: the sampling is 2 / (pi sin theta), so SCF = 8 / pi^2."""
    sampling = fourier_sampling(rot, np.full(COUNT, 90.0), 4)
    theta = np.deg2rad(directions(4)[1])
    for low, high in ((15, 30), (30, 50), (50, 70), (70, 90)):
        ring = (theta > np.deg2rad(low)) & (theta < np.deg2rad(high))
        expected = (2 / np.pi / np.sin(theta[ring])).mean()
        assert sampling[ring].mean() == pytest.approx(expected, rel=0.02)
    assert sampling_compensation_factor(sampling, COUNT) == pytest.approx(8 / np.pi**2, abs=0.015)


def test_top_views_leave_a_cone_empty(rng, rot):
    """Views within 30 degrees of z reach no direction within 60 degrees of it."""
    tilt = np.rad2deg(np.arccos(rng.uniform(np.cos(np.deg2rad(30)), 1, COUNT)))
    sampling = fourier_sampling(rot, tilt, 4)
    polar = directions(4)[1]
    assert (sampling[(polar < 58) | (polar > 122)] == 0).all()
    assert (sampling[(polar > 62) & (polar < 118)] > 0).all()
    assert sampling_compensation_factor(sampling, COUNT) < 0.01


def test_symmetry_fills_what_one_view_leaves_empty(rng):
    """Views along x of a particle with octahedral symmetry are views along z, too."""
    tilt = np.rad2deg(np.arccos(rng.uniform(np.cos(np.deg2rad(42)), 1, 500)))
    rot = rng.uniform(-180, 180, 500)
    alone, together = (fourier_sampling(rot, tilt, 3, group) for group in ("C1", "O"))
    assert (alone == 0).mean() > 0.2
    assert (together > 0).all()
    # and the result has the symmetry, here a four-fold about z
    x, y, z = view_directions(*directions(3)).T
    turned = nearest_pixels(np.rad2deg(np.arctan2(x, -y)), np.rad2deg(np.arccos(z)), 3)
    np.testing.assert_allclose(together[turned], together, atol=1e-9)


def test_opposite_directions_are_sampled_alike(rng):
    sampling = fourier_sampling(rng.uniform(-180, 180, 50), rng.uniform(0, 60, 50), 2)
    rot, tilt = directions(2)
    np.testing.assert_array_equal(sampling[nearest_pixels(rot + 180, 180 - tilt, 2)], sampling)
