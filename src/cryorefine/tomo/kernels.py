"""Compiled inner loops of the extraction; single-threaded, without the interpreter's lock."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]

_FAST: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": True, "error_model": "numpy"}


@njit(**_FAST)
def crop_shift_multiply(spectra: C64, shifts: F64, gain: F32, factor: float, result: C64) -> None:
    """Crop transforms of images, move the images and multiply the transforms by a gain.

    Parameters
    ----------
    spectra : complex64, shape (n, large, large // 2 + 1)
        Half transforms.
    shifts : float64, shape (n, 2)
        Movement (x, y) of the content in px of the small box.
    gain : float32, shape (n, small * (small // 2 + 1)) or (0, ...)
        Factors in the layout of the small half transform; none when empty.
    factor : float
        Common factor.
    result : complex64, shape (n, small, small // 2 + 1)
        Overwritten. The Nyquist row is that of -small / 2.
    """
    large = spectra.shape[1]
    small, width = result.shape[1], result.shape[2]
    phase_x = np.empty(width, np.complex64)
    for n in range(result.shape[0]):
        for x in range(width):
            angle = -2 * np.pi * shifts[n, 0] * x / small
            phase_x[x] = complex(np.cos(angle), np.sin(angle))
        for row in range(small):
            y = row if 2 * row < small else row - small
            angle = -2 * np.pi * shifts[n, 1] * y / small
            phase_y = np.complex64(factor * complex(np.cos(angle), np.sin(angle)))
            source, target = spectra[n, y if y >= 0 else y + large], result[n, row]
            if gain.shape[0] > 0:
                weights = gain[n, row * width : (row + 1) * width]
                for x in range(width):
                    target[x] = weights[x] * (phase_y * phase_x[x] * source[x])
            else:
                for x in range(width):
                    target[x] = phase_y * phase_x[x] * source[x]


@njit(nogil=True, cache=True, error_model="numpy")
def cut_half_precision(
    image: NDArray[np.uint16], x: int, y: int, square: F32, bits: NDArray[np.uint32]
) -> bool:
    """Cut a square out of an image of 16-bit floats, repeating the edge; NumPy takes several times as long.

    Parameters
    ----------
    image : uint16, shape (height, width)
        The bits of the 16-bit floats.
    x, y : int
        First column and row.
    square : float32, shape (size, size)
        Overwritten.
    bits : uint32, shape (size, size)
        The same memory as ``square``.

    Returns
    -------
    bool
        Whether all of them are finite.
    """
    height, width = image.shape
    size = square.shape[0]
    # Exponents count from 15 in the short format and from 127 in the long one.
    scale = np.float32(2.0**112)
    magnitude, sign, infinite = np.uint32(0x7FFF), np.uint32(0x8000), np.uint32(0x7C00)
    finite = True
    # All in 32 bits and one row at a time, so that the loops are vectorised.
    for row in range(size):
        line = image[min(max(y + row, 0), height - 1)]
        target, values = bits[row], square[row]
        largest = np.uint32(0)
        if x >= 0 and x + size <= width:
            part = line[x : x + size]
            for column in range(size):
                half = np.uint32(part[column])
                target[column] = ((half & magnitude) << np.uint32(13)) | ((half & sign) << np.uint32(16))
                largest = max(largest, half & magnitude)
        else:
            for column in range(size):
                half = np.uint32(line[min(max(x + column, 0), width - 1)])
                target[column] = ((half & magnitude) << np.uint32(13)) | ((half & sign) << np.uint32(16))
                largest = max(largest, half & magnitude)
        for column in range(size):
            values[column] *= scale
        finite = finite and bool(largest < infinite)
    return finite


@njit(**_FAST)
def level_and_crop(images: F32, weight: F32, outside: NDArray[np.bool_], result: F32) -> None:
    """Subtract the mean of the surroundings from images, weight them and cut out their middle.

    Parameters
    ----------
    images : float32, shape (n, box, box)
        Images.
    weight : float32, shape (box, box)
        Soft circle.
    outside : bool, shape (box, box)
        Pixels whose mean is subtracted.
    result : float32, shape (n, crop, crop)
        Overwritten.
    """
    box, crop = images.shape[1], result.shape[1]
    first = (box - crop) // 2
    count = max(int(np.sum(outside)), 1)
    for n in range(images.shape[0]):
        total = 0.0
        for y in range(box):
            for x in range(box):
                if outside[y, x]:
                    total += images[n, y, x]
        mean = np.float32(total / count)
        for y in range(crop):
            for x in range(crop):
                value = images[n, first + y, first + x] - mean
                result[n, y, x] = value * weight[first + y, first + x]


@njit(nogil=True, cache=True, error_model="numpy")
def insert_tilts(
    data: C64, weight: F32, multiplicity: F32, matrices: F64, factor: float, images: C64, gains: F32, use: F32
) -> None:
    """Add slices to a Fourier volume, its weights and the number of images that saw each place.

    Parameters
    ----------
    data, weight, multiplicity : complex64 and float32, shape (crop, crop, crop // 2 + 1)
        Half transforms, origin at [0, 0, 0]; changed in place.
    matrices : float64, shape (n, 3, 3)
        Rotations from the volume to each image; a pixel (kx, ky) lies at ``matrix.T @ (kx, ky, 0)``.
    factor : float
        Volume samples per image sample.
    images : complex64, shape (n, box, box // 2 + 1)
        Transforms of premultiplied images, origin at [0, 0].
    gains : float32, shape (n, box * (box // 2 + 1))
        What the images have been multiplied by.
    use : float32, shape (n, box * (box // 2 + 1))
        Pixels where this is not above 0 are left out.
    """
    count, box, width = images.shape
    crop = data.shape[0]
    half = crop // 2
    area = np.float32(factor * factor)
    for n in range(count):
        m = matrices[n]
        for row in range(box):
            ky = row if 2 * row < box else row - box
            for kx in range(width):
                pixel = row * width + kx
                if 4 * (kx * kx + ky * ky) > box * box or not use[n, pixel] > 0:
                    continue
                x = factor * (kx * m[0, 0] + ky * m[1, 0])
                y = factor * (kx * m[0, 1] + ky * m[1, 1])
                z = factor * (kx * m[0, 2] + ky * m[1, 2])
                value = area * images[n, row, kx]
                square = area * gains[n, pixel] * gains[n, pixel]
                if x < 0:
                    x, y, z, value = -x, -y, -z, np.conj(value)
                ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                for dz in range(2):
                    for dy in range(2):
                        for dx in range(2):
                            jx, jy, jz = ix + dx, iy + dy, iz + dz
                            if jx > half or jy >= half or jz >= half or jy < -half or jz < -half:
                                continue
                            part = np.float32((1 - abs(x - jx)) * (1 - abs(y - jy)) * (1 - abs(z - jz)))
                            data[jz, jy, jx] += part * value
                            weight[jz, jy, jx] += part * square
                            multiplicity[jz, jy, jx] += part * area
                            if jx == 0 and kx > 0 and jy > -half and jz > -half:
                                # Both mates of the plane x = 0 are stored.
                                data[-jz, -jy, 0] += part * np.conj(value)
                                weight[-jz, -jy, 0] += part * square
                                multiplicity[-jz, -jy, 0] += part * area
