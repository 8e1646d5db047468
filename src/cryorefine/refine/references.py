"""Reads the maps that a refinement starts from, on the grid of its particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.mrc import Map, read_layout, read_map
from cryorefine.io.pixel_sizes import TOLERANCE, is_forgotten
from cryorefine.maps.fourier import new_box, rescale, rescaled_size
from cryorefine.refine.particle_set import OpticsGroup

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class References:
    """Starting maps of both half sets on the particles' grid, and what was done to them."""

    maps: tuple[F32, F32]
    notices: tuple[str, ...]


def half_map_partner(path: Path) -> Path | None:
    """Return the other half map's path if a file's name says that it is one of two."""
    name = path.name
    if "half1" in name:
        return path.with_name(name.replace("half1", "half2"))
    if "half2" in name:
        return path.with_name(name.replace("half2", "half1"))
    return None


def half_map_pair(path: Path) -> tuple[Path, ...]:
    """Return the half maps of sets 1 and 2 if a file's name says that it is one of two, else the file.

    Raises
    ------
    UserError
        If the other half map is missing.
    """
    partner = half_map_partner(path)
    if partner is None:
        return (path,)
    if not partner.exists():
        raise UserError(
            f"{path} is a half map by its name, but {partner} is missing; give both, or rename the map "
            "to start both half sets from it."
        )
    return (partner, path) if "half2" in path.name else (path, partner)


def load_references(paths: tuple[Path, ...], optics: OpticsGroup) -> References:
    """Read the starting map, or the two half maps, on the grid of an optics group.

    Parameters
    ----------
    paths : tuple of Path
        One map for both half sets, or one for each.
    optics : OpticsGroup
        The group whose pixel and box size the maps get.

    Raises
    ------
    UserError
        If a map is missing, not cubic or constant.
    """
    notices = []
    maps = [_cubic(read_map(path)) for path in paths]
    if len(paths) > 1:
        notices.append(f"Half set 1 starts from {paths[0]}, half set 2 from {paths[1]}.")
    fitted = [fit_grid(each, optics) for each in maps]
    if fitted[0][1]:
        notices.append(fitted[0][1])
    return References((fitted[0][0], fitted[-1][0]), tuple(notices))


def _cubic(density: Map) -> Map:
    if len(set(density.data.shape)) != 1 or density.data.ndim != 3:
        shape = " x ".join(str(n) for n in density.data.shape[::-1])
        raise UserError(
            f"{density.path} is {shape} voxels; a reference must be a cube: pad or crop it first."
        )
    if not np.ptp(density.data) > 0:
        raise UserError(f"{density.path} is empty (every voxel is the same); choose another map.")
    return density


def fit_grid(density: Map, optics: OpticsGroup) -> tuple[F32, str]:
    """Rescale and rebox a cubic map to exactly the pixel and box size of an optics group.

    Fourier cropping reaches only pixel sizes that fit a whole number of times into the box; the rest,
    at most half a voxel at the edge, is interpolated. So all maps of a refinement have the pixel size
    of its particles.

    Returns
    -------
    data : ndarray of float32, shape (box, box, box)
    notice : str
        What was done; empty if nothing.
    """
    size, pixel = density.data.shape[0], density.pixel_size
    if pixel <= 0:
        pixel = optics.pixel_size
    if abs(pixel - optics.pixel_size) <= 0.001 and size == optics.box:
        return density.data.astype(np.float32), ""
    data = density.data
    if abs(pixel - optics.pixel_size) > 0.001:
        new, true = rescaled_size(size, pixel, optics.pixel_size)
        data = _stretch(rescale(data, new), optics.pixel_size / true)
    if data.shape[0] != optics.box:
        data = new_box(data, optics.box)
    notice = (
        f"{density.path} ({size} voxels of {pixel:.6g} A) was brought to the particles' grid of {optics.box} "
        f"voxels of {optics.pixel_size:.6g} A."
    )
    return np.ascontiguousarray(data, np.float32), notice


def _stretch(data: F32, step: float) -> F32:
    """Sample a cubic map about its centre at a slightly different step, in voxels."""
    if abs(step - 1) < 1e-6:
        return data
    from scipy.ndimage import affine_transform

    centre = data.shape[0] // 2
    stretched = affine_transform(data, np.full(3, step), offset=centre * (1 - step), order=3, mode="nearest")
    return np.asarray(stretched, np.float32)


def load_mask(path: Path, optics: OpticsGroup) -> tuple[F32, str]:
    """Read a solvent mask on the grid of an optics group; return it and what was done to it.

    Raises
    ------
    UserError
        If it is not a cube or has values outside 0 to 1.
    """
    layout, notice = read_layout(path), ""
    on_grid = layout.shape == (optics.box,) * 3
    unknown = layout.pixel_size <= 0
    forgotten = is_forgotten(layout.pixel_size) and abs(optics.pixel_size - 1) > TOLERANCE
    if on_grid and forgotten:
        notice = (
            f"{path} has 1 A/px in its header, which is taken for a forgotten one, since its box is the "
            f"particles'; write {optics.pixel_size:.6g} A/px into it, or make the mask again, if it is not."
        )
    given = optics.pixel_size if on_grid and (unknown or forgotten) else None
    mask = _cubic(read_map(path, pixel_size=given))
    low, high = float(mask.data.min()), float(mask.data.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise UserError(
            f"{path} has values from {low:.3g} to {high:.3g}; a mask must lie between 0 and 1: make one "
            "with MaskCreate."
        )
    data, done = fit_grid(mask, optics)
    return np.clip(data, 0, 1), notice or done
