import numpy as np
import pytest

from cryorefine.geometry.translations import oversample_translations, translation_grid_2d, translation_grid_3d


@pytest.mark.parametrize(
    ("search_range", "step", "count"), [(5, 2, 21), (7.96457, 2.18385, 45), (0, 1, 1), (4, 2, 13)]
)
def test_counts_on_a_circle_are_those_of_relion(search_range, step, count):
    grid = translation_grid_2d(search_range, step)
    assert grid.shape == (count, 2)
    assert oversample_translations(grid, step).shape == (count, 4, 2)


def test_count_in_a_sphere_is_that_of_relion():
    grid = translation_grid_3d(27, 10.8)
    assert grid.shape == (81, 3)
    assert oversample_translations(grid, 10.8).shape == (81, 8, 3)


def test_oversampled_shifts_are_the_centres_of_half_cells():
    fine = oversample_translations(translation_grid_2d(5, 2), 2)
    np.testing.assert_allclose(fine.mean(axis=1), translation_grid_2d(5, 2), atol=1e-14)
    assert len(np.unique(fine.reshape(-1, 2), axis=0)) == 84
    np.testing.assert_allclose(np.unique(np.diff(np.unique(fine[..., 0]))), 1)


def test_perturbation_moves_every_shift_without_changing_the_set():
    np.testing.assert_allclose(translation_grid_2d(5, 2, -0.3), translation_grid_2d(5, 2) - 0.6)
    np.testing.assert_allclose(translation_grid_3d(5, 2, 0.5), translation_grid_3d(5, 2) + 1.0)


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match="step 0"):
        translation_grid_2d(5, 0)
