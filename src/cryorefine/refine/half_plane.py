"""The independent Fourier pixels of an image: which of them a score, a slice or an insertion runs over.

A subtomogram is an image with a third dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class HalfPlane:
    """Pixels with kx >= 0 and radius <= size/2, each Friedel pair once, the origin first.

    Attributes
    ----------
    box, size : int
        Edge of the image, and edge of the window (the current size) in pixels.
    scale : float
        Shells of the reference per shell of the image.
    kx, ky : ndarray of float32, shape (pixels,)
        Logical Fourier indices.
    shell : ndarray of int32, shape (pixels,)
        Radius in shells of the reference, rounded half away from zero.
    source : ndarray of intp, shape (pixels,)
        Flat position of each pixel in ``numpy.fft.rfftn`` of a (box, box) or (box, box, box) image.
    kz : ndarray of float32, shape (pixels,) or (0,)
        Third index, of a volume's voxels; an image has none.
    """

    box: int
    size: int
    scale: float
    kx: NDArray[np.float32]
    ky: NDArray[np.float32]
    shell: NDArray[np.int32]
    source: NDArray[np.intp]
    kz: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def dimensions(self) -> int:
        """2 for an image, 3 for a volume."""
        return 3 if len(self.kz) else 2

    @property
    def indices(self) -> NDArray[np.float64]:
        """Fourier indices (kx, ky) or (kx, ky, kz), shape (pixels, dimensions)."""
        axes = (self.kx, self.ky, self.kz)[: self.dimensions]
        return np.stack(axes, axis=1).astype(np.float64)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return len(self.kx)

    def take(self, keep: NDArray[np.bool_]) -> HalfPlane:
        """Return the plane with only the pixels of a mask, shape (pixels,)."""
        if keep.all():
            return self
        return replace(
            self,
            kx=self.kx[keep],
            ky=self.ky[keep],
            shell=self.shell[keep],
            source=self.source[keep],
            kz=self.kz[keep] if len(self.kz) else self.kz,
        )


@lru_cache(maxsize=16)
def half_plane(box: int, size: int, scale: float = 1.0, dimensions: int = 2) -> HalfPlane:
    """List the independent Fourier pixels of a square or cubic image up to radius size/2.

    Parameters
    ----------
    box : int
        Edge of the image in pixels (even).
    size : int
        Edge of the Fourier window; ``size == box`` reaches Nyquist.
    scale : float
        Shells of the reference per shell of the image, where their boxes differ in angstrom.
    dimensions : int
        2 for an image, 3 for a volume.
    """
    n = box // 2
    whole = np.r_[0 : n + 1, -n + 1 : 0]
    axes = np.meshgrid(*[whole] * (dimensions - 1), np.arange(n + 1), indexing="ij")
    radius2 = sum(axis * axis for axis in axes)
    # Of the Friedel mates on the plane kx = 0, keeping both would count them twice.
    first = axes[-1] > 0
    undecided = axes[-1] == 0
    for axis in axes[-2::-1]:
        first |= undecided & (axis > 0)
        undecided &= axis == 0
    source = np.flatnonzero((radius2 <= (size / 2) ** 2) & (first | undecided))
    kx, ky, *rest = (axis.ravel()[source].astype(np.float32) for axis in axes[::-1])
    shell = np.floor(scale * np.sqrt(radius2.ravel()[source]) + 0.5).astype(np.int32)
    return HalfPlane(box, size, scale, kx, ky, shell, source, *rest)


def pixels_per_shell(plane: HalfPlane, shells: int) -> NDArray[np.int64]:
    """Count a plane's pixels in each of the reference's shells, shape (shells,)."""
    return np.bincount(plane.shell[plane.shell < shells], minlength=shells)


def sum_by_shell(plane: HalfPlane, values: NDArray[np.float32], shells: int) -> NDArray[np.float64]:
    """Sum each row of values (n, pixels) in the reference's shells, shape (n, shells)."""
    inside = plane.shell < shells
    return np.stack(
        [
            np.bincount(plane.shell[inside], row, minlength=shells).astype(np.float64)
            for row in values[:, inside]
        ]
    )


def shift_phases(plane: HalfPlane, shifts: NDArray[np.float64], xp: Any = np) -> NDArray[np.complex64]:
    """Fourier factors that move an image's content by +shift.

    Parameters
    ----------
    plane : HalfPlane
        Pixels.
    shifts : ndarray, shape (..., dimensions)
        Shifts (x, y) or (x, y, z) in pixels.
    xp : module
        Of the array that is returned.

    Returns
    -------
    ndarray of complex64, shape (..., pixels)
        exp(-2 pi i k.s / box).
    """
    # A factor of each axis has few values: a shift takes some tens of exponentials, not one a pixel.
    result: NDArray[np.complex64] = xp.ones((*shifts.shape[:-1], plane.pixels), np.complex64)
    for axis, index in enumerate((plane.kx, plane.ky, plane.kz)[: plane.dimensions]):
        lowest, highest = int(index.min()), int(index.max())
        steps = np.arange(lowest, highest + 1)
        factor = np.exp((-2j * np.pi / plane.box) * shifts[..., axis, None] * steps).astype(np.complex64)
        result *= xp.asarray(factor)[..., xp.asarray((index - lowest).astype(np.intp))]
    return result
