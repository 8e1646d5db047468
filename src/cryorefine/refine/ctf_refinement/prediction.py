"""Slices of a reference, less what each particle has itself brought to it.

A half map made from a particle's image X holds a share of X, noise and all; compared with X, that share
would pass for signal. With the sums N and W of images and weights and the gain G = 1 / (W + rest), a
particle that was inserted as w c X with the weight w c^2 has added h w c X to its own slice, and the share
q = h w c^2 of what is seen there: h is the sum over the corners i and j of the voxel of t_i t_j M_ij G_j,
with the weights t of the interpolation and the transform M of the window that the map is multiplied with.
The map of the others has the slice (V - h w c X) / (1 - q). What the particle adds to *other* pixels,
through window and interpolation, is noise of the reference like any other particle's: noise of different
pixels is independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.refine import slicing
from cryorefine.refine.ctf_refinement import dense
from cryorefine.refine.ctf_refinement.reference import Reference
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}


@dataclass(frozen=True, eq=False)
class Inserted:
    """Images as they went into a reference.

    Attributes
    ----------
    image : ndarray of complex64, shape (n, pixels)
        Transforms.
    correction : ndarray of complex64, shape (pixels,)
        Factor that undoes odd aberrations.
    transfer : ndarray of float32, shape (n, pixels)
        CTF.
    weight : ndarray of float32, shape (n,)
        Of each image.
    inverse_noise : ndarray of float32, shape (pixels,)
        Weight of each pixel.
    """

    image: C64
    correction: C64
    transfer: F32
    weight: F32
    inverse_noise: F32


def slices(
    reference: Reference,
    matrices: F64,
    plane: HalfPlane,
    padding: float,
    area: float,
    own: Inserted | None = None,
    coupling: F32 | None = None,
    where: Operations = PROCESSOR,
) -> C64:
    """Return slices of a reference on the scale of images, shape (n, pixels).

    Parameters
    ----------
    reference : Reference
        The map.
    matrices : ndarray, shape (n, 3, 3)
        Orientations.
    plane : HalfPlane
        Pixels.
    padding : float
        Samples of the volume per pixel.
    area : float
        Factor between slices and images.
    own : Inserted, optional
        What these images brought to the reference, to be taken away.
    coupling : ndarray of float32, shape (4,), optional
        Of the voxels of the volume, see :attr:`.frame.Frame.coupling`.
    where : Operations
        Where they are made; they are returned on the processor.
    """
    re, im = slicing.slices(where.volume(reference.volume), matrices, plane, padding, where)
    result = where.xp.empty(re.shape, np.complex64)
    result.real, result.imag = re, im
    result *= np.float32(area)
    if own is not None and coupling is not None:
        brought = (own.image, own.correction, own.transfer, own.weight, own.inverse_noise)
        if where is PROCESSOR:
            _without_own(
                reference.gain.reshape(-1),
                reference.volume.shape,
                matrices.astype(np.float32),
                plane.kx,
                plane.ky,
                padding,
                coupling,
                np.float32(area**2),
                *brought,
                np.empty(plane.pixels, np.int64),
                np.empty((4, plane.pixels), np.float32),
                result,
            )
        else:
            weights: Any = reference.gain
            result = dense.without_own(
                where.xp,
                where.volume(weights),
                matrices,
                where.array(plane.kx),
                where.array(plane.ky),
                padding,
                coupling,
                area**2,
                tuple(where.array(array) for array in brought),
                result,
            )
    return np.asarray(to_host(result), np.complex64)


@njit(**_FAST)
def _places(
    matrix: F32,
    kx: F32,
    ky: F32,
    padding: float,
    shape: tuple[int, int, int],
    index: NDArray[np.int64],
    parts: F32,
) -> None:
    """Write where the points of a slice lie: first corner, parts of a voxel along x, y, z, and sign of x."""
    limit = np.float32(shape[0] // 2)
    ax, ay, az = (
        np.float32(matrix[0, 0] * padding),
        np.float32(matrix[0, 1] * padding),
        np.float32(matrix[0, 2] * padding),
    )
    bx, by, bz = (
        np.float32(matrix[1, 0] * padding),
        np.float32(matrix[1, 1] * padding),
        np.float32(matrix[1, 2] * padding),
    )
    stride_y, stride_z = shape[2], shape[2] * shape[1]
    for p in range(kx.shape[0]):
        x = kx[p] * ax + ky[p] * bx
        y = kx[p] * ay + ky[p] * by
        z = kx[p] * az + ky[p] * bz
        m = np.float32(1) if x >= 0 else np.float32(-1)
        x, y, z = x * m, y * m + limit, z * m + limit
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        parts[0, p] = x - np.float32(ix)
        parts[1, p] = y - np.float32(iy)
        parts[2, p] = z - np.float32(iz)
        parts[3, p] = m
        index[p] = iz * stride_z + iy * stride_y + ix


@njit(**_FAST)
def _without_own(
    flat: F32,
    shape: tuple[int, int, int],
    matrices: F32,
    kx: F32,
    ky: F32,
    padding: float,
    coupling: F32,
    scale: np.float32,
    image: C64,
    correction: C64,
    transfer: F32,
    weight: F32,
    inverse_noise: F32,
    index: NDArray[np.int64],
    parts: F32,
    out: C64,
) -> None:
    """Take from each slice what its own image brought to it, in place."""
    stride_y = np.uint64(shape[2])
    stride_z = np.uint64(shape[2] * shape[1])
    one, whole, least = np.uint64(1), np.float32(1), np.float32(0.1)
    mx, my, mz = coupling[1], coupling[2], coupling[3]
    for o in range(matrices.shape[0]):
        _places(matrices[o], kx, ky, padding, shape, index, parts)
        factor = scale * coupling[0] * weight[o]
        for p in range(kx.shape[0]):
            i = np.uint64(index[p])
            k, j = i + stride_y, i + stride_z
            n = j + stride_y
            fx, fy, fz = parts[0, p], parts[1, p], parts[2, p]
            gx, gy, gz = whole - fx, whole - fy, whole - fz
            # Weights t_i sum_j(t_j M_ij) of either end of the voxel along each axis.
            x0, x1 = gx * (gx + mx * fx), fx * (fx + mx * gx)
            y0, y1 = gy * (gy + my * fy), fy * (fy + my * gy)
            z0, z1 = gz * (gz + mz * fz), fz * (fz + mz * gz)
            a = x0 * flat[i] + x1 * flat[i + one]
            b = x0 * flat[k] + x1 * flat[k + one]
            c = x0 * flat[j] + x1 * flat[j + one]
            d = x0 * flat[n] + x1 * flat[n + one]
            share = z0 * (y0 * a + y1 * b) + z1 * (y0 * c + y1 * d)
            amount = factor * inverse_noise[p] * transfer[o, p] * share
            rest = whole / max(whole - amount * transfer[o, p], least)
            x = image[o, p] * correction[p]
            re = (out[o, p].real - amount * x.real) * rest
            im = (out[o, p].imag - amount * x.imag) * rest
            out[o, p] = np.complex64(complex(re, im))
