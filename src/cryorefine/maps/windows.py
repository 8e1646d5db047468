"""Fourier transforms between a window of a map and the shells of the whole box.

A window padded with zeros to the whole box has the very components that the masked whole map has,
but most lines of the box are empty and most shells are not asked for. So each axis is transformed
only along lines that hold something and only for components within a radius, a plane at a time,
which stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of
from cryorefine.maps import fft, on_gpu
from cryorefine.maps.shells import (
    ProductSums,
    clipped_table,
    logical_indices,
    mates,
    plane_squares,
    shell_table,
)
from cryorefine.maps.slabs import over_slabs


def window_sums(
    windows: Iterable[NDArray[Any]], mask: NDArray[Any], size: int, shells: int, threads: int = 1
) -> NDArray[np.float64]:
    """Return what the FSC of two masked windows is made of, in the shells of the whole box.

    Parameters
    ----------
    windows : iterable of numpy.ndarray
        The windows of two maps, shape (z, y, x), or of one that is correlated with itself. Each is
        asked for when the one before it has been transformed, and may then be gone.
    mask : numpy.ndarray
        What both are multiplied by, same shape; the rest of the box counts as zero.
    size : int
        Box in voxels.
    shells : int
        Shells 0 to ``shells - 1`` are wanted, at most ``size // 2 + 1`` of them.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Sums of Re(conj(F1) F2), |F1|^2 and |F2|^2 as :func:`.shells.cross_sums` makes them from
        transforms of :func:`.fourier.forward`; float64, shape (3, shells).
    """
    # Where in the box the windows lie changes the phases of both in the same way: nothing here.
    if is_on_gpu(mask):
        index = logical_indices(size)
        near = np.flatnonzero(np.abs(index) < shells)
        there = [on_gpu.cropped_transform(window * mask, size, near, shells) for window in windows]
        of_axes = index[near] ** 2, index[near] ** 2, np.arange(shells) ** 2
        products = on_gpu.products(there[0], there[-1])
        bins = clipped_table(shell_table(size), shells)
        return on_gpu.sums_over_shells(products, of_axes, bins, shells, module_of(mask))
    spectra = [_planes_of(window, mask, size, shells, threads) for window in windows]
    bins, squares = clipped_table(shell_table(size), shells), plane_squares(size)

    def work(slab: slice) -> NDArray[np.float64]:
        sums = ProductSums(shells)
        depth = len(spectra[0])
        padded = np.zeros((size, shells), dtype=spectra[0].dtype)
        for y in range(slab.start, slab.stop):
            width = _width(shells, y)
            lines: list[list[NDArray[Any]]] = [[] for _ in spectra]
            for planes, transformed in zip(spectra, lines, strict=True):
                for row in mates(y, size):
                    padded[:depth, :width] = planes[:, row, :width]
                    transformed.append(fft.forward(padded[:, :width], (0,)))
            sums.add(lines[0], lines[-1], bins[squares[:, :width] + y * y])
        return sums.result()

    return np.sum(over_slabs(work, shells, threads), axis=0)


def filtered_window(
    spectrum: NDArray[Any],
    gain: NDArray[np.float64],
    shells: int,
    window: tuple[slice, ...],
    threads: int = 1,
    overwrite: bool = False,
) -> NDArray[Any]:
    """Filter a map and return a window of it, without the rest of the filtered map.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Of the map (:func:`.fourier.forward`), shape (z, y, x // 2 + 1).
    gain : numpy.ndarray
        Gain for each squared radius, as long as :func:`.shells.radius_table`; 0 in the shells from
        ``shells`` on.
    shells : int
        Number of shells that the filter passes, at least 1.
    window : tuple of slice
        Voxels (z, y, x).
    threads : int
        0 for every core.
    overwrite : bool
        Whether to work in the memory of the spectrum, which is lost, where that saves memory: on the
        processor, for a window as deep as the box.

    Returns
    -------
    numpy.ndarray
        Real, of the window's shape.
    """
    size = len(spectrum)
    factors, squares = gain.astype(spectrum.real.dtype), plane_squares(size)
    depth, height, width = (part.stop - part.start for part in window)
    kept = min(shells, size // 2 + 1)  # the corners reach further
    near = np.abs(logical_indices(size))
    if is_on_gpu(spectrum):
        rows = np.flatnonzero(near < kept)
        part = spectrum[:, :, :kept]
        if len(rows) < size:
            there = module_of(spectrum).asarray(rows)
            part = part[there[:, None], there]
        filtered = module_of(spectrum).empty(part.shape, spectrum.dtype)
        of_axes = near[rows] ** 2, near[rows] ** 2, np.arange(kept) ** 2
        on_gpu.multiply(part, gain, of_axes, out=filtered)
        return on_gpu.padded_inverse(filtered, size, rows, window)
    overwrite = overwrite and depth == size
    if overwrite:
        planes = spectrum[:, :, :kept]
        planes[:, near >= kept] = 0
    else:
        planes = np.zeros((depth, size, kept), dtype=spectrum.dtype)

    def across(slab: slice) -> None:
        for y in range(slab.start, slab.stop):
            reach = min(_width(shells, y), kept)
            factor = factors[squares[near, :reach] + y * y]
            for row in mates(y, size):
                lines = spectrum[:, row, :reach] * factor
                planes[:, row, :reach] = fft.backward(lines, (0,), out=lines)[window[0]]
                if overwrite:
                    planes[:, row, reach:] = 0

    over_slabs(across, kept, threads)
    result = np.empty((depth, height, width), dtype=factors.dtype)

    def within(slab: slice) -> None:
        padded = np.zeros((height, size // 2 + 1), dtype=planes.dtype)
        for z in range(slab.start, slab.stop):
            rows = fft.backward(planes[z], (0,), out=planes[z])[window[1]]
            padded[:, :kept] = rows
            result[z] = fft.real_backward(padded, (1,), size)[:, window[2]]

    over_slabs(within, depth, threads)
    return result


def _planes_of(
    window: NDArray[Any], mask: NDArray[Any], size: int, shells: int, threads: int
) -> NDArray[Any]:
    """Transform x and y of a masked window of the box; shape (planes of the window, size, shells)."""
    real = np.result_type(window, mask, np.float32)
    planes = np.empty((len(window), size, shells), dtype=np.result_type(real, np.complex64))
    _, height, width = window.shape

    def work(slab: slice) -> None:
        rows, columns = np.zeros((height, size), dtype=real), np.zeros((size, shells), dtype=planes.dtype)
        for z in range(slab.start, slab.stop):
            np.multiply(window[z], mask[z], out=rows[:, :width])
            columns[:height] = fft.real_forward(rows, (1,))[:, :shells]
            fft.forward(columns, (0,), out=planes[z])

    over_slabs(work, len(window), threads)
    return planes


def _width(shells: int, y: int) -> int:
    """Return how many columns x of row y reach into the shells."""
    return int(np.sqrt((shells - 0.5) ** 2 - y * y)) + 1
