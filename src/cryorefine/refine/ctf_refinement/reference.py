"""References rebuilt from the particles: each fold's is made of the other folds of its half set.

A half set's Fourier sums are kept fold by fold; a fold's reference is the total less the fold. So no
particle is compared with its own noise, and none with the other half set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

from cryorefine.maps.fourier import rescale
from cryorefine.refine.ctf_refinement.frame import Frame
from cryorefine.refine.ctf_refinement.settings import SuppliedMaps
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.volume import C64, F32, fourier_volume

F64 = NDArray[np.float64]

_FAST: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
# Below this shell the weights of a reconstruction are taken as they are.
_FIRST_REGULARISED_SHELL = 5


def part_of_data(fsc: F64, part: float) -> F64:
    """Return the FSC that half maps from a part of the data, or from more of them, would have.

    The signal-to-noise ratio F / (1 - F) of a half map is proportional to the number of its particles.
    """
    correlation = np.clip(fsc, 0.0, 0.9999)
    return np.asarray(part * correlation / (1 + (part - 1) * correlation))


@dataclass(frozen=True, eq=False)
class Sums:
    """Fourier sums of images and of their weights.

    Attributes
    ----------
    parts : ndarray of float32, shape (2L+1, 2L+1, L+2, 4)
        Real and imaginary part of the numerator, weight, and nothing: what one slice point changes lies
        together in memory, which halves the time of insertion.
    """

    parts: F32

    @classmethod
    def empty(cls, frame: Frame) -> Sums:
        """Return sums of nothing."""
        edge = 2 * frame.limit + 1
        return cls(np.zeros((edge, edge, frame.limit + 2, 4), np.float32))

    def insert(self, matrices: F64, plane: HalfPlane, padding: float, data: C64, weight: F32) -> None:
        """Add slices, shape (n, pixels), with orientation matrices (n, 3, 3)."""
        _insert(self.parts, matrices.astype(np.float32), plane.kx, plane.ky, padding, data, weight)

    def finish(self, turns: NDArray[np.int64], reach: float) -> Sums:
        """Give Friedel and symmetry mates the sums of all, once all slices are in.

        Parameters
        ----------
        turns : ndarray of int, shape (n, 3, 3)
            Operators that map the grid onto itself, the identity first.
        reach : float
            Radius in voxels beyond which nothing matters.
        """
        _enforce_friedel(self.parts)
        if len(turns) == 1:
            return self
        whole = np.zeros_like(self.parts)
        _add_turned(self.parts, turns, reach, whole)
        return Sums(whole)


def split_operators(operators: F64) -> tuple[F64, NDArray[np.int64]]:
    """Split a point group into operators to insert slices with, and turns of the finished grid.

    Operators that swap or reverse axes map the grid onto itself: they can be applied to the sums, exactly,
    instead of to every slice. All of D2 are such, and two of every C2.

    Parameters
    ----------
    operators : ndarray, shape (n, 3, 3)
        The group, the identity first.

    Returns
    -------
    inserted : ndarray, shape (n / m, 3, 3)
        One operator of each coset.
    turns : ndarray of int, shape (m, 3, 3)
        The subgroup of operators that map the grid onto itself, the identity first.
    """
    whole = np.abs(operators - np.rint(operators)).max(axis=(1, 2)) < 1e-6
    turns = np.rint(operators[whole]).astype(np.int64)
    chosen: list[F64] = []
    for operator in operators:
        known = any(np.abs(one @ turn - operator).max() < 1e-6 for one in chosen for turn in turns)
        if not known:
            chosen.append(operator)
    return np.stack(chosen), turns


class HalfSums:
    """Fourier sums of one half set: the total, and the folds as far as there is room for them.

    Parameters
    ----------
    make : callable
        Sums up one fold; called again for a fold that was not kept.
    keep : bool
        Whether to keep folds.
    """

    def __init__(self, make: Callable[[int], Sums], *, keep: bool) -> None:
        self._make = make
        self._keep = keep
        self._folds: dict[int, Sums] = {}
        self._total: Sums | None = None

    def add(self, fold: int, sums: Sums) -> None:
        """Add a fold; the sums are the half set's from now on."""
        if self._keep:
            self._folds[fold] = sums
        if self._total is None:
            self._total = Sums(sums.parts.copy()) if self._keep else sums
        else:
            self._total.parts.__iadd__(sums.parts)

    def without(self, fold: int | None) -> Sums:
        """Return the sums of all folds but one; of all for None."""
        assert self._total is not None
        if fold is None:
            return self._total
        out = self._folds[fold] if fold in self._folds else self._make(fold)
        return Sums(self._total.parts - out.parts)


