import pickle

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cryorefine.errors import UserError
from cryorefine.geometry.euler import angles, matrices, view_directions
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import angular_distance, point_group


def test_counts_are_those_of_relion():
    assert SamplingGrid(2).n_orientations == 4608
    assert SamplingGrid(3).n_orientations == 36864
    assert SamplingGrid(2, "D2").n_orientations == 1152


def test_index_is_direction_times_n_psi_plus_psi():
    grid = SamplingGrid(2, "C6")
    rot, tilt = grid.directions
    index = 3 * grid.n_psi + 5
    np.testing.assert_allclose(
        grid.coarse_matrices([index])[0], matrices(rot[3], tilt[3], grid.psi[5]), atol=1e-14
    )
    np.testing.assert_array_equal(grid.coarse_matrices()[index], grid.coarse_matrices([index])[0])


def test_perturbation_turns_the_reference_side_of_every_matrix():
    grid, turned = SamplingGrid(2, "D2"), SamplingGrid(2, "D2", 0.3)
    angle = 0.3 * 15
    small = matrices(angle, angle, angle)
    np.testing.assert_allclose(turned.coarse_matrices(), grid.coarse_matrices() @ small, atol=1e-14)
    np.testing.assert_allclose(turned.fine_matrices([7]), grid.fine_matrices([7]) @ small, atol=1e-14)


def test_fine_orientations_of_all_cells_are_the_next_order_in_half_steps():
    grid = SamplingGrid(1)
    fine = grid.fine_matrices()
    assert fine.shape == (grid.n_orientations, 8, 3, 3)
    rot, tilt, psi = angles(fine.reshape(-1, 3, 3))
    finer = SamplingGrid(2)
    _, pixel = cKDTree(finer.direction_vectors).query(view_directions(rot, tilt))
    np.testing.assert_array_equal(np.bincount(pixel), finer.n_psi)
    # Of each direction the in-plane angles are evenly spaced, from wherever they start.
    for own in range(finer.n_directions):
        steps = np.diff(np.sort(psi[pixel == own]))
        np.testing.assert_allclose(steps, finer.step, atol=1e-9)


def test_fine_orientations_surround_their_coarse_one_even_at_the_poles():
    for grid in (SamplingGrid(3, "C6", -0.4), SamplingGrid(2)):
        coarse = grid.coarse_matrices()
        distance = angular_distance(grid.fine_matrices(), coarse[:, None])
        assert distance.max() < 0.6 * grid.step


def test_groups_of_eight_are_compact_even_at_the_poles():
    for grid in (SamplingGrid(3, perturbation=0.3), SamplingGrid(1)):
        every = np.arange(grid.n_orientations)
        parents = grid.parents(every)
        distance = angular_distance(grid.coarse_matrices(every), grid.parent_matrices(parents))
        assert distance.max() < 1.45 * grid.step
        np.testing.assert_array_equal(np.bincount(parents), 8)


def test_a_grid_reaches_every_pose_of_a_symmetric_particle(rng):
    group = point_group("C5")
    fine = SamplingGrid(2, "C5", 0.2).fine_matrices().reshape(-1, 3, 3)
    poses = matrices(*rng.uniform(-180, 180, (3, 20)))
    nearest = [angular_distance(pose, fine, group).min() for pose in poses]
    assert max(nearest) < 10


def test_a_grid_is_small_to_send_and_equal_by_value():
    grid = SamplingGrid(6, "C6", 0.25)
    assert len(pickle.dumps(grid)) < 500
    assert pickle.loads(pickle.dumps(grid)) == grid


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match="perturbation"):
        SamplingGrid(2, "C1", 0.6)
    with pytest.raises(UserError, match="TD"):
        SamplingGrid(2, "TD")
