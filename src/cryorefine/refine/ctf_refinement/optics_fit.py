"""Fits of what an optics group's particles share: odd and even aberrations, and magnification."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import beam_tilt_scale, merge_beam_tilt
from cryorefine.ctf.ctf import CtfParameters, electron_wavelength
from cryorefine.refine.ctf_refinement.frame import GroupPlane
from cryorefine.refine.ctf_refinement.phase_fit import EvenSums, OddSums, add, fit_phase, phase_gain
from cryorefine.refine.ctf_refinement.polynomials import even_terms, from_zernike, odd_terms, to_zernike
from cryorefine.refine.ctf_refinement.transfer_fit import (
    ASTIGMATISM_COS,
    ASTIGMATISM_SIN,
    DEFOCUS,
    table_of,
    with_table,
)
from cryorefine.refine.particle_set import OpticsGroup

F64 = NDArray[np.float64]

# A fit is believed if chance alone gave so good a one less often than this.
_CHANCE = 1e-3
# Farthest beam tilt (mrad), group defocus (A) and error of Cs (mm) that fits start from.
_TILT, _DEFOCUS, _CS = 3.0, 500.0, 0.5


@dataclass(frozen=True, eq=False)
class GroupFit:
    """Outcome of one fit to one optics group.

    Attributes
    ----------
    values : ndarray
        Coefficients of the plain polynomials, or the magnification matrix (4,), to be used from now on.
    covariance : ndarray
        Of the values.
    supported : bool
        Whether the data prefer the fitted values to those given at first; if not, these are ``values``.
    moved : float
        How far values moved from the present ones, in units of their uncertainty.
    uncertainty : float
        Of a fitted phase in radians, rms over the pixels by what they tell; infinite for displacements.
    observed, fitted, weight : ndarray, shape (components, pixels)
        What was seen in each pixel, what was fitted to it, and the inverse variance of what was seen.
    """

    values: F64
    covariance: F64
    supported: bool
    moved: float
    uncertainty: float
    observed: F64
    fitted: F64
    weight: F64


def threshold(count: int) -> float:
    """Return how much log-likelihood a fit of so many values must gain to be believed."""
    if count > 100:
        # Wilson & Hilferty (1931): the cube root of chi-square is all but normal.
        share = 2 / (9 * count)
        return 0.5 * count * (1 - share + 3.0902 * math.sqrt(share)) ** 3
    low, high = 0.0, 100.0 + 10.0 * count
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(count, middle) > _CHANCE else (low, middle)
    return low


def _chance(count: int, gain: float) -> float:
    """Return how often chance alone gains so much log-likelihood: twice that is distributed as chi-square.

    The sums for even and odd numbers are those of Abramowitz & Stegun (1964), 26.4.4 and 26.4.5.
    """
    powers = [k / 2 for k in range(count - 2, 0, -2)]
    if count % 2 == 0:
        return math.exp(-gain) * sum(gain**p / math.gamma(p + 1) for p in (*powers, 0.0))
    return math.erfc(math.sqrt(gain)) + math.exp(-gain) * sum(gain**p / math.gamma(p + 1) for p in powers)


def plain_odd(optics: OpticsGroup) -> F64:
    """Return a group's odd aberrations, beam tilt included, as plain coefficients, shape (6,)."""
    zernike = merge_beam_tilt(
        optics.odd_aberrations, *optics.beam_tilt, optics.voltage, optics.spherical_aberration
    )
    return from_zernike(zernike, odd=True)


def fit_odd(
    sums: list[OddSums], plane: GroupPlane, given: OpticsGroup, present: OpticsGroup, *, trefoil: bool
) -> GroupFit:
    """Fit beam tilt and image shift, and trefoil if asked for, to an optics group.

    Parameters
    ----------
    sums : list of OddSums
        Of each block of the jackknife.
    plane : GroupPlane
        Pixels.
    given, present : OpticsGroup
        The group at first, and as it is now.
    trefoil : bool
        Fit trefoil too; otherwise it stays as given.
    """
    count = 6 if trefoil else 4
    terms = odd_terms(plane.x, plane.y)
    start, now = plain_odd(given), plain_odd(present)
    fixed = start.copy()
    fixed[:count] = 0
    undo = np.exp(-1j * (fixed @ terms))
    parts = [OddSums(s.cross * undo, s.power) for s in sums]
    reach = _TILT * beam_tilt_scale(given.voltage, given.spherical_aberration)
    fit = fit_phase(
        parts,
        terms[:count],
        plane.square,
        searched=(2, 3),
        reach=np.full(2, reach),
        starts=(start[:count], now[:count]),
    )
    values, covariance = start.copy(), np.zeros((6, 6))
    covariance[:count, :count] = fit.covariance
    supported = fit.gain - phase_gain(parts, start[:count] @ terms[:count]) > threshold(count)
    if supported:
        values[:count] = fit.coefficients
    total = add(sums)
    change = (values - now) @ terms
    moved = float(np.sqrt(np.sum(total.power * change**2) / count))
    return GroupFit(
        values,
        covariance,
        supported,
        moved,
        _rms_uncertainty(covariance, terms, total.power),
        total.observed()[None],
        (values @ terms)[None],
        total.power[None],
    )


