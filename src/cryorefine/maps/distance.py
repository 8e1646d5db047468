"""Exact squared Euclidean distances to a binary mask, up to a limit, in voxels.

Distances to a mask matter only near it, so the three one-dimensional passes of the separable
transform (Felzenszwalb and Huttenlocher, Theory Comput. 8, 415-428, 2012) look only that far. Each
is a running minimum, taken of many rows at once in the smallest type that holds the numbers: up to
a limit of 11 voxels that is one byte, of which a processor compares 32 or 64 at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.maps.slabs import over_slabs, threads_for


def squared_distance(binary: NDArray[np.bool_], limit: float, threads: int = 0) -> NDArray[Any]:
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
        Of an unsigned integer type, shape (z, y, x). Exact where the distance is at most ``limit``;
        elsewhere any value above ``limit**2``.
    """
    if limit > 20000:
        raise ValueError(f"distances are computed up to 20000 voxels, not {limit}")
    reach, far = math.ceil(limit), int(limit**2) + 1
    kind = np.min_scalar_type(far + reach**2)
    xp, threads = module_of(binary), threads_for(binary, threads)
    planes = xp.empty(binary.shape, dtype=kind)
    result = xp.empty_like(planes)

    def in_planes(slab: slice) -> None:
        part = xp.where(binary[slab], kind.type(0), kind.type(far)).astype(kind, copy=False)
        planes[slab] = _nearest(_nearest(part, 2, reach), 1, reach)

    def across_planes(slab: slice) -> None:
        result[:, slab] = _nearest(planes[:, slab], 0, reach)

    over_slabs(in_planes, binary.shape[0], threads)
    over_slabs(across_planes, binary.shape[1], threads)
    return result


def _nearest(values: NDArray[Any], axis: int, reach: int) -> NDArray[Any]:
    """Return the lowest of value + step^2 over all steps along an axis, of up to ``reach`` voxels."""
    result, minimum = values.copy(), module_of(values).minimum
    for step in range(1, min(reach, values.shape[axis] - 1) + 1):
        raised = values + values.dtype.type(step * step)
        ahead = (slice(None),) * axis + (slice(step, None),)
        behind = (slice(None),) * axis + (slice(None, -step),)
        minimum(result[ahead], raised[behind], out=result[ahead])
        minimum(result[behind], raised[ahead], out=result[behind])
    return result
