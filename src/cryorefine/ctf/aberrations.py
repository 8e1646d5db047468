"""Aberrations beyond defocus and Cs: Zernike polynomials, beam tilt, anisotropic magnification.

Polynomials are evaluated on frequencies in 1/A as they are, not scaled to a unit disc, so a
coefficient of degree n has the unit A**n (Zivanov, Nakane & Scheres (2020), IUCrJ 7:253).
Even ones are added to the phase of the CTF. Odd ones multiply the image's transform by
``exp(i phase)``; to correct an image, multiply it by the complex conjugate.
"""

from __future__ import annotations

from math import factorial, isqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.ctf.ctf import electron_wavelength


def odd_indices(index: int) -> tuple[int, int]:
    """Return degree n and azimuthal order m of an odd coefficient: 0, 1 are (1, -1), (1, 1)."""
    k = (isqrt(1 + 4 * index) - 1) // 2
    n = 2 * k + 1
    return n, 2 * (index - k * k - k) - n


def even_indices(index: int) -> tuple[int, int]:
    """Return degree n and azimuthal order m of an even coefficient: 0 is (0, 0), 2 is (2, 0)."""
    k = isqrt(index)
    n = 2 * k
    return n, 2 * (index - k * k) - n


def zernike(n: int, m: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return a Zernike polynomial: ``R cos(m phi)`` for m >= 0, ``R sin(|m| phi)`` for m < 0.

    Parameters
    ----------
    n, m : int
        Degree and azimuthal order, ``n - |m|`` even and not negative.
    x, y : array_like
        Spatial frequencies in 1/A, of one shape.

    Returns
    -------
    ndarray of float64, shape of x
    """
    order = abs(m)
    if order > n or (n - order) % 2:
        raise ValueError(f"no Zernike polynomial has degree {n} and azimuthal order {m}")
    fx, fy = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    u2 = fx * fx + fy * fy
    # R / rho**|m| is a polynomial in rho**2, and rho**|m| exp(i |m| phi) is (x + iy)**|m|
    radial = np.zeros_like(u2)
    half = (n - order) // 2
    for k in range(half + 1):
        weight = factorial(n - k) // (factorial(k) * factorial((n + order) // 2 - k) * factorial(half - k))
        radial += (-1) ** k * weight * u2 ** (half - k)
    azimuthal = (fx + 1j * fy) ** order
    return radial * (azimuthal.real if m >= 0 else azimuthal.imag)


def odd_basis(count: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return the first odd polynomials, shape (count, *x.shape)."""
    return np.stack([zernike(*odd_indices(i), x, y) for i in range(count)])


def even_basis(count: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return the first even polynomials, shape (count, *x.shape)."""
    return np.stack([zernike(*even_indices(i), x, y) for i in range(count)])


def even_phase(coefficients: ArrayLike, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return the phase of even aberrations in radians, to be added to gamma.

    Parameters
    ----------
    coefficients : array_like, shape (c,)
        rlnEvenZernike, units A**n.
    x, y : array_like
        Spatial frequencies in 1/A.

    Returns
    -------
    ndarray of float64, shape of x
    """
    values = np.asarray(coefficients, dtype=np.float64)
    if values.size == 0:
        return np.zeros(np.shape(x))
    return np.tensordot(values, even_basis(len(values), x, y), axes=1)


def odd_phase(
    coefficients: ArrayLike,
    beam_tilt_x: float,
    beam_tilt_y: float,
    voltage: float,
    spherical_aberration: float,
    x: ArrayLike,
    y: ArrayLike,
) -> NDArray[np.float64]:
    """Return the phase of odd aberrations and beam tilt in radians.

    Observed images carry ``exp(i phase)``; multiply by ``exp(-i phase)`` to correct them.

    Parameters
    ----------
    coefficients : array_like, shape (c,)
        rlnOddZernike, units A**n; may be empty.
    beam_tilt_x, beam_tilt_y : float
        Beam tilt in mrad.
    voltage : float
        Acceleration voltage in kV.
    spherical_aberration : float
        Cs in mm.
    x, y : array_like
        Spatial frequencies in 1/A.

    Returns
    -------
    ndarray of float64, shape of x
    """
    values = merge_beam_tilt(coefficients, beam_tilt_x, beam_tilt_y, voltage, spherical_aberration)
    if values.size == 0:
        return np.zeros(np.shape(x))
    return np.tensordot(values, odd_basis(len(values), x, y), axes=1)


def beam_tilt_scale(voltage: float, spherical_aberration: float) -> float:
    """Return S in A**3/mrad: a tilt (tx, ty) has the phase ``-S (tx x + ty y) u**2``.

    ``S = 2 pi Cs lambda**2``, 65.755 at 300 kV and Cs 2.7 mm (Glaeser et al. (2011), J. Struct.
    Biol. 174:1).
    """
    return float(spherical_aberration * 20000 * electron_wavelength(voltage) ** 2 * np.pi)


def merge_beam_tilt(
    coefficients: ArrayLike,
    beam_tilt_x: float,
    beam_tilt_y: float,
    voltage: float,
    spherical_aberration: float,
) -> NDArray[np.float64]:
    """Return odd coefficients that hold a beam tilt (mrad) as well, shape (max(c, 6),).

    Without tilt the coefficients are returned as they are.
    """
    values = np.array(coefficients, dtype=np.float64).reshape(-1)
    if beam_tilt_x == 0 and beam_tilt_y == 0:
        return values
    values = np.concatenate([values, np.zeros(max(0, 6 - len(values)))])
    # u**2 x = (Z(3, 1) + 2 Z(1, 1)) / 3, and likewise for y
    scale = -beam_tilt_scale(voltage, spherical_aberration) / 3
    values[4] += scale * beam_tilt_x
    values[3] += scale * beam_tilt_y
    values[1] += 2 * scale * beam_tilt_x
    values[0] += 2 * scale * beam_tilt_y
    return values


def magnify(matrix: ArrayLike, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies after the magnification matrix: ``(x', y') = M @ (x, y)``.

    CTF, aberrations and the slice of the reference are all evaluated at (x', y').

    Parameters
    ----------
    matrix : array_like, shape (2, 2)
        rlnMagMat00, 01; 10, 11.
    x, y : array_like
        Frequencies of the image's own pixels in 1/A.

    Returns
    -------
    x, y : ndarray of float64, shape of x
    """
    m = np.asarray(matrix, dtype=np.float64)
    fx, fy = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return m[0, 0] * fx + m[0, 1] * fy, m[1, 0] * fx + m[1, 1] * fy
