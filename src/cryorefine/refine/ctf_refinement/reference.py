"""References that particles are compared with: rebuilt from the particles themselves, or supplied.

A rebuilt reference holds all particles of a half set. What a particle has brought to it is known, and is
taken away again where the particle is compared with it (:mod:`.prediction`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.maps.fourier import rescale
from cryorefine.refine.ctf_refinement.frame import Frame
from cryorefine.refine.ctf_refinement.padded import multiply_in_place, transform_padded
from cryorefine.refine.ctf_refinement.settings import SuppliedMaps
from cryorefine.refine.ctf_refinement.sums import Sums
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]

_FAST: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
# Below this shell the weights of a reconstruction are taken as they are.
_FIRST_REGULARISED_SHELL = 5
# Damped more than this, the last shells would hold little but what the mask brings there from those before.
_LEAST_SSNR = 0.1


@dataclass(frozen=True, eq=False)
class Reference:
    """A map that particles are compared with.

    Attributes
    ----------
    volume : ndarray of complex64, shape (2L+1, 2L+1, L+2)
        Fourier volume of the map within the mask.
    gain : ndarray of float32, shape (2L+1, 2L+1, L+2) or (0, 0, 0)
        What the sums were multiplied with to give it; nothing for a supplied map.
    """

    volume: C64
    gain: F32


def rebuilt_reference(
    sums: Sums, turns: NDArray[np.int64], ssnr: F64, frame: Frame, threads: int
) -> Reference:
    """Solve for a map and return the Fourier volume of what the mask leaves of it.

    The map is the Wiener estimate N / (W + mean(W) / SSNR) by shell (Scheres (2012), J. Struct. Biol.
    180:519): the expected structure, given data with that signal-to-noise ratio.

    Parameters
    ----------
    sums : Sums
        Of slices; Friedel mates are completed in place.
    turns : ndarray of int, shape (n, 3, 3)
        Operators of the symmetry that map the grid onto itself, applied here; the identity first.
    ssnr : ndarray, shape (shells,)
        Signal-to-noise ratio of the sums, shells of 1 / edge; the last one holds beyond.
    frame : Frame
        Working grid.
    threads : int
        Threads of the FFT.
    """
    sums.complete()
    # Turns leave every voxel in its shell.
    means = len(turns) * _shell_means(sums.parts, frame.padding, int(frame.limit / frame.padding) + 2)
    extra, floor = regularised_weights(means, ssnr)
    edge = frame.padded
    transform = np.zeros((edge, edge, edge // 2 + 1), np.complex64)
    gain = np.zeros(sums.parts.shape[:3], np.float32)
    shell_of = _shells(frame.limit, frame.padding)
    row = np.empty((frame.limit + 2, 3), np.float32)
    reach = frame.padding * frame.size / 2
    _divide(sums.parts.reshape(-1), turns, extra, floor, reach, shell_of, row, transform, gain)
    multiply_in_place(transform, frame.window, frame.box // 2, threads)
    return Reference(_cropped(transform, frame.limit), gain)


def regularised_weights(means: F64, ssnr: F64) -> tuple[F64, F64]:
    """Return what is added to the weights of each shell, and the least that they are taken for.

    Parameters
    ----------
    means : ndarray, shape (shells,)
        Mean weights.
    ssnr : ndarray
        Signal-to-noise ratio by shell; the last one holds beyond.
    """
    ratio = np.maximum(ssnr[np.minimum(np.arange(len(means)), len(ssnr) - 1)], _LEAST_SSNR)
    extra = means / ratio
    extra[:_FIRST_REGULARISED_SHELL] = 0
    return extra, (means + extra) / 1000


def supplied_reference(maps: SuppliedMaps, half: int, frame: Frame, threads: int) -> Reference:
    """Return the Fourier volume of a supplied half map within the mask, on the scale of the images."""
    density = maps.half_maps[half]
    if frame.box != maps.box:
        density = rescale(density, frame.box, threads)
    density = (density * frame.mask * frame.compensation).astype(np.float32, copy=False)
    transform = transform_padded(density, frame.padded, threads)
    # A sum along z on the scale of an image's FFT divided by its box^2, over voxels of the supplied map.
    volume = _cropped(transform, frame.limit)
    volume *= np.float32(frame.padded**3 * maps.box / frame.box**3)
    return Reference(volume, np.zeros((0, 0, 0), np.float32))


def _cropped(spectrum: C64, limit: int) -> C64:
    """Return the low frequencies of an FFT's layout as a Fourier volume."""
    edge = spectrum.shape[0]
    reach, width = min(limit, edge // 2 - 1), min(limit + 2, edge // 2 + 1)
    shape = (2 * limit + 1, 2 * limit + 1, limit + 2)
    whole = reach == limit and width == limit + 2
    result = np.empty(shape, np.complex64) if whole else np.zeros(shape, np.complex64)
    ends = (
        (slice(0, reach + 1), slice(limit, limit + reach + 1)),
        (slice(edge - reach, edge), slice(limit - reach, limit)),
    )
    for (from_z, to_z), (from_y, to_y) in product(ends, ends):
        result[to_z, to_y, :width] = spectrum[from_z, from_y, :width]
    return result


def _shells(limit: int, padding: float) -> NDArray[np.int32]:
    """Return the shell of every squared radius in a Fourier volume."""
    return (np.sqrt(np.arange(3 * (limit + 2) ** 2)) / padding + 0.5).astype(np.int32)


def _shell_means(parts: F32, padding: float, shells: int) -> F64:
    """Return the mean weight of each shell."""
    sums = np.zeros((2, shells))
    _add_weights(parts, _shells(len(parts) // 2, padding), sums)
    return np.asarray(sums[0] / np.maximum(sums[1], 1))


# These kernels make no arrays, for which much of Numba would be loaded before them.
@njit(**_FAST)
def _add_weights(parts: F32, shell_of: NDArray[np.int32], out: F64) -> None:
    """Sum weights, and count them, by shell; out (2, shells)."""
    limit = parts.shape[0] // 2
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            r2 = (iz - limit) ** 2 + (iy - limit) ** 2
            for ix in range(limit + 1):
                shell = shell_of[r2 + ix * ix]
                if shell < out.shape[1]:
                    out[0, shell] += parts[iz, iy, ix, 2]
                    out[1, shell] += 1


# Beside the kernel that calls it: Numba keeps a kernel until the file changes that it stands in.
@njit(**_FAST)
def turned_row(
    source: F32,
    shape: tuple[int, int, int],
    turns: NDArray[np.int64],
    z: int,
    y: int,
    row: F32,
) -> None:
    """Write what turns of the grid bring to the voxels x = 0, 1, ... at (z, y) from its centre.

    Parameters
    ----------
    source : ndarray of float32
        Sums, flat, with the mates of Friedel pairs.
    shape : tuple of int
        Of the grid.
    turns : ndarray of int, shape (n, 3, 3)
        Operators that map the grid onto itself.
    z, y : int
        The row.
    row : ndarray of float32, shape (voxels, 3)
        Overwritten: real and imaginary part of the numerator, and weight.
    """
    stride_y = 3 * shape[2]
    stride_z = stride_y * shape[1]
    middle = (shape[0] // 2) * (stride_z + stride_y)
    for t in range(turns.shape[0]):
        m = turns[t]
        # Along x, a turn's source moves in equal steps; at its x < 0 stands the Friedel mate.
        u, u_step = m[0, 1] * y + m[0, 2] * z, m[0, 0]
        offset = 3 * u + (m[1, 1] * y + m[1, 2] * z) * stride_y + (m[2, 1] * y + m[2, 2] * z) * stride_z
        step = 3 * u_step + m[1, 0] * stride_y + m[2, 0] * stride_z
        for x in range(row.shape[0]):
            if u >= 0:
                j, sign = middle + offset, np.float32(1)
            else:
                j, sign = middle - offset, np.float32(-1)
            if t == 0:
                row[x, 0] = source[j]
                row[x, 1] = sign * source[j + 1]
                row[x, 2] = source[j + 2]
            else:
                row[x, 0] += source[j]
                row[x, 1] += sign * source[j + 1]
                row[x, 2] += source[j + 2]
            u += u_step
            offset += step


@njit(**_FAST)
def _divide(
    flat: F32,
    turns: NDArray[np.int64],
    extra: F64,
    floor: F64,
    reach: float,
    shell_of: NDArray[np.int32],
    room: F32,
    out: C64,
    gain_out: F32,
) -> None:
    """Write numerator / max(weight + extra(shell), floor(shell)) within a sphere into an FFT's layout."""
    limit = gain_out.shape[0] // 2
    edge = out.shape[0]
    reach = min(reach, edge // 2 - 1)
    for iz in range(2 * limit + 1):
        z = iz - limit
        if abs(z) > reach:
            continue
        z_out = z if z >= 0 else z + edge
        for iy in range(2 * limit + 1):
            y = iy - limit
            rest = reach * reach - z * z - y * y
            if rest < 0:
                continue
            y_out, here = y if y >= 0 else y + edge, room[: int(np.sqrt(rest)) + 1]
            turned_row(flat, gain_out.shape, turns, z, y, here)
            for ix in range(here.shape[0]):
                shell = shell_of[ix * ix + y * y + z * z]
                total = max(here[ix, 2] + extra[shell], floor[shell])
                if total > 0:
                    gain = np.float32(1 / total)
                    gain_out[iz, iy, ix] = gain
                    out[z_out, y_out, ix] = np.complex64(complex(here[ix, 0] * gain, here[ix, 1] * gain))


def volume_correlation(first: C64, second: C64, padding: float, shells: int) -> F64:
    """Return the FSC of two Fourier volumes, shape (shells,)."""
    sums = np.zeros((3, shells))
    _add_products(first, second, _shells(len(first) // 2, padding), sums)
    return np.asarray(sums[0] / np.maximum(np.sqrt(sums[1] * sums[2]), 1e-300))


@njit(**_FAST)
def _add_products(first: C64, second: C64, shell_of: NDArray[np.int32], out: F64) -> None:
    """Sum Re(conj(a) b), |a|^2 and |b|^2 by shell; out (3, shells)."""
    limit = first.shape[0] // 2
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            r2 = (iz - limit) ** 2 + (iy - limit) ** 2
            for ix in range(limit + 1):
                shell = shell_of[r2 + ix * ix]
                if shell < out.shape[1]:
                    a, b = first[iz, iy, ix], second[iz, iy, ix]
                    out[0, shell] += a.real * b.real + a.imag * b.imag
                    out[1, shell] += a.real**2 + a.imag**2
                    out[2, shell] += b.real**2 + b.imag**2
