"""Exact squared Euclidean distances to a binary mask, up to a limit, in voxels.

Distances to a mask matter only near it, so the three one-dimensional passes of the separable
transform (Felzenszwalb and Huttenlocher, Theory Comput. 8, 415-428, 2012) look only that far. Each
is a running minimum over contiguous rows, which vectorises.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.slabs import over_slabs


def squared_distance(binary: NDArray[np.bool_], limit: float, threads: int = 0) -> NDArray[np.int32]:
    """Return the squared distance of every voxel to the nearest true voxel.

    Parameters
    ----------
    binary : numpy.ndarray
        Shape (z, y, x). Nothing wraps around at the faces of the box.
    limit : float
        Distance in voxels up to which the result is exact.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        int32, shape (z, y, x). Exact where the distance is at most ``limit``; elsewhere any value
        above ``limit**2``.
    """
    reach = math.ceil(limit)
    far = np.int32(min(limit, 20000.0) ** 2 + 1)
    if reach > 20000:
        raise ValueError(f"distances are computed up to 20000 voxels, not {limit}")
    source = binary.view(np.uint8)
    planes = np.empty(binary.shape, dtype=np.int32)

    def in_planes(slab: slice) -> None:
        _distances_in_planes(source[slab], reach, far, planes[slab])

    over_slabs(in_planes, len(binary), threads)
    result = np.empty_like(planes)

    def across_planes(slab: slice) -> None:
        _distances_across_planes(planes, slab.start, slab.stop, reach, far, result)

    over_slabs(across_planes, len(binary), threads)
    return result


@numba.njit(nogil=True, cache=True)
def _distances_in_planes(source, reach, far, out):  # type: ignore[no-untyped-def]
    height, width = source.shape[1:]
    along = np.empty((height, width), dtype=np.int32)
    for z in range(source.shape[0]):
        for y in range(height):
            last = -reach - 1
            for x in range(width):
                if source[z, y, x]:
                    last = x
                step = x - last
                along[y, x] = step * step if step <= reach else far
            last = width + reach
            for x in range(width - 1, -1, -1):
                if source[z, y, x]:
                    last = x
                step = last - x
                if step <= reach and step * step < along[y, x]:
                    along[y, x] = step * step
        for y in range(height):
            row = out[z, y]
            row[:] = far
            for dy in range(max(-reach, -y), min(reach, height - 1 - y) + 1):
                _lower(row, along[y + dy], dy * dy)


@numba.njit(nogil=True, cache=True)
def _distances_across_planes(planes, start, stop, reach, far, out):  # type: ignore[no-untyped-def]
    depth, height = planes.shape[:2]
    for z in range(start, stop):
        for y in range(height):
            row = out[z, y]
            row[:] = far
            for dz in range(max(-reach, -z), min(reach, depth - 1 - z) + 1):
                _lower(row, planes[z + dz, y], dz * dz)


@numba.njit(nogil=True, cache=True, inline="always")
def _lower(row: Any, other: Any, plus: int) -> None:
    """Lower each element of a row to that of the other plus a constant, where that is smaller."""
    for x in range(row.shape[0]):
        value = other[x] + np.int32(plus)
        row[x] = value if value < row[x] else row[x]
