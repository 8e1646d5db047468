"""Sums of slices in a Fourier volume on a GPU, the same in whatever order threads add to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.place import shortage
from cryorefine.refine.gpu.source import i32, launch, tiles
from cryorefine.refine.insertion import Insertion, VolumeSums
from cryorefine.refine.parameters import Expected

F32 = NDArray[np.float32]
Array = Any  # of CuPy


def points(xp: Any, kx: F32, ky: F32, kz: F32) -> tuple[Any, ...]:
    """Return the pixels of slices as the kernels take them."""
    axes = (xp.asarray(axis, np.float32) for axis in (kx, ky, kz if len(kz) else kx))
    return (*axes, i32(len(kz) > 0), i32(len(kx)))


class GpuInsertion:
    """Sums of slices in a Fourier volume and its weights, in whole numbers: their order does not matter.

    Sums in the same units are added to each other on the GPU, and only what is left at the end is read.

    Parameters
    ----------
    xp : module
        CuPy.
    shape : tuple of int
        Of the volume.
    images : sequence of tuple of ndarray
        Real and imaginary parts and weights of all images; see :meth:`.ProcessorOperations.insertion`.
    expected : tuple, optional
        What the images of all sums that will be added up should hold: the units follow from it. Where it is
        not given, or these images hold more, the units are these images' own.
    """

    # How often a voxel can get the value of one image: the shares of its pixels in a voxel come to less.
    SHARES = 8
    # Layers that are read at a time: as many as have so many voxels.
    READ = 2**24
    # Sums that may wait to be added up at a time; where a GPU's whole memory does not hold so many, none do.
    WAITING = 16

    def __init__(
        self,
        xp: Any,
        shape: tuple[int, ...],
        images: Sequence[tuple[Array, Array, Array]],
        expected: Expected | None = None,
    ) -> None:
        self._xp = xp
        self._sums = xp.zeros((*shape, 3), np.int64)
        largest = [[float(abs(part).max()) * len(part) for part in each] for each in images]
        bounds = [sum(max(re, im) for re, im, _ in largest), sum(w for _, _, w in largest)]
        if expected is not None:
            count, here = expected[0], sum(len(w) for _, _, w in images)
            if all(own <= here * each for own, each in zip(bounds, expected[1:], strict=True)):
                bounds = [count * each for each in expected[1:]]
        # 62 of the 63 bits hold the largest sum that there can be.
        self._units = tuple(np.float64(2.0**62 / max(self.SHARES * bound, 1e-30)) for bound in bounds)

    def add(
        self, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, re: Array, im: Array, w: Array
    ) -> None:
        """Add slices; see :func:`cryorefine.refine.interpolation.insert_slices`."""
        limit = i32(self._sums.shape[0] // 2)
        turned = self._xp.asarray(matrices, np.float32)
        where = (limit, turned, *points(self._xp, kx, ky, kz), np.float32(padding))
        launch("insert_slices", tiles(len(matrices), len(kx)), self._sums, *self._units, *where, re, im, w)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return int(self._sums.nbytes)

    def plus(self, other: VolumeSums) -> VolumeSums:
        """Add others, in place if they have the same units."""
        if isinstance(other, GpuInsertion) and other._units == self._units:
            try:
                with self._sums.device, shortage():
                    theirs = other._sums
                    if theirs.device.id != self._sums.device.id:
                        theirs = theirs.copy()  # from another GPU
                    self._sums += theirs
                    # Their memory goes back to the stream that it came from.
                    self._xp.cuda.get_current_stream().synchronize()
                    return self
            except MemoryError:
                pass
        return Insertion(*self.volumes()).plus(other)

    def copy(self) -> VolumeSums:
        """Return sums that share nothing with these, on the processor."""
        return Insertion(*self.volumes())

    def kept(self) -> VolumeSums:
        """Return these, or their copy on the processor where the GPU has no room for many of them."""
        total = int(self._xp.cuda.runtime.memGetInfo()[1])
        return self if total >= self.WAITING * self.nbytes else self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Be sums on the processor for another process."""
        return Insertion, self.volumes()

    def volumes(self) -> tuple[Any, Any]:
        """Return the volume and its weights, on the processor."""
        shape = self._sums.shape[:3]
        result = np.empty(shape, np.complex64), np.empty(shape, np.float32)
        layers = max(1, self.READ // (shape[1] * shape[2]))
        with self._sums.device:
            for first in range(0, shape[0], layers):
                parts = self._read(self._sums[first : first + layers])
                for whole, part in zip(result, parts, strict=True):
                    whole[first : first + layers] = self._xp.asnumpy(part)
        return result

    def volumes_on(self, xp: Any) -> tuple[Any, Any]:
        """Return the volume and its weights, on CuPy's current GPU."""
        sums = self._sums
        if sums.device.id != xp.cuda.Device().id:
            sums = sums.copy()
        return self._read(sums)

    def _read(self, sums: Array) -> tuple[Array, Array]:
        xp, shape = self._xp, sums.shape[:3]
        parts = xp.empty(shape, np.complex64), xp.empty(shape, np.float32)
        launch("read_sums", parts[1].size, sums, *self._units, np.int64(parts[1].size), *parts)
        return parts
