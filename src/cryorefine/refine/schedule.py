"""When to sample finer, how large the images are, and when to stop.

The rules are those of gold-standard auto-refinement (Scheres, J. Struct. Biol. 180 (2012) 519-530;
Scheres, Methods Enzymol. 579 (2016) 125-157), written as functions of one small record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.healpix import angular_step

F64 = NDArray[np.float64]
NEVER = 999.0
# Poses that stay where they are still move when the grid is redrawn, from one nearest sample to the next:
# by 0.60 to 0.72 fine steps in angle (mean) and up to 0.5 in each coordinate of the shift (rms). The first
# iteration at a new step moves them by 0.95 and 0.65. Changes between the two are no movement any more.
REDRAWN_ANGLE, REDRAWN_OFFSET = 0.75, 0.55
# Amplitude that the sampling may cost the finest detail, at the particle's rim.
SAMPLING_LOSS = 0.01


@dataclass(frozen=True)
class Schedule:
    """Where an auto-refinement stands.

    Attributes
    ----------
    order, local_order : int
        HEALPix order of the coarse grid, and the one from which searches are local.
    offset_range, offset_step : float
        Coarse search over shifts in A.
    perturbation : float
        Random part of the sampling step in [-0.5, 0.5].
    resolution, best_resolution : float
        Current resolution and the best one so far in 1/A.
    increment : int
        Shells beyond the resolution that images reach.
    high_fsc_at_limit : bool
        Whether the FSC has been above 0.2 at the edge of the images.
    mean_largest_weight : float
        Mean over particles of their largest posterior weight.
    without_gain, without_change : int
        Iterations without better resolution, and without large changes of poses.
    accuracy_angle, accuracy_shift : float
        Estimated accuracies in degrees and A.
    change_angle, change_offset : float
        Mean change of the orientations in degrees and rms change of the shifts in A.
    smallest_angle, smallest_offset : float
        Smallest such changes since the sampling last changed.
    fine_enough : bool
        Whether the sampling is as fine as the accuracy of the poses.
    converged : bool
        Whether the coming (or this) iteration is the last.
    """

    order: int
    local_order: int
    offset_range: float
    offset_step: float
    perturbation: float = 0.0
    resolution: float = 0.0
    best_resolution: float = 0.0
    increment: int = 10
    high_fsc_at_limit: bool = False
    mean_largest_weight: float = 0.0
    without_gain: int = 0
    without_change: int = 0
    accuracy_angle: float = NEVER
    accuracy_shift: float = NEVER
    change_angle: float = NEVER
    change_offset: float = NEVER
    smallest_angle: float = NEVER
    smallest_offset: float = NEVER
    fine_enough: bool = False
    converged: bool = False

    @property
    def is_local(self) -> bool:
        """Whether poses are searched near the previous ones only."""
        return self.order >= self.local_order

    @property
    def fine_step(self) -> float:
        """Angular step of the fine pass in degrees."""
        return angular_step(self.order) / 2

    @property
    def local_sigma(self) -> float:
        """Width of a local search in degrees, 0 for a global one."""
        return 2 * self.fine_step if self.is_local else 0.0


def draw_perturbation(previous: float, rng: np.random.Generator) -> float:
    """Move the sampling by a quarter to half a step, kept within [-0.5, 0.5]."""
    value = previous + rng.uniform(0.25, 0.5)
    return value - 1 if value > 0.5 else value


def current_size(schedule: Schedule, box: int, pixel_size: float) -> int:
    """Image size in pixels that the current resolution calls for."""
    if schedule.converged:
        return box
    shell = int(np.floor(schedule.resolution * box * pixel_size + 0.5))
    if schedule.mean_largest_weight > 0.1 and schedule.high_fsc_at_limit:
        beyond = int(np.floor(0.25 * box / 2 + 0.5))
    else:
        beyond = schedule.increment
    return min(2 * (shell + beyond), box)


def coarse_size(step: float, diameter: float, box: int, pixel_size: float, limit: int) -> int:
    """Image size of the coarse pass: no more than an angular step in degrees can resolve.

    ``diameter`` in A is that of the particle; ``limit`` is the current size.
    """
    resolution = step / 360 * np.pi * diameter / 1.2
    return min(2 * int(np.ceil(box * pixel_size / resolution)), limit)


def screening_size(schedule: Schedule, diameter: float, box: int, pixel_size: float, limit: int) -> int:
    """Image size of the screening before a local search, about three quarters of the coarse pass's.

    Less would do for the distance of its poses, but tells too little about noisy images.
    """
    step = 1.5 * angular_step(schedule.order)
    return coarse_size(step, diameter, box, pixel_size, 2 * (3 * limit // 8))


def resolution_shell(ssnr: F64) -> tuple[int, bool]:
    """Last shell before the signal-to-noise ratio falls below 1, and whether it rose again later.

    When it does rise above 1 again at least four shells further, that later shell counts.
    """
    below = np.flatnonzero(ssnr[1:] < 1)
    shell = int(below[0]) if len(below) else len(ssnr) - 1
    above = np.flatnonzero(ssnr > 1)
    again = len(above) > 0 and int(above[-1]) >= shell + 4
    if again:
        shell = int(above[-1])
    return max(shell, 5), again


def count_gain(schedule: Schedule, resolution: float) -> Schedule:
    """Note a new resolution in 1/A, counting the iterations since the best one was surpassed."""
    gained = resolution > schedule.best_resolution + 1e-4
    return replace(
        schedule,
        resolution=resolution,
        best_resolution=max(resolution, schedule.best_resolution),
        without_gain=0 if gained else schedule.without_gain + 1,
    )


def count_changes(schedule: Schedule, angle: float, offset: float) -> Schedule:
    """Note how far the poses moved (degrees, A), counting the iterations without large changes."""
    offset_small = offset < REDRAWN_OFFSET * schedule.offset_step / 2
    offset_small |= offset >= 0.97 * schedule.smallest_offset
    angle_small = angle < REDRAWN_ANGLE * schedule.fine_step or angle >= 0.97 * schedule.smallest_angle
    settled = offset_small and angle_small
    return replace(
        schedule,
        change_angle=angle,
        change_offset=offset,
        without_change=schedule.without_change + 1 if settled else 0,
        smallest_angle=min(schedule.smallest_angle, angle),
        smallest_offset=min(schedule.smallest_offset, offset),
    )


def has_converged(schedule: Schedule, ignore_changes: bool) -> bool:
    """Whether resolution and poses have settled at a sampling that is fine enough."""
    return (
        schedule.fine_enough
        and schedule.without_gain >= 1
        and (ignore_changes or schedule.without_change >= 1)
    )


def sampling_loss(step: float) -> float:
    """Amplitude lost by errors that are spread evenly over a step, given in periods of the detail.

    An error x turns the phase by 2 pi x; of the amplitude 1 - exp(-2 pi^2 <x^2>) is lost, with
    <x^2> = step^2 / 12.
    """
    return float(-np.expm1(-2 * np.pi**2 * step**2 / 12))


def fine_for_images(schedule: Schedule, diameter: float, finest: float) -> bool:
    """Whether finer steps could bring out nothing that the images hold.

    Parameters
    ----------
    schedule : Schedule
        With the steps.
    diameter : float
        Particle diameter in A.
    finest : float
        Finest detail that the images reach, in A.
    """
    turned = np.deg2rad(schedule.fine_step) * diameter / 2
    return all(sampling_loss(step / finest) < SAMPLING_LOSS for step in (turned, schedule.offset_step / 2))


def refine_sampling(
    schedule: Schedule,
    *,
    diameter: float,
    finest: float,
    faster: bool,
    dimensions: int,
    finest_order: int = 8,
) -> Schedule:
    """Take the next finer sampling if the refinement has settled at this one.

    Parameters
    ----------
    schedule : Schedule
        With the accuracies of the poses.
    diameter : float
        Particle diameter in A.
    finest : float
        Finest detail that the images reach, in A.
    faster : bool
        Do not wait for the poses to settle, and refine as soon as the resolution asks for it.
    dimensions : int
        Dimensions of the shifts.
    finest_order : int
        Order beyond which the sampling never goes.
    """
    for_images = fine_for_images(schedule, diameter, finest)
    if schedule.fine_enough and schedule.order < finest_order:
        # The accuracy may have been that of a poor early map: what seemed fine need not be any more.
        still = for_images or schedule.fine_step < schedule.accuracy_angle
        schedule = replace(schedule, fine_enough=still)
    wanted = 360 / np.ceil(np.pi * diameter * schedule.resolution) if schedule.resolution > 0 else 360.0
    by_resolution = faster and wanted < schedule.fine_step and schedule.order + 1 != schedule.local_order
    settled = (schedule.without_gain >= 1 or by_resolution) and (faster or schedule.without_change >= 1)
    if not settled or schedule.fine_enough:
        return schedule
    as_accurate = schedule.fine_step < 0.75 * schedule.accuracy_angle
    if as_accurate or for_images or schedule.order >= finest_order:
        return replace(schedule, fine_enough=True)
    step = 2 * min(1.5, 0.75 * schedule.accuracy_shift)
    if dimensions == 3:
        step = max(step, schedule.offset_step / 2)
    reach = min(5 * schedule.change_offset, 1.3 * schedule.offset_range)
    reach = max(reach, 1.5 * step)
    if reach > 4 * step:
        reach /= 2
    if reach > 4 * step:
        step = reach / 4
    if step > schedule.offset_step:
        step, reach = schedule.offset_step, schedule.offset_range
    return replace(
        schedule,
        order=schedule.order + 1,
        offset_step=step,
        offset_range=reach,
        without_gain=0,
        without_change=0,
        smallest_angle=NEVER,
        smallest_offset=NEVER,
    )
