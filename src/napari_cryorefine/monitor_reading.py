"""What the monitor knows of a job, read in a thread, and how it says it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryorefine.jobs.base import Progress
from cryorefine.jobs.refinement_history import History, Iteration, iterations_left
from cryorefine.jobs.signs_of_life import Life, record_death, signs_of_life
from cryorefine.refine.checkpoints import iterations_to_continue
from napari_cryorefine.progress import duration_text
from napari_cryorefine.sky import Sky, read_sky


@dataclass(frozen=True, eq=False)
class Reading:
    """A folder as it was a moment ago.

    Attributes
    ----------
    folder : Path
        The job's folder.
    life : Life
        Whether it runs.
    iterations : tuple of Iteration
        Those that are whole.
    continuable : tuple of int
        Numbers of those that it can go on from; none of RELION's.
    progress : Progress or None
        Where the job is.
    dashboard : str
        Address of the Dask dashboard of a running job, why there is none, or empty.
    """

    folder: Path
    life: Life
    iterations: tuple[Iteration, ...]
    continuable: tuple[int, ...]
    progress: Progress | None
    dashboard: str = ""


class Reader:
    """Reads the folder of a refinement again and again, each of its files once.

    A job that turns out to have been killed is entered as failed, where that is certain.
    """

    def __init__(self) -> None:
        self._history = History(Path())

    def __call__(self, folder: Path) -> Iterator[Reading]:
        """Yield the state of a folder."""
        if folder != self._history.folder:
            self._history = History(folder)
        life = signs_of_life(folder)
        if life.state == "interrupted" and record_death(folder):
            life = signs_of_life(folder)
        iterations = self._history.update()
        numbers = {one.number for one in iterations}
        continuable = tuple(number for number in iterations_to_continue(folder) if number in numbers)
        dashboard = self._history.dashboard if life.state == "running" else ""
        yield Reading(folder, life, iterations, continuable, self._history.progress, dashboard)


def read_views(iteration: Iteration) -> Iterator[tuple[Iteration, Sky]]:
    """Yield the views of an iteration's particles on the sky, with their symmetry mates."""
    sky = read_sky(iteration.data, iteration.symmetry)
    yield iteration, replace(sky, title=f"{sky.title}, {iteration.name}", symmetry="", recounts=False)


def time_text(reading: Reading, stage_left: float | None) -> str:
    """Say where a running job is and how long it takes at least; the rest cannot be known.

    Parameters
    ----------
    reading : Reading
        The job.
    stage_left : float or None
        Seconds that are left of its present stage, if its pace is known.
    """
    parts = []
    progress = reading.progress
    if progress is not None:
        done = f" {100 * progress.done // progress.total} %" if progress.total else ""
        left = f", {duration_text(stage_left)} left" if stage_left else ""
        parts.append(f"{progress.stage}{done}{left}")
    if reading.iterations:
        last = reading.iterations[-1]
        more = iterations_left(last) - 1
        if np.isfinite(last.seconds) and more > 0:
            iterations = "iteration" if more == 1 else "iterations"
            # Accuracies of early, poor maps make it look nearer than it is.
            parts.append(
                f"then at least {more} more {iterations} of some {duration_text(last.seconds)}, "
                "and more as long as the map improves"
            )
    return "; ".join(parts)


def figures_line(one: Iteration) -> str:
    """Return the numbers of an iteration in one line; what is not known is left out."""
    numbers = (
        (f"{one.resolution:.3g} Å", one.resolution),
        (f"step {one.angular_step:.2g}°, {one.offset_step:.2g} Å", one.angular_step),
        (f"accuracy {one.accuracy_angle:.2g}°, {one.accuracy_offset:.2g} Å", one.accuracy_angle),
        (f"changes {one.change_angle:.2g}°, {one.change_offset:.2g} Å", one.change_angle),
        (f"largest weight {one.largest_weight:.2f}", one.largest_weight),
        (duration_text(one.seconds) if np.isfinite(one.seconds) else "", one.seconds),
    )
    return "  ·  ".join(text for text, value in numbers if np.isfinite(value))
