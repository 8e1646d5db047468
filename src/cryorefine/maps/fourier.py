"""Fourier transforms of maps and images: rescaling by cropping and padding, shifts, boxes.

The forward transform divides by the number of voxels, so the origin of Fourier space holds the
mean and grey values survive a change of box. The origin of a map is voxel ``floor(N / 2)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cryorefine.compute.array_module import is_on_gpu
from cryorefine.maps import fft, on_gpu
from cryorefine.maps.shells import logical_indices, squared_radius
from cryorefine.maps.slabs import over_slabs, thread_count

_PLANES = 4
"""Planes transformed at a time: they stay in the cache, and memory stays small."""


def forward(volume: NDArray[Any], threads: int = 0) -> NDArray[Any]:
    """Transform a real map or image; the result is divided by the number of voxels.

    Parameters
    ----------
    volume : numpy.ndarray
        Real, shape (z, y, x) or (y, x). float32 gives complex64, float64 complex128.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Complex, shape (..., y, x // 2 + 1).
    """
    return fft.real_forward(volume, tuple(range(volume.ndim)), thread_count(threads))


def inverse(spectrum: NDArray[Any], size: int, threads: int = 0, overwrite: bool = False) -> NDArray[Any]:
    """Undo :func:`forward`; ``size`` is the length of x, which the half-complex array does not tell."""
    axes, workers = tuple(range(spectrum.ndim)), thread_count(threads)
    spectrum = fft.backward(spectrum, axes[:-1], workers, spectrum if overwrite else None)
    return fft.real_backward(spectrum, axes[-1:], size, workers)


def forward_cropped(
    volume: NDArray[Any], size: int, threads: int = 0, precision: DTypeLike | None = None
) -> NDArray[Any]:
    """Transform a map and keep only the components of a smaller box.

    Works plane by plane and crops after each axis, which saves most of the work and memory where
    ``size`` is small. The Nyquist planes of the new box are those at ``+size/2`` of the old one.

    Parameters
    ----------
    volume : numpy.ndarray
        Real, shape (n, n, n) or (n, n).
    size : int
        New box, at most n.
    threads : int
        0 for every core.
    precision : dtype, optional
        Real type in which to work, that of ``volume`` unless given. The volume may be a memory map:
        a few planes are in memory at a time.

    Returns
    -------
    numpy.ndarray
        Complex, shape (..., size, size // 2 + 1), scaled as by :func:`forward`.
    """
    old = volume.shape[-1]
    if size > old:
        raise ValueError(f"cannot crop a box of {old} to {size}")
    keep = logical_indices(size) % old
    if is_on_gpu(volume):
        values = volume.astype(precision or volume.dtype, copy=False)
        return on_gpu.cropped_transform(values, old, keep, size // 2 + 1)
    planes = volume if volume.ndim == 3 else volume[None]
    precision = precision or volume.dtype
    spectrum = np.empty((len(planes), size, size // 2 + 1), dtype=np.result_type(precision, np.complex64))

    def work(slab: slice) -> None:
        for start in range(slab.start, slab.stop, _PLANES):
            part = slice(start, min(start + _PLANES, slab.stop))
            values = planes[part].astype(precision, copy=False)
            rows = fft.real_forward(values, (2,))[:, :, : size // 2 + 1]
            spectrum[part] = fft.forward(rows, (1,))[:, keep]

    over_slabs(work, len(planes), threads)
    if volume.ndim == 2:
        return spectrum[0]
    workers = thread_count(threads)
    spectrum = fft.forward(spectrum, (0,), workers, out=spectrum)
    return spectrum if size == old else spectrum[keep]


def inverse_padded(spectrum: NDArray[Any], size: int, threads: int = 0) -> NDArray[Any]:
    """Inverse transform into a larger box; components that are not there are zero.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Complex, shape (m, m, m // 2 + 1) or (m, m // 2 + 1).
    size : int
        New box, at least m.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Real, shape (size, size, size) or (size, size).
    """
    if is_on_gpu(spectrum):
        near = logical_indices(spectrum.shape[-2]) % size
        return on_gpu.padded_inverse(spectrum, size, near, (slice(None),) * spectrum.ndim)
    if spectrum.ndim == 2:
        return padded_planes(spectrum[None], size, 0, 1)[0]
    planes = inverse_padded_in_z(spectrum, size, threads)
    volume = np.empty((size,) * 3, dtype=spectrum.real.dtype)

    def work(slab: slice) -> None:
        for start in range(slab.start, slab.stop, _PLANES):
            stop = min(start + _PLANES, slab.stop)
            volume[start:stop] = padded_planes(planes, size, start, stop)

    over_slabs(work, size, threads)
    return volume


def inverse_padded_in_z(spectrum: NDArray[Any], size: int, threads: int = 0) -> NDArray[Any]:
    """Do the first step of :func:`inverse_padded`: shape (m, m, m // 2 + 1) gives (size, m, m // 2 + 1)."""
    small = spectrum.shape[-2]
    if size < small:
        raise ValueError(f"cannot pad a box of {small} to {size}")
    planes = np.zeros((size, *spectrum.shape[1:]), dtype=spectrum.dtype)
    planes[logical_indices(small) % size] = spectrum
    workers = thread_count(threads)
    return fft.backward(planes, (0,), workers, out=planes)


def padded_planes(planes: NDArray[Any], size: int, start: int, stop: int) -> NDArray[Any]:
    """Do the rest of :func:`inverse_padded` for the planes from ``start`` up to ``stop``."""
    if size < planes.shape[1]:
        raise ValueError(f"cannot pad a box of {planes.shape[1]} to {size}")
    columns = np.zeros((stop - start, size, planes.shape[2]), dtype=planes.dtype)
    columns[:, logical_indices(planes.shape[1]) % size] = planes[start:stop]
    rows = np.zeros((stop - start, size, size // 2 + 1), dtype=planes.dtype)
    rows[..., : planes.shape[2]] = fft.backward(columns, (1,), out=columns)
    return fft.real_backward(rows, (2,), size)


def rescale(volume: NDArray[Any], size: int, threads: int = 0) -> NDArray[Any]:
    """Resample a map or image onto ``size`` voxels along each axis by cropping or padding in Fourier space.

    When enlarging, only the sphere up to the old Nyquist frequency is kept. Grey values keep their
    scale. No other filter is applied, so sharp features ring at the new Nyquist frequency.

    Parameters
    ----------
    volume : numpy.ndarray
        Real, cubic (z, y, x) or square (y, x).
    size : int
        New box.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Real, same precision, shape (size, ...).
    """
    old = volume.shape[-1]
    if size == old:
        return volume.copy()
    if size < old:
        return inverse(forward_cropped(volume, size, threads), size, threads, overwrite=True)
    spectrum = forward(volume, threads)
    spectrum[squared_radius(volume.shape) > (old // 2) ** 2] = 0
    return inverse_padded(spectrum, size, threads)


def rescaled_size(size: int, pixel_size: float, new_pixel_size: float) -> tuple[int, float]:
    """Return the even box, and its true pixel size, nearest to a wanted pixel size.

    The box is rounded to the nearest integer (halves up) and then down to an even number, so the
    pixel size that comes out differs a little from the one asked for.

    Examples
    --------
    >>> rescaled_size(600, 1.04, 1.0)
    (624, 1.0)
    """
    new = int(np.floor(size * pixel_size / new_pixel_size + 0.5))
    new -= new % 2
    if new < 2:
        raise ValueError(f"a box of {size} px of {pixel_size} A has no even box at {new_pixel_size} A/px")
    return new, size * pixel_size / new


def shift(volume: NDArray[Any], offset: Sequence[float], threads: int = 0) -> NDArray[Any]:
    """Move the content by ``offset`` pixels, (z, y, x) or (y, x), with wrap-around, by Fourier phases."""
    if len(offset) != volume.ndim:
        raise ValueError(f"{len(offset)} shifts for an array of {volume.ndim} axes")
    spectrum = forward(volume, threads)
    for axis, distance in enumerate(offset):
        length = volume.shape[axis]
        last = axis == volume.ndim - 1
        index = np.arange(length // 2 + 1) if last else logical_indices(length)
        factor = np.exp(-2j * np.pi * index * distance / length)
        if length % 2 == 0:
            # The Nyquist component is its own mate and has to stay real.
            factor[length // 2] = np.cos(np.pi * distance)
        spectrum *= factor.astype(spectrum.dtype).reshape(-1, *[1] * (volume.ndim - 1 - axis))
    return inverse(spectrum, volume.shape[-1], threads, overwrite=True)


def new_box(volume: NDArray[Any], size: int, fill: float = 0.0) -> NDArray[Any]:
    """Cut out or pad about the centre voxel ``floor(N / 2)`` to ``size`` voxels along each axis.

    Parameters
    ----------
    volume : numpy.ndarray
        Shape (z, y, x) or (y, x).
    size : int
        New box.
    fill : float
        Value of voxels outside the old box.

    Returns
    -------
    numpy.ndarray
        Same dtype, shape (size, ...).
    """
    return window(volume, (size,) * volume.ndim, fill)


def window(volume: NDArray[Any], shape: tuple[int, ...], fill: float = 0.0) -> NDArray[Any]:
    """Cut out or pad about the centre voxel as :func:`new_box` does, to any shape of as many axes."""
    result = np.full(shape, fill, dtype=volume.dtype)
    source, target = [], []
    for old, size in zip(volume.shape, shape, strict=True):
        start = old // 2 - size // 2
        low, high = max(start, 0), min(start + size, old)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    result[tuple(target)] = volume[tuple(source)]
    return result


def mirror_x(volume: NDArray[Any]) -> NDArray[Any]:
    """Mirror along x about the centre voxel ``floor(N / 2)``, which inverts the hand of a map.

    In an even box index 0 stays and index i goes to N - i, so symmetry axes through the centre stay.
    """
    return np.roll(volume[..., ::-1], 1 - volume.shape[-1] % 2, axis=-1)
