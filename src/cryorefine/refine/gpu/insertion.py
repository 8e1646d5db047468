"""Sums of slices in a Fourier volume on a GPU, the same in whatever order threads add to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.gpu.source import i32, launch, tiles

F32 = NDArray[np.float32]
Array = Any  # of CuPy


def points(xp: Any, kx: F32, ky: F32, kz: F32) -> tuple[Any, ...]:
    """Return the pixels of slices as the kernels take them."""
    axes = (xp.asarray(axis, np.float32) for axis in (kx, ky, kz if len(kz) else kx))
    return (*axes, i32(len(kz) > 0), i32(len(kx)))


class GpuInsertion:
    """Sums of slices in a Fourier volume and its weights, in whole numbers: their order does not matter.

    Parameters
    ----------
    xp : module
        CuPy.
    shape : tuple of int
        Of the volume.
    images : sequence of tuple of ndarray
        Real and imaginary parts and weights of all images; see :meth:`.ProcessorOperations.insertion`.
    """

    # How often a voxel can get the value of one image: the shares of its pixels in a voxel come to less.
    SHARES = 8
    # Layers that are read at a time: as many as have so many voxels.
    READ = 2**24

    def __init__(self, xp: Any, shape: tuple[int, ...], images: Sequence[tuple[Array, Array, Array]]) -> None:
        self._xp = xp
        self._sums = xp.zeros((*shape, 3), np.int64)
        largest = [[float(abs(part).max()) * len(part) for part in each] for each in images]
        data = sum(max(re, im) for re, im, _ in largest)
        weight = sum(w for _, _, w in largest)
        # 62 of the 63 bits hold the largest sum that there can be.
        self._units = tuple(np.float64(2.0**62 / max(self.SHARES * bound, 1e-30)) for bound in (data, weight))

    def add(
        self, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, re: Array, im: Array, w: Array
    ) -> None:
        """Add slices; see :func:`cryorefine.refine.kernels.insert_slices`."""
        limit = i32(self._sums.shape[0] // 2)
        turned = self._xp.asarray(matrices, np.float32)
        where = (limit, turned, *points(self._xp, kx, ky, kz), np.float32(padding))
        launch("insert_slices", tiles(len(matrices), len(kx)), self._sums, *self._units, *where, re, im, w)

    def volumes(self) -> tuple[Array, Array]:
        """Return the volume and its weights, on the processor."""
        xp, shape = self._xp, self._sums.shape[:3]
        result = np.empty(shape, np.complex64), np.empty(shape, np.float32)
        layers = max(1, self.READ // (shape[1] * shape[2]))
        for first in range(0, shape[0], layers):
            sums = self._sums[first : first + layers]
            parts = xp.empty(sums.shape[:3], np.complex64), xp.empty(sums.shape[:3], np.float32)
            launch("read_sums", parts[1].size, sums, *self._units, np.int64(parts[1].size), *parts)
            for whole, part in zip(result, parts, strict=True):
                whole[first : first + layers] = xp.asnumpy(part)
        return result
