"""The iterations of a refinement, read from its folder: of this program or of RELION, running or finished."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.executor import DASHBOARD_NOTICE
from cryorefine.errors import UserError
from cryorefine.geometry.healpix import angular_step
from cryorefine.jobs.base import Figures, Notice, Progress
from cryorefine.jobs.events import PROGRESS_FILE, follow

F64 = NDArray[np.float64]

UNKNOWN = float("nan")
_NEVER = 999.0  # what stands for accuracies and changes that have not been estimated
_ITERATION = re.compile(r"run(?:_ct(?P<start>\d+))?_it(?P<number>\d+)_optimiser\.star")
_FINAL = re.compile(r"run(?:_ct(?P<start>\d+))?_model\.star")  # RELION writes no optimiser for it


@dataclass(frozen=True, eq=False)
class Iteration:
    """What one iteration has left; numbers that nobody has told are NaN.

    Attributes
    ----------
    number : int
        Of the iteration.
    final : bool
        Whether it is the last one of a refinement that has converged, in which the halves were joined.
    half_maps : tuple of Path
        Half maps 1 and 2.
    data : Path
        Its particles.
    symmetry : str
        Point group.
    frequency, fsc : ndarray, shape (shells,)
        Spatial frequency in 1/A, and Fourier shell correlation of the half maps.
    resolution : float
        In A, as the refinement has used it.
    angular_step, offset_step : float
        Finest sampling in degrees and A.
    accuracy_angle, accuracy_offset : float
        Estimated accuracies in degrees and A.
    change_angle, change_offset : float
        Mean change of the orientations in degrees and of the offsets in A.
    largest_weight : float
        Mean over particles of the largest weight of a pose (rlnAveragePmax).
    seconds : float
        How long it took.
    stamp : int
        When its files were written, in nanoseconds.
    """

    number: int
    final: bool
    half_maps: tuple[Path, Path]
    data: Path
    symmetry: str
    frequency: F64
    fsc: F64
    resolution: float
    angular_step: float
    offset_step: float
    accuracy_angle: float
    accuracy_offset: float
    change_angle: float
    change_offset: float
    largest_weight: float
    seconds: float
    stamp: int

    @property
    def name(self) -> str:
        """What a person calls it, e.g. "iteration 5"."""
        return f"iteration {self.number} (final)" if self.final else f"iteration {self.number}"


class History:
    """The iterations of one refinement; files that have been read are not read again.

    Parameters
    ----------
    folder : Path
        The job's folder.

    Attributes
    ----------
    iterations : tuple of Iteration
        Those that are whole, the first one first.
    progress : Progress or None
        How far the job has told to be.
    dashboard : str
        Address of the Dask dashboard that the job has told of last, why there is none, or empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.iterations: tuple[Iteration, ...] = ()
        self.progress: Progress | None = None
        self.dashboard = ""
        self._seconds: dict[int, float] = {}
        self._offset = 0

    def update(self) -> tuple[Iteration, ...]:
        """Read what has been written since the last time, and return all iterations."""
        self._listen()
        known = {(one.final, one.number, one.stamp): one for one in self.iterations}
        found: dict[int, Iteration] = {}
        for path, number, stamp in _markers(self.folder):
            final = number is None
            if self._is_of_earlier_run(number):
                continue
            place = max(found, default=0) + 1 if number is None else number
            one = known.get((final, place, stamp))
            if one is None:
                try:
                    one = _read_iteration(path, place, final=final, stamp=stamp)
                except (UserError, OSError, KeyError, ValueError, IndexError):
                    continue  # half written; it will be whole the next time
            found[place] = one
        ordered = [found[number] for number in sorted(found)]
        self.iterations = tuple(self._timed(ordered))
        return self.iterations

    def _is_of_earlier_run(self, number: int | None) -> bool:
        """Whether a job that has begun anew in its folder has not come to this iteration yet."""
        if not (self.folder / PROGRESS_FILE).exists():
            return False  # RELION says nothing about it
        return not self._seconds or (number or 0) > max(self._seconds)

    def _timed(self, iterations: list[Iteration]) -> Iterable[Iteration]:
        """Fill in how long each took: as the job has told, or else the time between its files."""
        for before, one in zip([None, *iterations], iterations, strict=False):
            seconds = self._seconds.get(one.number, UNKNOWN)
            if not np.isfinite(seconds) and before is not None and not self._seconds:
                seconds = max(0.0, (one.stamp - before.stamp) / 1e9)
            same = seconds == one.seconds or (np.isnan(seconds) and np.isnan(one.seconds))
            yield one if same else replace(one, seconds=seconds)

    def _listen(self) -> None:
        events, offset = follow(self.folder, self._offset)
        if offset < self._offset:  # begun anew
            self._seconds.clear()
            self.dashboard = ""
            events, offset = follow(self.folder)
        self._offset = offset
        for event in events:
            if isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, Figures) and "seconds" in event.details:
                self._seconds[int(event.values["iteration"])] = float(event.details["seconds"])
            elif isinstance(event, Notice) and event.message.startswith(DASHBOARD_NOTICE):
                self.dashboard = event.message.removeprefix(DASHBOARD_NOTICE)


