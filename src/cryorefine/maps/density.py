"""Volume and mass of density, thresholds that follow from them or from the solvent, and its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of, to_host

DALTONS_PER_CUBIC_ANGSTROM = 0.81
"""Mass of protein in 1 A^3: 1.35 g/cm^3 (Fischer, Polikarpov and Craievich, Protein Sci. 13, 2004)."""

_SIGMAS = 4.0


@dataclass(frozen=True)
class Volume:
    """How much a mask or a threshold encloses.

    Attributes
    ----------
    cubic_angstrom : float
        Volume in A^3.
    kilodalton : float
        Mass of protein that fills it, in kDa.
    fraction : float
        Share of the box.
    """

    cubic_angstrom: float
    kilodalton: float
    fraction: float


@dataclass(frozen=True)
class Threshold:
    """A suggested threshold, and why."""

    value: float
    reason: str


def volume_of(inside: NDArray[np.bool_], pixel_size: float) -> Volume:
    """Return the volume of the true voxels of a boolean array (z, y, x), and the protein that fills it."""
    count = int(np.count_nonzero(inside))
    cubic = count * pixel_size**3
    return Volume(cubic, cubic * DALTONS_PER_CUBIC_ANGSTROM / 1000, count / max(inside.size, 1))


def threshold_for_mass(density: NDArray[Any], pixel_size: float, kilodalton: float) -> Threshold:
    """Return the density above which lies the volume of protein of a given mass.

    Parameters
    ----------
    density : numpy.ndarray
        Filtered map, shape (z, y, x).
    pixel_size : float
        A/px.
    kilodalton : float
        Mass of the particle.

    Raises
    ------
    ValueError
        When the box is smaller than the particle.
    """
    voxels = round(kilodalton * 1000 / DALTONS_PER_CUBIC_ANGSTROM / pixel_size**3)
    if not 0 < voxels < density.size:
        raise ValueError(f"{kilodalton:g} kDa are {voxels} voxels, but the box has {density.size}")
    place = density.size - voxels
    value = float(np.partition(to_host(density), place, axis=None)[place])
    cubic = kilodalton * 1000 / DALTONS_PER_CUBIC_ANGSTROM
    return Threshold(value, f"encloses {cubic:.3g} A^3, the volume of {kilodalton:g} kDa of protein")


def suggest_threshold(density: NDArray[Any]) -> Threshold:
    """Return a threshold that noise of the solvent does not reach.

    The solvent is where the histogram peaks. The width of the peak is taken from its lower side,
    which holds no particle, so it does not matter how large the particle is: the threshold is
    four widths above the peak. Where the particle is too weak to stand out, Otsu's threshold of
    what lies above the peak is taken (IEEE Trans. Syst. Man Cybern. 9, 62-66, 1979).

    Parameters
    ----------
    density : numpy.ndarray
        Filtered map, shape (z, y, x).

    Returns
    -------
    Threshold
        The value, and why, as one clause.
    """
    sample = _in_sphere(density)
    low, high = (float(v) for v in np.percentile(sample, (0.05, 99.95)))
    if high <= low:
        return Threshold(float(sample.max()), "is the highest density, for the map is flat")
    # Half-sample mode: the interval that holds a quarter of all voxels and is the narrowest.
    ordered = np.sort(sample)
    span = max(len(ordered) // 4, 1)
    start = int(np.argmin(ordered[span:] - ordered[:-span]))
    peak = float(np.median(ordered[start : start + span]))
    below = peak - ordered[ordered < peak]
    width = 1.4826 * float(np.median(below)) if len(below) else 0.0
    value = peak + _SIGMAS * width
    if width > 0 and np.count_nonzero(sample > value) >= 0.001 * len(sample) and value < high:
        return Threshold(
            value, f"is {_SIGMAS:g} standard deviations of the solvent ({width:.2g}) above it ({peak:.2g})"
        )
    return Threshold(_otsu(sample, low, high), "divides the densities best into two groups (Otsu)")


def _in_sphere(density: NDArray[Any]) -> NDArray[np.float64]:
    """Return at most some 200 000 voxels of the sphere in the box; corners are often empty."""
    step = max(1, round((density.size / 200_000) ** (1 / 3)))
    part = density[tuple(slice(step // 2, None, step) for _ in density.shape)]
    squared: Any = 0
    for axis, length in enumerate(part.shape):
        place = (np.arange(length) - (length - 1) / 2) / max(length / 2, 1)
        squared = squared + (place**2).reshape(-1, *[1] * (part.ndim - 1 - axis))
    return np.asarray(to_host(part)[squared <= 1.0], np.float64)


def _otsu(sample: NDArray[np.float64], low: float, high: float) -> float:
    counts, edges = np.histogram(sample, bins=256, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    first = np.cumsum(counts)[:-1].astype(np.float64)
    second = counts.sum() - first
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = first * second * (total[:-1] / first - (total[-1] - total[:-1]) / second) ** 2
    return float(edges[1:-1][int(np.nanargmax(between))])


def keep_islands(
    binary: NDArray[np.bool_], largest: int | None = None, smallest_volume: float = 0.0
) -> NDArray[np.bool_]:
    """Keep the largest connected parts of a mask; voxels that share a face are connected.

    Parameters
    ----------
    binary : numpy.ndarray
        Boolean, shape (z, y, x).
    largest : int, optional
        How many to keep; all unless given.
    smallest_volume : float
        Voxels; smaller parts are removed.

    Returns
    -------
    numpy.ndarray
        Boolean, same shape.
    """
    xp = module_of(binary)
    result = xp.zeros_like(binary)
    box = bounds(binary)
    labels, count = _labels(binary[box])
    if count == 0:
        return result
    sizes = to_host(xp.bincount(labels.ravel(), minlength=count + 1))
    sizes[0] = 0
    kept = sizes >= max(math.ceil(smallest_volume), 1)
    if largest is not None and largest < count:
        order = np.argsort(-sizes, kind="stable")
        kept[order[largest:]] = False
    result[box] = xp.asarray(kept)[labels]
    return result


def bounds(binary: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around the true voxels, as slices; empty ones where there are none."""
    box = []
    for axis in range(binary.ndim):
        others = tuple(a for a in range(binary.ndim) if a != axis)
        occupied = np.flatnonzero(to_host(binary.any(axis=others)))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else slice(0, 0))
    return tuple(box)


def fill_holes(binary: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill every hole of a mask from which no path over faces leads out of the box."""
    xp = module_of(binary)
    # What lies around the mask is open; a margin of one voxel joins it.
    box = tuple(slice(max(b.start - 1, 0), b.stop + 1) for b in bounds(binary))
    labels, count = _labels(~binary[box])
    if count == 0:
        return binary.copy()
    open_to_box = np.zeros(count + 1, dtype=bool)
    for axis in range(binary.ndim):
        for side in (0, -1):
            open_to_box[to_host(xp.unique(labels[(slice(None),) * axis + (side,)]))] = True
    open_to_box[0] = False
    result = binary.copy()
    result[box] = xp.asarray(~open_to_box)[labels]
    return result


def _labels(binary: NDArray[np.bool_]) -> tuple[Any, int]:
    """Return a mask's connected parts, numbered, where it lives, and how many there are."""
    if is_on_gpu(binary):
        from cupyx.scipy.ndimage import label
    else:
        from scipy.ndimage import label
    labels, count = label(binary)
    return labels, int(count)
