"""Whether maps are on one grid, by what their headers tell of their pixel sizes."""

from __future__ import annotations

import warnings
from pathlib import Path

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.mrc import read_layout

TOLERANCE = 0.01
"""A calibration since then, or a header of few decimals, is no other grid."""


def is_forgotten(pixel_size: float) -> bool:
    """Tell whether a header holds exactly 1 A, which programs write that know of no pixel size."""
    return abs(pixel_size - 1) < 1e-6


def insist_on_pixel_size(path: Path, wanted: float, like: Path | str, remedy: str) -> None:
    """Refuse a map or mask whose header has another pixel size than what it is used with.

    A header of 0 says nothing. One of exactly 1 A may only be forgotten: that is said, and no more.

    Parameters
    ----------
    path : Path
        The map or mask.
    wanted : float
        A/px of what it is used with, 0 if unknown.
    like : Path or str
        What that is, for messages.
    remedy : str
        What to do about it.

    Raises
    ------
    UserError
        If they differ by more than :data:`TOLERANCE`.
    """
    found = read_layout(path).pixel_size
    if found <= 0 or wanted <= 0 or abs(found / wanted - 1) <= TOLERANCE:
        return
    sentence = f"{path} has {found:.6g} A/px in its header but {like} has {wanted:.6g} A/px"
    if is_forgotten(found) or is_forgotten(wanted):
        warnings.warn(
            f"{sentence}; 1 is taken for a forgotten header and both for one grid: {remedy} if they are not.",
            UserWarningMessage,
            stacklevel=2,
        )
        return
    raise UserError(
        f"{sentence}; {remedy}, or correct the header with image-handler --force-header-pixel-size."
    )


def insist_on_one_pixel_size(path: Path, other: Path, remedy: str) -> None:
    """Refuse two maps whose headers tell different pixel sizes; see :func:`insist_on_pixel_size`."""
    insist_on_pixel_size(path, read_layout(other).pixel_size, other, remedy)
