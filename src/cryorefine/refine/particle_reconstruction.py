"""A map from subtomograms whose poses are known: premultiplied slices, their weights, and the division.

Every voxel of the Fourier volume that lies within one voxel of a slice takes the slice's value at its foot
point, by bilinear interpolation, times one minus its distance. That is the interpolation of RELION's
program for the task; gathering needs a quarter of the memory traffic of spreading every pixel over eight
voxels. Volumes have the layout of :mod:`cryorefine.refine.volume` with padding 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of, to_host
from cryorefine.maps import fft
from cryorefine.refine.gpu.volumes import volumes_of
from cryorefine.refine.volume import (
    interpolation_falloff,
    map_from_fourier,
    radius,
    shell_means,
    symmetrise,
)

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
TAPER = 10.0
"""Width in px of the soft edge of a map inside the sphere that its box holds, in boxes that have the room."""
_LEAST_FALLOFF = 0.01
_LEAST_WEIGHT = 0.001

_FAST: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": True, "error_model": "numpy"}


def empty_sums(box: int) -> F32:
    """Return zeros for the sums of a map of this box in px.

    Shape (2L+1, 2L+1, L+2, 4) with L half the box: real and imaginary part of the data, the weight, and
    nothing, so that one voxel is one load of four numbers.
    """
    limit = box // 2
    return np.zeros((2 * limit + 1, 2 * limit + 1, limit + 2, 4), np.float32)


def split_sums(sums: F32) -> tuple[C64, F32]:
    """Return numerator and weight of sums, both of shape (2L+1, 2L+1, L+2)."""
    return np.ascontiguousarray(sums[..., :2]).view(np.complex64)[..., 0], sums[..., 2].copy()


def insert_images(
    sums: F32,
    spectra: C64,
    gain: F32,
    keep: NDArray[np.bool_],
    orientations: F64,
    ratio: float = 1.0,
) -> None:
    """Add the images of a particle to sums, in place.

    Parameters
    ----------
    sums : ndarray of float32, shape (2L+1, 2L+1, L+2, 4)
        Of :func:`empty_sums`.
    spectra : ndarray of complex64, shape (n, size, size // 2 + 1)
        Transforms of images, premultiplied by their gain, with the particle at ``size // 2``; they and
        their gains live where the sums do.
    gain : ndarray of float32, shape (n, size * (size // 2 + 1))
        CTF times dose weight of each image.
    keep : ndarray of bool, shape (n, size * (size // 2 + 1))
        Pixels to be used; the others count as missing.
    orientations : ndarray, shape (n, 3, 3)
        From the reference to each image.
    ratio : float
        Width of the images in A over that of the map.
    """
    if is_on_gpu(sums):
        from cryorefine.refine.gpu.extraction import gather

        gather(sums, spectra, gain, keep, orientations, ratio)
        return
    count, size = spectra.shape[:2]
    images = np.empty((count, size + 2, size // 2 + 3, 4), np.float32)
    reach = np.zeros(count)
    _lay_out(spectra, gain, keep, images, reach)
    _gather(sums, np.ascontiguousarray(orientations), ratio, reach, images)


@njit(**_FAST)
def _lay_out(spectra: C64, gain: F32, keep: NDArray[np.bool_], images: F32, reach: F64) -> None:
    """Put data and weights of transforms side by side, ky from -size/2 on, the origin at the particle."""
    count, size, width = spectra.shape
    half = size // 2
    for n in range(count):
        far = 0
        for row in range(size):
            ky = row if 2 * row < size else row - size
            source, target = spectra[n, row], images[n, ky + half]
            sign = np.float32(1 - 2 * (ky & 1))
            for kx in range(width):
                pixel = row * width + kx
                r2 = kx * kx + ky * ky
                # Where a row ends differs from image to image with the dose.
                inside = keep[n, pixel] and r2 <= half * half
                use = np.float32(inside)
                target[kx, 0] = sign * use * source[kx].real
                target[kx, 1] = sign * use * source[kx].imag
                target[kx, 2] = use * gain[n, pixel] * gain[n, pixel]
                far = max(far, r2 * inside)
                sign = -sign
            target[width:] = 0
        # Interpolation reads, and does not use, one pixel beyond the last.
        images[n, size:] = 0
        reach[n] = np.sqrt(far)


@njit(**_FAST)
def _gather(sums: F32, matrices: F64, ratio: float, reach: F64, images: F32) -> None:
    limit = sums.shape[0] // 2
    half = (images.shape[1] - 2) // 2
    one = np.float32(1)
    for n in range(matrices.shape[0]):
        ax, ay, az = matrices[n, 0, 0] * ratio, matrices[n, 0, 1] * ratio, matrices[n, 0, 2] * ratio
        bx, by, bz = matrices[n, 1, 0] * ratio, matrices[n, 1, 1] * ratio, matrices[n, 1, 2] * ratio
        cx, cy, cz = matrices[n, 2, 0], matrices[n, 2, 1], matrices[n, 2, 2]
        # A slice parallel to an axis: a whole line lies beside it, or none of it.
        if abs(cx) < 1e-9:
            cx = 1e-9
        if abs(cy) < 1e-9:
            cy = 1e-9
        step_u, step_v, step_d = np.float32(ax), np.float32(bx), np.float32(cx)
        far = min(reach[n] / ratio + 1, float(limit))
        image = images[n]
        # Distances, at x = 0, of the lines along x that come within one voxel of the slice.
        low, high = -1 - max(0.0, cx * far), 1 - min(0.0, cx * far)
        for z in range(-int(far), int(far) + 1):
            wide = np.sqrt(max(far * far - z * z, 0.0))
            begin, end = (low - cz * z) / cy, (high - cz * z) / cy
            if begin > end:
                begin, end = end, begin
            for y in range(int(np.ceil(max(begin, -wide))), int(np.floor(min(end, wide))) + 1):
                distance = cy * y + cz * z
                enter, leave = (-1 - distance) / cx, (1 - distance) / cx
                if enter > leave:
                    enter, leave = leave, enter
                first = max(0, int(np.ceil(max(enter, -1.0))))
                last = int(np.floor(min(np.sqrt(max(wide * wide - y * y, 0.0)), leave)))
                line = sums[z + limit, y + limit]
                start_u, start_v = np.float32(ay * y + az * z), np.float32(by * y + bz * z)
                start_d = np.float32(distance)
                for x in range(first, last + 1):
                    part = one - abs(step_d * np.float32(x) + start_d)
                    u = step_u * np.float32(x) + start_u
                    v = step_v * np.float32(x) + start_v
                    mate = one if u >= 0 else -one
                    u *= mate
                    v = v * mate + np.float32(half)
                    i, j = int(u), int(v)
                    if i > half or v < 0 or j > 2 * half:
                        continue
                    fu, fv = u - np.float32(i), v - np.float32(j)
                    a, b, c, d = image[j, i], image[j, i + 1], image[j + 1, i], image[j + 1, i + 1]
                    wd = fu * fv * part
                    wb, wc = fu * part - wd, fv * part - wd
                    wa = part - wb - wc - wd
                    total = line[x]
                    total[0] += wa * a[0] + wb * b[0] + wc * c[0] + wd * d[0]
                    total[1] += mate * (wa * a[1] + wb * b[1] + wc * c[1] + wd * d[1])
                    total[2] += wa * a[2] + wb * b[2] + wc * c[2] + wd * d[2]


def symmetric_mean(numerator: C64, weight: F32, operators: F64) -> tuple[C64, F32]:
    """Return the averages of accumulators over the operators of a point group, shape (n, 3, 3)."""
    size = 2 * (numerator.shape[0] // 2)
    if len(operators) == 1:
        return numerator, weight
    data, total = symmetrise(numerator, weight, operators, size, 1.0, volumes_of(numerator))
    data /= np.float32(len(operators))
    total /= np.float32(len(operators))
    return data, total


def solve(numerator: C64, weight: F32, box: int, *, snr: float | None = None, threads: int = 1) -> F32:
    """Return the map whose slices fit the images best.

    It is worked out where the accumulators live, and returned on the processor.

    On absolute grey scale: a projection of the map is an image of a stack without its CTF.

    Parameters
    ----------
    numerator, weight : ndarray, shape (2L+1, 2L+1, L+2)
        Accumulators.
    box : int
        Edge of the map in px.
    snr : float, optional
        Signal-to-noise ratio of a Wiener filter; without one, weights are kept above a thousandth of
        their shell's mean.
    threads : int
        Threads of the FFT.

    Returns
    -------
    ndarray of float32, shape (box, box, box)
    """
    xp, gpu = module_of(numerator), volumes_of(numerator)
    # Interpolation has multiplied the sum of all images, not their quotient, by this in real space.
    summed = map_from_fourier(numerator, box, 1.0, threads)
    summed /= xp.maximum(interpolation_falloff(box, 1.0, xp), np.float32(_LEAST_FALLOFF))
    transform = fft.real_forward(xp.roll(summed, -(box // 2), (0, 1, 2)), (0, 1, 2), threads)
    limit = box // 2
    rows = xp.asarray(np.arange(-limit, limit) % box)
    # The last row and column of the accumulators belong to the Nyquist frequency's other name.
    known = weight[:-1, :-1, : limit + 1]
    if snr is not None:
        divisor = known + np.float32(1 / snr)
    else:
        means = np.append((shell_means if gpu is None else gpu.shell_means)(weight, 1.0, limit + 1), 0.0)
        axis, last = xp.arange(-limit, limit, dtype=np.float32), xp.arange(limit + 1, dtype=np.float32)
        r = xp.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + last**2)
        least = xp.interp(r, xp.arange(limit + 2), xp.asarray(_LEAST_WEIGHT * means)).astype(np.float32)
        divisor = xp.where(r > limit, np.float32(0), xp.maximum(known, least))
    # Voxels without a weight stay empty.
    inverse = xp.where(divisor > 0, 1 / xp.where(divisor > 0, divisor, np.float32(1)), np.float32(0))
    ordered = xp.empty_like(inverse)
    ordered[rows[:, None], rows] = inverse
    transform *= ordered
    # map_from_fourier and the volumes of a refinement count per box^2.
    transform /= np.float32(box) ** 2
    volume = xp.roll(fft.real_backward(transform, (0, 1, 2), box, threads), box // 2, (0, 1, 2))
    return np.asarray(to_host(volume), np.float32)


def cropped(volume: F32, crop: int) -> F32:
    """Cut out the middle of a map and fade it out inside the sphere that the new box holds.

    The mean inside is taken away before, so that the edge is no step. In the corners of an uncropped box
    the correction for the interpolation has made a fifty-fold of the noise.

    Parameters
    ----------
    volume : ndarray, shape (box, box, box)
        Map.
    crop : int
        New edge in px.

    Returns
    -------
    ndarray of float32, shape (crop, crop, crop)
    """
    first = volume.shape[0] // 2 - crop // 2
    inner = slice(first, first + crop)
    cut = volume[inner, inner, inner]
    inside = np.clip((crop / 2 - radius(crop)) / min(TAPER, crop // 6), 0, 1)
    gain = 0.5 - 0.5 * np.cos(np.pi * inside)
    mean = float(np.sum(cut * gain, dtype=np.float64) / np.sum(gain, dtype=np.float64))
    return ((cut - np.float32(mean)) * gain).astype(np.float32)
