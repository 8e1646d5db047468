"""Maps as jobs want them: cubic, with a known pixel size, and masks that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map

_TOLERANCE = 1e-6


def read_cubic(path: Path, pixel_size: float | None = None) -> Map:
    """Read a map and insist that it is a cube.

    Parameters
    ----------
    path : Path
        MRC file.
    pixel_size : float, optional
        A/px; that of the header unless given, or when it is not positive, as in RELION's forms.

    Raises
    ------
    UserError
        When the file cannot be read, is empty or not cubic, or its pixel size is unknown.
    """
    from cryorefine.io.mrc import read_map

    volume = read_map(path, pixel_size=pixel_size if pixel_size is not None and pixel_size > 0 else None)
    if len(set(volume.data.shape)) != 1:
        raise UserError(f"{path} is {_dimensions(volume.data.shape)} px; a map has to be a cube.")
    if volume.data.min() == volume.data.max():
        raise UserError(f"{path} is empty: every voxel is {volume.data.flat[0]:g}; make the map again.")
    return volume


def read_mask(path: Path, like: Map) -> NDArray[np.float32]:
    """Read a mask and insist that it has the box of a map and values from 0 to 1.

    Raises
    ------
    UserError
        When it has not.
    """
    from cryorefine.io.mrc import read_map

    return fit_mask(read_map(path, pixel_size=like.pixel_size).data, path, like)


def fit_mask(mask: NDArray[np.float32], path: Path | str, like: Map) -> NDArray[np.float32]:
    """Return a mask as it is if it has the box of a map and values from 0 to 1.

    Raises
    ------
    UserError
        When it has not; ``path`` names it.
    """
    if mask.shape != like.data.shape:
        raise UserError(
            f"The mask {path} is {_dimensions(mask.shape)} px but {like.path} is "
            f"{_dimensions(like.data.shape)} px; make the mask from that map."
        )
    low, high = float(mask.min()), float(mask.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise UserError(
            f"The mask {path} has values from {low:.4g} to {high:.4g}; a mask lies between 0 and 1."
        )
    if high <= 0:
        raise UserError(f"The mask {path} is zero everywhere; make it with a lower threshold.")
    return mask


def _dimensions(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in reversed(shape))
