"""Grids of trial shifts, in pixels or in angstroms, as (x, y) or (x, y, z)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Lets grid points exactly on the circle in, whatever the rounding of step and range.
_MARGIN = 0.001


def translation_grid_2d(search_range: float, step: float, perturbation: float = 0.0) -> NDArray[np.float64]:
    """Return the square grid of shifts within a circle.

    Points are kept where ``x**2 + y**2 < search_range**2 + 0.001``, before the perturbation.

    Parameters
    ----------
    search_range : float
        Radius of the circle.
    step : float
        Spacing of the grid, in the unit of ``search_range``.
    perturbation : float
        Part of a step added on each axis.

    Returns
    -------
    ndarray of float64, shape (t, 2)
        Shifts (x, y) by which an image is moved; 21 of them for range 5 and step 2.
    """
    return _grid(2, search_range, step, perturbation)


def translation_grid_3d(search_range: float, step: float, perturbation: float = 0.0) -> NDArray[np.float64]:
    """Return the cubic grid of shifts within a sphere; the 3D form of :func:`translation_grid_2d`.

    Returns
    -------
    ndarray of float64, shape (t, 3)
        Shifts (x, y, z); 81 of them for range 27 and step 10.8.
    """
    return _grid(3, search_range, step, perturbation)


def oversample_translations(grid: ArrayLike, step: float) -> NDArray[np.float64]:
    """Return the centres of the halves (per axis) of each cell of a translation grid.

    Parameters
    ----------
    grid : array_like, shape (t, d)
        Shifts, d = 2 or 3.
    step : float
        Spacing of that grid, in the same unit.

    Returns
    -------
    ndarray of float64, shape (t, 2**d, d)
        Shifts at -+ step/4 on each axis; the last axis (y or z) runs fastest.
    """
    coarse = np.asarray(grid, dtype=np.float64)
    dimensions = coarse.shape[-1]
    signs = np.stack(np.meshgrid(*[[-0.25, 0.25]] * dimensions, indexing="ij"), axis=-1)
    return coarse[:, None, :] + step * signs.reshape(-1, dimensions)


def _grid(dimensions: int, search_range: float, step: float, perturbation: float) -> NDArray[np.float64]:
    if step <= 0 or search_range < 0:
        raise ValueError(f"range {search_range} must not be negative and step {step} must be positive")
    reach = int(np.ceil(search_range / step))
    axis = step * np.arange(-reach, reach + 1)
    points = np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
    inside = np.sum(points**2, axis=1) < search_range**2 + _MARGIN
    return points[inside] + perturbation * step
