import numpy as np
import pytest

from cryorefine.geometry.euler import matrices, view_directions
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import angular_distance, point_group


def swing_and_twist(a, b):
    """Angle between two views, and the in-plane rotation left between them, in degrees."""
    relative = b @ np.swapaxes(a, -1, -2)
    swing = np.rad2deg(np.arccos(np.clip(relative[..., 2, 2], -1, 1)))
    twist = np.arctan2(relative[..., 0, 1] - relative[..., 1, 0], relative[..., 0, 0] + relative[..., 1, 1])
    return swing, np.rad2deg(twist)


@pytest.mark.parametrize("tilt", [0.5, 3.0, 40.0, 90.0, 178.0])
def test_candidates_are_all_orientations_within_three_sigma(tilt):
    grid = SamplingGrid(3)
    prior = matrices(-117.0, tilt, 71.0)
    sigma = 5.0
    indices, weights = grid.local_candidates(prior, sigma)
    swing, twist = swing_and_twist(prior, grid.coarse_matrices())
    inside = np.flatnonzero((swing <= 3 * sigma) & (np.abs(twist) <= 3 * sigma))
    np.testing.assert_array_equal(indices, inside)
    gauss = np.exp(-0.5 * (swing**2 + twist**2)[inside] / sigma**2)
    np.testing.assert_allclose(weights, gauss / gauss.sum(), rtol=1e-8)


def test_away_from_the_pole_this_is_a_difference_of_psi():
    grid = SamplingGrid(4)
    prior = matrices(20.0, 90.0, 100.0)
    indices, _ = grid.local_candidates(prior, grid.step)
    psi = grid.psi[indices % grid.n_psi]
    assert np.abs(psi - 100).max() <= 3 * grid.step * 1.2


def test_many_particles_give_the_same_as_one_by_one(rng):
    grid = SamplingGrid(4)
    priors = matrices(*rng.uniform(-180, 180, (3, 25)))
    indptr, indices, weights = grid.local_candidates_many(priors, 3.0)
    assert indptr[-1] == len(indices) == len(weights)
    for i, prior in enumerate(priors):
        one_indices, one_weights = grid.local_candidates(prior, 3.0)
        np.testing.assert_array_equal(indices[indptr[i] : indptr[i + 1]], one_indices)
        np.testing.assert_allclose(weights[indptr[i] : indptr[i + 1]], one_weights)
    np.testing.assert_allclose(np.add.reduceat(weights, indptr[:-1]), 1)


def test_with_nothing_inside_the_closest_is_used(rng):
    grid = SamplingGrid(2)
    priors = matrices(*rng.uniform(-180, 180, (3, 30)))
    indptr, indices, weights = grid.local_candidates_many(priors, 0.05)
    np.testing.assert_array_equal(np.diff(indptr), 1)
    np.testing.assert_allclose(weights, 1)
    views = view_directions(*grid.directions)
    nearest = np.argmax(priors[:, 2] @ views.T, axis=1)
    np.testing.assert_array_equal(indices // grid.n_psi, nearest)
    _, twist = swing_and_twist(priors, grid.coarse_matrices(indices))
    assert np.abs(twist).max() <= grid.step / 2 + 1e-9


def test_a_wide_search_is_the_whole_sphere():
    grid = SamplingGrid(1)
    indices, weights = grid.local_candidates(matrices(10, 50, 20), 80.0)
    assert len(np.unique(indices)) == len(indices)
    assert len(indices) >= grid.n_orientations * 0.9
    np.testing.assert_allclose(weights.sum(), 1)


def test_relaxed_symmetry_searches_every_mate_with_equal_weight():
    grid = SamplingGrid(4)
    prior = matrices(33.0, 70.0, -15.0)
    indices, weights = grid.local_candidates(prior, 3.0, relax_group="C3")
    found = grid.coarse_matrices(indices)
    for operator in point_group("C3").operators:
        near = angular_distance(found, prior @ operator) < 30
        np.testing.assert_allclose(weights[near].sum(), 1 / 3)


def test_mates_that_share_candidates_share_their_weight():
    # along the five-fold axis the mates differ in psi alone; with a wide sigma they overlap
    grid = SamplingGrid(2)
    prior = matrices(10.0, 5.0, 0.0)
    indices, weights = grid.local_candidates(prior, 20.0, relax_group="C5")
    assert np.all(np.diff(indices) > 0)
    np.testing.assert_allclose(weights.sum(), 1)


def test_perturbation_takes_no_part():
    prior = matrices(33.0, 70.0, -15.0)
    plain = SamplingGrid(4).local_candidates(prior, 3.0)
    turned = SamplingGrid(4, perturbation=0.4).local_candidates(prior, 3.0)
    np.testing.assert_array_equal(plain[0], turned[0])


def test_an_asymmetric_unit_cannot_be_searched_locally():
    with pytest.raises(ValueError, match="whole sphere"):
        SamplingGrid(3, "C6").local_candidates(np.eye(3), 3.0)
    with pytest.raises(ValueError, match="positive"):
        SamplingGrid(3).local_candidates(np.eye(3), 0.0)
