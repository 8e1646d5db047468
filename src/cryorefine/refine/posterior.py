"""From scores to posterior weights: which samples matter, and how much.

Scores are log-likelihoods up to a constant of each particle. A sample is significant when it belongs
to the smallest set that holds 99.9 % of a particle's probability; the set is found from a histogram
of log-weights (bins of 0.01), which never keeps less than that. A coarse search keeps what lies within
a fixed distance of the best sample as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

# exp(-25) = 1.4e-11: a million samples below it hold less than 0.002 % of the probability.
LOG_RANGE = 25.0
BINS = 2500
# Where images are clear, a pose half a coarse step away from the true one scores so much worse than it
# that a wrong pose which happens to lie on the grid looks better. So the 99.9 % say little about a coarse
# search: without this margin a quarter of the particles of a high-contrast set end in wrong poses, and
# where the posterior is wide it costs nothing, since the 99.9 % reach further.
COARSE_MARGIN = 10.0
_COMPILE: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**_COMPILE)
def _threshold(histogram: F64, fraction: float) -> float:
    """Distance below the maximum within which the given fraction of the probability lies."""
    target = fraction * histogram.sum()
    running = 0.0
    for k in range(histogram.shape[0]):
        running += histogram[k]
        if running >= target:
            return (k + 1) * LOG_RANGE / BINS
    return LOG_RANGE


@njit(**_COMPILE)
def add_priors(scores: F32, norms: F32, orientation_prior: F32, shift_prior: F32) -> None:
    """Turn dots into log-weights in place: dot - norm + log priors.

    ``scores`` has shape (orientations, particles, shifts), ``norms`` (orientations, particles),
    ``orientation_prior`` (orientations, particles or 1), ``shift_prior`` (particles, shifts).
    """
    own = orientation_prior.shape[1] > 1
    for o in range(scores.shape[0]):
        for n in range(scores.shape[1]):
            base = orientation_prior[o, n if own else 0] - norms[o, n]
            row = scores[o, n]
            prior = shift_prior[n]
            for t in range(row.shape[0]):
                row[t] += base + prior[t]


@njit(fastmath={"nnan", "nsz"}, **_COMPILE)
def _best_shift(scores: F32, top: F32) -> None:
    """Largest score of each orientation and particle; it vectorises where NaN is ruled out."""
    for o in range(scores.shape[0]):
        for n in range(scores.shape[1]):
            row = scores[o, n]
            m = row[0]
            for t in range(row.shape[0]):
                if row[t] > m:
                    m = row[t]
            top[o, n] = m


@njit(**_COMPILE)
def select_dense(scores: F32, fraction: float, single: bool) -> tuple[I32, I32, I32, I32]:
    """List the significant samples of a dense score array.

    Parameters
    ----------
    scores : float32, shape (orientations, particles, shifts)
        Log-weights.
    fraction : float
        Share of the probability to keep.
    single : bool
        Keep the best sample alone (cross-correlation in the first iteration).

    Returns
    -------
    orientation, particle, shift : int32, shape (entries,)
        Samples in order of orientation, particle, shift.
    count : int32, shape (particles,)
        Samples kept of each particle.
    """
    orientations, particles, shifts = scores.shape
    # Few orientations of a particle come near its best sample: only these are looked at again.
    top = np.empty((orientations, particles), np.float32)
    _best_shift(scores, top)
    best = np.full(particles, -np.inf, np.float32)
    for o in range(orientations):
        for n in range(particles):
            best[n] = max(best[n], top[o, n])
    floor = np.empty(particles, np.float32)
    if single:
        floor[:] = best
    else:
        histogram = np.zeros((particles, BINS))
        for o in range(orientations):
            for n in range(particles):
                low = best[n] - np.float32(LOG_RANGE)
                if not top[o, n] > low:
                    continue
                row = scores[o, n]
                for t in range(shifts):
                    if row[t] > low:
                        depth = best[n] - row[t]
                        histogram[n, min(int(depth * (BINS / LOG_RANGE)), BINS - 1)] += np.exp(-depth)
        for n in range(particles):
            floor[n] = best[n] - np.float32(max(_threshold(histogram[n], fraction), COARSE_MARGIN))
    count = np.zeros(particles, np.int32)
    total = 0
    for o in range(orientations):
        for n in range(particles):
            if top[o, n] >= floor[n]:
                row = scores[o, n]
                for t in range(shifts):
                    if row[t] >= floor[n]:
                        count[n] += 1
                        total += 1
    orientation = np.empty(total, np.int32)
    particle = np.empty(total, np.int32)
    shift = np.empty(total, np.int32)
    e = 0
    for o in range(orientations):
        for n in range(particles):
            if top[o, n] >= floor[n]:
                row = scores[o, n]
                for t in range(shifts):
                    if row[t] >= floor[n]:
                        orientation[e] = o
                        particle[e] = n
                        shift[e] = t
                        e += 1
    return orientation, particle, shift, count


@njit(**_COMPILE)
def select_sparse(
    dots: F32,
    norms: F32,
    particle: I32,
    orientation_prior: F32,
    shift_prior: F32,
    shifts: int,
    particles: int,
    fraction: float,
    single: bool,
) -> tuple[I32, I32, I32]:
    """List the significant samples of a local search.

    Parameters
    ----------
    dots : float32, shape (pairs, shift blocks, 4, 4)
        Dots of (four orientations, particle) pairs with all shifts; changed into log-weights.
    norms : float32, shape (pairs, 4)
        Norms of the models.
    particle : int32, shape (pairs,)
        Particle of each pair.
    orientation_prior : float32, shape (pairs, 4)
        Log prior, -inf where an orientation is not a candidate.
    shift_prior : float32, shape (particles, shifts)
        Log prior of the shifts.
    shifts, particles : int
        Numbers of shifts (the rest of the last block is void) and particles.
    fraction : float
        Share of the probability to keep.
    single : bool
        Keep the best sample alone.

    Returns
    -------
    pair, row, shift : int32, shape (entries,)
        Pair, orientation within its four, and shift of each sample, in order of pair, row, shift.
    """
    pairs, blocks = dots.shape[0], dots.shape[1]
    best = np.full(particles, -np.inf, np.float32)
    for e in range(pairs):
        n = particle[e]
        for b in range(blocks):
            for c in range(4):
                for s in range(4):
                    t = 4 * b + s
                    if t >= shifts:
                        dots[e, b, c, s] = -np.inf
                        continue
                    value = dots[e, b, c, s] - norms[e, c] + orientation_prior[e, c] + shift_prior[n, t]
                    dots[e, b, c, s] = value
                    best[n] = max(best[n], value)
    floor = best.copy()
    if not single:
        histogram = np.zeros((particles, BINS))
        for e in range(pairs):
            n = particle[e]
            for b in range(blocks):
                for c in range(4):
                    for s in range(4):
                        depth = best[n] - dots[e, b, c, s]
                        if depth < LOG_RANGE:
                            histogram[n, min(int(depth * (BINS / LOG_RANGE)), BINS - 1)] += np.exp(-depth)
        for n in range(particles):
            floor[n] = best[n] - np.float32(max(_threshold(histogram[n], fraction), COARSE_MARGIN))
    total = 0
    for e in range(pairs):
        for b in range(blocks):
            for c in range(4):
                for s in range(4):
                    if dots[e, b, c, s] >= floor[particle[e]]:
                        total += 1
    pair = np.empty(total, np.int32)
    row = np.empty(total, np.int32)
    shift = np.empty(total, np.int32)
    i = 0
    for e in range(pairs):
        for c in range(4):
            for b in range(blocks):
                for s in range(4):
                    if dots[e, b, c, s] >= floor[particle[e]]:
                        pair[i] = e
                        row[i] = c
                        shift[i] = 4 * b + s
                        i += 1
    return pair, row, shift


def sum_over_shifts(dots: F32, norms: F32, particle: I32, shift_prior: F32) -> F32:
    """Log-weights of orientations whatever the shift, but for their priors.

    Parameters
    ----------
    dots, norms, particle, shift_prior : ndarray
        As for :func:`select_sparse`; nothing is changed.

    Returns
    -------
    ndarray, shape (pairs, 4)
    """
    count = shift_prior.shape[1]
    scores = dots.swapaxes(2, 3).reshape(len(dots), -1, 4)[:, :count] - norms[:, None]
    scores += shift_prior[particle][:, :, None]
    return np.logaddexp.reduce(scores, axis=1)


def promising(
    log_weight: F64,
    particle: NDArray[np.int64],
    fraction: float,
    fewest: int,
    margin: float = COARSE_MARGIN,
) -> NDArray[np.bool_]:
    """Tell which coarse poses, or groups of them, may hold significant ones.

    Parameters
    ----------
    log_weight : ndarray, shape (groups,)
        Log-weight of each pose or of each group's centre.
    particle : ndarray of int, shape (groups,)
        Whose it is, rising.
    fraction : float
        Share of the probability to keep in any case.
    fewest : int
        How many to keep of each particle in any case.
    margin : float
        What lies within this distance of the best one is kept, too.

    Returns
    -------
    ndarray of bool, shape (groups,)
    """
    order = np.lexsort((-log_weight, particle))
    owner = particle[order]
    first = np.searchsorted(owner, owner)
    depth = log_weight[order][first] - log_weight[order]
    rank = np.arange(len(order)) - first
    weight = np.exp(-np.minimum(depth, LOG_RANGE))
    running = np.cumsum(weight) - weight
    before = running - running[first]
    total = np.bincount(owner, weight)[owner]
    keep = (before < fraction * total) | (depth <= margin) | (rank < fewest)
    result = np.empty(len(order), bool)
    result[order] = keep
    return result


@njit(**_COMPILE)
def normalise(
    dots: F32, norms: F32, particle: I32, prior: F32, particles: int, fraction: float, single: bool
) -> tuple[F64, F64, NDArray[np.int64], F64]:
    """Turn the dots of the fine samples into posterior weights, in place.

    Parameters
    ----------
    dots : float32, shape (entries, 4, 4)
        Dots; on return the weights, zero where a sample is not significant.
    norms : float32, shape (entries, 4)
        Norms of the models.
    particle : int32, shape (entries,)
        Particle of each entry.
    prior : float32, shape (entries,)
        Log prior of orientation and shift.
    particles : int
        Number of particles.
    fraction : float
        Share of the probability to keep.
    single : bool
        Give all weight to the best sample.

    Returns
    -------
    log_sum : float64, shape (particles,)
        Log of the sum of all weights before normalisation.
    largest : float64, shape (particles,)
        Largest normalised weight.
    best : int64, shape (particles,)
        Flat position in ``dots`` of the best sample; -1 where a particle has none.
    used : float64, shape (particles,)
        Sum of the significant weights.
    """
    top = np.full(particles, -np.inf, np.float32)
    best = np.full(particles, -1, np.int64)
    for e in range(dots.shape[0]):
        n = particle[e]
        for c in range(4):
            for s in range(4):
                value = dots[e, c, s] - norms[e, c] + prior[e]
                dots[e, c, s] = value
                if value > top[n]:
                    top[n] = value
                    best[n] = 16 * e + 4 * c + s
    total = np.zeros(particles)
    histogram = np.zeros((particles, BINS))
    for e in range(dots.shape[0]):
        n = particle[e]
        for c in range(4):
            for s in range(4):
                depth = top[n] - dots[e, c, s]
                if depth < LOG_RANGE:
                    weight = np.exp(-depth)
                    total[n] += weight
                    histogram[n, min(int(depth * (BINS / LOG_RANGE)), BINS - 1)] += weight
    floor = np.empty(particles)
    for n in range(particles):
        floor[n] = 0.0 if single else _threshold(histogram[n], fraction)
    used = np.zeros(particles)
    for e in range(dots.shape[0]):
        n = particle[e]
        for c in range(4):
            for s in range(4):
                if single:
                    keep = 16 * e + 4 * c + s == best[n]
                    weight = 1.0
                else:
                    depth = top[n] - dots[e, c, s]
                    keep = depth <= floor[n]
                    weight = np.exp(-depth) / total[n] if keep else 0.0
                if not keep:
                    weight = 0.0
                dots[e, c, s] = weight
                used[n] += weight
    log_sum = top.astype(np.float64) + np.log(total)
    largest = np.ones(particles) if single else 1 / total
    return log_sum, largest, best, used


@njit(**_COMPILE)
def pose_sums(
    weights: F32,
    particle: I32,
    shift: I32,
    direction: I32,
    trial: F64,
    centre: F64,
    by_direction: F64,
) -> float:
    """Sum posterior weights by direction, and the squared lengths of the shifts.

    Parameters
    ----------
    weights : float32, shape (entries, 4, 4)
        Posterior weights.
    particle, shift, direction : int32, shape (entries,)
        Particle, block of four shifts, and direction of each entry; no directions are summed if
        ``by_direction`` is empty.
    trial : float64, shape (shift blocks, 4, dimensions)
        Trial shifts in A.
    centre : float64, shape (particles, dimensions)
        Where the prior has its centre, relative to the start of the search, in A.
    by_direction : float64, shape (directions,)
        Weights by direction, added to what is there.

    Returns
    -------
    float
        Sum of weight * |trial - centre|^2 in A^2.
    """
    total = 0.0
    for e in range(weights.shape[0]):
        n = particle[e]
        mass = 0.0
        for s in range(4):
            w = weights[e, 0, s] + weights[e, 1, s] + weights[e, 2, s] + weights[e, 3, s]
            if w == 0:
                continue
            square = 0.0
            for d in range(trial.shape[2]):
                square += (trial[shift[e], s, d] - centre[n, d]) ** 2
            total += w * square
            mass += w
        if by_direction.shape[0] > 0:
            by_direction[direction[e]] += mass
    return total
