"""Shells of Fourier space: which one a voxel belongs to, and sums and averages over them.

Every array here is half-complex: the last axis holds x = 0..N/2, the others are in FFT order.
Sums run over the array as stored, so the plane x = 0 counts both Friedel mates, as in RELION.

The squared radius of a Fourier voxel is an integer, so whatever depends on the radius alone is a
short table indexed by it: see :func:`shell_table` and :func:`radius_table`. It is the same at y and
-y and at z and -z, so sums first add these four up, which NumPy does as fast as memory allows; what
is left to be sorted into shells is a quarter. Compiled kernels would be faster by hundredths of a
second and take half a second to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of
from cryorefine.maps import on_gpu
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
    """Sum a half-complex array, or the modulus of a complex one, over shells.

    Parameters
    ----------
    values : numpy.ndarray
        Real or complex, shape (..., y, x // 2 + 1).
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
    stack, size = _as_stack(values)
    table = shell_table(size, values.ndim) if table is None else table
    bins = size // 2 + 1 if bins is None else bins
    clipped, squares = clipped_table(table, bins), plane_squares(size)
    counts = np.bincount(clipped, voxels_by_squared_radius(size, values.ndim), bins + 1)
    stored = np.rint(counts[:bins]).astype(np.int64)
    if is_on_gpu(values):
        xp = module_of(values)
        of_axes = axis_squares(len(stack), size)
        return on_gpu.sums_over_shells(lambda slab: (_modulus(stack[slab]),), of_axes, clipped, bins, xp)[
            0
        ], stored

    def work(slab: slice) -> NDArray[np.float64]:
        sums = np.zeros(bins + 1)
        for z in range(slab.start, slab.stop):
            planes = [stack[i] for i in mates(z, len(stack))]
            folded = _folded(np.sum([_modulus(plane) for plane in planes], axis=0))
            sums += np.bincount(clipped[squares + z * z].ravel(), folded.ravel(), bins + 1)
        return sums

    sums = np.sum(over_slabs(work, len(stack) // 2 + 1, threads), axis=0)
    return sums[:bins], stored


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
    """Sum a half-complex array, or the modulus of a complex one, over voxels of equal squared radius.

    From these sums the average over shells follows for any isotropic filter without another pass
    over the map (:func:`cryorefine.maps.sharpen.guinier_points`).
    """
    size = values.shape[-2]
    identity = np.arange(len(shell_table(size, values.ndim)), dtype=np.int32)
    return radial_sums(values, identity, len(identity), threads)


def cross_sums(
    first: NDArray[Any], second: NDArray[Any], threads: int = 0, corners: bool = False
) -> NDArray[np.float64]:
    """Sum Re(conj(F1) F2), |F1|^2 and |F2|^2 over shells 0..size/2.

    Parameters
    ----------
    first, second : numpy.ndarray
        Complex, both of shape (..., y, x // 2 + 1).
    threads : int
        0 for every core.
    corners : bool
        Whether to go on to the shells in the corners of the box.

    Returns
    -------
    numpy.ndarray
        float64, shape (3, size // 2 + 1), or (3, highest shell + 1) with the corners.
    """
    if first.shape != second.shape:
        raise ValueError(f"spectra of different shapes: {first.shape} and {second.shape}")
    a, size = _as_stack(first)
    b, _ = _as_stack(second)
    table = shell_table(size, first.ndim)
    bins = int(table[-1]) + 1 if corners else size // 2 + 1
    clipped, squares = clipped_table(table, bins), plane_squares(size)
    if is_on_gpu(first):
        of_axes = axis_squares(len(a), size)
        return on_gpu.sums_over_shells(on_gpu.products(a, b), of_axes, clipped, bins, module_of(a))

    def work(slab: slice) -> NDArray[np.float64]:
        sums = ProductSums(bins)
        for z in range(slab.start, slab.stop):
            places = mates(z, len(a))
            sums.add([a[i] for i in places], [b[i] for i in places], clipped[squares + z * z])
        return sums.result()

    return np.sum(over_slabs(work, len(a) // 2 + 1, threads), axis=0)


class ProductSums:
    """Sums of Re(conj(a) b), |a|^2 and |b|^2 of two spectra over bins, gathered plane by plane.

    Parameters
    ----------
    bins : int
        Number of bins; what falls into bin ``bins`` is left out.
    """

    def __init__(self, bins: int) -> None:
        self._sums = np.zeros((3, bins + 1))
        self._room = np.empty(0)

    def add(self, first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]], bins: NDArray[Any]) -> None:
        """Add one plane of each spectrum, or a few of the same squared radii.

        Parameters
        ----------
        first, second : sequence of numpy.ndarray
            Complex, contiguous, shape (rows, columns), rows in FFT order.
        bins : numpy.ndarray
            Bin of each place in the rows 0..rows/2, shape (rows // 2 + 1, columns).
        """
        flat = bins.ravel()
        # Real and imaginary parts lie side by side.
        a, b = ([plane.view(plane.real.dtype) for plane in planes] for planes in (first, second))
        if self._room.size < 2 * a[0].size or self._room.dtype != a[0].dtype:
            # Fresh memory for each product would take longer than the products.
            self._room = np.empty(2 * a[0].size, dtype=a[0].dtype)
        total, product = self._room[: 2 * a[0].size].reshape(2, *a[0].shape)
        for sums, left, right in zip(self._sums, (a, a, b), (b, a, b), strict=True):
            np.multiply(left[0], right[0], out=total)
            for x, y in zip(left[1:], right[1:], strict=True):
                total += np.multiply(x, y, out=product)
            folded = _folded(total)
            sums += np.bincount(flat, (folded[:, ::2] + folded[:, 1::2]).ravel(), len(sums))

    def result(self) -> NDArray[np.float64]:
        """Return the sums, float64 of shape (3, bins)."""
        return self._sums[:, :-1]


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
    stack, size = _as_stack(spectrum)
    if len(gain) != len(shell_table(size, spectrum.ndim)):
        raise ValueError(f"gain of length {len(gain)} for a spectrum of shape {spectrum.shape}")
    if is_on_gpu(spectrum):
        on_gpu.multiply(stack, gain, axis_squares(len(stack), size), out=stack)
        return spectrum
    # Twice the same, for the real and the imaginary part beside it.
    squares = np.repeat(plane_squares(size), 2, axis=1)
    factors = gain.astype(stack.real.dtype)
    half = size // 2 + 1

    def work(slab: slice) -> None:
        for z in range(slab.start, slab.stop):
            factor = factors[squares + z * z]
            for i in mates(z, len(stack)):
                plane = stack[i].view(factor.dtype)
                plane[:half] *= factor
                plane[half:] *= factor[size - half : 0 : -1]

    over_slabs(work, len(stack) // 2 + 1, threads)
    return spectrum


@lru_cache(maxsize=16)
def voxels_by_squared_radius(size: int, ndim: int = 3, whole: bool = False) -> NDArray[np.float64]:
    """Return how many voxels of a half-complex array have each squared radius.

    Parameters
    ----------
    size : int
        Box size in pixels.
    ndim : int
        2 for images, 3 for maps.
    whole : bool
        Count the voxels of the whole transform, in which every component has its mate.

    Returns
    -------
    numpy.ndarray
        float64, as long as :func:`radius_table`.
    """
    full = np.bincount(np.abs(logical_indices(size)))
    counts = np.ones(1)
    for axis in range(ndim):
        along = full if axis < ndim - 1 or whole else np.ones_like(full)
        longer = np.zeros(len(counts) + (size // 2) ** 2)
        for index, number in enumerate(along):
            longer[index * index : index * index + len(counts)] += number * counts
        counts = longer
    counts.flags.writeable = False
    return counts


def plane_squares(size: int) -> NDArray[np.int64]:
    """Return x^2 + y^2 in the half y >= 0 of a half-complex plane, shape (size // 2 + 1, size // 2 + 1)."""
    squares = np.arange(size // 2 + 1) ** 2
    return squares[:, None] + squares


def axis_squares(depth: int, size: int) -> tuple[NDArray[np.int64], ...]:
    """Return z^2, y^2 and x^2 along the axes of a half-complex array of so many planes."""
    squares = logical_indices(size) ** 2
    return logical_indices(depth) ** 2, squares, np.arange(size // 2 + 1) ** 2


def clipped_table(table: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """Return a table in which every bin from ``bins`` on has become that one, which is then left out."""
    return np.minimum(table, bins).astype(np.int64)


def mates(z: int, depth: int) -> tuple[int, ...]:
    """Return the positions of z and -z on an FFT axis."""
    return (z,) if z == 0 or 2 * z == depth else (z, depth - z)


def _folded(plane: NDArray[Any]) -> NDArray[Any]:
    """Add the rows of -y to those of y, in place, and return these: shape (rows // 2 + 1, columns)."""
    rows = len(plane)
    half = rows // 2 + 1
    plane[1 : rows - half + 1] += plane[: half - 1 : -1]
    return plane[:half]


def _modulus(values: Any) -> Any:
    """Return the modulus of complex values, and real ones as they are."""
    return abs(values) if values.dtype.kind == "c" else values


def _box_size(shape: tuple[int, ...]) -> int:
    if len(shape) not in (2, 3) or len(set(shape)) != 1:
        raise ValueError(f"shells need a square image or a cubic map, not shape {shape}")
    return shape[0]


def _as_stack(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """View as (z, y, x), so that images and maps are worked on alike, and return the size of the box."""
    size = values.shape[-2]
    if values.ndim not in (2, 3) or values.shape[-1] != size // 2 + 1 or values.shape[0] != size:
        raise ValueError(f"not the half-complex array of a square image or a cubic map: {values.shape}")
    return values if values.ndim == 3 else values[None], size
