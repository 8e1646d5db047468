"""Deformations of tilt images, which move the projected positions of particles.

The three models of RELION's tilt-series alignment. Coefficients are in px of the tilt images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.tomograms import Deformation, fourier_waves

F64 = NDArray[np.float64]


def deform(deformation: Deformation, image_size: tuple[int, int], points: F64) -> F64:
    """Move points of the tilt images by the deformation.

    Parameters
    ----------
    deformation : Deformation
        One model for each tilt.
    image_size : tuple of int
        Size (x, y) of the images in px.
    points : ndarray, shape (n, tilts, 2)
        Positions (x, y) in px.

    Returns
    -------
    ndarray, shape (n, tilts, 2)
    """
    model = {"linear": _linear, "spline": _spline, "Fourier": _fourier}[deformation.kind]
    size = np.array(image_size, dtype=np.float64)
    result = points.copy()
    for tilt, coefficients in enumerate(deformation.coefficients):
        result[:, tilt] += model(points[:, tilt], coefficients, deformation.grid, size)
    return result


def _linear(points: F64, coefficients: F64, grid: tuple[int, int], size: F64) -> F64:
    """Stretch along x, stretch along y and shear, about the image's centre."""
    xx, xy, yy = coefficients
    x, y = (points - size / 2).T
    return np.stack([xx * x, xy * x + yy * y], axis=1)


def _spline(points: F64, coefficients: F64, grid: tuple[int, int], size: F64) -> F64:
    """Bicubic Hermite patches from value, slopes and twist at the points of a grid.

    The grid spans the image, and is held constant beyond it.
    """
    nodes = coefficients.reshape(2, grid[1], grid[0], 4)
    cells = np.array(grid) - 1
    place = np.clip(points / size * cells, 0, cells - 1e-10)
    cell = place.astype(np.intp)
    (ix, iy), (fx, fy) = cell.T, (place - cell).T
    # Weights of (value at the left, slope at the left, value at the right, slope at the right).
    along_x, along_y = _hermite(fx), _hermite(fy)
    result = np.zeros((len(points), 2))
    for axis in range(2):
        for dx in range(2):
            for dy in range(2):
                value, slope_x, slope_y, twist = nodes[axis, iy + dy, ix + dx].T
                result[:, axis] += along_y[2 * dy] * (along_x[2 * dx] * value + along_x[2 * dx + 1] * slope_x)
                result[:, axis] += along_y[2 * dy + 1] * (
                    along_x[2 * dx] * slope_y + along_x[2 * dx + 1] * twist
                )
    return result


def _hermite(t: F64) -> tuple[F64, F64, F64, F64]:
    return 1 - 3 * t**2 + 2 * t**3, t - 2 * t**2 + t**3, 3 * t**2 - 2 * t**3, t**3 - t**2


def _fourier(points: F64, coefficients: F64, grid: tuple[int, int], size: F64) -> F64:
    """Sum of waves; half a period of the longest is as long as the image."""
    waves = np.array(fourier_waves(grid))
    real, imaginary = np.moveaxis(coefficients.reshape(2, len(waves), 2), 2, 0)
    angle = np.pi * (points / size) @ waves.T
    return np.cos(angle) @ real.T + np.sin(angle) @ imaginary.T