def iterations_left(last: Iteration) -> int:
    """Return how many iterations a refinement needs at least, the last one with all of the data included.

    It ends when its angular step is three quarters of the accuracy of the angles or finer, when an
    iteration has brought no gain, and after one more with the halves joined (Scheres, J. Struct. Biol. 180
    (2012) 519-530). How many iterations a step takes is not known in advance; each takes one at least.
    """
    if last.final:
        return 0
    aim = 0.75 * last.accuracy_angle
    steps = int(np.ceil(np.log2(last.angular_step / aim))) if np.isfinite(aim) and aim > 0 else 1
    return max(steps, 0) + 2


def _markers(folder: Path) -> list[tuple[Path, int | None, int]]:
    """Return a file of each iteration, its number and when it was written; the final one (None) is last.

    RELION names the files of a run that goes on after iteration 5 run_ct5_it006 and so on.
    """
    found = []
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    for name in names:
        match = _ITERATION.fullmatch(name) or _FINAL.fullmatch(name)
        if match is None or match.groupdict().get("number") == "000":
            continue
        try:
            stamp = (folder / name).stat().st_mtime_ns
        except OSError:
            continue
        number = int(match["number"]) if "number" in match.groupdict() else None
        found.append((number is None, int(match["start"] or -1), number or 0, folder / name, number, stamp))
    return [(path, number, stamp) for *_, path, number, stamp in sorted(found, key=lambda one: one[:3])]


def _read_iteration(marker: Path, number: int, *, final: bool, stamp: int) -> Iteration:
    from cryorefine.io.star import read_columns

    root, folder = re.sub(r"_(optimiser|model)\.star$", "", marker.name), marker.parent
    optimiser = folder / f"{root}_optimiser.star"
    model = read_columns(folder / (f"{root}_model.star" if final else f"{root}_half1_model.star"))
    sampling = _block(read_columns(folder / f"{root}_sampling.star"), "sampling_general")
    classes = model["model_classes"]
    general: dict[str, Any] = {
        "rlnOverallAccuracyRotations": classes["rlnAccuracyRotations"][0],
        "rlnOverallAccuracyTranslationsAngst": classes.get("rlnAccuracyTranslationsAngst", [_NEVER])[0],
    }
    if optimiser.is_file():
        general |= read_columns(optimiser)["optimiser_general"]
    shells = model["model_class_1"]
    frequency = np.asarray(shells["rlnResolution"], dtype=np.float64)
    fsc = np.asarray(shells.get("rlnGoldStandardFsc", np.full(len(frequency), np.nan)), dtype=np.float64)
    suffix = "_unfil" if final else ""
    one, two = (folder / f"{root}_half{half}_class001{suffix}.mrc" for half in (1, 2))
    if not (one.is_file() and two.is_file()):
        raise FileNotFoundError(one)
    parts = _block(model, "model_general")
    return Iteration(
        number=number,
        final=final,
        half_maps=(one, two),
        data=folder / f"{root}_data.star",
        symmetry=str(sampling.get("rlnSymmetryGroup", "C1")),
        frequency=frequency,
        fsc=fsc,
        resolution=_told(parts, "rlnCurrentResolution"),
        angular_step=angular_step(int(sampling["rlnHealpixOrder"])) / 2,
        offset_step=_told(sampling, "rlnOffsetStep") / 2,
        accuracy_angle=_told(general, "rlnOverallAccuracyRotations"),
        accuracy_offset=_told(general, "rlnOverallAccuracyTranslationsAngst"),
        change_angle=_told(general, "rlnChangesOptimalOrientations"),
        change_offset=_told(general, "rlnChangesOptimalOffsets"),
        largest_weight=_told(parts, "rlnAveragePmax"),
        seconds=UNKNOWN,
        stamp=stamp,
    )


def _block(blocks: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    block: Mapping[str, Any] = blocks[name]
    return block


def _told(block: Mapping[str, Any], label: str) -> float:
    value = float(block.get(label, _NEVER))
    return UNKNOWN if value >= _NEVER else value
