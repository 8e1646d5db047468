"""Between a map and its padded Fourier volume, and between Fourier volumes and their statistics.

A Fourier volume holds x >= 0 only, as an array of shape (2L+1, 2L+1, L+2) with the origin at
[L, L, 0], L = floor(padding * (size / 2 + 1)) + 1: just the sphere that the current image size reaches.
Values are on the scale of an image's FFT divided by box^2, so that a central slice of a map compares
with an image directly.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of
from cryorefine.compute.gpu_turns import free_memory
from cryorefine.compute.place import shortage
from cryorefine.maps import fft, on_gpu

if TYPE_CHECKING:
    from cryorefine.refine.gpu.volumes import GpuVolumes

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]


def volume_limit(size: int, padding: float) -> int:
    """L, the largest index of a Fourier volume for a current image size."""
    return int(padding * (size / 2 + 1)) + 1


def volume_shape(size: int, padding: float) -> tuple[int, int, int]:
    """Shape of a Fourier volume for a current image size."""
    limit = volume_limit(size, padding)
    return 2 * limit + 1, 2 * limit + 1, limit + 2


def empty_volume(size: int, padding: float) -> tuple[C64, F32]:
    """Accumulators (numerator, weight) of zeros for a current image size."""
    shape = volume_shape(size, padding)
    return np.zeros(shape, np.complex64), np.zeros(shape, np.float32)


def transforms(array: Any, threads: int) -> tuple[Any, dict[str, int]]:
    """Return what transforms an array where it lives, and what its functions are told of threads."""
    if is_on_gpu(array):
        import cupyx.scipy.fft

        return cupyx.scipy.fft, {}
    import scipy.fft

    return scipy.fft, {"workers": threads}


def radius(box: int, xp: Any = np) -> F32:
    """Distance of each voxel from the centre at box/2, shape (box, box, box), as an array of a module."""
    axis = xp.arange(box, dtype=np.float32) - box // 2
    squared = axis * axis
    result: F32 = xp.sqrt(squared[:, None, None] + squared[:, None] + squared)
    return result


def interpolation_falloff(box: int, padding: float, xp: Any = np) -> F32:
    """sinc^2(r / (box * padding)): what trilinear interpolation in Fourier space does to a map."""
    falloff = xp.sinc(radius(box, xp) / (box * padding))
    falloff *= falloff
    result: F32 = falloff.astype(np.float32, copy=False)
    return result


def padded_box(box: int, padding: float) -> int:
    """Edge of the padded map: padding * box rounded to an even number."""
    size = int(np.floor(padding * box + 0.5))
    return size + size % 2


def fourier_volume(reference: F32, size: int, padding: float, threads: int = 1) -> C64:
    """Transform a map, where it lives, padded and compensated for the interpolation to come.

    Parameters
    ----------
    reference : ndarray, shape (z, y, x)
        Cubic map.
    size : int
        Current image size in pixels: slices reach radius size/2.
    padding : float
        Padding factor.
    threads : int
        Threads of the FFT.
    """
    xp = module_of(reference)
    routines, workers = transforms(reference, threads)
    box = reference.shape[0]
    large = padded_box(box, padding)
    corrected = reference / interpolation_falloff(box, padding, xp)
    padded = xp.zeros((large,) * 3, np.float32)
    first = large // 2 - box // 2
    inner = slice(first, first + box)
    padded[inner, inner, inner] = corrected
    transform = routines.rfftn(routines.ifftshift(padded), overwrite_x=True, **workers)
    transform *= np.float32(1 / box**2)
    return _crop(transform, volume_limit(size, padding))


class ReferenceVolume:
    """The Fourier volume of a map, transformed where and when it is first needed.

    Parameters
    ----------
    density, size, padding
        As for :func:`fourier_volume`.
    """

    def __init__(self, density: F32, size: int, padding: float) -> None:
        self._how = density, size, padding
        self._lock = threading.Lock()
        self._here: C64 | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        _, size, padding = self._how
        return 8 * int(np.prod(volume_shape(size, padding)))

    def on_host(self) -> C64:
        """Return it on the processor; it is kept."""
        with self._lock:
            if self._here is None:
                self._here = fourier_volume(*self._how)
            return self._here

    def on_gpu(self, xp: Any) -> Any:
        """Return it on CuPy's current GPU, brought there where the memory is too small to transform it."""
        density, size, padding = self._how
        try:
            with shortage():
                return fourier_volume(xp.asarray(density), size, padding)
        except MemoryError:
            free_memory()
        return xp.asarray(self.on_host())


def _axis(limit: int, large: int) -> NDArray[np.intp]:
    """Positions in an FFT array of edge ``large`` of the logical indices -limit..limit."""
    return np.arange(-limit, limit + 1) % large


