"""Volumes of the maximisation step on a GPU: counterparts of functions of volume.py and reconstruct.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of
from cryorefine.compute.gpu_turns import free_memory, turns
from cryorefine.errors import UserError
from cryorefine.refine.gpu.source import i32, launch

F64 = NDArray[np.float64]
Array = Any  # of CuPy


class GpuVolumes:
    """Operations on the current GPU.

    Parameters
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def enforce_friedel(self, numerator: Array, weight: Array) -> None:
        """Join Friedel mates; see :func:`cryorefine.refine.volume.enforce_friedel`."""
        limit = numerator.shape[0] // 2
        launch("enforce_friedel", (2 * limit + 1) ** 2, numerator, weight, i32(limit))

    def add_rotated(
        self, source: Array, source_weight: Array, matrix: F64, reach: float, numerator: Array, weight: Array
    ) -> None:
        """Add a turned copy of a volume and its weights, within a reach, in place."""
        limit = source.shape[0] // 2
        threads = (2 * limit + 1) ** 2 * (limit + 1)
        turn = self.xp.asarray(matrix, np.float64)
        how = (turn, np.float64(reach), i32(limit))
        launch("add_rotated", threads, source, source_weight, *how, numerator, weight)

    def shell_means(self, weight: Array, padding: float, shells: int) -> F64:
        """Means over shells; see :func:`cryorefine.refine.volume.shell_means`."""
        limit = weight.shape[0] // 2
        threads = (2 * limit + 1) ** 2 * (limit + 1)
        total, count = (self.xp.zeros(shells, np.uint64) for _ in range(2))
        units = np.float64(2.0**62 / (threads * max(float(weight.max()), 1e-30)))
        launch(
            "shell_sums", threads, weight, units, i32(limit), np.float64(padding), i32(shells), total, count
        )
        return np.asarray(self.xp.asnumpy(total) / units / np.maximum(self.xp.asnumpy(count), 1))

    def divide(
        self, numerator: Array, weight: Array, extra: F64, floor: F64, reach: float, padding: float
    ) -> Array:
        """Divide by weights, within a reach; see :func:`cryorefine.refine.reconstruct.divide`."""
        result = self.xp.zeros(numerator.shape, np.complex64)
        curves = (self.xp.asarray(curve, np.float64) for curve in (extra, floor))
        how = (i32(len(extra)), np.float64(reach), np.float64(padding), i32(numerator.shape[0] // 2))
        launch("divide", numerator.size, numerator, weight, *curves, *how, result)
        return result

    def unpadded(self, numerator: Array, weight: Array, padding: float, size: int) -> Array:
        """Average the padded voxels nearest to each unpadded one; complex128."""
        half = size // 2
        result = self.xp.zeros((2 * half + 1, 2 * half + 1, half + 1), np.complex128)
        how = (np.float64(padding), i32(numerator.shape[0] // 2), i32(half))
        launch("unpadded", result.size, numerator, weight, *how, result)
        return result


def volumes_of(volume: Array) -> GpuVolumes | None:
    """Return the operations on the GPU that a volume lives on; None for the processor."""
    return GpuVolumes(module_of(volume)) if is_on_gpu(volume) else None


@contextmanager
def gpu_volumes(device: str) -> Iterator[GpuVolumes | None]:
    """Wait for a turn on a device's GPUs, and give the operations there; None for the processor.

    That is also where the GPUs are not here, but where a cluster's workers are.
    """
    try:
        gpu = turns(device)
    except UserError:
        gpu = None
    if gpu is None:
        yield None
        return
    import cupy

    with gpu.turn() as copies:
        # The references have been compared with, and there will be new ones.
        copies.clear()
        free_memory()
        yield GpuVolumes(cupy)
