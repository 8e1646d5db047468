"""Optimisation sets: the STAR file that names what belongs together in subtomogram averaging.

One list (or a table of one row) with the particles, the tomograms and whatever else is known:
trajectories, manifolds, two reference half maps, their mask and their FSC. RELION's own programs drop
the reference entries when they write a set; here every entry is kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryorefine.errors import UserError
from cryorefine.io.files import folders_of_names
from cryorefine.io.star import Columns, read_columns, write_star

ENTRIES: dict[str, str] = {
    "particles": "rlnTomoParticlesFile",
    "tomograms": "rlnTomoTomogramsFile",
    "trajectories": "rlnTomoTrajectoriesFile",
    "manifolds": "rlnTomoManifoldsFile",
    "reference_half1": "rlnTomoReferenceMap1File",
    "reference_half2": "rlnTomoReferenceMap2File",
    "reference_mask": "rlnTomoReferenceMaskFile",
    "reference_fsc": "rlnTomoReferenceFscFile",
}
"""Attribute of :class:`OptimisationSet` -> RELION label."""


@dataclass(frozen=True)
class OptimisationSet:
    """Files that belong together; ``None`` where there is none.

    Attributes
    ----------
    particles, tomograms, trajectories, manifolds : Path or None
        STAR files.
    reference_half1, reference_half2, reference_mask : Path or None
        Maps.
    reference_fsc : Path or None
        The postprocess.star of the half maps.
    others : mapping of str to str
        Entries of other programs: label without underscore -> value.
    path : Path or None
        Where the set was read from.
    """

    particles: Path | None = None
    tomograms: Path | None = None
    trajectories: Path | None = None
    manifolds: Path | None = None
    reference_half1: Path | None = None
    reference_half2: Path | None = None
    reference_mask: Path | None = None
    reference_fsc: Path | None = None
    others: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    def with_entries(self, **entries: Path | None) -> OptimisationSet:
        """Return the set with some entries replaced; what is None stays as it was."""
        given = {name: path for name, path in entries.items() if path is not None}
        return replace(self, **given)  # type: ignore[arg-type]


def read_optimisation_set(path: str | os.PathLike[str], *, check: bool = True) -> OptimisationSet:
    """Read an optimisation set and find its files.

    A name is looked for in the current directory (the rule of RELION), in the folder of the set and in the
    folders above it, in the order of :func:`~cryorefine.io.files.folders_of_names`.

    Parameters
    ----------
    path : path-like
        The STAR file.
    check : bool
        Whether every file must be there; otherwise names that are not found stay as they are written.

    Returns
    -------
    OptimisationSet
        With paths that can be opened from the current directory.

    Raises
    ------
    UserError
        When the file is no optimisation set, or an entry names a file that does not exist.
    """
    file = Path(path)
    for block in read_columns(file).values():
        entries = _entries(file, block)
        if "rlnTomoParticlesFile" in entries or "rlnTomoTomogramsFile" in entries:
            break
    else:
        raise UserError(
            f"{file} is no optimisation set: it has neither rlnTomoParticlesFile nor rlnTomoTomogramsFile; "
            "choose an optimisation_set.star."
        )
    known: dict[str, Path] = {}
    for name, label in ENTRIES.items():
        text = entries.pop(label, "").strip()
        if text and text != "None":
            known[name] = _found(file, label, text, check)
    return OptimisationSet(**known, others=entries, path=file)


def write_optimisation_set(path: str | os.PathLike[str], entries: OptimisationSet) -> None:
    """Write an optimisation set with everything that is known, as RELION 5 lays it out.

    Paths are written relative to the current directory where they lie below it.
    """
    block: dict[str, str] = {}
    for name, label in ENTRIES.items():
        value: Path | None = getattr(entries, name)
        if value is not None:
            block[label] = project_name(value)
    block.update(entries.others)
    write_star(path, {"": block})


def _entries(file: Path, block: dict[str, Any]) -> dict[str, str]:
    if isinstance(block, Columns):
        if block.rows > 1 and "rlnTomoParticlesFile" in block:
            raise UserError(f"{file} lists {block.rows} optimisation sets; keep one row.")
        block = block.row(0) if block.rows else {}
    return {label: str(value) for label, value in block.items()}


def _found(file: Path, label: str, text: str, check: bool) -> Path:
    here = Path.cwd()
    for root in folders_of_names(file):
        if (root / text).exists():
            return Path(text) if root == here else root / text
    if check:
        raise UserError(
            f"{file} names {text} as {label}, which is neither in the current directory nor beside the set "
            "nor above it; run from the project directory or correct the entry."
        )
    return Path(text)


def project_name(path: Path) -> str:
    """Return a path as STAR files name it: relative to the current directory where it lies below it."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)
