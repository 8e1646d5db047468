"""B-factor of a pair of half maps, with its uncertainty, from the power that both halves share.

What both halves share is the signal, and its fall-off is the B-factor. Shells count by how well
they are known, so that the noisy ones near the resolution limit no longer decide. The plain fit of
RELION, in which every shell counts the same, is :func:`cryorefine.maps.sharpen.fit_guinier`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.sharpen import GuinierFit

LAST_CORRELATION = 0.05
"""The fit ends before the first shell whose FSC falls below this."""

_HUBER = 1.5
"""Residuals beyond so many standard errors count less (Huber 1964)."""

_ROUNDS = 60
_MOST_VARIANCE = 0.25


def filled_fraction(mask: NDArray[Any] | None) -> float:
    """Return the share of Fourier components behind a mask that are independent of each other.

    A mask m leaves (sum m^2)^2 / (N sum m^4) of the N components of the box; 1 without a mask.
    """
    if mask is None:
        return 1.0
    second = fourth = 0.0
    for plane in mask:
        squares = np.square(plane, dtype=np.float64)
        second += float(squares.sum())
        fourth += float(np.square(squares, out=squares).sum())
    return second**2 / (fourth * mask.size) if fourth > 0 else 1.0


def fit_bfactor(
    frequency: NDArray[np.float64],
    correlation: NDArray[np.float64],
    power: NDArray[np.float64],
    components: NDArray[np.float64],
    lowest_resolution: float,
    highest_resolution: float = 0.0,
) -> GuinierFit | None:
    """Fit the fall-off of the amplitude of the signal that two half maps share.

    In each shell the signal power is S = FSC x P, where P is the power of one half map, and the line
    goes through ln sqrt(S) over the squared frequency (Rosenthal and Henderson, J. Mol. Biol. 333,
    721-745, 2003, eq. 9). With n independent components in a shell, ln sqrt(S) has the variance
    (1 + 1 / FSC^2) / (8 n), by propagation of the variance ((S + N)^2 + S^2) / (2 n) of the real
    part of the cross-spectrum of two complex Gaussian series (Bendat and Piersol, Random Data, ch. 9);
    the FSC in it is that of the fitted line. To this comes the variance of the structure's own
    deviations from a line, estimated from the residuals (Paule and Mandel, J. Res. Natl. Bur. Stand.
    87, 377-385, 1982). Far residuals count less. The range ends before the FSC drops below
    :data:`LAST_CORRELATION` and before the Nyquist shell, of which the box cuts off a part.

    Parameters
    ----------
    frequency : numpy.ndarray
        1/A, shape (shells,).
    correlation : numpy.ndarray
        FSC of the half maps, freed from what a mask adds, shape (shells,).
    power : numpy.ndarray
        Mean power of a half map in each shell, behind the mask if there is one and divided by the
        squared MTF of the detector if there is one, shape (shells,).
    components : numpy.ndarray
        Number of independent components in each shell: voxels times :func:`filled_fraction`.
    lowest_resolution, highest_resolution : float
        Range in A, e.g. 10 and 0 (as far as the FSC goes).

    Returns
    -------
    GuinierFit or None
        With its uncertainty; None where fewer than three shells are left.
    """
    with np.errstate(divide="ignore"):
        resolution = 1.0 / frequency
    below = np.flatnonzero(correlation < LAST_CORRELATION)
    end = min(int(below[0]) if len(below) else len(correlation), len(correlation) - 1)
    use = (resolution <= lowest_resolution) & (resolution >= highest_resolution)
    use[end:] = False
    signal = correlation * power
    if np.count_nonzero(use) < 3 or signal[use].min() <= 0:
        return None
    x, y = frequency[use] ** 2, 0.5 * np.log(signal[use])
    noise, count = (power - signal)[use], components[use]
    line, weights = _fit(x, y, noise, count)
    # Chance within the shells, and what neighbouring shells deviate together.
    error = float(np.hypot(_standard_error(x, weights), _jackknife(x, y, noise, count)))
    residual, spread = y - line[0] * x - line[1], y - np.average(y, weights=weights)
    explained = 1.0 - float(weights @ residual**2 / (weights @ spread**2)) if np.ptp(y) > 0 else 0.0
    return GuinierFit(float(line[0]), float(line[1]), max(explained, 0.0), error)


def _fit(
    x: NDArray[np.float64], y: NDArray[np.float64], noise: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Return (slope, intercept) and the weights of the points."""
    correlation = np.exp(2 * y) / (np.exp(2 * y) + noise)
    trust, own = np.ones_like(x), 0.0
    line, weights = (0.0, 0.0), trust
    for _ in range(_ROUNDS):
        error = np.minimum((1 + correlation**-2) / (8 * count), _MOST_VARIANCE)
        # The logarithm of a number that is uncertain comes out too small, by half its variance.
        higher = y + error
        weights = trust / (error + own)
        x_mean, y_mean = weights @ x / weights.sum(), weights @ higher / weights.sum()
        slope = float(weights @ ((x - x_mean) * (higher - y_mean)) / (weights @ (x - x_mean) ** 2))
        before, line = line, (slope, float(y_mean - slope * x_mean))
        residual = higher - line[0] * x - line[1]
        # Own deviations of the structure: the variance by which the residuals become as large as expected.
        excess = float(weights @ residual**2) - (len(x) - 2)
        own = max(0.0, own + excess / max(float((weights / (error + own)) @ residual**2), 1e-300))
        scaled = np.abs(residual) / np.sqrt(error + own)
        trust = np.minimum(1.0, _HUBER / np.maximum(scaled, 1e-9))
        signal = np.exp(2 * np.clip(line[0] * x + line[1], -300, 300))
        correlation = np.maximum(signal / (signal + np.maximum(noise, 0.0)), 1e-3)
        if np.allclose(line, before, rtol=1e-7, atol=0):
            break
    return line, weights


def _standard_error(x: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float(1.0 / np.sqrt(weights @ (x - np.average(x, weights=weights)) ** 2))


def _jackknife(
    x: NDArray[np.float64], y: NDArray[np.float64], noise: NDArray[np.float64], count: NDArray[np.float64]
) -> float:
    """Return the standard error of the slope from fits that leave out one run of shells each.

    A particle smaller than the box makes neighbouring shells deviate together, which the residuals
    of single shells do not show.
    """
    runs = min(8, len(x) // 2)
    if runs < 3:
        return 0.0
    edges = [len(x) * i // runs for i in range(runs + 1)]
    slopes = []
    for start, stop in itertools.pairwise(edges):
        keep = np.r_[0:start, stop : len(x)]
        slopes.append(_fit(x[keep], y[keep], noise[keep], count[keep])[0][0])
    return float(np.sqrt((runs - 1) * np.var(slopes)))
