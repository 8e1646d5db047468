"""Where the inner loops run: one object with the same operations for the processor and for a GPU.

Arrays of pixels, slices, scores and volumes live where the operations do; lists of indices, matrices and
whatever else is small live on the processor. ``xp`` is the array module of the former, ``array`` and
``host`` lead across.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.gpu_turns import share_of_memory, turns
from cryorefine.ctf.ctf import ctf
from cryorefine.refine import interpolation, kernels, posterior
from cryorefine.refine.half_plane import sum_by_shell
from cryorefine.refine.insertion import Insertion
from cryorefine.refine.parameters import Expected
from cryorefine.refine.volume import ReferenceVolume
from cryorefine.refine.whole_pixels import shift_whole_pixels

if TYPE_CHECKING:
    from cryorefine.refine.gpu.operations import GpuOperations

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]
# Working memory of one chunk for dense scores, for fine scores and for slices, in bytes each.
MEMORY = 96 * 2**20
# What a chunk takes on a GPU besides, in volumes of the reference's size: itself, and sums of three numbers.
VOLUMES = 4


class ProcessorOperations:
    """The compiled kernels of this processor, and NumPy."""

    xp: Any = np
    memory = MEMORY
    slice_pixels = 4096 * 512
    # Slices of lists of poses that are made and used at a time: not much more than caches hold.
    slice_memory = 16 * 2**20

    score_entries = staticmethod(kernels.score_entries)
    sum_entries = staticmethod(kernels.sum_entries)
    add_priors = staticmethod(posterior.add_priors)
    select_dense = staticmethod(posterior.select_dense)
    select_sparse = staticmethod(posterior.select_sparse)
    sum_over_shifts = staticmethod(posterior.sum_over_shifts)
    normalise = staticmethod(posterior.normalise)
    ctf = staticmethod(ctf)
    shift_whole_pixels = staticmethod(shift_whole_pixels)
    sum_by_shell = staticmethod(sum_by_shell)

    @property
    def fft(self) -> Any:
        """Transforms, as of scipy.fft."""
        import scipy.fft

        return scipy.fft

    @staticmethod
    def zeros(shape: Any, dtype: Any) -> Any:
        """Return zeros."""
        return np.zeros(shape, dtype)

    @staticmethod
    def array(values: Any, dtype: Any = None) -> Any:
        """Return values as a NumPy array, themselves if they are one."""
        return np.asarray(values, dtype)

    @staticmethod
    def split(values: Any) -> tuple[Any, Any]:
        """Split a complex array into its real and imaginary parts."""
        return np.ascontiguousarray(values.real, np.float32), np.ascontiguousarray(values.imag, np.float32)

    @staticmethod
    def host(values: Any) -> Any:
        """Return values as they are."""
        return values

    @staticmethod
    def insertion(
        shape: tuple[int, ...], images: Sequence[tuple[F32, F32, F32]], expected: Expected | None = None
    ) -> Insertion:
        """Return empty sums for slices that are sums of images.

        Parameters
        ----------
        shape : tuple of int
            Of the volume.
        images : sequence of tuple of ndarray
            Real and imaginary parts and weights of all images, view by view, shape (images, pixels) each.
            None will be added more than once, in parts or whole.
        expected : tuple, optional
            What the images of all sums that will be added up should hold; :class:`.GpuInsertion` uses it.
        """
        return Insertion.empty(shape)

    @staticmethod
    def volume(values: C64 | ReferenceVolume) -> C64:
        """Return a Fourier volume."""
        return values.on_host() if isinstance(values, ReferenceVolume) else values

    @staticmethod
    def slice_volume(
        volume: C64, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, re: F32, im: F32
    ) -> None:
        """Cut slices, or turned copies; see :func:`cryorefine.refine.interpolation.slice_volume`."""
        interpolation.slice_volume(volume.view(np.float32), matrices, kx, ky, kz, padding, re, im)


PROCESSOR = ProcessorOperations()
Operations: TypeAlias = "ProcessorOperations | GpuOperations"


@contextmanager
def operations(device: str, volume: C64 | ReferenceVolume) -> Iterator[Operations]:
    """Wait for a turn on a device, and give its operations.

    Parameters
    ----------
    device : str
        "cpu", "auto", "gpu" or "gpu:0,1": with several GPUs, the next one with room.
    volume : ndarray or ReferenceVolume
        The Fourier volume that will be worked with.
    """
    gpu = turns(device)
    if gpu is None:
        yield PROCESSOR
        return
    import cupy

    from cryorefine.refine.gpu.operations import GpuOperations

    with gpu.turn(VOLUMES * volume.nbytes) as copies:
        yield GpuOperations(cupy, share_of_memory(), copies.of)
