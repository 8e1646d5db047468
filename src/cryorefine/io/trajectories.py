"""Trajectories (motion.star): how far each particle lies from its position in each tilt image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.star import Columns, read_columns, write_star

F64 = NDArray[np.float64]
_LABELS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")


def read_trajectories(path: str | os.PathLike[str]) -> dict[str, F64]:
    """Read the trajectories that Bayesian polishing of tilt series writes.

    Parameters
    ----------
    path : path-like
        STAR file with one table for each particle, named by its rlnTomoParticleName.

    Returns
    -------
    dict of str to ndarray
        Particle name -> shifts in A, shape (tilts, 3), in the order of the tilt-series table; added to
        the particle's position.

    Raises
    ------
    UserError
        When the file holds no trajectories, or something else than numbers.
    """
    file = Path(path)
    result: dict[str, F64] = {}
    for name, block in read_columns(file).items():
        if name == "general" or not isinstance(block, Columns):
            continue
        missing = [label for label in _LABELS if label not in block]
        if missing:
            raise UserError(
                f"{file} lacks the column {missing[0]} in data_{name}; choose a motion.star of trajectories."
            )
        try:
            shifts = np.stack([block.numbers(label) for label in _LABELS], axis=1)
        except ValueError:
            shifts = np.full((1, 3), np.nan)
        if not np.all(np.isfinite(shifts)):
            raise UserError(
                f"{file} has shifts in data_{name} that are no numbers; correct them or remove this particle."
            )
        result[name] = shifts
    if not result:
        raise UserError(f"{file} holds no trajectories; choose a motion.star.")
    return result


def write_trajectories(path: str | os.PathLike[str], trajectories: Mapping[str, F64]) -> None:
    """Write trajectories, shapes (tilts, 3) in A, by particle name and in the order given."""
    blocks: dict[str, dict[str, Any]] = {"general": {"rlnParticleNumber": len(trajectories)}}
    for name, shifts in trajectories.items():
        blocks[name] = Columns((label, shifts[:, i]) for i, label in enumerate(_LABELS))
    write_star(path, blocks)