def fit_even(sums: list[EvenSums], plane: GroupPlane, given: OpticsGroup, present: OpticsGroup) -> GroupFit:
    """Fit even aberrations of up to fourth order to an optics group.

    Parameters
    ----------
    sums : list of EvenSums
        Of each block of the jackknife.
    plane : GroupPlane
        Pixels.
    given, present : OpticsGroup
        The group at first, and as it is now.
    """
    terms = even_terms(plane.x, plane.y)
    start = from_zernike(np.array(given.even_aberrations), odd=False)
    now = from_zernike(np.array(present.even_aberrations), odd=False)
    wavelength = float(electron_wavelength(given.voltage))
    reach = np.array([np.pi * wavelength * _DEFOCUS, np.pi / 2 * _CS * 1e7 * wavelength**3])
    fit = fit_phase(sums, terms, plane.square, searched=(1, 4), reach=reach, starts=(start, now))
    gained = fit.gain - phase_gain(sums, start @ terms)
    supported = gained > threshold(len(terms))
    values = fit.coefficients if supported else start
    total = add(sums)
    weight = total.information()
    moved = float(np.sqrt(np.sum(weight * ((values - now) @ terms) ** 2) / len(terms)))
    return GroupFit(
        values,
        fit.covariance,
        supported,
        moved,
        _rms_uncertainty(fit.covariance, terms, weight),
        total.observed()[None],
        (values @ terms)[None],
        weight[None],
    )


def _rms_uncertainty(covariance: F64, terms: F64, weight: F64) -> float:
    """Return the standard uncertainty of a phase in radians, rms over pixels with a weight."""
    total = float(weight.sum())
    if total <= 0 or not np.isfinite(covariance).all():
        return np.inf
    square = np.sum(covariance * ((terms * weight) @ terms.T))
    return float(np.sqrt(max(square, 0.0) / total))


def even_to_zernike(values: F64) -> tuple[float, ...]:
    """Return even Zernike coefficients of plain ones; none if all are zero."""
    return tuple(float(v) for v in to_zernike(values, odd=False)) if np.any(values) else ()


def odd_to_zernike(values: F64) -> tuple[float, ...]:
    """Return odd Zernike coefficients of plain ones; none if all are zero."""
    return tuple(float(v) for v in to_zernike(values, odd=True)) if np.any(values) else ()


def fit_magnification(
    sums: list[F64], index: tuple[F64, F64], given: OpticsGroup, present: OpticsGroup, *, isotropic: bool
) -> GroupFit:
    """Fit the magnification matrix of an optics group.

    The linear displacement d = (M' - 1) (x, y) that best explains the differences of images and
    predictions through the predictions' gradients.

    Parameters
    ----------
    sums : list of ndarray, shape (8, pixels)
        Of each block of the jackknife, see :func:`.optics_sums.displacement_sums`.
    index : tuple of ndarray, shape (pixels,)
        Fourier indices (x, y) of the pixels after the present magnification.
    given, present : OpticsGroup
        The group at first, and as it is now.
    isotropic : bool
        Whether a common scale can be told; a reference made of these very particles follows it.
    """
    matrix = np.reshape(present.magnification, (2, 2))
    start = np.reshape(given.magnification, (2, 2))
    equations = [_matrix_equations(s, index) for s in sums]
    normal, right, scatter = (np.sum([e[k] for e in equations], axis=0) for k in range(3))
    allowed = np.eye(4) if isotropic else np.linalg.svd(np.array([[1.0, 0, 0, 1]]))[2][1:].T
    change = _solve_within(normal, right, allowed)
    moves = np.array([_solve_within(normal - n, right - r, allowed) for n, r, _ in equations])
    away = moves - moves.mean(axis=0)
    covariance = (len(sums) - 1) / len(sums) * away.T @ away
    new = (np.eye(2) + change.reshape(2, 2)) @ matrix
    # What b would have to be for the matrix given at first, against the scatter of b.
    needed = normal @ (new @ np.linalg.inv(start) - np.eye(2)).ravel()
    supported = 0.5 * _square(needed, scatter, allowed) > threshold(allowed.shape[1])
    values = new if supported else start
    step = (values @ np.linalg.inv(matrix) - np.eye(2)).ravel()
    moved = np.sqrt(_square(normal @ step, scatter, allowed) / allowed.shape[1])
    total = np.sum(sums, axis=0)
    xx, xy, yy = total[5:]
    determinant = xx * yy - xy**2
    # Single pixels of a weak signal may have no solution.
    fine = (determinant > 0.01 * np.abs(total[0] * total[2])) & (xx > 0)
    safe = np.where(fine, determinant, 1.0)
    observed = np.stack([yy * total[3] - xy * total[4], xx * total[4] - xy * total[3]])
    observed = np.where(fine, observed / safe, 0.0)
    fitted = (change if supported else step).reshape(2, 2) @ np.stack(index)
    weight = np.where(fine, total[[0, 2]], 0.0)
    if not weight.any():
        covariance = np.full((4, 4), np.inf)
    return GroupFit(
        values.ravel(), covariance, bool(supported), float(moved), np.inf, observed, fitted, weight
    )


