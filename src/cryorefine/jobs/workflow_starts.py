"""What a workflow starts from: particles, a reference, an optimisation set, the detector's MTF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryorefine.errors import UserError
from cryorefine.jobs.lineage import job_of
from cryorefine.jobs.project import Project
from cryorefine.jobs.workflow import STARTS
from cryorefine.jobs.workflow_state import NOT_NEEDED, StepState

_HEAD = 1 << 16  # bytes of a particle file that hold its optics groups
_ALIKE = 1e-3  # relative difference of pixel sizes that does not matter


@dataclass(frozen=True)
class Start:
    """A file or a number that a workflow starts with.

    Attributes
    ----------
    value : object
        A path, or a number.
    reason : str
        Where it is from.
    number : int
        That of the job that made it; 0 for none.
    """

    value: Any
    reason: str
    number: int = 0


def find_starts(project: Project, known: Mapping[str, Start] | None = None) -> dict[str, Start]:
    """Return what there is to start from, by its name in :data:`.workflow.STARTS`; also "mtf" and others.

    Files of the newest job of another kind than those of the workflow come first (RELION's Extract,
    Select, Polish, InitialModel, Picks), then those that are ``known``, then those in the project's folder.

    Parameters
    ----------
    project : Project
        The project.
    known : mapping of str to Start, optional
        What the caller knows of, e.g. the files of layers.
    """
    starts = dict(known or {})
    folder = project.folder
    for what, names in STARTS.items():
        lying = next((folder / name for name in names if (folder / name).is_file()), None)
        if (made := _of_other_jobs(project, names)) is not None:
            starts[what] = made
        elif what not in starts and lying is not None:
            starts[what] = Start(lying, "in the project's folder")
    if "reference" not in starts:
        maps = [path for path in folder.glob("*reference*.mrc") if "_box" not in path.stem]
        if len(maps) == 1:
            starts["reference"] = Start(maps[0], "in the project's folder")
    for near in [folder, *(start.value.parent for start in starts.values())]:
        curves = list(near.glob("mtf*.star"))
        if "mtf" not in starts and len(curves) == 1:
            starts["mtf"] = Start(curves[0], "the only MTF beside the data")
    return starts | _of_particles(starts)


def with_rescaled(states: Sequence[StepState], starts: dict[str, Start]) -> list[StepState]:
    """Return the states with that of "Rescale map", which has no folder: whether it is done, or needless.

    A map that it has made is added to ``starts`` as "rescaled".

    Parameters
    ----------
    states : sequence of StepState
        As of :func:`.workflow_state.read_states`.
    starts : dict of str to Start
        As of :func:`find_starts`.
    """
    return [_rescaled(state, starts) if state.step.job == "image-handler" else state for state in states]


def rescaled_name(reference: Path, box: int) -> Path:
    """Return where "Rescale map" writes a map in this box: in RELION's tutorial, beside the reference."""
    return reference.with_name(f"{reference.stem}_box{box}.mrc")


def _rescaled(state: StepState, starts: dict[str, Start]) -> StepState:
    from cryorefine.io.mrc import read_layout

    if not {"reference", "box", "pixel size"} <= starts.keys():
        return state
    reference, box, pixel_size = (starts[name].value for name in ("reference", "box", "pixel size"))
    target = rescaled_name(reference, box)
    try:
        if target.is_file():
            made = read_layout(target)
            starts["rescaled"] = Start(target, "from Rescale map", starts["reference"].number)
            text = f"{made.shape[-1]} px, {made.pixel_size:.4g} Å/px"
            return replace(state, status="succeeded", headline=text, product=target)
        layout = read_layout(reference)
    except UserError as error:
        return replace(state, headline=str(error))
    if layout.shape[-1] == box and abs(layout.pixel_size / pixel_size - 1) < _ALIKE:
        return replace(
            state, status=NOT_NEEDED, headline=f"{reference.name} is on the particles' grid, {box} px"
        )
    return state


def _of_other_jobs(project: Project, names: Sequence[str]) -> Start | None:
    """Return the file of one of these names in the newest job of a kind that is not ours."""
    for job in project.jobs:
        if job.status == "succeeded" and not job_of(job):
            for name in names:
                if (job.folder / name).is_file():
                    return Start(job.folder / name, f"from {job.name}", job.number)
    return None


def _of_particles(starts: Mapping[str, Start]) -> dict[str, Start]:
    """Return what the optics groups of the particles say: box, pixel size and the detector's."""
    if "particles" not in starts:
        return {}
    path = starts["particles"].value
    row = _first_optics(path)
    found = {}
    for what, label in (
        ("box", "rlnImageSize"),
        ("pixel size", "rlnImagePixelSize"),
        ("detector pixel size", "rlnMicrographOriginalPixelSize"),
    ):
        try:
            value = float(row[label])
        except (KeyError, ValueError):
            continue
        found[what] = Start(int(value) if what == "box" else value, f"{label} in {path.name}")
    return found


def _first_optics(path: Path) -> dict[str, str]:
    """Return label -> word of the first optics group; millions of particles below it are not read."""
    try:
        with path.open("rb") as file:
            lines = iter(file.read(_HEAD).decode(errors="replace").splitlines())
    except OSError:
        return {}
    labels: list[str] = []
    for line in lines:
        if line.strip() == "data_optics":
            break
    for line in lines:
        words = line.split()
        if words and words[0].startswith("_"):
            labels.append(words[0][1:])
        elif labels and words:
            return dict(zip(labels, words, strict=False))
    return {}
