"""The rules of auto-refinement, against stated numbers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from cryorefine.geometry import angular_distance
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.refine import schedule as rules
from cryorefine.refine.accuracy import ANGLES, SHIFTS
from cryorefine.refine.schedule import Schedule
from cryorefine.refine.simulation import random_rotations

BOX, PIXEL = 64, 3.54
START = Schedule(order=2, local_order=4, offset_range=17.7, offset_step=7.08, resolution=5 / (BOX * PIXEL))


def test_images_reach_ten_shells_beyond_the_resolution():
    assert rules.current_size(START, BOX, PIXEL) == 30


def test_images_reach_a_quarter_of_the_box_further_once_the_fsc_is_high_at_their_edge():
    eager = replace(START, high_fsc_at_limit=True, mean_largest_weight=0.2)
    assert rules.current_size(eager, BOX, PIXEL) == 2 * (5 + 8)
    assert rules.current_size(replace(eager, mean_largest_weight=0.05), BOX, PIXEL) == 30


def test_the_last_iteration_reaches_nyquist():
    assert rules.current_size(replace(START, converged=True), BOX, PIXEL) == BOX


def test_coarse_images_hold_what_the_angular_step_resolves():
    # 15 degrees at 200 A: 15/360 * pi * 200 / 1.2 = 21.8 A, shell ceil(226.56 / 21.8) = 11
    assert rules.coarse_size(15, 200, BOX, PIXEL, 64) == 22
    assert rules.coarse_size(7.5, 200, BOX, PIXEL, 64) == 42
    assert rules.coarse_size(7.5, 200, BOX, PIXEL, 30) == 30


def test_resolution_is_the_last_shell_before_the_signal_drowns():
    ssnr = np.array([999, 500, 100, 50, 20, 10, 5, 0.9, 0.5, 0.2])
    assert rules.resolution_shell(ssnr) == (6, False)


def test_resolution_never_falls_below_shell_five():
    assert rules.resolution_shell(np.array([999, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]))[0] == 5


def test_a_dip_is_bridged_when_the_signal_returns_four_shells_later():
    ssnr = np.array([999.0, 9, 9, 9, 9, 9, 9, 0.5, 0.5, 0.5, 0.5, 2, 0.1])
    assert rules.resolution_shell(ssnr) == (11, True)
    ssnr[11], ssnr[9] = 0.1, 2
    assert rules.resolution_shell(ssnr) == (6, False)


def test_gain_is_counted():
    better = rules.count_gain(replace(START, without_gain=1), START.resolution + 0.01)
    assert better.without_gain == 0
    assert rules.count_gain(better, better.resolution).without_gain == 1


def test_coming_back_to_an_old_resolution_is_no_gain():
    best = rules.count_gain(START, 0.10)
    worse = rules.count_gain(best, 0.08)
    again = rules.count_gain(worse, 0.10)
    assert (worse.without_gain, again.without_gain) == (1, 2)
    assert again.resolution == 0.10


def test_poses_have_settled_when_their_changes_stop_shrinking():
    first = rules.count_changes(START, 20.0, 9.0)
    assert first.without_change == 0
    second = rules.count_changes(first, 10.0, 5.0)
    assert second.without_change == 0
    third = rules.count_changes(second, 10.5, 5.1)
    assert third.without_change == 1
    shrinking_again = rules.count_changes(third, 8.0, 4.0)
    assert shrinking_again.without_change == 0


def test_small_changes_count_as_settled_even_when_they_shrink():
    # fine step 7.5 degrees and 3.54 A: a redrawn grid alone moves poses by less than 5.6 degrees and 1.9 A
    first = rules.count_changes(START, 5.0, 1.8)
    assert rules.count_changes(first, 4.0, 1.0).without_change == 2
    for angle, offset in ((6.0, 1.8), (5.0, 2.1)):
        assert rules.count_changes(START, angle, offset).without_change == 0


def test_a_redrawn_grid_moves_poses_less_than_what_counts_as_movement(rng):
    """The nearest fine samples of poses that stay where they are, in grids of an iteration and the next."""
    poses = random_rotations(100, rng)
    perturbation, before, changes = 0.0, None, []
    for _ in range(6):
        perturbation = rules.draw_perturbation(perturbation, rng)
        grid = SamplingGrid(3, "C1", perturbation)
        near = grid.local_candidates_many(poses @ grid.perturbation_matrix.T, grid.step)
        fine = [grid.fine_matrices(near[1][a:b]).reshape(-1, 3, 3) for a, b in itertools.pairwise(near[0])]
        nearest = np.array(
            [each[np.argmin(angular_distance(each, pose))] for each, pose in zip(fine, poses, strict=True)]
        )
        if before is not None:
            changes.append(angular_distance(nearest, before).mean() / (grid.step / 2))
        before = nearest
    assert 0.8 * rules.REDRAWN_ANGLE < np.mean(changes)
    assert max(changes) < rules.REDRAWN_ANGLE


SETTLED = replace(
    START,
    without_gain=1,
    without_change=1,
    accuracy_angle=3.5,
    accuracy_shift=2.0,
    change_offset=2.6,
    resolution=18 / (BOX * PIXEL),
)


def sampled_finer(schedule, **changes):
    values = {"diameter": 200, "finest": 7.08, "faster": False, "dimensions": 2}
    return rules.refine_sampling(schedule, **(values | changes))


def test_sampling_gets_finer_once_settled():
    finer = sampled_finer(SETTLED)
    assert finer.order == 3
    assert finer.offset_step == pytest.approx(2 * 1.5)  # capped at 1.5 A
    assert finer.offset_range == pytest.approx(13 / 2)  # 5 * 2.6, more than 4 steps: halved
    assert (finer.without_gain, finer.without_change) == (0, 0)


@pytest.mark.parametrize("missing", ["without_gain", "without_change"])
def test_sampling_waits_for_resolution_and_poses(missing):
    assert sampled_finer(replace(SETTLED, **{missing: 0})).order == 2


def test_finer_faster_does_not_wait_for_poses():
    waiting = replace(SETTLED, without_change=0)
    assert sampled_finer(waiting, faster=True).order == 3


def test_finer_faster_refines_as_soon_as_the_resolution_asks_for_it():
    # 200 A at 12.6 A needs 360 / ceil(pi 200 / 12.6) = 7.2 degrees, less than the fine step of 7.5
    moving = replace(SETTLED, without_gain=0, without_change=0)
    assert sampled_finer(moving, faster=True).order == 3
    assert sampled_finer(replace(moving, resolution=1 / 20), faster=True).order == 2


def test_finer_faster_still_waits_before_local_searches():
    moving = replace(SETTLED, order=3, without_gain=0, without_change=0, resolution=1 / 4)
    assert sampled_finer(moving, faster=True).order == 3


def test_sampling_stops_at_the_accuracy_of_the_poses():
    enough = sampled_finer(replace(SETTLED, accuracy_angle=10.1))
    assert enough.order == 2
    assert enough.fine_enough
    assert rules.has_converged(enough, ignore_changes=False)
    assert not rules.has_converged(replace(enough, without_gain=0), ignore_changes=False)


def test_what_was_fine_enough_for_a_poor_map_is_not_for_a_better_one():
    enough = sampled_finer(replace(SETTLED, accuracy_angle=10.1))
    better = sampled_finer(replace(enough, accuracy_angle=3.0))
    assert not better.fine_enough
    assert better.order == 3


def test_errors_of_the_sampling_blur_what_they_should(rng):
    """Waves whose phases are off by errors spread evenly over 0.4 of a period keep this much amplitude."""
    errors = rng.uniform(-0.2, 0.2, 200_000)
    amplitude = np.exp(-2 * np.pi**2 * np.mean(errors**2))
    assert 1 - rules.sampling_loss(0.4) == pytest.approx(amplitude, abs=2e-3)
    assert np.cos(2 * np.pi * errors).mean() == pytest.approx(amplitude, abs=0.03)


def test_sampling_stops_where_finer_steps_bring_out_nothing_more():
    # 0.234 degrees turn the rim of 200 A by 0.41 A, which blurs 7.08 A by 0.5 %; 0.47 degrees by 2.2 %.
    sure = replace(SETTLED, accuracy_angle=0.1, accuracy_shift=0.1, order=7, offset_step=0.6)
    enough = sampled_finer(sure)
    assert enough.fine_enough
    assert enough.order == 7
    assert sampled_finer(replace(sure, order=6)).order == 7
    assert sampled_finer(sure, diameter=400).order == 8  # the rim is further out
    assert sampled_finer(sure, finest=4).order == 8  # the images hold more
    assert sampled_finer(replace(sure, offset_step=1.8)).order == 8  # the shifts are not known so well


def test_tomographic_steps_never_shrink_by_more_than_half():
    assert sampled_finer(replace(SETTLED, accuracy_shift=0.1), dimensions=3).offset_step >= 3.54


def test_local_searches_begin_at_their_order():
    assert not replace(START, order=3).is_local
    local = replace(START, order=4)
    assert local.is_local
    assert local.local_sigma == pytest.approx(2 * 3.75 / 2)


def test_the_grid_moves_by_a_quarter_to_half_a_step_and_stays_within_half():
    rng = np.random.default_rng(0)
    value, seen = 0.0, []
    for _ in range(500):
        new = rules.draw_perturbation(value, rng)
        assert 0.25 <= (new - value) % 1 <= 0.5
        value = new
        seen.append(value)
    assert -0.5 <= min(seen) < -0.4
    assert 0.4 < max(seen) <= 0.5


def test_trial_errors_grow_in_the_stated_steps():
    np.testing.assert_allclose(ANGLES[:6], [0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(ANGLES[-5:], [18, 20, 25, 30, 35])
    np.testing.assert_allclose(SHIFTS[:2], [0.1, 0.2])
    assert SHIFTS[-1] > 10
