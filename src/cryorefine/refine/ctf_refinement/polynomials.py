"""Aberrations as plain polynomials, in which a tilt, a defocus or a phase shift is one term each.

Zernike polynomials on frequencies in 1/A overlap heavily: 6 u^4 - 6 u^2 + 1 is close to 1 at every
frequency that an image holds. Fits are made in plain terms, made orthogonal for the data at hand, and
turned into Zernike coefficients at the end, which is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import even_basis, odd_basis

F64 = NDArray[np.float64]

ODD = ("shift x", "shift y", "tilt x", "tilt y", "trefoil cos", "trefoil sin")
EVEN = ("phase", "defocus", "astigmatism cos", "astigmatism sin", "spherical", "secondary astigmatism cos",
        "secondary astigmatism sin", "tetrafoil cos", "tetrafoil sin")  # fmt: skip


def odd_terms(x: F64, y: F64) -> F64:
    """Return x, y, x u^2, y u^2, x^3 - 3 x y^2 and 3 x^2 y - y^3, shape (6, pixels)."""
    u2 = x * x + y * y
    cube = (x + 1j * y) ** 3
    return np.stack([x, y, x * u2, y * u2, cube.real, cube.imag])


def even_terms(x: F64, y: F64) -> F64:
    """Return 1, u^2, both parts of (x + iy)^2, u^4, those times u^2, and of (x + iy)^4, shape (9, pixels)."""
    u2 = x * x + y * y
    square = (x + 1j * y) ** 2
    fourth = square**2
    return np.stack(
        [
            np.ones_like(u2), u2, square.real, square.imag, u2 * u2,
            u2 * square.real, u2 * square.imag, fourth.real, fourth.imag,
        ]
    )  # fmt: skip


def _conversion(odd: bool) -> F64:
    """Return the matrix that turns plain coefficients into Zernike coefficients."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)))
    zernike, terms = (odd_basis(6, x, y), odd_terms(x, y)) if odd else (even_basis(9, x, y), even_terms(x, y))
    return np.asarray(np.linalg.lstsq(zernike.T, terms.T, rcond=None)[0], np.float64)


ODD_TO_ZERNIKE = _conversion(odd=True)
EVEN_TO_ZERNIKE = _conversion(odd=False)


def to_zernike(plain: F64, *, odd: bool) -> F64:
    """Turn coefficients of plain terms, shape (..., terms), into Zernike coefficients."""
    return plain @ (ODD_TO_ZERNIKE if odd else EVEN_TO_ZERNIKE).T


def from_zernike(zernike: F64, *, odd: bool) -> F64:
    """Turn Zernike coefficients, of any number up to that of the terms, into those of plain terms."""
    matrix = ODD_TO_ZERNIKE if odd else EVEN_TO_ZERNIKE
    values = np.zeros(len(matrix))
    given = np.asarray(zernike, np.float64)[: len(matrix)]
    values[: len(given)] = given
    return np.asarray(np.linalg.solve(matrix, values), np.float64)


def orthogonal(terms: F64, weight: F64) -> tuple[F64, F64]:
    """Make terms orthonormal under a weight, each against those before it.

    Parameters
    ----------
    terms : ndarray, shape (terms, pixels)
        Polynomials.
    weight : ndarray, shape (pixels,)
        Non-negative weights, in units of 1 / variance.

    Returns
    -------
    basis : ndarray, shape (terms, pixels)
        Orthonormal polynomials, each in units of its standard uncertainty.
    matrix : ndarray, shape (terms, terms)
        Coefficients of terms = matrix @ coefficients of the basis.
    """
    scale = np.sqrt((terms**2) @ weight)
    scale[scale == 0] = 1.0
    unit = terms / scale[:, None]
    # unit.T = q.T @ upper; columns scaled, since raw terms differ by orders of magnitude.
    _, upper = np.linalg.qr((unit * np.sqrt(weight)).T)
    sign = np.sign(np.diag(upper))
    sign[sign == 0] = 1.0
    upper = upper * sign[:, None]
    inverse = np.linalg.inv(upper)
    return inverse.T @ unit, inverse / scale[:, None]
