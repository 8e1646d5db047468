"""What a mask will be like, quickly enough to follow a slider: a smaller copy of the map and its levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.fourier import rescale
from cryorefine.maps.mask_recipe import MaskRecipe, binary_mask, over_whole

COARSE_SIZE = 128
"""Largest box in which surfaces are made: a few hundredths of a second each."""

LARGEST_SHARE, SMALLEST_SHARE = 0.5, 1e-4
"""Shares of the box that the lowest and the highest level on offer enclose."""


def coarse_copy(volume: NDArray[Any], size: int = COARSE_SIZE, threads: int = 0) -> NDArray[np.float32]:
    """Return a map in a box of at most ``size`` voxels, cropped in Fourier space.

    Voxel 0 stays where it is; the voxels become ``volume.shape[0] / result.shape[0]`` times as wide.

    Parameters
    ----------
    volume : numpy.ndarray
        Cubic, shape (z, y, x).
    size : int
        Largest box of the result.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x); the values keep their scale.
    """
    small = rescale(volume, min(size, volume.shape[0]), threads)
    return np.ascontiguousarray(small, dtype=np.float32)


def threshold_ladder(volume: NDArray[Any], steps: int = 1001) -> NDArray[np.float64]:
    """Return thresholds from low to high that enclose from half of the box to a ten-thousandth of it.

    Each encloses the same part of what the one before it does, so that a slider over them changes
    the enclosed volume evenly wherever it stands, whatever the map's grey values are.

    Parameters
    ----------
    volume : numpy.ndarray
        Shape (z, y, x); a coarse copy will do.
    steps : int
        How many thresholds.

    Returns
    -------
    numpy.ndarray
        Shape (steps,), never decreasing.
    """
    shares = np.geomspace(LARGEST_SHARE, SMALLEST_SHARE, steps)
    return np.quantile(volume, 1.0 - shares).astype(np.float64)


def shown_density(
    volume: NDArray[np.float32], recipe: MaskRecipe, second: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return a map whose surface at the threshold bounds what a mask begins with.

    It is the map itself, so that the surface is smooth, but for the voxels that the second map,
    the removal of islands or the filling of holes takes away or adds: they are put just below or
    just above the threshold.

    Parameters
    ----------
    volume : numpy.ndarray
        float32, shape (z, y, x).
    recipe : MaskRecipe
        What the mask is made by; volumes in voxels of this map.
    second : numpy.ndarray, optional
        The second map, same shape.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x).
    """
    wanted = over_whole(binary_mask(volume, recipe, second), recipe)
    there = volume >= recipe.threshold
    threshold = np.float32(recipe.threshold)
    step = max(np.float32(1e-6) * np.abs(threshold), np.float32(np.ptp(volume)) * np.float32(1e-6))
    result = volume.copy()
    result[there & ~wanted] = threshold - step
    result[wanted & ~there] = threshold + step
    return result
