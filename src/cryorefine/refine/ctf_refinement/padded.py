"""Transforms of maps that fill only the middle of a padded box, without the rows and planes of zeros.

Arrays are in an FFT's layout with the centre of the map at voxel 0: what lies before the centre stands at
the far end of each axis, so the middle of the box is in the corners.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps import fft

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]


def transform_padded(density: F32, edge: int, threads: int) -> C64:
    """Transform a map as if it stood in the middle of a larger box of zeros.

    Parameters
    ----------
    density : ndarray of float32, shape (z, y, x)
        Cubic map with an even edge, its centre at half of that.
    edge : int
        Edge of the larger box.
    threads : int
        Threads of the FFT.

    Returns
    -------
    ndarray of complex64, shape (edge, edge, edge // 2 + 1)
        Divided by edge^3.
    """
    half = len(density) // 2
    spectrum = np.zeros((edge, edge, edge // 2 + 1), np.complex64)
    source = (slice(half, None), slice(0, half))
    for (z, y), (from_z, from_y) in zip(_corners(half, edge), product(source, source), strict=True):
        rows = np.zeros((half, half, edge), np.float32)
        rows[:, :, :half] = density[from_z, from_y, half:]
        rows[:, :, edge - half :] = density[from_z, from_y, :half]
        spectrum[z, y] = fft.real_forward(rows, (2,), threads)
    _forward(spectrum, half, threads)
    return spectrum


def multiply_in_place(spectrum: C64, window: F32, half: int, threads: int) -> None:
    """Multiply a padded map, given by its transform, with a window; the result is a transform again.

    Parameters
    ----------
    spectrum : ndarray of complex64, shape (n, n, n // 2 + 1)
        Changed in place.
    window : ndarray of float32, shape (n, n, n)
        0 at more than ``half`` voxels from the centre along any axis.
    half : int
        Half of the edge of what is not 0.
    threads : int
        Threads of the FFT.
    """
    edge = len(spectrum)
    fft.backward(spectrum, (0,), threads, spectrum)
    for z in (slice(0, half), slice(edge - half, edge)):
        fft.backward(spectrum[z], (1,), threads, spectrum[z])
    for z, y in _corners(half, edge):
        rows = fft.real_backward(spectrum[z, y], (2,), edge, threads)
        rows *= window[z, y]
        spectrum[z, y] = fft.real_forward(rows, (2,), threads)
    spectrum[half : edge - half] = 0
    for z in (slice(0, half), slice(edge - half, edge)):
        spectrum[z, half : edge - half] = 0
    _forward(spectrum, half, threads)


def _corners(half: int, edge: int) -> Iterator[tuple[slice, slice]]:
    """Yield where the middle of the box is, along z and y."""
    ends = (slice(0, half), slice(edge - half, edge))
    return product(ends, ends)


def _forward(spectrum: C64, half: int, threads: int) -> None:
    """Transform along y and z what is transformed along x already, in place."""
    edge = len(spectrum)
    for z in (slice(0, half), slice(edge - half, edge)):
        fft.forward(spectrum[z], (1,), threads, spectrum[z])
    fft.forward(spectrum, (0,), threads, spectrum)
