"""The independent Fourier pixels of an image: which of them a score, a slice or an insertion runs over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class HalfPlane:
    """Pixels (kx, ky) with kx >= 0 and radius <= size/2, each Friedel pair once, the origin first.

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
        Flat position of each pixel in ``numpy.fft.rfft2`` of a (box, box) image.
    """

    box: int
    size: int
    scale: float
    kx: NDArray[np.float32]
    ky: NDArray[np.float32]
    shell: NDArray[np.int32]
    source: NDArray[np.intp]

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return len(self.kx)

    def take(self, keep: NDArray[np.bool_]) -> HalfPlane:
        """Return the plane with only the pixels of a mask, shape (pixels,)."""
        if keep.all():
            return self
        return replace(
            self, kx=self.kx[keep], ky=self.ky[keep], shell=self.shell[keep], source=self.source[keep]
        )


@lru_cache(maxsize=16)
def half_plane(box: int, size: int, scale: float = 1.0) -> HalfPlane:
    """List the independent Fourier pixels of a (box, box) image up to radius size/2.

    Parameters
    ----------
    box : int
        Edge of the image in pixels (even).
    size : int
        Edge of the Fourier window; ``size == box`` reaches Nyquist.
    scale : float
        Shells of the reference per shell of the image, where their boxes differ in angstrom.
    """
    n = box // 2
    ky, kx = np.meshgrid(np.r_[0 : n + 1, -n + 1 : 0], np.arange(n + 1), indexing="ij")
    radius2 = kx * kx + ky * ky
    # The Friedel mates of (0, -ky) are (0, ky): keeping both would count them twice.
    inside = (radius2 <= (size / 2) ** 2) & ((kx > 0) | (ky >= 0))
    source = np.flatnonzero(inside)
    kx, ky = kx.ravel()[source], ky.ravel()[source]
    shell = np.floor(scale * np.sqrt(kx * kx + ky * ky) + 0.5).astype(np.int32)
    return HalfPlane(box, size, scale, kx.astype(np.float32), ky.astype(np.float32), shell, source)


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


def shift_phases(plane: HalfPlane, shifts: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Fourier factors that move an image's content by +shift.

    Parameters
    ----------
    plane : HalfPlane
        Pixels.
    shifts : ndarray, shape (..., 2)
        Shifts (x, y) in pixels.

    Returns
    -------
    ndarray of complex64, shape (..., pixels)
        exp(-2 pi i k.s / box).
    """
    cycles = (shifts[..., :1] * plane.kx + shifts[..., 1:] * plane.ky) / plane.box
    return np.exp(-2j * np.pi * cycles).astype(np.complex64)
