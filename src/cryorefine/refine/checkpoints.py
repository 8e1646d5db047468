"""Which iterations of a refinement can be gone on from: names of its checkpoints. Loads nothing else."""

from __future__ import annotations

import re
from pathlib import Path


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return iterations and checkpoints in a folder, the last iteration last."""
    found = []
    for path in folder.glob("run_it*_checkpoint.npz"):
        if match := re.fullmatch(r"run_it(\d+)_checkpoint\.npz", path.name):
            found.append((int(match[1]), path))
    return sorted(found)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the last whole iteration in a job's folder, if there is one."""
    found = checkpoints(folder)
    return found[-1][1] if found else None


def iterations_to_continue(folder: Path) -> list[int]:
    """Return the iterations that a refinement in a folder can go on from, the last one last.

    Those whose checkpoint and maps are there. The last one of a refinement that has converged has left
    other files (:func:`.outputs.write_final`), and nothing comes after it.
    """
    return [
        number
        for number, _ in checkpoints(folder)
        if all(path.is_file() for path in _maps_of(folder, number))
    ]


def checkpoint_of(folder: Path, iteration: int) -> Path:
    """Return the name of the checkpoint of an iteration."""
    return folder / f"run_it{iteration:03d}_checkpoint.npz"


def _maps_of(folder: Path, iteration: int) -> tuple[Path, Path]:
    one, two = (folder / f"run_it{iteration:03d}_half{half}_class001.mrc" for half in (1, 2))
    return one, two


def discard_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of an earlier run, so that nobody goes on from them."""
    for _, path in checkpoints(folder):
        path.unlink(missing_ok=True)
