"""Fourier transforms between a small window of a map and the shells of the whole box.

A window padded with zeros to the whole box has the very components that the masked whole map has,
but most lines of the box are empty and most shells are not asked for. So each axis is transformed
only along lines that hold something and only for components within a radius, one plane of constant
x frequency at a time, which stays in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryorefine.maps.shells import logical_indices, shell_table


def window_sums(windows: NDArray[np.float32], size: int, shells: int) -> NDArray[np.float64]:
    """Return what the FSC of two windows is made of, in the shells of the whole box.

    Parameters
    ----------
    windows : numpy.ndarray
        The two masked windows, shape (2, z, y, x); zero in the rest of the box.
    size : int
        Box in voxels.
    shells : int
        Shells 0 to ``shells - 1`` are wanted, at most ``size // 2 + 1`` of them.

    Returns
    -------
    numpy.ndarray
        Sums of Re(conj(F1) F2), |F1|^2 and |F2|^2 as :func:`.shells.cross_sums` makes them from
        transforms that are not divided by the number of voxels; float64, shape (3, shells).
    """
    sums = np.zeros((3, shells))
    z2, table = logical_indices(size) ** 2, shell_table(size)
    planes = scipy.fft.rfft(windows, size, axis=3)[..., :shells]
    for x in range(planes.shape[3]):
        keep, squares = _lines(size, shells - 1, x)
        plane = np.ascontiguousarray(planes[..., x])
        lines: Any = scipy.fft.fft(plane, size, axis=2, overwrite_x=True)[:, :, keep]
        lines = scipy.fft.fft(np.ascontiguousarray(lines.transpose(0, 2, 1)), size, axis=2, overwrite_x=True)
        _line_sums(lines[0], lines[1], squares, z2, table, sums)
    return sums


def box_by_planes(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return a half-complex spectrum (z, y, x) as contiguous (x, y, z), for :func:`filtered_window`."""
    return np.ascontiguousarray(spectrum.transpose(2, 1, 0))


def filtered_window(
    planes: NDArray[np.complex64],
    gain: NDArray[np.float64],
    shells: int,
    window: tuple[slice, slice, slice],
) -> NDArray[np.float32]:
    """Filter a map and return a window of it, without the rest of the filtered map.

    Parameters
    ----------
    planes : numpy.ndarray
        Spectrum of the map (:func:`.fourier.forward`) as :func:`box_by_planes` arranges it.
    gain : numpy.ndarray
        Gain for each squared radius, as long as :func:`.shells.radius_table`; 0 in the shells from
        ``shells`` on.
    shells : int
        Number of shells that the filter passes, at least 1.
    window : tuple of slice
        Voxels (z, y, x).

    Returns
    -------
    numpy.ndarray
        float32, of the window's shape.
    """
    size = planes.shape[1]
    z2, factors = logical_indices(size) ** 2, gain.astype(np.float32)
    shape = tuple(part.stop - part.start for part in window)
    passed = min(shells, size // 2 + 1)
    columns = np.empty((shape[0], shape[1], passed), dtype=np.complex64)
    for x in range(passed):
        keep, squares = _lines(size, passed - 1, x)
        lines: NDArray[np.complex64] = np.zeros((len(keep), size), dtype=np.complex64)
        _filter_lines(planes[x], keep, squares, z2, factors, lines)
        lines = scipy.fft.ifft(lines, axis=1, norm="forward", overwrite_x=True)[:, window[0]]
        plane = np.zeros((shape[0], size), dtype=np.complex64)
        plane[:, keep] = lines.T
        columns[..., x] = scipy.fft.ifft(plane, axis=1, norm="forward", overwrite_x=True)[:, window[1]]
    rows: Any = scipy.fft.irfft(columns, size, axis=2, norm="forward", overwrite_x=True)
    return rows[..., window[2]]


def _lines(size: int, radius: int, x: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions on the y axis whose lines along z reach into ``radius``, and x^2 + y^2 of them."""
    squares = logical_indices(size) ** 2 + x * x
    keep = np.flatnonzero(squares < (radius + 0.5) ** 2)
    return keep, squares[keep]


@numba.njit(nogil=True, cache=True)
def _line_sums(first, second, squares, z2, table, sums):  # type: ignore[no-untyped-def]
    shells = sums.shape[1]
    for line in range(first.shape[0]):
        row = squares[line]
        for z in range(first.shape[1]):
            index = table[row + z2[z]]
            if index < shells:
                a, b = first[line, z], second[line, z]
                sums[0, index] += a.real * b.real + a.imag * b.imag
                sums[1, index] += a.real * a.real + a.imag * a.imag
                sums[2, index] += b.real * b.real + b.imag * b.imag


@numba.njit(nogil=True, cache=True)
def _filter_lines(plane, keep, squares, z2, gain, lines):  # type: ignore[no-untyped-def]
    for line in range(keep.shape[0]):
        y = keep[line]
        for z in range(plane.shape[1]):
            factor = gain[squares[line] + z2[z]]
            if factor != 0:
                lines[line, z] = plane[y, z] * factor
