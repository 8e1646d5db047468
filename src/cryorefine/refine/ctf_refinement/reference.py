"""References rebuilt from the particles: each fold's is made of the other folds of its half set.

A half set's Fourier sums are kept fold by fold; a fold's reference is the total less the fold. So no
particle is compared with its own noise, and none with the other half set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

from cryorefine.maps.fourier import rescale
from cryorefine.refine.ctf_refinement.frame import Frame
from cryorefine.refine.ctf_refinement.settings import SuppliedMaps
from cryorefine.refine.volume import C64, F32, empty_volume, enforce_friedel, fourier_volume, shell_means

F64 = NDArray[np.float64]
Volume = tuple[C64, F32]

_FAST: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
# Below this shell the weights of a reconstruction are taken as they are.
_FIRST_REGULARISED_SHELL = 5


def part_of_data(fsc: F64, part: float) -> F64:
    """Return the FSC that half maps from a part of the data, or from more of them, would have.

    The signal-to-noise ratio F / (1 - F) of a half map is proportional to the number of its particles.
    """
    correlation = np.clip(fsc, 0.0, 0.9999)
    return np.asarray(part * correlation / (1 + (part - 1) * correlation))


def finished_sums(numerator: C64, weight: F32) -> Volume:
    """Give Friedel mates the sum of both, once all slices are in."""
    enforce_friedel(numerator, weight)
    return numerator, weight


@dataclass(eq=False)
class HalfSums:
    """Fourier sums of one half set, fold by fold.

    Attributes
    ----------
    folds : list of tuple of ndarray
        Numerator and weight of each fold.
    """

    folds: list[Volume]

    def without(self, fold: int | None, frame: Frame) -> Volume:
        """Return the sums of all folds but one; of all for None."""
        numerator, weight = empty_volume(frame.size, frame.padding)
        for f, (one, two) in enumerate(self.folds):
            if f != fold:
                numerator += one
                weight += two
        return numerator, weight


def reference_volume(sums: Volume, ssnr: F64, frame: Frame, threads: int) -> C64:
    """Solve for a map and return the Fourier volume of what the mask leaves of it.

    The map is the Wiener estimate N / (W + mean(W) / SSNR) by shell (Scheres (2012), J. Struct. Biol.
    180:519): the expected structure, given data with that signal-to-noise ratio.

    Parameters
    ----------
    sums : tuple of ndarray
        Numerator and weight.
    ssnr : ndarray, shape (shells,)
        Signal-to-noise ratio of the sums, shells of 1 / edge; the last one holds beyond.
    frame : Frame
        Working grid.
    threads : int
        Threads of the FFT.
    """
    numerator, weight = sums
    shells = int(frame.limit / frame.padding) + 2
    ratio = np.maximum(ssnr[np.minimum(np.arange(shells), len(ssnr) - 1)], 1e-3)
    means = shell_means(weight, frame.padding, shells)
    extra = means / ratio
    extra[:_FIRST_REGULARISED_SHELL] = 0
    floor = (means + extra) / 1000
    edge = frame.padded
    transform = np.zeros((edge, edge, edge // 2 + 1), np.complex64)
    _divide(numerator, weight, extra, floor, frame.padding * frame.size / 2, frame.padding, transform)
    return _masked(transform, frame, threads)


def supplied_volume(maps: SuppliedMaps, half: int, frame: Frame, threads: int) -> C64:
    """Return the Fourier volume of a supplied half map within the mask, on the scale of the images."""
    density = maps.half_maps[half] * maps.mask
    if frame.box != maps.box:
        # Sums along z over fewer voxels of the same density are smaller.
        density = rescale(density, frame.box, threads) * np.float32(maps.box / frame.box)
    return fourier_volume(density.astype(np.float32), frame.size, frame.padding, threads)


def _masked(transform: C64, frame: Frame, threads: int) -> C64:
    edge = frame.padded
    density = scipy.fft.irfftn(transform, s=(edge,) * 3, workers=threads, overwrite_x=True)
    density *= frame.window
    spectrum = scipy.fft.rfftn(density, workers=threads, overwrite_x=True)
    limit = frame.limit
    result = np.zeros((2 * limit + 1, 2 * limit + 1, limit + 2), np.complex64)
    _crop(spectrum, result)
    return result


@njit(**_FAST)
def _divide(
    numerator: C64, weight: F32, extra: F64, floor: F64, reach: float, padding: float, out: C64
) -> None:
    """Write numerator / max(weight + extra(shell), floor(shell)) within a sphere into an FFT's layout."""
    limit = numerator.shape[0] // 2
    edge = out.shape[0]
    reach = min(reach, edge // 2 - 1)
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
                r = np.sqrt(float(ix * ix + y * y + z * z)) / padding
                shell = int(r + 0.5)
                total = max(weight[iz, iy, ix] + extra[shell], floor[shell])
                if total > 0:
                    out[z if z >= 0 else z + edge, y if y >= 0 else y + edge, ix] = numerator[
                        iz, iy, ix
                    ] / np.float32(total)


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
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            for ix in range(limit + 1):
                shell = int(np.sqrt(float(ix**2 + (iy - limit) ** 2 + (iz - limit) ** 2)) / padding + 0.5)
                if shell < shells:
                    a, b = first[iz, iy, ix], second[iz, iy, ix]
                    sums[0, shell] += a.real * b.real + a.imag * b.imag
                    sums[1, shell] += a.real**2 + a.imag**2
                    sums[2, shell] += b.real**2 + b.imag**2
    return sums[0] / np.maximum(np.sqrt(sums[1] * sums[2]), 1e-300)
