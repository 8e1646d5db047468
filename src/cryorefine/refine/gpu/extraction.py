"""The operations of :mod:`cryorefine.tomo.operations` on a GPU, and the sums of a reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.compute.gpu_turns import turns
from cryorefine.refine.gpu.operations import GpuOperations
from cryorefine.refine.gpu.source import i32, launch, tiles
from cryorefine.tomo.operations import PROCESSOR, Circle, Operations

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Array = Any  # of CuPy
TURNS = 8
"""Threads that work on a GPU at a time: each reads its tilt images between its kernels."""

_SHARES = (
    16  # how often a voxel can get the value of one image, as a bound: eight neighbours, and their mates
)


class GpuExtraction(GpuOperations):
    """Operations on the current GPU.

    Parameters
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, xp: Any) -> None:
        super().__init__(xp, 0, xp.asarray)

    def crop_shift_multiply(
        self, spectra: Array, shifts: F64, gain: Array | None, factor: float, size: int
    ) -> Array:
        """Crop, move and multiply; see :class:`cryorefine.tomo.operations.Operations`."""
        width = size // 2 + 1
        index = np.arange(size)
        y = np.where(2 * index < size, index, index - size)
        angles = (-2 * np.pi / size * shifts[:, i, None] * k for i, k in ((0, np.arange(width)), (1, y)))
        phase_x, phase_y = (self.array(np.exp(1j * angle), np.complex64) for angle in angles)
        phase_y *= np.float32(factor)
        result = self.xp.take(spectra[:, :, :width], self.array(y % spectra.shape[1]), axis=1)
        result *= phase_y[:, :, None]
        result *= phase_x[:, None, :]
        if gain is not None:
            result *= gain.reshape(result.shape)
        return result

    def level_and_crop(self, images: Array, circle: Circle, crop: int) -> Array:
        """Level and cut; see :class:`cryorefine.tomo.operations.Operations`."""
        weight, outside = circle
        total = (images * self.array(outside)).sum(axis=(1, 2), dtype=np.float64)
        mean = (total / max(int(outside.sum()), 1)).astype(np.float32)
        first = (images.shape[1] - crop) // 2
        inner = slice(first, first + crop)
        return (images[:, inner, inner] - mean[:, None, None]) * self.array(weight[inner, inner])

    def insert_tilts(
        self, spectra: Array, gains: Array, use: Array, rotations: F64, crop: int
    ) -> tuple[Array, Array, Array]:
        """Lay images into an empty volume; see :class:`cryorefine.tomo.operations.Operations`."""
        count, box = spectra.shape[:2]
        bounds = (float(abs(spectra).max()), max(float((gains * gains).max()), 1.0))
        # Pixels count by their area in voxels, so that many small ones come to no more than few large ones.
        units = [np.float64(2.0**62 / max(_SHARES * count * bound, 1e-30)) for bound in bounds]
        sums = self.zeros((crop, crop, crop // 2 + 1, 4), np.int64)
        how = (i32(crop), i32(box), self.array(rotations, np.float64), np.float64(crop / box))
        images = (self.array(each) for each in (spectra, gains, use))
        launch("insert_tilts", tiles(count, box * (box // 2 + 1)), sums, *units, *how, *images)
        data = self.zeros(sums.shape[:3], np.complex64)
        data.real, data.imag = ((sums[..., i] / units[0]).astype(np.float32) for i in range(2))
        weight, multiplicity = ((sums[..., i] / units[1]).astype(np.float32) for i in (2, 3))
        return data, weight, multiplicity


@contextmanager
def extraction(device: str) -> Iterator[Operations]:
    """Wait for a turn on a device, and give the operations there."""
    gpu = turns(device, TURNS)
    if gpu is None:
        yield PROCESSOR
        return
    import cupy

    with gpu.turn():
        yield GpuExtraction(cupy)


def gather(
    sums: Array, spectra: Array, gain: Array, keep: NDArray[np.bool_], orientations: F64, ratio: float
) -> None:
    """Add the images of a particle; see :func:`cryorefine.refine.particle_reconstruction.insert_images`."""
    xp = module_of(sums)
    count, size, width = spectra.shape
    half = size // 2
    index = np.arange(size)
    ky = np.where(2 * index < size, index, index - size)
    square = ky[:, None] ** 2 + np.arange(width) ** 2
    inside = keep.reshape(spectra.shape) & (square <= half * half)
    reach = np.sqrt((square * inside).max(axis=(1, 2)).astype(np.float64))
    sign = 1 - 2 * ((ky[:, None] + np.arange(width)) & 1)
    use = xp.asarray(inside)
    data = spectra * (use * xp.asarray(sign.astype(np.float32)))
    values = gain.reshape(spectra.shape)
    images = xp.zeros((count, size + 2, half + 3, 4), np.float32)
    # From -size / 2 on: the second half of the rows comes first.
    for source, target in ((slice(half, size), slice(0, half)), (slice(0, half), slice(half, size))):
        images[:, target, :width, 0] = data.real[:, source]
        images[:, target, :width, 1] = data.imag[:, source]
        images[:, target, :width, 2] = (values * values * use)[:, source]
    limit = sums.shape[0] // 2
    threads = (2 * limit + 1) ** 2 * (limit + 1)
    turned = xp.asarray(np.ascontiguousarray(orientations, np.float64))
    how = (turned, xp.asarray(reach), i32(count), i32(size), np.float64(ratio))
    launch("gather_slices", threads, sums, i32(limit), images, *how)
