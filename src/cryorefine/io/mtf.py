"""Detector MTF curves in STAR files."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.star import Columns, read_columns

_COLUMNS = ("rlnResolutionInversePixel", "rlnMtfValue")


def read_mtf(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a detector's modulation transfer function.

    Parameters
    ----------
    path : path-like
        STAR file with the columns rlnResolutionInversePixel and rlnMtfValue.

    Returns
    -------
    frequency : numpy.ndarray
        1/px of the detector, rising, shape (points,).
    value : numpy.ndarray
        Transfer at each frequency, shape (points,).

    Raises
    ------
    UserError
        When the file is no STAR file, lacks a column, or holds fewer than two rising frequencies.
    """
    tables = [block for block in read_columns(path).values() if isinstance(block, Columns)]
    for table in tables:
        if all(column in table for column in _COLUMNS):
            break
    else:
        present = {label for table in tables for label in table}
        missing = (
            " and ".join(column for column in _COLUMNS if column not in present)
            or "a table with both columns"
        )
        raise UserError(
            f"{path} is no MTF curve: it lacks {missing}; choose the MTF STAR file of your detector."
        )
    try:
        frequency, value = (np.asarray(table[column], dtype=np.float64) for column in _COLUMNS)
    except ValueError:
        raise UserError(
            f"{path} is no MTF curve: some of its values are no numbers; correct the file."
        ) from None
    if len(frequency) < 2 or not np.all(np.diff(frequency) > 0) or not np.isfinite(value).all():
        raise UserError(
            f"{path} is no MTF curve: it needs at least two points of rising frequency; correct the file."
        )
    return frequency, value