def _matrix_equations(sums: F64, index: tuple[F64, F64]) -> tuple[F64, F64, F64]:
    """Return E (4, 4), b (4,) and the covariance of b (4, 4) for the displacement matrix 00, 01, 10, 11."""
    q = np.stack(index)

    def outer(xx: F64, xy: F64, yy: F64) -> F64:
        parts = [(a * q) @ q.T for a in (xx, xy, yy)]
        return np.block([[parts[0], parts[1]], [parts[1], parts[2]]])

    return outer(*sums[5:]), np.concatenate([q @ sums[3], q @ sums[4]]), outer(*sums[:3])


def _square(values: F64, covariance: F64, allowed: F64) -> float:
    """Return the squared length of values in units of their scatter, within what is allowed."""
    some = allowed.T @ values
    inside = allowed.T @ covariance @ allowed
    inside += (1e-9 * np.trace(inside) + 1e-300) * np.eye(len(inside))
    return float(some @ np.linalg.solve(inside, some))


def _solve_within(normal: F64, right: F64, allowed: F64) -> F64:
    reduced = allowed.T @ normal @ allowed
    ridge = 1e-9 * np.trace(reduced) / len(reduced) + 1e-300
    return np.asarray(allowed @ np.linalg.solve(reduced + ridge * np.eye(len(reduced)), allowed.T @ right))


def magnified(parameters: CtfParameters, change: F64) -> CtfParameters:
    """Return CTF parameters that give the same images after a change of the magnification.

    With frequencies M' k for k, the defocus matrix D becomes M'^-T D M'^-1 (Zivanov, Nakane & Scheres
    (2020), IUCrJ 7:253).

    Parameters
    ----------
    parameters : CtfParameters
        Of n images.
    change : ndarray, shape (2, 2)
        M', the new matrix times the inverse of the old one.
    """
    table = table_of(parameters)
    mean, cos, sin = (table[:, c] for c in (DEFOCUS, ASTIGMATISM_COS, ASTIGMATISM_SIN))
    forms = np.stack([np.stack([mean + cos, sin], -1), np.stack([sin, mean - cos], -1)], -2)
    inverse = np.linalg.inv(change)
    forms = inverse.T @ forms @ inverse
    table[:, DEFOCUS] = (forms[:, 0, 0] + forms[:, 1, 1]) / 2
    table[:, ASTIGMATISM_COS] = (forms[:, 0, 0] - forms[:, 1, 1]) / 2
    table[:, ASTIGMATISM_SIN] = forms[:, 0, 1]
    return with_table(parameters, table)


def absorb(
    values: F64, parameters: CtfParameters, voltage: float, columns: list[int]
) -> tuple[F64, CtfParameters]:
    """Move what even aberrations have in common with particles' own parameters to the latter.

    Parameters
    ----------
    values : ndarray, shape (9,)
        Plain even coefficients.
    parameters : CtfParameters
        Of the group's images.
    voltage : float
        kV.
    columns : list of int
        Columns of the table of parameters that are fitted to particles or micrographs; aberrations of
        the same form would only compete with them.
    """
    factor = np.array([-1.0] + [-np.pi * float(electron_wavelength(voltage))] * 3)
    left, table = values.copy(), table_of(parameters)
    for column in columns:
        if column < 4:
            table[:, column] += left[column] / factor[column]
            left[column] = 0.0
    return left, with_table(parameters, table) if columns else parameters


def with_magnification(optics: OpticsGroup, values: F64) -> OpticsGroup:
    """Return a group with another magnification matrix (4,)."""
    a, b, c, d = (float(v) for v in values)
    return replace(optics, magnification=(a, b, c, d))
