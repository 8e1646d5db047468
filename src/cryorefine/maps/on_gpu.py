"""What the inner loops of this package do on a GPU: the same sums and filters, many planes at a time.

On the processor these are cut into pieces that its cache holds. A GPU wants as much at once as its memory
holds, so here a step takes slabs of millions of voxels, and halves them where memory is short.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of, to_host

Array = Any  # of CuPy
F64 = NDArray[np.float64]
VOXELS = 2**24
"""Voxels of a slab; a step takes some 40 bytes for each."""

_MANTISSA = 52


def in_slabs(work: Callable[[slice], Any], length: int, voxels: int) -> list[Any]:
    """Call ``work`` on consecutive slices that cover ``range(length)``.

    Parameters
    ----------
    work : callable
        Takes a slice of the first axis; may be called twice for the same planes if it runs out of memory.
    length : int
        Length of the first axis.
    voxels : int
        Voxels of one plane.

    Returns
    -------
    list
        The results in order.
    """
    from cryorefine.compute.gpu_turns import free_memory

    planes, start = max(1, min(length, VOXELS // max(voxels, 1))), 0
    results = []
    while start < length:
        stop = min(start + planes, length)
        try:
            results.append(work(slice(start, stop)))
            start = stop
            continue
        except MemoryError:
            if planes == 1:
                raise
        # Only here is what the failed attempt held let go.
        planes //= 2
        free_memory()
    return results


def sum_by_bin(index: Array, values: Array, bins: int) -> F64:
    """Sum values by bin; the result does not depend on the order in which threads add.

    Every value is split into two whole numbers of so few bits that double precision adds them exactly.

    Parameters
    ----------
    index : ndarray of int
        Bin of each value; bin ``bins`` and higher ones are left out.
    values : ndarray of float32 or float64
        Of the same shape.
    bins : int
        Number of bins.

    Returns
    -------
    numpy.ndarray
        float64 on the processor, shape (bins,).
    """
    xp = module_of(values)
    index, values = index.ravel(), values.ravel().astype(np.float64)
    largest = float(abs(values).max()) if values.size else 0.0
    if largest == 0:
        return np.zeros(bins)
    if not math.isfinite(largest):
        return np.asarray(to_host(xp.bincount(index, values, bins)))[:bins]
    bits = _MANTISSA - int(values.size).bit_length()
    unit = math.ldexp(1.0, bits - math.frexp(largest)[1])
    values *= unit
    high = xp.rint(values)
    values -= high
    values *= math.ldexp(1.0, bits)
    low = xp.rint(values)
    sums = [to_host(xp.bincount(index, part, bins))[:bins] for part in (high, low)]
    return np.asarray((sums[0] + math.ldexp(1.0, -bits) * sums[1]) / unit)


def sums_over_shells(
    parts: Callable[[slice], tuple[Array, ...]],
    squares: tuple[NDArray[np.int64], ...],
    table: NDArray[Any],
    bins: int,
    xp: Any,
) -> F64:
    """Sum some real values of each voxel over bins of the squared radius.

    Parameters
    ----------
    parts : callable
        Returns the values of a slab of planes, arrays of shape (planes, rows, columns).
    squares : tuple of numpy.ndarray
        Squared indices of planes, rows and columns.
    table : numpy.ndarray
        Bin of each squared radius, ``bins`` for those that are left out.
    bins : int
        Number of bins.
    xp : module
        CuPy.

    Returns
    -------
    numpy.ndarray
        float64, shape (parts, bins).
    """
    planes, rows, columns = (xp.asarray(each.astype(np.int32)) for each in squares)
    within, lookup = rows[:, None] + columns, xp.asarray(np.asarray(table, np.int32))

    def work(slab: slice) -> F64:
        index = lookup[planes[slab, None, None] + within]
        return np.stack([sum_by_bin(index, values, bins) for values in parts(slab)])

    slabs = in_slabs(work, len(planes), within.size)
    return np.asarray(np.sum(slabs, axis=0))


def products(first: Array, second: Array) -> Callable[[slice], tuple[Array, ...]]:
    """Return what gives Re(conj(a) b), |a|^2 and |b|^2 of slabs of two spectra."""

    def parts(slab: slice) -> tuple[Array, ...]:
        a, b = first[slab], second[slab]
        pairs = ((a, b), (a, a), (b, b))
        return tuple(left.real * right.real + left.imag * right.imag for left, right in pairs)

    return parts


def multiply(spectrum: Array, gain: NDArray[Any], squares: tuple[NDArray[np.int64], ...], out: Array) -> None:
    """Multiply a spectrum by a gain for each squared radius, into an array that may be the spectrum.

    ``squares`` are those of planes, rows and columns, as for :func:`sums_over_shells`.
    """
    xp = module_of(spectrum)
    planes, rows, columns = (xp.asarray(each.astype(np.int32)) for each in squares)
    within, factors = rows[:, None] + columns, xp.asarray(gain.astype(spectrum.real.dtype))

    def work(slab: slice) -> None:
        factor = factors[planes[slab, None, None] + within]
        xp.multiply(spectrum[slab], factor, out=out[slab])

    in_slabs(work, len(spectrum), within.size)


def cropped_transform(values: Array, size: int, near: NDArray[np.int64], columns: int) -> Array:
    """Transform a map or a window, padded with zeros to a box, and keep some of its components.

    Parameters
    ----------
    values : ndarray
        Real, shape (z, y, x) or (y, x), no edge longer than the box.
    size : int
        Box.
    near : numpy.ndarray
        Positions of z and y that are kept.
    columns : int
        Components x that are kept, from 0 on.

    Returns
    -------
    ndarray
        Complex, shape (..., len(near), columns), scaled as by :func:`.fourier.forward`.
    """
    import cupyx.scipy.fft as fft

    xp = module_of(values)
    last = values.ndim - 1
    result = fft.rfft(values, size, axis=last, norm="forward")[..., :columns]
    for axis in range(last - 1, -1, -1):
        result = fft.fft(result, size, axis=axis, norm="forward")
        if len(near) < size:
            result = xp.take(result, xp.asarray(near), axis=axis)
    return result


def padded_inverse(spectrum: Array, size: int, near: NDArray[np.int64], window: tuple[slice, ...]) -> Array:
    """Undo :func:`cropped_transform` for the window (z, y, x) or (y, x) of the box."""
    import cupyx.scipy.fft as fft

    xp = module_of(spectrum)
    last = spectrum.ndim - 1
    for axis in range(last):
        if len(near) < size:
            shape = (*spectrum.shape[:axis], size, *spectrum.shape[axis + 1 :])
            padded = xp.zeros(shape, spectrum.dtype)
            padded[(slice(None),) * axis + (xp.asarray(near),)] = spectrum
            spectrum = padded
        spectrum = fft.ifft(spectrum, axis=axis, norm="forward")
        spectrum = spectrum[(slice(None),) * axis + (window[axis],)]
    return fft.irfft(spectrum, size, axis=last, norm="forward", overwrite_x=True)[..., window[last]]