def reference_volume(sums: Sums, ssnr: F64, frame: Frame, threads: int) -> C64:
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
    shells = int(frame.limit / frame.padding) + 2
    ratio = np.maximum(ssnr[np.minimum(np.arange(shells), len(ssnr) - 1)], 1e-3)
    means = _shell_means(sums.parts, frame.padding, shells)
    extra = means / ratio
    extra[:_FIRST_REGULARISED_SHELL] = 0
    floor = (means + extra) / 1000
    edge = frame.padded
    transform = np.zeros((edge, edge, edge // 2 + 1), np.complex64)
    _divide(sums.parts, extra, floor, frame.padding * frame.size / 2, frame.padding, transform)
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


@njit(fastmath=True, **_FAST)
def _insert(parts: F32, matrices: F32, kx: F32, ky: F32, padding: float, data: C64, weight: F32) -> None:
    """Add slices by trilinear interpolation; every point must lie inside."""
    limit = np.float32(parts.shape[0] // 2)
    flat = parts.reshape(-1)
    stride_y = np.int32(4 * parts.shape[2])
    stride_z = np.int32(4 * parts.shape[2] * parts.shape[1])
    pixels = kx.shape[0]
    index = np.empty(pixels, np.uint64)
    part_x, part_y = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    part_z, mate = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    one = np.float32(1)
    for o in range(matrices.shape[0]):
        ax, ay = np.float32(matrices[o, 0, 0] * padding), np.float32(matrices[o, 0, 1] * padding)
        az, bx = np.float32(matrices[o, 0, 2] * padding), np.float32(matrices[o, 1, 0] * padding)
        by, bz = np.float32(matrices[o, 1, 1] * padding), np.float32(matrices[o, 1, 2] * padding)
        # Where the points lie, vectorised over pixels; points with x < 0 are added at their mates.
        for p in range(pixels):
            x = kx[p] * ax + ky[p] * bx
            y = kx[p] * ay + ky[p] * by
            z = kx[p] * az + ky[p] * bz
            m = one if x >= 0 else -one
            x, y, z = x * m, y * m + limit, z * m + limit
            ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
            part_x[p], part_y[p], part_z[p] = x - np.float32(ix), y - np.float32(iy), z - np.float32(iz)
            mate[p] = m
            index[p] = np.uint64(iz * stride_z + iy * stride_y + 4 * ix)
        for p in range(pixels):
            w = weight[o, p]
            re, im = data[o, p].real, data[o, p].imag * mate[p]
            fx, fy, fz = part_x[p], part_y[p], part_z[p]
            gx, gy, gz = one - fx, one - fy, one - fz
            re_0, im_0, w_0 = re * gx, im * gx, w * gx
            re_1, im_1, w_1 = re * fx, im * fx, w * fx
            for corner in range(4):
                c = (fz if corner >= 2 else gz) * (fy if corner % 2 else gy)
                step = (stride_z if corner >= 2 else 0) + (stride_y if corner % 2 else 0)
                i = index[p] + np.uint64(step)
                flat[i] += c * re_0
                flat[i + np.uint64(1)] += c * im_0
                flat[i + np.uint64(2)] += c * w_0
                flat[i + np.uint64(4)] += c * re_1
                flat[i + np.uint64(5)] += c * im_1
                flat[i + np.uint64(6)] += c * w_1


@njit(**_FAST)
def _enforce_friedel(parts: F32) -> None:
    """Give both Friedel mates in the plane x = 0 the sum of what was inserted at either, in place."""
    limit = parts.shape[0] // 2
    n = 2 * limit
    for z in range(limit, n + 1):
        for y in range(n + 1):
            if z == limit and y < limit:
                continue
            here, there = parts[z, y, 0], parts[n - z, n - y, 0]
            if z == limit and y == limit:
                here[0], here[1], here[2] = 2 * here[0], 0, 2 * here[2]
                continue
            here[0] += there[0]
            here[1] -= there[1]
            here[2] += there[2]
            there[0], there[1], there[2] = here[0], -here[1], here[2]


@njit(**_FAST)
def _add_turned(parts: F32, turns: NDArray[np.int64], reach: float, out: F32) -> None:
    """Add up what turns of the grid bring to each voxel."""
    limit = parts.shape[0] // 2
    stride_y = 4 * parts.shape[2]
    stride_z = stride_y * parts.shape[1]
    middle = limit * (stride_z + stride_y)
    source, target = parts.reshape(-1), out.reshape(-1)
    for z in range(-limit, limit + 1):
        for y in range(-limit, limit + 1):
            rest = reach * reach - z * z - y * y
            if rest < 0:
                continue
            last = min(int(np.sqrt(rest)), limit)
            start = middle + z * stride_z + y * stride_y
            for t in range(turns.shape[0]):
                m = turns[t]
                # Along x, a turn's source moves in equal steps; at its x < 0 stands the Friedel mate.
                u, u_step = m[0, 1] * y + m[0, 2] * z, m[0, 0]
                offset = (
                    4 * u + (m[1, 1] * y + m[1, 2] * z) * stride_y + (m[2, 1] * y + m[2, 2] * z) * stride_z
                )
                step = 4 * u_step + m[1, 0] * stride_y + m[2, 0] * stride_z
                i = start
                for _ in range(last + 1):
                    if u >= 0:
                        j, sign = middle + offset, np.float32(1)
                    else:
                        j, sign = middle - offset, np.float32(-1)
                    target[i] += source[j]
                    target[i + 1] += sign * source[j + 1]
                    target[i + 2] += source[j + 2]
                    i += 4
                    u += u_step
                    offset += step


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
def _divide(parts: F32, extra: F64, floor: F64, reach: float, padding: float, out: C64) -> None:
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
