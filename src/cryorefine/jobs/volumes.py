"""Maps as jobs want them: cubic, with a known pixel size, in pairs, and masks that fit them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.errors import UserError
from cryorefine.jobs.base import Notice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map

_TOLERANCE = 1e-6


def read_cubic(path: Path, pixel_size: float | None = None, mapped: bool = False) -> Map:
    """Read a map and insist that it is a cube.

    Parameters
    ----------
    path : Path
        MRC file.
    pixel_size : float, optional
        A/px; that of the header unless given, or when it is not positive, as in RELION's forms.
    mapped : bool
        Leave the voxels in the file (:func:`.read_map`).

    Raises
    ------
    UserError
        When the file cannot be read, is empty or not cubic, or its pixel size is unknown.
    """
    from cryorefine.io.mrc import read_map

    given = pixel_size if pixel_size is not None and pixel_size > 0 else None
    volume = read_map(path, pixel_size=given, mapped=mapped)
    if len(set(volume.data.shape)) != 1:
        raise UserError(f"{path} is {_dimensions(volume.data.shape)} px; a map has to be a cube.")
    few = volume.data[:: max(1, len(volume.data) // 8)]  # tells nearly always, without all planes
    if few.min() == few.max() and volume.data.min() == volume.data.max():
        raise UserError(f"{path} is empty: every voxel is {volume.data.flat[0]:g}; make the map again.")
    return volume


def half_map_paths(half_map: Path) -> tuple[Path, Path]:
    """Return both half maps, the first one first, from the path of either.

    Raises
    ------
    UserError
        When the name tells no half, or the partner is not there.
    """
    name = half_map.name
    here, there = ("half1", "half2") if "half1" in name else ("half2", "half1")
    if here not in name:
        raise UserError(
            f"{half_map} has neither half1 nor half2 in its name, so its partner cannot be found; "
            "name the two half maps so that they differ in that alone."
        )
    partner = half_map.with_name(name.replace(here, there))
    if not partner.exists():
        raise UserError(f"{half_map} has no partner: {partner} does not exist; put both in one folder.")
    return (half_map, partner) if here == "half1" else (partner, half_map)


def read_halves(
    half_map: Path, pixel_size: float | None, mapped: bool = False
) -> tuple[tuple[Path, Path], Map, Map]:
    """Read both half maps from the path of either.

    Parameters
    ----------
    half_map : Path
        Either half map.
    pixel_size : float or None
        A/px; that of the header of the first one unless given.
    mapped : bool
        Leave the voxels in the files (:func:`.read_map`).

    Raises
    ------
    UserError
        When one is missing or no cubic map, or they differ in their boxes or pixel sizes.
    """
    paths = half_map_paths(half_map)
    first, second = read_pair(paths, pixel_size, mapped, remedy="give two half maps of one refinement")
    return paths, first, second


def read_pair(
    paths: tuple[Path, Path], pixel_size: float | None = None, mapped: bool = False, *, remedy: str
) -> tuple[Map, Map]:
    """Read two half maps.

    Parameters
    ----------
    paths : pair of Path
        The files.
    pixel_size : float, optional
        A/px; that of the header of the first one unless given.
    mapped : bool
        Leave the voxels in the files (:func:`.read_map`).
    remedy : str
        What to do if they do not fit each other.

    Raises
    ------
    UserError
        When one is missing or no cubic map, or they differ in their boxes or pixel sizes.
    """
    from cryorefine.io.pixel_sizes import insist_on_one_pixel_size

    first = read_cubic(paths[0], pixel_size, mapped)
    second = read_cubic(paths[1], first.pixel_size, mapped)
    if first.data.shape != second.data.shape:
        raise UserError(
            f"{paths[0]} has a box of {first.data.shape[0]} px but {paths[1]} one of "
            f"{second.data.shape[0]} px; {remedy}."
        )
    insist_on_one_pixel_size(paths[1], paths[0], remedy)
    return first, second


def pixel_size_of_header(path: Path, pixel_size: float, given: float | None) -> Iterator[Notice]:
    """Say that a pixel size comes from a header, unless it was given."""
    if given is None or given <= 0:
        yield Notice(f"The pixel size of {path} is {pixel_size:g} A/px, as its header says.")


def read_divisor(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the frequencies in 1/px and values of a detector's MTF, all of them above 0.

    Raises
    ------
    UserError
        When the file cannot be read, or a value is not above 0.
    """
    from cryorefine.io.mtf import read_mtf

    frequency, value = read_mtf(path)
    if value.min() <= 0:
        raise UserError(
            f"The MTF {path} falls to {value.min():g}; the map is divided by it, so give one above 0."
        )
    return frequency, value


def read_mask(path: Path, like: Map, mapped: bool = False) -> NDArray[np.float32]:
    """Read a mask and insist that it has the box and pixel size of a map and values from 0 to 1.

    ``mapped`` leaves the voxels in the file (:func:`.read_map`).

    Raises
    ------
    UserError
        When it has not.
    """
    from cryorefine.io.mrc import read_map
    from cryorefine.io.pixel_sizes import insist_on_one_pixel_size

    if like.path is not None:
        insist_on_one_pixel_size(path, like.path, "make the mask from that map")
    return fit_mask(read_map(path, pixel_size=like.pixel_size, mapped=mapped).data, path, like)


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
