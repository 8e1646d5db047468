"""Isotropic filters: low-pass, high-pass, B-factor, and the initial low-pass of a refinement.

Each filter has a gain, a function of the radius in Fourier pixels (not rounded to shells), and a
function that applies it to a map. Gains multiply, so several filters cost one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cryorefine.maps.fourier import forward, forward_cropped, inverse, inverse_padded
from cryorefine.maps.shells import apply_gain, radius_table, round_half_away


def lowpass_gain(
    radius: NDArray[np.float64], size: int, pixel_size: float, resolution: float, edge_width: int = 2
) -> NDArray[np.float64]:
    """Gain of a raised-cosine low-pass filter.

    1 up to ``edge_width // 2`` shells below the shell of ``resolution``, 0 from as many above it,
    half a cosine between.

    Parameters
    ----------
    radius : numpy.ndarray
        Radius in Fourier pixels, any shape.
    size : int
        Box size in pixels.
    pixel_size : float
        A/px.
    resolution : float
        A.
    edge_width : int
        Whole width of the edge in shells.

    Returns
    -------
    numpy.ndarray
        Gain between 0 and 1, shape of ``radius``.
    """
    low, high = _edge(size, pixel_size, resolution, edge_width)
    return _raised_cosine(radius, low, high)


def highpass_gain(
    radius: NDArray[np.float64], size: int, pixel_size: float, resolution: float, edge_width: int = 2
) -> NDArray[np.float64]:
    """Gain of the raised-cosine high-pass filter: 1 minus :func:`lowpass_gain`."""
    return 1.0 - lowpass_gain(radius, size, pixel_size, resolution, edge_width)


def bfactor_gain(
    radius: NDArray[np.float64], size: int, pixel_size: float, b_factor: float
) -> NDArray[np.float64]:
    """Gain exp(-B s^2 / 4) of a B-factor in A^2, zero outside the sphere at the Nyquist frequency.

    A negative B sharpens.
    """
    squared_frequency = (radius / (size * pixel_size)) ** 2
    inside = radius <= size / 2
    return np.where(inside, np.exp(-b_factor / 4.0 * np.where(inside, squared_frequency, 0.0)), 0.0)


def initial_lowpass_gain(
    radius: NDArray[np.float64], size: int, pixel_size: float, resolution: float
) -> NDArray[np.float64]:
    """Gain of the filter of a refinement's first reference.

    As :func:`lowpass_gain` with a width of two shells, but centred at exactly
    ``size * pixel_size / resolution`` instead of at the nearest shell.
    """
    centre = size * pixel_size / resolution
    return _raised_cosine(radius, centre - 1.0, centre + 1.0)


def lowpass(
    volume: NDArray[Any], pixel_size: float, resolution: float, edge_width: int = 2, threads: int = 0
) -> NDArray[Any]:
    """Low-pass filter a map or image at ``resolution`` A.

    Only the components that the filter passes are transformed in full, which makes strong
    filtering much faster than two whole transforms.

    Parameters
    ----------
    volume : numpy.ndarray
        Real, cubic (z, y, x) or square (y, x).
    pixel_size : float
        A/px.
    resolution : float
        A.
    edge_width : int
        Whole width of the raised-cosine edge in shells.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Same shape and precision.
    """
    spectrum = lowpass_spectrum(volume, pixel_size, resolution, edge_width, threads)
    return inverse_padded(spectrum, volume.shape[-1], threads)


def lowpass_spectrum(
    volume: NDArray[Any],
    pixel_size: float,
    resolution: float,
    edge_width: int = 2,
    threads: int = 0,
    precision: DTypeLike | None = None,
) -> NDArray[Any]:
    """Return the components that :func:`lowpass` passes, as the transform of a smaller box.

    ``precision`` is that of :func:`.fourier.forward_cropped`.
    """
    size = volume.shape[-1]
    _, high = _edge(size, pixel_size, resolution, edge_width)
    needed = min(2 * (int(np.ceil(high)) + 1), size)
    spectrum = forward_cropped(volume, needed, threads, precision)
    gain = lowpass_gain(radius_table(needed, volume.ndim), size, pixel_size, resolution, edge_width)
    return apply_gain(spectrum, gain, threads)


def highpass(
    volume: NDArray[Any], pixel_size: float, resolution: float, edge_width: int = 2, threads: int = 0
) -> NDArray[Any]:
    """High-pass filter a map or image at ``resolution`` A."""
    size = volume.shape[-1]
    gain = highpass_gain(radius_table(size, volume.ndim), size, pixel_size, resolution, edge_width)
    return apply_filter(volume, gain, threads)


def apply_bfactor(volume: NDArray[Any], pixel_size: float, b_factor: float, threads: int = 0) -> NDArray[Any]:
    """Apply a B-factor in A^2 to a map or image; a negative one sharpens."""
    size = volume.shape[-1]
    gain = bfactor_gain(radius_table(size, volume.ndim), size, pixel_size, b_factor)
    return apply_filter(volume, gain, threads)


def initial_lowpass(
    volume: NDArray[Any], pixel_size: float, resolution: float, threads: int = 0
) -> NDArray[Any]:
    """Low-pass filter the first reference of a refinement at ``resolution`` A."""
    size = volume.shape[-1]
    gain = initial_lowpass_gain(radius_table(size, volume.ndim), size, pixel_size, resolution)
    return apply_filter(volume, gain, threads)


def apply_filter(volume: NDArray[Any], gain: NDArray[np.float64], threads: int = 0) -> NDArray[Any]:
    """Filter a map or image with a gain for each squared radius (:func:`.shells.radius_table`)."""
    spectrum = apply_gain(forward(volume, threads), gain, threads)
    return inverse(spectrum, volume.shape[-1], threads, overwrite=True)


def _edge(size: int, pixel_size: float, resolution: float, edge_width: int) -> tuple[float, float]:
    """Radii, in Fourier pixels, between which the gain falls from 1 to 0."""
    shell = float(round_half_away(size * pixel_size / resolution))
    return max(0.0, shell - edge_width // 2), shell + edge_width // 2


def _raised_cosine(radius: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    if high <= low:
        return (radius <= low).astype(np.float64)
    phase = np.clip((radius - low) / (high - low), 0.0, 1.0)
    return 0.5 + 0.5 * np.cos(np.pi * phase)
