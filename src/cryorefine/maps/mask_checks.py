"""Is a mask fit for use? Numbers, each with the value it should have; no input or output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps import filters
from cryorefine.maps.slabs import over_slabs

COVER_RESOLUTION = 15.0
"""Resolution in A at which a mask should hold nearly all of the map's signal."""

MOST_OUTSIDE = 0.05
"""Share of the signal outside a mask from which on it probably cuts into the particle."""


def edge_width(mask: NDArray[Any], threads: int = 0) -> float:
    """Return the width of a mask's soft edge in voxels; 0 for a binary mask.

    In a raised-cosine edge arccos(2 m - 1) / pi grows evenly, by 1 / w for each voxel of its width w.

    Parameters
    ----------
    mask : numpy.ndarray
        Shape (z, y, x), values in [0, 1].
    threads : int
        0 for every core.
    """
    if not bool(((mask > 0.02) & (mask < 0.98)).any()):
        return 0.0

    def work(slab: slice) -> NDArray[np.float64]:
        part = mask[max(slab.start - 1, 0) : slab.stop + 1].astype(np.float32, copy=False)
        middle = (part > 0.2) & (part < 0.8)
        for axis in range(3):
            index: list[Any] = [slice(None)] * 3
            for index[axis] in (0, -1):
                middle[tuple(index)] = False
        z, y, x = np.nonzero(middle)
        here = _phase(part[z, y, x])
        squared = np.zeros(len(here))
        for dz, dy, dx in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            ahead = np.abs(_phase(part[z + dz, y + dy, x + dx]) - here)
            behind = np.abs(_phase(part[z - dz, y - dy, x - dx]) - here)
            squared += np.maximum(ahead, behind) ** 2
        return np.sqrt(squared)

    slopes = np.concatenate(over_slabs(work, len(mask), threads))
    return 1.0 / max(float(np.median(slopes)), 1e-6) if len(slopes) else 1.0


def _phase(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.arccos(np.clip(2.0 * values - 1.0, -1.0, 1.0)) / np.pi


def edge_width_needed(resolution: float, pixel_size: float) -> int:
    """Return the least width of a soft edge in voxels: twice the resolution, and 5 voxels.

    The transform of an edge of w A falls off at 1/w. Where it is narrower than about twice the
    resolution it spreads correlation from coarse shells into those that decide.
    """
    return max(5, math.ceil(2.0 * resolution / pixel_size))


def fraction_outside(volume: NDArray[Any], mask: NDArray[Any], pixel_size: float, threads: int = 0) -> float:
    """Return the share of a map's signal at 15 A that lies outside a mask.

    Signal is the power of the filtered map about its background above what noise has: that of the
    negative excursions, mirrored, is taken away.

    Parameters
    ----------
    volume : numpy.ndarray
        Map, shape (z, y, x), density positive.
    mask : numpy.ndarray
        Same shape.
    pixel_size : float
        A/px.
    threads : int
        0 for every core.

    Returns
    -------
    float
        0 to 1.
    """
    density = filters.lowpass(volume, pixel_size, COVER_RESOLUTION, threads=threads)
    return share_outside(density, mask)


def share_outside(density: NDArray[Any], mask: NDArray[Any]) -> float:
    """Return the share of the signal of a filtered map outside a mask; see :func:`fraction_outside`."""
    outside = mask < 0.5
    sample = density[outside]
    if sample.size == 0:
        return 0.0
    inside = density[~outside]
    level = float(np.median(sample[:: max(1, sample.size // 100_000)]))
    missed = _excess(sample - level)
    kept = _excess(inside - level)
    return missed / (missed + kept) if missed + kept > 0 else 1.0


def _excess(values: NDArray[Any]) -> float:
    """Sum of squares of the positive values less that of the negative ones; at least 0."""
    values = values.astype(np.float64)
    return max(float(np.sum(values * np.abs(values))), 0.0)
