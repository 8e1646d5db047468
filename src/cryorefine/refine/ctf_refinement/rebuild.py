"""Sums of a half set, and the reference that they give, on a GPU.

The steps are those of :mod:`.sums` and :mod:`.reference`, for all voxels at once; the tests insist that
both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of, to_host
from cryorefine.refine.ctf_refinement.frame import Frame
from cryorefine.refine.ctf_refinement.padded import multiply_in_place
from cryorefine.refine.ctf_refinement.reference import Reference, regularised_weights
from cryorefine.refine.gpu.insertion import GpuInsertion
from cryorefine.refine.gpu.volumes import GpuVolumes
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.volume import C64, F32, symmetrise

F64 = NDArray[np.float64]
Array = Any  # of CuPy


def add_slices(
    parts: Array, matrices: Sequence[F64], plane: HalfPlane, padding: float, data: Array, weight: Array
) -> None:
    """Add slices to sums (:class:`.sums.Sums`), in place, once for each list of orientations."""
    xp = module_of(parts)
    images = tuple(xp.ascontiguousarray(each) for each in (data.real, data.imag, weight))
    # The sums of a chunk are whole numbers, and chunks come in order: threads change nothing.
    sums = GpuInsertion(xp, parts.shape[:3], [images] * len(matrices))
    for turned in matrices:
        sums.add(turned.astype(np.float32), plane.kx, plane.ky, np.zeros(0, np.float32), padding, *images)
    numerator, weights = sums.volumes_on(xp)
    parts[..., 0] += numerator.real
    parts[..., 1] += numerator.imag
    parts[..., 2] += weights


def solved(parts: Array, turns: NDArray[np.int64], ssnr: F64, frame: Frame) -> Reference:
    """Return the reference that sums give, on the processor; see :func:`.reference.rebuilt_reference`."""
    xp = module_of(parts)
    gpu = GpuVolumes(xp)
    numerator = xp.empty(parts.shape[:3], np.complex64)
    numerator.real, numerator.imag = parts[..., 0], parts[..., 1]
    weight = xp.ascontiguousarray(parts[..., 2])
    gpu.enforce_friedel(numerator, weight)
    limit, edge = frame.limit, frame.padded
    shells = int(limit / frame.padding) + 2
    means = len(turns) * gpu.shell_means(weight, frame.padding, shells)
    numerator, weight = symmetrise(
        numerator, weight, turns.astype(np.float64), frame.size, frame.padding, gpu
    )
    extra, floor = (xp.asarray(each.astype(np.float32)) for each in regularised_weights(means, ssnr))
    index = np.arange(-limit, limit + 1)
    z, x = xp.asarray(index * index), xp.asarray(np.arange(limit + 2) ** 2)
    square = z[:, None, None] + z[:, None] + x
    shell = xp.minimum(
        (xp.sqrt(square.astype(np.float64)) / frame.padding + 0.5).astype(np.int32), shells - 1
    )
    total = xp.maximum(weight + extra[shell], floor[shell])
    reach = min(frame.padding * frame.size / 2, edge // 2 - 1)
    inside = (square <= reach * reach) & (total > 0)
    gain = xp.where(inside, 1 / xp.where(inside, total, np.float32(1)), np.float32(0))
    del square, shell, total, inside, weight
    numerator *= gain
    transform = xp.zeros((edge, edge, edge // 2 + 1), np.complex64)
    near = min(limit, edge // 2 - 1)
    rows = xp.asarray(np.arange(-near, near + 1) % edge)
    inner, width = slice(limit - near, limit + near + 1), min(limit + 2, edge // 2 + 1)
    transform[rows[:, None], rows, :width] = numerator[inner, inner, :width]
    multiply_in_place(transform, xp.asarray(frame.window), frame.box // 2, 1)
    volume = xp.zeros(numerator.shape, np.complex64)
    volume[inner, inner, :width] = transform[rows[:, None], rows, :width]
    result: tuple[C64, F32] = to_host(volume), to_host(gain)
    return Reference(*result)
