"""What a mask will be like, quickly enough to follow a slider: a smaller copy of the map and its levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.fourier import rescale

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
