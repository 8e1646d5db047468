"""Sums of slices in a Fourier volume and its weights, wherever they are made and kept."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.refine import interpolation

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]


class VolumeSums(Protocol):
    """Sums of slices that can be added to each other, on the processor or on a GPU."""

    @property
    def nbytes(self) -> int:
        """Memory that they take."""

    def volumes(self) -> tuple[C64, F32]:
        """Return the volume and its weights, on the processor."""

    def volumes_on(self, xp: Any) -> tuple[Any, Any]:
        """Return the volume and its weights, as arrays of CuPy on its current GPU."""

    def plus(self, other: VolumeSums) -> VolumeSums:
        """Return the sum of both; these ones may be changed, the other ones are not."""

    def copy(self) -> VolumeSums:
        """Return sums that share nothing with these."""

    def kept(self) -> VolumeSums:
        """Return them where they should wait for others."""


class Insertion:
    """Sums of slices on the processor.

    Parameters
    ----------
    numerator, weight : ndarray
        Volume and weights to begin with, which are changed.
    """

    def __init__(self, numerator: C64, weight: F32) -> None:
        self._sums = numerator, weight

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Insertion:
        """Return sums of nothing in a volume of a shape."""
        return cls(np.zeros(shape, np.complex64), np.zeros(shape, np.float32))

    def add(self, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, re: F32, im: F32, w: F32) -> None:
        """Add slices; see :func:`cryorefine.refine.interpolation.insert_slices`."""
        interpolation.insert_slices(*self._sums, matrices, kx, ky, kz, padding, re, im, w)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(each.nbytes for each in self._sums)

    def volumes(self) -> tuple[C64, F32]:
        """Return the volume and its weights themselves."""
        return self._sums

    def volumes_on(self, xp: Any) -> tuple[Any, Any]:
        """Return copies on CuPy's current GPU."""
        numerator, weight = (xp.asarray(each) for each in self._sums)
        return numerator, weight

    def plus(self, other: VolumeSums) -> Insertion:
        """Add others in place."""
        for mine, theirs in zip(self._sums, other.volumes(), strict=True):
            mine += to_host(theirs)
        return self

    def copy(self) -> Insertion:
        """Return sums that share nothing with these."""
        numerator, weight = self._sums
        return Insertion(numerator.copy(), weight.copy())

    def kept(self) -> Insertion:
        """Return these."""
        return self
