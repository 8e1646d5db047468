"""Masks: binary ones extended and softened; spheres, shells and circles; all with raised-cosine edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.maps.density import bounds
from cryorefine.maps.distance import squared_distance
from cryorefine.maps.slabs import over_slabs, threads_for


def extend_binary(binary: NDArray[np.bool_], extend: float, threads: int = 0) -> NDArray[np.bool_]:
    """Extend a binary mask by every voxel closer to it than ``extend`` voxels.

    A negative number removes the voxels closer than that to a voxel outside. The distance is
    Euclidean and need not be whole; the comparison is strict. What lies beyond the box counts as
    neither inside nor outside.

    Parameters
    ----------
    binary : numpy.ndarray
        Boolean, shape (z, y, x).
    extend : float
        Distance in voxels.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Boolean, shape (z, y, x).
    """
    if extend == 0:
        return binary.copy()
    region, distance = _near(binary if extend > 0 else ~binary, abs(extend), threads)
    # Squared distances are whole numbers: the highest that is below the square of the limit.
    near = distance <= math.ceil(extend * extend) - 1
    result = binary.copy()
    result[region] = near if extend > 0 else ~near
    return result


def add_soft_edge(binary: NDArray[np.bool_], width: float, threads: int = 0) -> NDArray[np.float32]:
    """Surround a binary mask with a raised-cosine edge.

    A voxel at distance d from the mask, d < width, becomes 1/2 + cos(pi d / width) / 2.

    Parameters
    ----------
    binary : numpy.ndarray
        Boolean, shape (z, y, x).
    width : float
        Voxels.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x).
    """
    if width <= 0:
        return binary.astype(np.float32)
    xp = module_of(binary)
    region, distance = _near(binary, width, threads)
    result = xp.zeros(binary.shape, dtype=np.float32)
    inner = result[region]
    # Squared distances are whole numbers, so the edge is a short table.
    radius = np.sqrt(np.arange(math.ceil(width * width), dtype=np.float64))
    edge = xp.asarray((0.5 + 0.5 * np.cos(np.pi * radius / width)).astype(np.float32))

    def work(slab: slice) -> None:
        part = distance[slab]
        values = (part == 0).astype(np.float32)
        # The edge is a small part of the box: to look up nothing else takes a fraction of the time.
        there = xp.flatnonzero((part > 0) & (part < len(edge)))
        values.ravel()[there] = edge[part.ravel()[there].astype(np.intp)]
        inner[slab] = values

    over_slabs(work, len(inner), threads_for(binary, threads))
    return result


def soft_sphere(shape: tuple[int, ...], radius: float, edge: float = 5.0) -> NDArray[np.float32]:
    """Make a sphere (a disc, if the shape is that of an image) about the centre voxel ``floor(N / 2)``.

    Parameters
    ----------
    shape : tuple of int
        (z, y, x) or (y, x).
    radius : float
        Voxels; the mask is 1 up to it.
    edge : float
        Width in voxels of the raised-cosine edge beyond the radius.

    Returns
    -------
    numpy.ndarray
        float32, of the shape given.
    """
    squared = _squared_distance_from_centre(shape)
    # Squared distances are whole numbers, so the profile is a short table.
    distance = np.sqrt(np.arange(squared.max(initial=0) + 1, dtype=np.float64))
    profile = (distance <= radius).astype(np.float64)
    if edge > 0:
        profile = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / edge, 0.0, 1.0))
    return profile.astype(np.float32)[squared]


def soft_shell(
    size: int,
    outer_radius: float,
    inner_radius: float = 0.0,
    edge: float = 0.0,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> NDArray[np.float32]:
    """Make a sphere, or the shell between two radii, about any point.

    Parameters
    ----------
    size : int
        Box in voxels.
    outer_radius, inner_radius : float
        Voxels; the mask is 1 between them.
    edge : float
        Width in voxels of the raised-cosine edges, outward of the outer and inward of the inner radius.
    centre : tuple of float
        (z, y, x) in voxels, relative to the voxel ``floor(size / 2)``.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x).
    """
    axes = [(np.arange(size) - size // 2 - c) ** 2 for c in centre]
    result = np.empty((size,) * 3, dtype=np.float32)

    def work(slab: slice) -> None:
        radius = np.sqrt(axes[0][slab, None, None] + axes[1][:, None] + axes[2])
        outside = np.maximum(radius - outer_radius, inner_radius - radius)
        if edge > 0:
            result[slab] = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside / edge, 0.0, 1.0))
        else:
            result[slab] = outside <= 0

    over_slabs(work, size)
    return result


def helix_window(size: int, length: float, edge: float) -> NDArray[np.float32]:
    """Return the window along z that keeps the centre of a helix.

    1 nearer to the centre ``floor(size / 2)`` than half of ``length`` times the box, then half a
    cosine of ``edge`` voxels, then 0.

    Parameters
    ----------
    size : int
        Box in voxels.
    length : float
        Share of the box, e.g. 0.3.
    edge : float
        Voxels.

    Returns
    -------
    numpy.ndarray
        float32, shape (z,).
    """
    beyond = np.abs(np.arange(size) - size // 2) - size * length / 2
    if edge <= 0:
        return (beyond < 0).astype(np.float32)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond / edge, 0.0, 1.0))).astype(np.float32)


def touches_box(binary: NDArray[np.bool_]) -> bool:
    """Tell whether a true voxel lies on a face of the box."""
    sides = (binary[(slice(None),) * axis + (side,)] for axis in range(binary.ndim) for side in (0, -1))
    return any(bool(side.any()) for side in sides)


def _squared_distance_from_centre(shape: tuple[int, ...]) -> NDArray[np.int32]:
    axes = [(np.arange(n, dtype=np.int32) - n // 2) ** 2 for n in shape]
    result = axes[-1]
    for squares in axes[-2::-1]:
        result = squares.reshape(-1, *[1] * result.ndim) + result
    return result


def _near(binary: NDArray[np.bool_], limit: float, threads: int) -> tuple[tuple[slice, ...], NDArray[Any]]:
    """Return the part of the box that is within ``limit`` of a true voxel, and squared distances in it."""
    reach = math.ceil(limit)
    region = tuple(
        slice(max(part.start - reach, 0), min(part.stop + reach, length)) if part.stop else part
        for part, length in zip(bounds(binary), binary.shape, strict=True)
    )
    return region, squared_distance(module_of(binary).ascontiguousarray(binary[region]), limit, threads)
