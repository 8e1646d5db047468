"""The forward model, score and insertion written slowly and obviously in NumPy.

Nothing in the program calls this module: the compiled kernels are tested against it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def sample_points(matrix: Array, indices: Array, padding: float) -> Array:
    """Where a slice lies in the volume: padding * A^T (kx, ky, kz), shape (pixels, 3) as (x, y, z).

    ``indices`` has shape (pixels, 2) for an image, whose kz is 0, and (pixels, 3) for a volume.
    """
    return padding * indices @ matrix[: indices.shape[1]]


def slice_volume(volume: Complex, matrix: Array, indices: Array, padding: float) -> Complex:
    """One central slice, shape (pixels,), by trilinear interpolation of eight neighbours.

    ``volume`` has shape (2L+1, 2L+1, L+2), x >= 0, with the origin at [L, L, 0].
    """
    limit = volume.shape[0] // 2
    result = np.zeros(len(indices), complex)
    for p, (x, y, z) in enumerate(sample_points(matrix, indices, padding)):
        sign = -1 if x < 0 else 1
        point = sign * np.array([x, y, z]) + [0, limit, limit]
        corner = np.trunc(point).astype(int)
        fraction = point - corner
        value = 0j
        for dx, dy, dz in np.ndindex(2, 2, 2):
            share = np.prod(np.where([dx, dy, dz], fraction, 1 - fraction))
            value += share * volume[corner[2] + dz, corner[1] + dy, corner[0] + dx]
        result[p] = np.conj(value) if sign < 0 else value
    return result


def insert_slice(
    numerator: Complex,
    weight: Array,
    matrix: Array,
    indices: Array,
    padding: float,
    data: Complex,
    w: Array,
) -> None:
    """Spread one slice over eight neighbours each: the transpose of :func:`slice_volume`."""
    limit = numerator.shape[0] // 2
    for p, (x, y, z) in enumerate(sample_points(matrix, indices, padding)):
        sign = -1 if x < 0 else 1
        point = sign * np.array([x, y, z]) + [0, limit, limit]
        corner = np.trunc(point).astype(int)
        fraction = point - corner
        value = np.conj(data[p]) if sign < 0 else data[p]
        for dx, dy, dz in np.ndindex(2, 2, 2):
            share = np.prod(np.where([dx, dy, dz], fraction, 1 - fraction))
            at = (corner[2] + dz, corner[1] + dy, corner[0] + dx)
            numerator[at] += share * value
            weight[at] += share * w[p]


def squared_difference(image: Complex, shift: Complex, ctf: Array, model: Complex, sigma2: Array) -> float:
    """1/2 sum |X shift - CTF V|^2 / sigma2: minus the log-likelihood of a pose, up to a constant."""
    return float(0.5 * np.sum(np.abs(image * shift - ctf * model) ** 2 / sigma2))
