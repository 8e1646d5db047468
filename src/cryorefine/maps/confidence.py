"""Which density is real: a false-discovery rate for each voxel, from two half maps.

A voxel's density is tested against the noise there. The difference of independent half maps shows
that noise everywhere, also inside the particle: with halves S + n1 and S + n2 the average is
S + (n1 + n2) / 2 and half the difference (n1 - n2) / 2, and both noises have the same distribution
because that of n2 is symmetric. So the difference gives the noise level place by place and, in units of it,
the distribution of scores where there is no density, with no solvent region to be chosen and no
Gaussian to be assumed. The many tests are corrected as Beckers, Jakobi and Sachse (IUCrJ 6, 18-33,
2019) do: Benjamini and Yekutieli (Ann. Statist. 29, 1165-1188, 2001), which holds however voxels
depend on each other.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.filters import apply_filter
from cryorefine.maps.shells import radius_table
from cryorefine.maps.slabs import over_slabs

_STEP = 0.002
_BINS = 50_000
"""Scores are counted in steps of 0.002 noise levels, up to 100 of them."""


def noise_level(
    difference: NDArray[np.float32],
    width: float,
    region: NDArray[np.bool_] | None = None,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Return the standard deviation of the noise of an averaged map, place by place.

    Parameters
    ----------
    difference : numpy.ndarray
        Half the difference of the half maps, filtered as the average is; shape (z, y, x).
    width : float
        Voxels; standard deviation of the Gaussian over which squares are averaged. It must span many
        times the resolution, or chance makes the level itself rise and fall.
    region : numpy.ndarray, optional
        Boolean, shape (z, y, x). Other voxels do not count.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x); 0 where there is no noise within reach.
    """
    size = difference.shape[0]
    # A Gaussian of standard deviation w in voxels is exp(-2 (pi w k / N)^2) in Fourier space.
    gain = np.exp(-2.0 * (np.pi * width / size * radius_table(size)) ** 2)
    square = np.square(difference)
    if region is None:
        mean = apply_filter(square, gain, threads)
    else:
        square *= region
        share = apply_filter(region.astype(np.float32), gain, threads)
        mean = apply_filter(square, gain, threads)
        mean = np.divide(mean, share, out=np.zeros_like(mean), where=share > 1e-3)
    # Transforms leave rounding errors where there is nothing.
    floor = 1e-6 * float(mean.max(initial=0.0))
    level: NDArray[np.float32] = np.sqrt(np.where(mean > floor, mean, 0.0))
    return level


def false_discovery_rate(
    average: NDArray[np.float32],
    difference: NDArray[np.float32],
    level: NDArray[np.float32],
    region: NDArray[np.bool_] | None = None,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Return for each voxel the false-discovery rate at which its density counts as real.

    The p-value of a voxel is the share of the noise scores, those of the difference with either
    sign, that reach its own. Among the voxels with a value of at most q, the expected share of those
    without density is at most q.

    Parameters
    ----------
    average, difference : numpy.ndarray
        Half the sum and half the difference of the half maps, filtered alike; shape (z, y, x).
    level : numpy.ndarray
        :func:`noise_level` of them.
    region : numpy.ndarray, optional
        Boolean, shape (z, y, x): the voxels to be tested. The fewer there are, the more is found.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x); between 0 and 1, and 1 for what is not tested.
    """
    tested = level > 0 if region is None else region & (level > 0)
    count = int(np.count_nonzero(tested))
    if count == 0:
        return np.ones_like(average)

    def work(slab: slice) -> NDArray[np.int64]:
        both = np.zeros((2, _BINS), dtype=np.int64)
        _count_scores(average[slab], difference[slab], level[slab], tested[slab], both)
        return both

    density, noise = np.sum(over_slabs(work, len(average), threads), axis=0)
    # How many reach the lower end of each step; a score below zero is never evidence for density.
    reached, noise_reached = (np.cumsum(a[::-1])[::-1] for a in (density, noise))
    p_value = (1.0 + noise_reached) / (1.0 + 2.0 * count)
    table = _benjamini_yekutieli(p_value, reached, count).astype(np.float32)
    result = np.empty_like(average)

    def look_up(slab: slice) -> None:
        _look_up_scores(average[slab], level[slab], tested[slab], table, result[slab])

    over_slabs(look_up, len(average), threads)
    return result


def _benjamini_yekutieli(
    p_value: NDArray[np.float64], rank: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Adjust p-values that fall along the array; ``rank`` of ``count`` tests have one as small."""
    harmonic = np.log(count) + np.euler_gamma + 0.5 / count
    adjusted = np.where(rank > 0, p_value * count * harmonic / np.maximum(rank, 1), 1.0)
    # The smallest level at which a voxel is in: also that of any lower score that is in.
    result: NDArray[np.float64] = np.minimum(np.minimum.accumulate(adjusted), 1.0)
    return result


@numba.njit(nogil=True, cache=True)
def _count_scores(average, difference, level, tested, counts):  # type: ignore[no-untyped-def]
    last = counts.shape[1] - 1
    for z in range(average.shape[0]):
        for y in range(average.shape[1]):
            for x in range(average.shape[2]):
                if tested[z, y, x]:
                    unit = 1.0 / (_STEP * level[z, y, x])
                    if average[z, y, x] > 0:
                        counts[0, min(int(average[z, y, x] * unit), last)] += 1
                    counts[1, min(int(abs(difference[z, y, x]) * unit), last)] += 1


@numba.njit(nogil=True, cache=True)
def _look_up_scores(average, level, tested, table, result):  # type: ignore[no-untyped-def]
    last = table.shape[0] - 1
    for z in range(average.shape[0]):
        for y in range(average.shape[1]):
            for x in range(average.shape[2]):
                result[z, y, x] = 1.0
                if tested[z, y, x] and average[z, y, x] > 0:
                    unit = 1.0 / (_STEP * level[z, y, x])
                    result[z, y, x] = table[min(int(average[z, y, x] * unit), last)]
