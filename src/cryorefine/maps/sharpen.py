"""Sharpening of the averaged half maps: Guinier plot, B-factor, FSC weights, detector MTF.

Rosenthal and Henderson, J. Mol. Biol. 333, 721-745 (2003). Every factor is isotropic, so the
Guinier plot of each stage follows from one table of amplitudes of the unsharpened map, and the map
itself is multiplied once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.fsc import combined_map_correlation
from cryorefine.maps.shells import radius_table, shell_table, sums_by_squared_radius
from cryorefine.maps.windows import filtered_window

NO_AMPLITUDE = -99.0
"""Stands for the logarithm of an amplitude of zero; such points take no part in a fit."""


@dataclass(frozen=True)
class GuinierFit:
    """A straight line through a Guinier plot.

    Attributes
    ----------
    slope : float
        In A^2.
    intercept : float
        Logarithm of the amplitude at frequency zero.
    correlation : float
        Squared correlation coefficient, 0 to 1.
    slope_error : float or None
        Standard error of the slope in A^2; None where it was not estimated.
    """

    slope: float
    intercept: float
    correlation: float
    slope_error: float | None = None

    @property
    def b_factor(self) -> float:
        """B-factor in A^2, four times the slope; negative, and to be applied as it is to sharpen."""
        return 4.0 * self.slope

    @property
    def b_factor_error(self) -> float | None:
        """Standard error of the B-factor in A^2, if it was estimated."""
        return None if self.slope_error is None else 4.0 * self.slope_error


class Amplitudes:
    """Amplitudes of a map, summed over voxels of equal squared radius.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Half-complex spectrum of a map (:func:`.fourier.forward`), shape (z, y, x // 2 + 1).
    threads : int
        0 for every core.

    Attributes
    ----------
    size : int
        Box in pixels.
    counts : numpy.ndarray
        Voxels in shells 0..size/2, shape (size // 2 + 1,).
    """

    def __init__(self, spectrum: NDArray[Any], threads: int = 0) -> None:
        self.size = int(spectrum.shape[0])
        self._sums, counts = sums_by_squared_radius(spectrum, threads)
        self._shells = shell_table(self.size)
        self.counts = np.bincount(self._shells, weights=counts)[: self.size // 2 + 1]

    def guinier(self, gain: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
        """Return ln of the mean amplitude in shells 0..size/2, after an isotropic gain.

        Parameters
        ----------
        gain : numpy.ndarray or float
            Gain for each squared radius.

        Returns
        -------
        numpy.ndarray
            Shape (size // 2 + 1,); :data:`NO_AMPLITUDE` where there is none.
        """
        mean = np.bincount(self._shells, weights=self._sums * gain)[: self.size // 2 + 1] / self.counts
        return np.log(mean, out=np.full_like(mean, NO_AMPLITUDE), where=mean > 0)


def fit_guinier(
    squared_frequency: NDArray[np.float64],
    log_amplitude: NDArray[np.float64],
    lowest_resolution: float,
    highest_resolution: float = 0.0,
) -> GuinierFit | None:
    """Fit a line to the points of a Guinier plot within a range of resolutions, all with equal weight.

    Parameters
    ----------
    squared_frequency : numpy.ndarray
        1/A^2, shape (shells,).
    log_amplitude : numpy.ndarray
        Shape (shells,); points at :data:`NO_AMPLITUDE` are left out.
    lowest_resolution, highest_resolution : float
        Range in A, e.g. 10 and 0 (no limit).

    Returns
    -------
    GuinierFit or None
        None where fewer than two points are left.
    """
    with np.errstate(divide="ignore"):
        distance = 1.0 / np.sqrt(squared_frequency)
    use = (distance <= lowest_resolution) & (distance >= highest_resolution) & (log_amplitude > NO_AMPLITUDE)
    if np.count_nonzero(use) < 2:
        return None
    x, y = squared_frequency[use], log_amplitude[use]
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    correlation = float((dx @ dy) ** 2 / ((dx @ dx) * (dy @ dy))) if dy @ dy > 0 else 0.0
    return GuinierFit(slope, float(y.mean() - slope * x.mean()), correlation)


def fsc_weights(fsc: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of each shell of an averaged map, sqrt(2 FSC / (1 + FSC)).

    Zero from the first shell where the FSC is below 0.0001.
    """
    gone = np.flatnonzero(fsc < 0.0001)
    weights = combined_map_correlation(fsc)
    if len(gone):
        weights[gone[0] :] = 0.0
    return weights


def shell_gain(weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Spread one weight for each shell 0..size/2 over squared radii; zero in the corners beyond."""
    shells = shell_table(size)
    return np.where(shells < len(weights), weights[np.minimum(shells, len(weights) - 1)], 0.0)


def mtf_gain(
    frequency: NDArray[np.float64],
    value: NDArray[np.float64],
    detector_pixel_size: float,
    size: int,
    pixel_size: float,
) -> NDArray[np.float64]:
    """Gain that undoes the modulation transfer function of a detector, for each squared radius.

    Parameters
    ----------
    frequency, value : numpy.ndarray
        The MTF: frequencies in 1/px of the detector, ascending, and its values there. Linear
        between, constant beyond the ends.
    detector_pixel_size : float
        A/px of the detector.
    size : int
        Box of the map.
    pixel_size : float
        A/px of the map.

    Returns
    -------
    numpy.ndarray
        1 / MTF up to the Nyquist frequency, 1 beyond.
    """
    radius = radius_table(size)
    mtf = np.interp(radius / (size * pixel_size), frequency / detector_pixel_size, value)
    return np.where(radius < size / 2, 1.0 / mtf, 1.0)


def filtered_map(
    spectrum: NDArray[Any], gain: NDArray[np.float64], threads: int = 0, overwrite: bool = False
) -> NDArray[Any]:
    """Return the map of a spectrum with a gain for each squared radius.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Half-complex (:func:`.fourier.forward`), shape (z, y, x // 2 + 1).
    gain : numpy.ndarray
        As long as :func:`.shells.radius_table`; shells beyond its last number that is not 0 cost no time.
    threads : int
        0 for every core.
    overwrite : bool
        Whether the spectrum may be lost, which saves the memory of another.

    Returns
    -------
    numpy.ndarray
        Real, shape (z, y, x).
    """
    size = len(spectrum)
    whole = (slice(0, size),) * 3
    return filtered_window(spectrum, gain, passed_shells(gain, size), whole, threads, overwrite)


def passed_shells(gain: NDArray[np.float64], size: int) -> int:
    """Return how many shells from 0 on hold all that a gain passes."""
    return int(shell_table(size)[np.flatnonzero(gain)].max(initial=0)) + 1
