"""Compiled evaluation of CTFs for many images; called through :func:`cryorefine.ctf.ctf.ctf`."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

# sin(r) = r + r**3 P(r**2) on [-pi/2, pi/2]: minimax fit with an error of 2e-11, so that float32
# rounding (1e-7) is all that is seen.
_P0 = np.float32(-1.66666666e-01)
_P1 = np.float32(8.33333050e-03)
_P2 = np.float32(-1.98408040e-04)
_P3 = np.float32(2.75226188e-06)
_P4 = np.float32(-2.38466932e-08)
_ONE = np.float32(1)
_TWO = np.float32(2)
_SMALLEST = np.float32(1e-8)


# Reassociation and fused operations only: infinities and NaN keep their meaning.
@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")
def evaluate(
    coefficients: NDArray[np.float64],
    scale: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    even: NDArray[np.float64],
    damping: NDArray[np.float32],
    intact_first_peak: bool,
    absolute: bool,
    phase_flip: bool,
    gamma: NDArray[np.float64],
    result: NDArray[np.float32],
) -> None:
    """Write the CTFs of n images into ``result`` of shape (n, pixels).

    Parameters
    ----------
    coefficients : ndarray, shape (5, n)
        Coefficients of gamma for x**2, x*y, y**2, u**4 and 1.
    scale : ndarray, shape (n,)
        Factors on the CTF.
    x, y : ndarray, shape (pixels,)
        Frequencies in 1/A.
    even : ndarray, shape (0, pixels), (1, pixels) or (n, pixels)
        Added to gamma: nothing, the same for all, or one row for each image.
    damping : ndarray of float32, shape (0, pixels) or (n, pixels)
        Multiplied with the sine: nothing, or one row for each image.
    intact_first_peak, absolute, phase_flip : bool
        Forms of the CTF.
    gamma : ndarray, shape (pixels,)
        Room to work in; making arrays here would load much of Numba before the kernel.
    result : ndarray of float32, shape (n, pixels)
        Overwritten.
    """
    n_images, n_pixels = result.shape
    for i in range(n_images):
        xx, xy, yy = coefficients[0, i], coefficients[1, i], coefficients[2, i]
        quartic, constant = coefficients[3, i], coefficients[4, i]
        for j in range(n_pixels):
            u2 = x[j] * x[j] + y[j] * y[j]
            gamma[j] = xx * x[j] * x[j] + xy * x[j] * y[j] + yy * y[j] * y[j] + quartic * u2 * u2 + constant
        if even.shape[0] > 0:
            row = i if even.shape[0] > 1 else 0
            for j in range(n_pixels):
                gamma[j] += even[row, j]

        # The loop that refinements spend their time in; without calls or branches it is vectorised.
        out = result[i]
        for j in range(n_pixels):
            turns = math.floor(gamma[j] * (1 / math.pi) + 0.5)
            r = np.float32(gamma[j] - turns * math.pi)
            r2 = r * r
            sine = r + r * r2 * (_P0 + r2 * (_P1 + r2 * (_P2 + r2 * (_P3 + r2 * _P4))))
            parity = np.float32(turns - 2.0 * math.floor(0.5 * turns))
            out[j] = sine * (_TWO * parity - _ONE)

        if intact_first_peak:
            for j in range(n_pixels):
                if abs(gamma[j]) < math.pi / 2:
                    out[j] = _ONE
        if damping.shape[0] > 0:
            for j in range(n_pixels):
                out[j] *= damping[i, j]
        if absolute:
            for j in range(n_pixels):
                out[j] = abs(out[j])
        if phase_flip:
            for j in range(n_pixels):
                out[j] = _ONE if out[j] >= 0 else -_ONE
        factor = np.float32(scale[i])
        for j in range(n_pixels):
            value = factor * out[j]
            if abs(value) < _SMALLEST:
                value = -_SMALLEST if value < 0 else _SMALLEST
            out[j] = value
