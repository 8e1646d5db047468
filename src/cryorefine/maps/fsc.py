"""Fourier shell correlation: the curve, its corrections, and the resolution it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.fourier import forward
from cryorefine.maps.shells import cross_sums

GOLD_STANDARD = 0.143
"""Threshold for independently refined halves (Rosenthal and Henderson, J. Mol. Biol. 333, 2003)."""


def fsc_of_spectra(first: NDArray[Any], second: NDArray[Any], threads: int = 0) -> NDArray[np.float64]:
    """Correlate two half-complex spectra shell by shell.

    Parameters
    ----------
    first, second : numpy.ndarray
        Complex, shape (z, y, x // 2 + 1), or (y, x // 2 + 1) for a ring correlation.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Shape (size // 2 + 1,); 0 in shells without power. Shell 0, when it is not positive (the
        means of the maps differ in sign or vanish), is 1.
    """
    return fsc_of_sums(cross_sums(first, second, threads))


def fsc_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the FSC from the sums of :func:`.shells.cross_sums`, shape (3, shells)."""
    product, power_first, power_second = sums
    norm = np.sqrt(power_first * power_second)
    fsc = np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)
    if fsc[0] <= 0:
        fsc[0] = 1.0
    return fsc


def fourier_shell_correlation(
    first: NDArray[Any], second: NDArray[Any], threads: int = 0
) -> NDArray[np.float64]:
    """Correlate two maps (z, y, x), or two images (y, x), shell by shell; see :func:`fsc_of_spectra`."""
    return fsc_of_spectra(forward(first, threads), forward(second, threads), threads)


def first_shell_below(fsc: NDArray[np.float64], threshold: float) -> int | None:
    """Return the first shell, from 1 on, where the curve is below ``threshold``; None if it never is."""
    below = np.flatnonzero(fsc[1:] < threshold)
    return int(below[0]) + 1 if len(below) else None


def resolution_shell(fsc: NDArray[np.float64], threshold: float = GOLD_STANDARD) -> int:
    """Return the last shell before the curve first drops below ``threshold``; at least 0."""
    below = np.flatnonzero(fsc < threshold)
    return max(int(below[0]) - 1, 0) if len(below) else len(fsc) - 1


def shell_resolution(shell: int, size: int, pixel_size: float) -> float:
    """Return the resolution of a shell in A; infinite for shell 0."""
    return size * pixel_size / shell if shell > 0 else float("inf")


def resolution(
    fsc: NDArray[np.float64], size: int, pixel_size: float, threshold: float = GOLD_STANDARD
) -> float:
    """Return the resolution in A at which the curve first drops below ``threshold``.

    That of the last shell above it, without interpolation.
    """
    return shell_resolution(resolution_shell(fsc, threshold), size, pixel_size)


def corrected_fsc(
    masked: NDArray[np.float64], randomised: NDArray[np.float64], first_randomised_shell: int
) -> NDArray[np.float64]:
    """Remove from a masked FSC what the mask alone put into it.

    (FSC_masked - FSC_randomised) / (1 - FSC_randomised), after Chen et al., Ultramicroscopy 135,
    24-35 (2013), from two shells beyond the first one with random phases; the masked FSC below.

    Parameters
    ----------
    masked : numpy.ndarray
        FSC of the masked half maps, shape (shells,).
    randomised : numpy.ndarray
        FSC of the half maps with random phases and the same mask, shape (shells,).
    first_randomised_shell : int
        First shell with random phases.

    Returns
    -------
    numpy.ndarray
        Shape (shells,); may be negative.
    """
    result = np.array(masked, dtype=np.float64)
    start = first_randomised_shell + 2
    noise = randomised[start:]
    safe = np.where(noise < 1.0, 1.0 - noise, 1.0)
    result[start:] = np.where(noise < 1.0, (masked[start:] - noise) / safe, 0.0)
    return result


def part_fsc(fsc: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return the FSC that the particle would have alone, from that of the whole box.

    f F / (1 + (f - 1) F), where ``factor`` f is the ratio of the volume of the box to that of the
    particle, times the share of it that noise fills (Grant, Rohou and Grigorieff, eLife 7, e35383, 2018).
    """
    denominator = 1.0 + (factor - 1.0) * fsc
    return np.divide(factor * fsc, denominator, out=np.zeros_like(fsc), where=np.abs(denominator) > 1e-12)


def combined_map_correlation(fsc: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(2 FSC / (1 + FSC)), 0 where the FSC is negative.

    The correlation of the average of both halves with the perfect map (Rosenthal and Henderson 2003).
    """
    positive = np.maximum(fsc, 0.0)
    return np.sqrt(2.0 * positive / (1.0 + positive))
