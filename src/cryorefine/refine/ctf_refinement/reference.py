"""References that particles are compared with: rebuilt from the particles themselves, or supplied.

A rebuilt reference holds all particles of a half set. What a particle has brought to it is known, and is
taken away again where the particle is compared with it (:mod:`.prediction`).
"""

from __future__ import annotations

from dataclasses import dataclass
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


def rebuilt_reference(sums: Sums, ssnr: F64, frame: Frame, threads: int) -> Reference:
    """Solve for a map and return the Fourier volume of what the mask leaves of it.

    The map is the Wiener estimate N / (W + mean(W) / SSNR) by shell (Scheres (2012), J. Struct. Biol.
    180:519): the expected structure, given data with that signal-to-noise ratio.

    Parameters
    ----------
    sums : Sums
        Of slices.
    ssnr : ndarray, shape (shells,)
        Signal-to-noise ratio of the sums, shells of 1 / edge; the last one holds beyond.
    frame : Frame
        Working grid.
    threads : int
        Threads of the FFT.
    """
    means = _shell_means(sums.parts, frame.padding, int(frame.limit / frame.padding) + 2)
    extra, floor = regularised_weights(means, ssnr)
    edge = frame.padded
    transform = np.zeros((edge, edge, edge // 2 + 1), np.complex64)
    gain = np.zeros(sums.parts.shape[:3], np.float32)
    _divide(sums.parts, extra, floor, frame.padding * frame.size / 2, frame.padding, transform, gain)
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
    result = np.zeros((2 * limit + 1, 2 * limit + 1, limit + 2), np.complex64)
    _crop(spectrum, result)
    return result


@njit(**_FAST)
def _shells(limit: int, padding: float) -> NDArray[np.int32]:
    """Return the shell of every squared radius in a Fourier volume."""
    return (np.sqrt(np.arange(3 * (limit + 2) ** 2)) / padding + 0.5).astype(np.int32)


@njit(**_FAST)
def _shell_means(parts: F32, padding: float, shells: int) -> F64:
    """Return the mean weight of each shell."""
    limit = parts.shape[0] // 2
    total, count = np.zeros(shells), np.zeros(shells)
    shell_of = _shells(limit, padding)
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            r2 = (iz - limit) ** 2 + (iy - limit) ** 2
            for ix in range(limit + 1):
                shell = shell_of[r2 + ix * ix]
                if shell < shells:
                    total[shell] += parts[iz, iy, ix, 2]
                    count[shell] += 1
    return total / np.maximum(count, 1)


@njit(**_FAST)
def _divide(
    parts: F32, extra: F64, floor: F64, reach: float, padding: float, out: C64, gain_out: F32
) -> None:
    """Write numerator / max(weight + extra(shell), floor(shell)) within a sphere into an FFT's layout."""
    limit = parts.shape[0] // 2
    edge = out.shape[0]
    reach = min(reach, edge // 2 - 1)
    shell_of = _shells(limit, padding)
    for iz in range(2 * limit + 1):
        z = iz - limit
        if abs(z) > reach:
            continue
        for iy in range(2 * limit + 1):
            y = iy - limit
            rest = reach * reach - z * z - y * y
            if rest < 0:
                continue
            for ix in range(int(np.sqrt(rest)) + 1):
                shell = shell_of[ix * ix + y * y + z * z]
                here = parts[iz, iy, ix]
                total = max(here[2] + extra[shell], floor[shell])
                if total > 0:
                    gain = np.float32(1 / total)
                    gain_out[iz, iy, ix] = gain
                    out[z, y, ix] = np.complex64(complex(here[0] * gain, here[1] * gain))


@njit(**_FAST)
def _crop(spectrum: C64, out: C64) -> None:
    """Copy the low frequencies of an FFT's layout into a Fourier volume."""
    limit = out.shape[0] // 2
    edge = spectrum.shape[0]
    reach = min(limit, edge // 2 - 1)
    width = min(out.shape[2], edge // 2 + 1)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            for x in range(width):
                out[z + limit, y + limit, x] = spectrum[z, y, x]


@njit(**_FAST)
def volume_correlation(first: C64, second: C64, padding: float, shells: int) -> F64:
    """Return the FSC of two Fourier volumes, shape (shells,)."""
    limit = first.shape[0] // 2
    sums = np.zeros((3, shells))
    shell_of = _shells(limit, padding)
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            r2 = (iz - limit) ** 2 + (iy - limit) ** 2
            for ix in range(limit + 1):
                shell = shell_of[r2 + ix * ix]
                if shell < shells:
                    a, b = first[iz, iy, ix], second[iz, iy, ix]
                    sums[0, shell] += a.real * b.real + a.imag * b.imag
                    sums[1, shell] += a.real**2 + a.imag**2
                    sums[2, shell] += b.real**2 + b.imag**2
    return sums[0] / np.maximum(np.sqrt(sums[1] * sums[2]), 1e-300)
