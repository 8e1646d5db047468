"""What a job says of itself in a line: its headline figure, how far it is, or why it failed."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from cryorefine.jobs.base import Figures, Progress
from cryorefine.jobs.events import PROGRESS_FILE, from_line
from cryorefine.jobs.lineage import binning_of
from cryorefine.jobs.project import ProjectJob

_TAIL = 1 << 18  # bytes of progress.jsonl in which the last figures are looked for
_HEAD = 1 << 14
_FIGURES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "refine3d": (("resolution (A)", "", " Å"),),
    "mask-create": (("protein of that volume (kDa)", "room for ", " kDa of protein"),),
    "postprocess": (("resolution (A)", "", " Å"), ("B-factor (A^2)", "B ", " Å²")),
    "ctf-refine": (("beam tilt x of", "tilt ", ""), ("beam tilt y of", "", " mrad")),
    "pseudo-subtomo": (("particles", "", " particles"), ("pixel size (A)", "", " Å/px")),
    "reconstruct-particle": (("pixel size (A)", "", " Å/px"),),
    "local-resolution": (("median (A)", "median ", " Å"), ("best 1 % (A)", "best ", " Å")),
}
"""Job -> how the names of its headline figures begin, what stands before each and behind it."""


def headline(job: ProjectJob, command: str) -> tuple[str, int | None]:
    """Return what a job says in a line, and how far it is.

    Parameters
    ----------
    job : ProjectJob
        A job of this program or of RELION.
    command : str
        Its command name.

    Returns
    -------
    text : str
        "7.31 Å", "Iteration 5, 8.1 Å" while it runs, or why it failed, in a sentence; empty for nothing.
    percent : int or None
        How far the stage of a running job has come.
    """
    if job.status == "running":
        return _running(job.folder, command)
    if job.status == "failed":
        lines = _tail(job.folder / "run.err").strip().splitlines()
        return (lines[-1] if lines else "It left no reason."), None
    if job.status == "succeeded":
        return _figures_of(job, command), None
    return "", None


def _running(folder: Path, command: str) -> tuple[str, int | None]:
    progress, figures = None, ""
    for line in reversed(_tail(folder / PROGRESS_FILE).splitlines()):
        try:
            event = from_line(line)
        except ValueError:
            continue  # cut off at the beginning of the tail, or still being written
        if isinstance(event, Progress) and progress is None:
            progress = event
        elif isinstance(event, Figures) and not figures:
            figures = _figures_text(event, command)
        if progress is not None and figures:
            break
    if progress is None:
        return figures, None
    percent = 100 * progress.done // progress.total if progress.total else None
    return ", ".join(filter(None, (progress.stage, figures))), percent


@lru_cache(maxsize=512)
def _figures_of(job: ProjectJob, command: str) -> str:
    """Return the figures of a finished job, which are read again only when something was written."""
    for line in reversed(_tail(job.folder / PROGRESS_FILE).splitlines()):
        if '"Figures"' in line:
            try:
                event = from_line(line)
            except ValueError:
                continue
            if isinstance(event, Figures) and (text := _figures_text(event, command)):
                return text
    return _relion_figures(job, command)


def _figures_text(event: Figures, command: str) -> str:
    texts = []
    for begins, before, after in _FIGURES.get(command, ()):
        value = next((value for name, value in event.values.items() if name.startswith(begins)), None)
        if value is not None:
            texts.append(f"{before}{_short(value)}{after}")
    return ", ".join(texts)


def _short(value: float | int | str) -> str:
    if not isinstance(value, float):
        return str(value).partition(" ±")[0]
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _relion_figures(job: ProjectJob, command: str) -> str:
    """Return the figures that stand in RELION's files."""
    if command == "refine3d":
        reached = number_in(job.folder / "run_model.star", "rlnCurrentResolution")
        return f"{reached:.3g} Å" if reached else ""
    if command == "postprocess":
        path = job.folder / "postprocess.star"
        reached, bfactor = (
            number_in(path, label) for label in ("rlnFinalResolution", "rlnBfactorUsedForSharpening")
        )
        texts = [f"{reached:.3g} Å" if reached else "", f"B {bfactor:.0f} Å²" if bfactor else ""]
        return ", ".join(filter(None, texts))
    binning = binning_of(job)
    return f"binning {binning:g}" if binning else ""


def number_in(path: Path, label: str) -> float | None:
    """Return the number of a label among the first lines of a STAR file, None where there is none."""
    match = re.search(rf"(?m)^_{label}\s+(\S+)\s*$", _head(path))
    try:
        return float(match[1]) if match else None
    except ValueError:
        return None


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).decode(errors="replace")
    except OSError:
        return ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
