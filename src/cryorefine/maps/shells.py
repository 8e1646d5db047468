"""Shells of Fourier space: which one a voxel belongs to, and sums and averages over them.

Every array here is half-complex: the last axis holds x = 0..N/2, the others are in FFT order.
Sums run over the array as stored, so the plane x = 0 counts both Friedel mates, as in RELION.

The squared radius of a Fourier voxel is an integer, so whatever depends on the radius alone is a
short table indexed by it: see :func:`shell_table` and :func:`radius_table`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.maps.slabs import over_slabs


def round_half_away(values: ArrayLike) -> NDArray[np.float64]:
    """Round to the nearest integer, halves away from zero.

    ``numpy.rint`` rounds halves to even, which would move voxels at exactly half a shell.
    """
    array = np.asarray(values, dtype=np.float64)
    return np.copysign(np.floor(np.abs(array) + 0.5), array)


def logical_indices(size: int) -> NDArray[np.int64]:
    """Return the frequency index of each position of an FFT axis; Nyquist is ``+size/2``.

    Examples
    --------
    >>> logical_indices(6)
    array([ 0,  1,  2,  3, -2, -1])
    """
    index = np.arange(size)
    return np.where(index < size // 2 + 1, index, index - size)


@lru_cache(maxsize=16)
def radius_table(size: int, ndim: int = 3) -> NDArray[np.float64]:
    """Return the radius for every squared radius that occurs, ``sqrt(0, 1, 2, ...)``, in Fourier pixels."""
    table = np.sqrt(np.arange(ndim * (size // 2) ** 2 + 1, dtype=np.float64))
    table.flags.writeable = False
    return table


@lru_cache(maxsize=16)
def shell_table(size: int, ndim: int = 3) -> NDArray[np.int32]:
    """Return the shell (rounded radius) for every squared radius that occurs.

    Parameters
    ----------
    size : int
        Box size in pixels.
    ndim : int
        2 for images, 3 for maps.

    Returns
    -------
    numpy.ndarray
        int32 of shape (ndim * (size // 2)**2 + 1,); the index is the squared radius.
    """
    table = np.floor(radius_table(size, ndim) + 0.5).astype(np.int32)
    table.flags.writeable = False
    return table


def squared_radius(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the squared Fourier radius of each voxel of a half-complex array.

    Parameters
    ----------
    shape : tuple of int
        Shape of the real array, (y, x) or (z, y, x), all the same size.

    Returns
    -------
    numpy.ndarray
        int32 of shape (..., y, x // 2 + 1).
    """
    size = _box_size(shape)
    squares = (logical_indices(size) ** 2).astype(np.int32)
    result = squares[: size // 2 + 1]
    for _ in shape[1:]:
        result = squares.reshape(-1, *[1] * result.ndim) + result
    return result


def shell_index(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the shell of each voxel of the half-complex array of a real array of this shape.

    Returns
    -------
    numpy.ndarray
        int32 of shape (..., y, x // 2 + 1), radius rounded half away from zero.
    """
    return shell_table(_box_size(shape), len(shape))[squared_radius(shape)]


def shell_frequencies(size: int, pixel_size: float) -> NDArray[np.float64]:
    """Return the spatial frequency of shells 0..size/2 in 1/A."""
    return np.arange(size // 2 + 1) / (size * pixel_size)


def radial_sums(
    values: NDArray[Any], table: NDArray[np.int32] | None = None, bins: int | None = None, threads: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum a real half-complex array over shells.

    Parameters
    ----------
    values : numpy.ndarray
        Real, shape (..., y, x // 2 + 1).
    table : numpy.ndarray, optional
        Bin of each squared radius; the shell table unless given.
    bins : int, optional
        Number of bins; voxels in higher bins are left out. Unless given, shells 0..size/2.
    threads : int
        0 for every core.

    Returns
    -------
    sums : numpy.ndarray
        float64, shape (bins,).
    counts : numpy.ndarray
        Number of stored voxels, int64, shape (bins,).
    """
    stack, squares, size = _as_stack(values)
    if table is None:
        table = shell_table(size, values.ndim)
    if bins is None:
        bins = size // 2 + 1

    def work(slab: slice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        sums, counts = np.zeros(bins), np.zeros(bins, dtype=np.int64)
        _sum_kernel(stack[slab], squares[0][slab], squares[1], table, sums, counts)
        return sums, counts

    parts = over_slabs(work, len(stack), threads)
    return np.sum([part[0] for part in parts], axis=0), np.sum([part[1] for part in parts], axis=0)


def radial_average(values: NDArray[Any], threads: int = 0) -> NDArray[np.float64]:
    """Average a real half-complex array over shells 0..size/2.

    Returns
    -------
    numpy.ndarray
        float64, shape (size // 2 + 1,).
    """
    sums, counts = radial_sums(values, threads=threads)
    return sums / np.maximum(counts, 1)


def sums_by_squared_radius(
    values: NDArray[Any], threads: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum a real half-complex array over voxels of equal squared radius.

    From these sums the average over shells follows for any isotropic filter without another pass
    over the map (:func:`cryorefine.maps.sharpen.guinier_points`).
    """
    size = values.shape[-2]
    identity = np.arange(len(shell_table(size, values.ndim)), dtype=np.int32)
    return radial_sums(values, identity, len(identity), threads)


def cross_sums(first: NDArray[Any], second: NDArray[Any], threads: int = 0) -> NDArray[np.float64]:
    """Sum Re(conj(F1) F2), |F1|^2 and |F2|^2 over shells 0..size/2.

    Parameters
    ----------
    first, second : numpy.ndarray
        Complex, both of shape (..., y, x // 2 + 1).
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        float64, shape (3, size // 2 + 1).
    """
    if first.shape != second.shape:
        raise ValueError(f"spectra of different shapes: {first.shape} and {second.shape}")
    a, squares, size = _as_stack(first)
    b = _as_stack(second)[0]
    table = shell_table(size, first.ndim)

    def work(slab: slice) -> NDArray[np.float64]:
        sums = np.zeros((3, size // 2 + 1))
        _cross_kernel(a[slab], b[slab], squares[0][slab], squares[1], table, sums)
        return sums

    return np.sum(over_slabs(work, len(a), threads), axis=0)


def apply_gain(spectrum: NDArray[Any], gain: NDArray[np.float64], threads: int = 0) -> NDArray[Any]:
    """Multiply a half-complex array, in place, by an isotropic gain.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Shape (..., y, x // 2 + 1); changed in place and returned.
    gain : numpy.ndarray
        Gain for each squared radius, as long as :func:`radius_table`.
    threads : int
        0 for every core.
    """
    stack, squares, size = _as_stack(spectrum)
    if len(gain) != len(shell_table(size, spectrum.ndim)):
        raise ValueError(f"gain of length {len(gain)} for a spectrum of shape {spectrum.shape}")
    gain = np.ascontiguousarray(gain, dtype=stack.real.dtype)
    over_slabs(lambda s: _gain_kernel(stack[s], squares[0][s], squares[1], gain), len(stack), threads)
    return spectrum


def _box_size(shape: tuple[int, ...]) -> int:
    if len(shape) not in (2, 3) or len(set(shape)) != 1:
        raise ValueError(f"shells need a square image or a cubic map, not shape {shape}")
    return shape[0]


def _as_stack(
    values: NDArray[Any],
) -> tuple[NDArray[Any], tuple[NDArray[np.int64], NDArray[np.int64]], int]:
    """View as (z, y, x), with the squared z and y indices, so that one kernel serves images and maps."""
    size = values.shape[-2]
    if values.ndim not in (2, 3) or values.shape[-1] != size // 2 + 1 or values.shape[0] != size:
        raise ValueError(f"not the half-complex array of a square image or a cubic map: {values.shape}")
    squares = logical_indices(size) ** 2
    if values.ndim == 2:
        return values[None], (np.zeros(1, dtype=np.int64), squares), size
    return values, (squares, squares), size


@numba.njit(nogil=True, cache=True)
def _sum_kernel(values, z2, y2, table, sums, counts):  # type: ignore[no-untyped-def]
    for z in range(values.shape[0]):
        for y in range(values.shape[1]):
            row = z2[z] + y2[y]
            for x in range(values.shape[2]):
                index = table[row + x * x]
                if index < sums.shape[0]:
                    sums[index] += values[z, y, x]
                    counts[index] += 1


@numba.njit(nogil=True, cache=True)
def _cross_kernel(first, second, z2, y2, table, sums):  # type: ignore[no-untyped-def]
    for z in range(first.shape[0]):
        for y in range(first.shape[1]):
            row = z2[z] + y2[y]
            for x in range(first.shape[2]):
                index = table[row + x * x]
                if index < sums.shape[1]:
                    a, b = first[z, y, x], second[z, y, x]
                    sums[0, index] += a.real * b.real + a.imag * b.imag
                    sums[1, index] += a.real * a.real + a.imag * a.imag
                    sums[2, index] += b.real * b.real + b.imag * b.imag


@numba.njit(nogil=True, cache=True)
def _gain_kernel(spectrum, z2, y2, gain):  # type: ignore[no-untyped-def]
    for z in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            row = z2[z] + y2[y]
            for x in range(spectrum.shape[2]):
                spectrum[z, y, x] *= gain[row + x * x]