def _crop(transform: NDArray[np.complex64], limit: int) -> C64:
    xp, large = module_of(transform), transform.shape[0]
    reach = min(limit, large // 2 - 1)
    result: C64 = xp.zeros((2 * limit + 1, 2 * limit + 1, limit + 2), np.complex64)
    rows = xp.asarray(_axis(reach, large))
    inner = slice(limit - reach, limit + reach + 1)
    width = min(limit + 2, large // 2 + 1)
    result[inner, inner, :width] = transform[rows[:, None], rows, :width]
    return result


def map_from_fourier(volume: C64, box: int, padding: float, threads: int = 1) -> F32:
    """Undo :func:`fourier_volume`, where the volume lives, but for the interpolation fall-off.

    Returns
    -------
    ndarray of float32, shape (box, box, box)
    """
    xp = module_of(volume)
    limit = volume.shape[0] // 2
    large = padded_box(box, padding)
    transform = xp.zeros((large, large, large // 2 + 1), np.complex64)
    reach = min(limit, large // 2 - 1)
    rows = xp.asarray(_axis(reach, large))
    inner = slice(limit - reach, limit + reach + 1)
    width = min(limit + 2, large // 2 + 1)
    transform[rows[:, None], rows, :width] = volume[inner, inner, :width]
    transform *= np.float32(box**2)
    padded = xp.roll(fft.real_backward(transform, (0, 1, 2), large, threads), large // 2, (0, 1, 2))
    first = large // 2 - box // 2
    cut = slice(first, first + box)
    result: F32 = padded[cut, cut, cut] * np.float32(1 / large**3)
    return result


@njit(nogil=True, cache=True, error_model="numpy")
def enforce_friedel(numerator: C64, weight: F32) -> None:
    """Give both Friedel mates in the plane x = 0 the sum of what was inserted at either, in place."""
    limit = numerator.shape[0] // 2
    n = 2 * limit
    for z in range(limit, n + 1):
        for y in range(n + 1):
            if z == limit and y < limit:
                continue
            if z == limit and y == limit:
                # The origin is its own mate: its insertions arrive from one side only.
                numerator[z, y, 0] = 2 * numerator[z, y, 0].real
                weight[z, y, 0] *= 2
                continue
            value = numerator[z, y, 0] + np.conj(numerator[n - z, n - y, 0])
            total = weight[z, y, 0] + weight[n - z, n - y, 0]
            numerator[z, y, 0], numerator[n - z, n - y, 0] = value, np.conj(value)
            weight[z, y, 0], weight[n - z, n - y, 0] = total, total


@njit(nogil=True, cache=True, error_model="numpy")
def _add_rotated(
    source: C64, source_weight: F32, matrix: NDArray[np.float64], reach: float, numerator: C64, weight: F32
) -> None:
    limit = source.shape[0] // 2
    height = source.shape[2]
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            for ix in range(limit + 1):
                x0, y0, z0 = float(ix), float(iy - limit), float(iz - limit)
                if x0 * x0 + y0 * y0 + z0 * z0 > reach * reach:
                    continue
                x = matrix[0, 0] * x0 + matrix[0, 1] * y0 + matrix[0, 2] * z0
                y = matrix[1, 0] * x0 + matrix[1, 1] * y0 + matrix[1, 2] * z0
                z = matrix[2, 0] * x0 + matrix[2, 1] * y0 + matrix[2, 2] * z0
                mate = x < -1e-9
                if mate:
                    x, y, z = -x, -y, -z
                # Operators that map the grid on itself must not blur it through rounding.
                x, y, z = max(x, 0.0) + 1e-9, y + limit + 1e-9, z + limit + 1e-9
                jx, jy, jz = int(x), int(y), int(z)
                if jx > height - 2 or jy < 0 or jz < 0 or jy > 2 * limit or jz > 2 * limit:
                    continue
                fx, fy, fz = x - jx, y - jy, z - jz
                value = 0j
                total = 0.0
                for dz in range(2):
                    kz = min(jz + dz, 2 * limit)
                    gz = fz if dz else 1 - fz
                    for dy in range(2):
                        ky = min(jy + dy, 2 * limit)
                        g = gz * (fy if dy else 1 - fy)
                        value += g * ((1 - fx) * source[kz, ky, jx] + fx * source[kz, ky, jx + 1])
                        total += g * (
                            (1 - fx) * source_weight[kz, ky, jx] + fx * source_weight[kz, ky, jx + 1]
                        )
                numerator[iz, iy, ix] += np.conj(value) if mate else value
                weight[iz, iy, ix] += total


def symmetrise(
    numerator: C64,
    weight: F32,
    operators: NDArray[np.float64],
    size: int,
    padding: float,
    gpu: GpuVolumes | None = None,
) -> tuple[C64, F32]:
    """Add the copies of a Fourier volume and its weights that a point group makes.

    Parameters
    ----------
    numerator, weight : ndarray, shape (2L+1, 2L+1, L+2)
        Friedel-symmetric accumulators.
    operators : ndarray, shape (n, 3, 3)
        Rotations of the group, the identity first; matrices act on (x, y, z).
    size : int
        Current image size in pixels.
    padding : float
        Padding factor.
    gpu : GpuVolumes or None
        Where the volumes are, if they are on a GPU.

    Returns
    -------
    tuple of ndarray
        The sums over the group, not divided by its order.
    """
    total, total_weight = numerator.copy(), weight.copy()
    add_rotated = _add_rotated if gpu is None else gpu.add_rotated
    for matrix in operators[1:]:
        reach = padding * size / 2 + 1
        add_rotated(numerator, weight, np.ascontiguousarray(matrix), reach, total, total_weight)
    return total, total_weight


@njit(nogil=True, cache=True, error_model="numpy")
def shell_means(weight: F32, padding: float, shells: int) -> NDArray[np.float64]:
    """Mean of a weight volume over shells of the unpadded map (radius / padding rounded)."""
    limit = weight.shape[0] // 2
    total = np.zeros(shells)
    count = np.zeros(shells)
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            for ix in range(limit + 1):
                r = np.sqrt(float(ix**2 + (iy - limit) ** 2 + (iz - limit) ** 2)) / padding
                shell = int(r + 0.5)
                if shell < shells:
                    total[shell] += weight[iz, iy, ix]
                    count[shell] += 1
    return total / np.maximum(count, 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _nearest(index: int, padding: float) -> int:
    """Divide by the padding and round half away from zero, so that Friedel mates stay mates."""
    value = int(np.floor(abs(index) / padding + 0.5))
    return value if index >= 0 else -value


@njit(nogil=True, cache=True, error_model="numpy")
def _unpadded(numerator: C64, weight: F32, padding: float, size: int) -> NDArray[np.complex128]:
    """Sum data and weights of the padded voxels nearest to each unpadded one, and divide."""
    limit = numerator.shape[0] // 2
    half = size // 2
    data = np.zeros((2 * half + 1, 2 * half + 1, half + 1), np.complex128)
    total = np.zeros(data.shape)
    for iz in range(2 * limit + 1):
        z = _nearest(iz - limit, padding) + half
        for iy in range(2 * limit + 1):
            y = _nearest(iy - limit, padding) + half
            for ix in range(limit + 1):
                x = _nearest(ix, padding)
                if x <= half and 0 <= y <= 2 * half and 0 <= z <= 2 * half:
                    data[z, y, x] += numerator[iz, iy, ix]
                    total[z, y, x] += weight[iz, iy, ix]
    for z in range(2 * half + 1):
        for y in range(2 * half + 1):
            for x in range(half + 1):
                if total[z, y, x] > 0:
                    data[z, y, x] /= total[z, y, x]
    return data


def half_volume_correlation(
    first: tuple[C64, F32],
    second: tuple[C64, F32],
    size: int,
    shells: int,
    padding: float,
    gpu: GpuVolumes | None = None,
) -> NDArray[np.float64]:
    """Fourier shell correlation of two half sets from their accumulators.

    Parameters
    ----------
    first, second : tuple of ndarray
        (numerator, weight) of each half set.
    size : int
        Current image size; the correlation is 0 beyond size/2.
    shells : int
        Length of the result, box/2 + 1.
    padding : float
        Padding factor.
    gpu : GpuVolumes or None
        Where the accumulators are, if they are on a GPU.
    """
    half = size // 2
    result = np.zeros(shells)
    if gpu is not None:
        there = [gpu.unpadded(*volumes, padding, size) for volumes in (first, second)]
        squares = np.arange(-half, half + 1) ** 2
        shell = np.floor(np.sqrt(np.arange(3 * half**2 + 1)) + 0.5)
        axes = squares, squares, np.arange(half + 1) ** 2
        bins = np.minimum(shell, half + 1)
        cross, *powers = on_gpu.sums_over_shells(on_gpu.products(*there), axes, bins, half + 1, gpu.xp)
        scale = np.sqrt(powers[0] * powers[1])
        np.divide(cross, scale, out=result[: half + 1], where=scale > 0)
        result[0] = 1
        return result
    one, two = (_unpadded(*volumes, padding, size) for volumes in (first, second))
    index = np.arange(-half, half + 1)
    r2 = index[:, None, None] ** 2 + index[:, None] ** 2 + np.arange(half + 1) ** 2
    shell = np.floor(np.sqrt(r2) + 0.5).astype(np.intp)
    inside = shell <= half
    keep = shell[inside]

    def shell_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(keep, values, minlength=half + 1).astype(np.float64)

    a, b = one[inside], two[inside]
    cross = shell_sum((a * b.conj()).real)
    scale = np.sqrt(shell_sum(np.abs(a) ** 2) * shell_sum(np.abs(b) ** 2))
    np.divide(cross, scale, out=result[: half + 1], where=scale > 0)
    result[0] = 1
    return result
