"""Is a mask fit for use? Numbers, each with the value it should have; no input or output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.masks import touches_box
from cryorefine.maps.slabs import over_slabs

COVER_RESOLUTION = 15.0
"""Resolution in A at which a mask should hold nearly all of the map's signal."""

MOST_OUTSIDE = 0.05
"""Share of the signal outside a mask from which on it probably cuts into the particle."""

TOUCHES = (
    "The mask reaches the edge of the box; give a higher --threshold or a smaller --extend and --soft-edge, "
    "or use a larger box."
)


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
    if len(mask) < 3:
        return 0.0

    # Some sixty planes tell enough.
    planes = range(1, len(mask) - 1, max(1, len(mask) // 64))

    def work(slab: slice) -> NDArray[np.float64]:
        return np.concatenate([slopes_around(z) for z in planes[slab]])

    def slopes_around(plane: int) -> NDArray[np.float64]:
        part = mask[plane - 1 : plane + 2].astype(np.float32, copy=False)
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

    slopes = np.concatenate(over_slabs(work, len(planes), threads))
    return 1.0 / max(float(np.median(slopes)), 1e-6) if len(slopes) else 0.0


def _phase(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.arccos(np.clip(2.0 * values - 1.0, -1.0, 1.0)) / np.pi


def edge_width_needed(resolution: float, pixel_size: float) -> int:
    """Return the least width of a soft edge in voxels: twice the resolution, and 5 voxels.

    The transform of an edge of w A falls off at 1/w. Where it is narrower than about twice the
    resolution it spreads correlation from coarse shells into those that decide.
    """
    return max(5, math.ceil(2.0 * resolution / pixel_size))


def share_outside(density: NDArray[Any], mask: NDArray[Any]) -> float:
    """Return the share of a map's signal that lies outside a mask.

    Signal is the sum of the squares of the density above the background, less that of the density
    below it, which noise makes as often. Every second voxel along each axis is looked at.

    Parameters
    ----------
    density : numpy.ndarray
        Map filtered to about :data:`COVER_RESOLUTION`, shape (z, y, x), density positive.
    mask : numpy.ndarray
        Same shape, values in [0, 1].

    Returns
    -------
    float
        0 to 1.
    """
    coarse = (slice(None, None, 2),) * density.ndim
    density, outside = density[coarse], mask[coarse] < 0.5
    beyond = density[outside]
    if beyond.size == 0:
        return 0.0
    level = float(np.median(beyond[:: max(1, beyond.size // 100_000)]))
    missed, kept = _excess(beyond - level), _excess(density[~outside] - level)
    return missed / (missed + kept) if missed + kept > 0 else 1.0


def sentences(
    mask: NDArray[Any],
    pixel_size: float,
    density: NDArray[Any] | None = None,
    resolution: float | None = None,
    threads: int = 0,
) -> Iterator[str]:
    """Say what is wrong with a mask, one sentence each; nothing when it is fit for use.

    Parameters
    ----------
    mask : numpy.ndarray
        Shape (z, y, x), 1 in the particle.
    pixel_size : float
        A/px.
    density : numpy.ndarray, optional
        The map filtered to about :data:`COVER_RESOLUTION`; tells whether the mask covers it.
    resolution : float, optional
        Resolution in A at which the mask will be used; tells whether the edge is soft enough.
    threads : int
        0 for every core.
    """
    if not mask.any():
        yield "The mask is empty; give a lower --threshold, or a larger --extend."
        return
    if touches_box(mask > 0):
        yield TOUCHES
    missed = share_outside(density, mask) if density is not None else 0.0
    if missed > MOST_OUTSIDE:
        yield (
            f"The mask leaves out {100 * missed:.0f} % of the map's signal at {COVER_RESOLUTION:g} A, so it "
            "probably cuts into the particle; give a lower --threshold or a larger --extend."
        )
    width = edge_width(mask, threads)
    needed = 2 if resolution is None else edge_width_needed(resolution, pixel_size)
    # A measured width is good to a tenth.
    if width < 0.9 * needed:
        at = "" if resolution is None else f" for {resolution:.2f} A"
        least = max(needed, 5)
        yield (
            f"The soft edge of about {width:.0f} px is too narrow{at} and would raise the FSC by itself; "
            f"give a --soft-edge of at least {least} px."
        )


def _excess(values: NDArray[Any]) -> float:
    """Sum of squares of the positive values less that of the negative ones; at least 0."""
    values = values.astype(np.float64)
    return max(float(np.sum(values * np.abs(values))), 0.0)
