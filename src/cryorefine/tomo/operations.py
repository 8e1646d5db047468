"""What is done to the pixels of tilt images, on the processor.

:mod:`cryorefine.refine.gpu.extraction` does the same on a GPU.
Images, transforms and gains live where the operations do; positions and matrices always on the processor.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.ctf import ctf

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]
Circle = tuple[F32, NDArray[np.bool_]]
"""A soft disc and the pixels outside of it, each of shape (box, box)."""


class Operations(Protocol):
    """Where the pixels are worked on."""

    @property
    def ctf(self) -> Any:
        """Contrast transfer, as :func:`cryorefine.ctf.ctf.ctf`."""

    def array(self, values: Any) -> Any:
        """Return values of the processor as an array that lives here."""

    def host(self, values: Any) -> Any:
        """Return an array on the processor."""

    def crop_shift_multiply(
        self, spectra: C64, shifts: F64, gain: F32 | None, factor: float, size: int
    ) -> C64:
        """Crop transforms to a size, move the images by (x, y) px of it, and multiply by gains and a factor.

        Parameters
        ----------
        spectra : complex64, shape (n, large, large // 2 + 1)
            Half transforms.
        shifts : float64, shape (n, 2)
            Movement of the content.
        gain : float32, shape (n, size * (size // 2 + 1)), or None
            Factors in the layout of the small half transform.
        factor : float
            Common factor.
        size : int
            New edge.
        """

    def level_and_crop(self, images: F32, circle: Circle, crop: int) -> F32:
        """Subtract the mean outside of a soft circle, weight with it and cut out the middle.

        The images may be overwritten.
        """

    def insert_tilts(
        self, spectra: C64, gains: F32, use: F32, rotations: F64, crop: int
    ) -> tuple[C64, F32, F32]:
        """Lay images into an empty volume; see :func:`cryorefine.tomo.kernels.insert_tilts`.

        Returns
        -------
        data, weight, multiplicity : ndarray
            Half transforms, shape (crop, crop, crop // 2 + 1).
        """


class ProcessorOperations:
    """The compiled kernels of this processor, and NumPy."""

    ctf: Any = staticmethod(ctf)

    def array(self, values: Any) -> Any:
        """Return values as they are."""
        return values

    def host(self, values: Any) -> Any:
        """Return values as they are."""
        return values

    def crop_shift_multiply(
        self, spectra: C64, shifts: F64, gain: F32 | None, factor: float, size: int
    ) -> C64:
        """Crop, move and multiply; see :class:`Operations`."""
        from cryorefine.tomo.kernels import crop_shift_multiply

        result = np.empty((len(spectra), size, size // 2 + 1), dtype=np.complex64)
        factors = np.empty((0, 1), dtype=np.float32) if gain is None else gain
        crop_shift_multiply(spectra, shifts, factors, factor, result)
        return result

    def level_and_crop(self, images: F32, circle: Circle, crop: int) -> F32:
        """Level and cut; see :class:`Operations`."""
        from cryorefine.tomo.kernels import level_and_crop

        whole = images.shape[1] == crop and images.dtype == np.float32
        result = images if whole else np.empty((len(images), crop, crop), dtype=np.float32)
        level_and_crop(images, *circle, result)
        return result

    def insert_tilts(
        self, spectra: C64, gains: F32, use: F32, rotations: F64, crop: int
    ) -> tuple[C64, F32, F32]:
        """Lay images into an empty volume; see :class:`Operations`."""
        from cryorefine.tomo.kernels import insert_tilts

        size = (crop, crop, crop // 2 + 1)
        data = np.zeros(size, np.complex64)
        weight, multiplicity = np.zeros(size, np.float32), np.zeros(size, np.float32)
        factor = crop / spectra.shape[1]
        insert_tilts(data, weight, multiplicity, np.ascontiguousarray(rotations), factor, spectra, gains, use)
        return data, weight, multiplicity


PROCESSOR = ProcessorOperations()
