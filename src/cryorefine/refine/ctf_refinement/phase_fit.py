"""Finds the phase polynomial that explains an optics group's pixels, without local optima.

Phases wrap: a fit that starts far from the truth ends in the wrong place. So fits begin at low
frequencies, where phases are small, from many starts, and frequencies are added step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.ctf_refinement.polynomials import orthogonal

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

_STAGES = (0.45, 0.6, 0.75, 0.9, 1.0)
_SPACING = 1.5


@dataclass(frozen=True, eq=False)
class OddSums:
    """Sums over an optics group's particles for each pixel.

    Attributes
    ----------
    cross : ndarray of complex128, shape (pixels,)
        sum of conj(c V) X / sigma2.
    power : ndarray, shape (pixels,)
        sum of |c V|^2 / sigma2.
    """

    cross: C128
    power: F64

    def plus(self, other: OddSums) -> OddSums:
        """Return the sums over both sets of particles."""
        return OddSums(self.cross + other.cross, self.power + other.power)

    def information(self) -> F64:
        """Return what each pixel tells of its phase, shape (pixels,)."""
        return self.power

    def observed(self) -> F64:
        """Return the phase seen in each pixel."""
        return np.asarray(np.angle(self.cross))

    def score(self, phase: F64, some: NDArray[np.bool_]) -> tuple[F64, F64, F64]:
        """Return log-likelihood, its derivative and its curvature by the phase."""
        turned = self.cross[some] * np.exp(-1j * phase)
        return turned.real, turned.imag, np.maximum(turned.real, 0.2 * self.power[some])


@dataclass(frozen=True, eq=False)
class EvenSums:
    """Sums for each pixel: log-likelihood b.t - t.A.t / 2 with t = (cos, sin) of the phase.

    Attributes
    ----------
    linear : ndarray, shape (2, pixels)
        b.
    quadratic : ndarray, shape (3, pixels)
        A_cc, A_cs and A_ss.
    """

    linear: F64
    quadratic: F64

    def plus(self, other: EvenSums) -> EvenSums:
        """Return the sums over both sets of particles."""
        return EvenSums(self.linear + other.linear, self.quadratic + other.quadratic)

    def information(self) -> F64:
        """Return what each pixel tells of its phase when that is small, shape (pixels,)."""
        # The trace halves what astigmatic or similar defocus values leave in one direction.
        return np.asarray((self.quadratic[0] + self.quadratic[2]) / 2)

    def observed(self) -> F64:
        """Return the phase seen in each pixel, which is the angle of A^-1 b."""
        cc, cs, ss = self.quadratic
        bc, bs = self.linear
        return np.asarray(np.arctan2(cc * bs - cs * bc, ss * bc - cs * bs))

    def score(self, phase: F64, some: NDArray[np.bool_]) -> tuple[F64, F64, F64]:
        """Return log-likelihood, its derivative and its curvature by the phase."""
        cc, cs, ss = self.quadratic[:, some]
        bc, bs = self.linear[:, some]
        c, s = np.cos(phase), np.sin(phase)
        at_c, at_s = cc * c + cs * s, cs * c + ss * s
        value = bc * c + bs * s - 0.5 * (c * at_c + s * at_s)
        first = (bs - at_s) * c - (bc - at_c) * s
        # t'.A.t' is the expected curvature; it never changes sign.
        return value, first, ss * c * c - 2 * cs * c * s + cc * s * s


Sums = TypeVar("Sums", "OddSums", "EvenSums")


def add(sums: Sequence[Sums]) -> Sums:
    """Add sums of one kind."""
    return reduce(lambda one, other: one.plus(other), sums)


@dataclass(frozen=True, eq=False)
class PhaseFit:
    """A fitted polynomial.

    Attributes
    ----------
    coefficients : ndarray, shape (terms,)
        Of the terms, in radians A^n.
    covariance : ndarray, shape (terms, terms)
        Of the coefficients.
    gain : float
        Log-likelihood above that of no phase but the fixed one.
    """

    coefficients: F64
    covariance: F64
    gain: float


def fit_phase(
    sums: Sequence[Sums],
    terms: F64,
    square: F64,
    *,
    searched: tuple[int, ...] = (),
    reach: F64 | None = None,
    starts: tuple[F64, ...] = (),
) -> PhaseFit:
    """Fit a polynomial phase to sums over the blocks of a jackknife.

    Parameters
    ----------
    sums : list of OddSums or EvenSums
        Of each block.
    terms : ndarray, shape (terms, pixels)
        Polynomials.
    square : ndarray, shape (pixels,)
        Squared frequencies in 1/A^2.
    searched : tuple of int
        Terms that are searched on a grid.
    reach : ndarray, shape (len(searched),), optional
        How far their coefficients are searched to either side of 0.
    starts : tuple of ndarray, shape (terms,)
        Further coefficients to start from; 0 is always one.

    Returns
    -------
    PhaseFit
        With the covariance of a jackknife over the blocks.
    """
    total = add(sums)
    information = total.information()
    used = information > 0
    if not used.any():
        count = len(terms)
        return PhaseFit(np.zeros(count), np.full((count, count), np.inf), 0.0)
    top = square[used].max()
    candidates = [np.zeros(len(terms)), *starts]
    best: F64 = np.zeros(len(terms))
    for stage in _STAGES:
        some = used & (square <= stage**2 * top)
        if some.sum() < 4 * len(terms):
            continue
        basis, matrix = orthogonal(terms[:, some], information[some])
        trial = [_solve(matrix, c) for c in candidates]
        if searched and reach is not None and stage == _STAGES[0]:
            trial += _grid(basis, matrix, information[some], searched, reach)
        values = np.array([np.sum(total.score(c @ basis, some)[0]) for c in trial])
        fits = [_climb(total, basis, some, trial[k]) for k in np.argsort(-values, kind="stable")[:4]]
        best = matrix @ max(fits, key=lambda f: f[1])[0]
        # Small phases at high frequencies are lost in a wrong start: 0 and the given ones stay in the race.
        candidates = [best, np.zeros(len(terms)), *starts]
    basis, matrix = orthogonal(terms[:, used], information[used])
    solution, value = _climb(total, basis, used, _solve(matrix, best))
    nothing = float(np.sum(total.score(np.zeros(used.sum()), used)[0]))
    return PhaseFit(
        matrix @ solution, _jackknife(sums, total, basis, matrix, used, solution), value - nothing
    )


def _solve(matrix: F64, values: F64) -> F64:
    return np.asarray(np.linalg.solve(matrix, values), np.float64)


def phase_gain(sums: Sequence[Sums], phase: F64) -> float:
    """Return the log-likelihood of a phase, shape (pixels,), above that of none."""
    total = add(sums)
    used = total.information() > 0
    return float(
        np.sum(total.score(phase[used], used)[0]) - np.sum(total.score(np.zeros(used.sum()), used)[0])
    )


def _grid(basis: F64, matrix: F64, information: F64, searched: tuple[int, ...], reach: F64) -> list[F64]:
    """Return starts in which the searched terms take values about 1.5 rad apart in the mean."""
    # One unit of a basis polynomial is one standard uncertainty: a phase of 1 / sqrt(information).
    step = _SPACING * np.sqrt(information.sum())
    axes = []
    for term, limit in zip(searched, reach, strict=True):
        last = abs(limit / matrix[term, term])
        steps = min(int(last / step), 12)
        axes.append(step * np.arange(-steps, steps + 1))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(searched))
    starts = np.zeros((len(points), len(basis)))
    starts[:, list(searched)] = points
    return list(starts)


def _climb(sums: Sums, basis: F64, some: NDArray[np.bool_], start: F64) -> tuple[F64, float]:
    """Climb to a maximum by damped Newton steps; return it and its value."""
    position, damping = start.copy(), 1e-3
    value, first, curvature = sums.score(position @ basis, some)
    score = float(value.sum())
    for _ in range(60):
        hessian = (basis * curvature) @ basis.T
        gradient = basis @ first
        for _ in range(12):
            damped = hessian + damping * np.diag(np.diag(hessian) + 1e-6)
            step = np.linalg.solve(damped, gradient)
            value, new_first, new_curvature = sums.score((position + step) @ basis, some)
            new_score = float(value.sum())
            if new_score > score:
                break
            damping *= 5
        else:
            return position, score
        position = position + step
        gained, score = new_score - score, new_score
        first, curvature, damping = new_first, new_curvature, damping / 5
        if gained < 1e-4 and np.abs(step).max() < 1e-2:
            break
    return position, score


def _jackknife(
    sums: Sequence[Sums], total: Sums, basis: F64, matrix: F64, some: NDArray[np.bool_], solution: F64
) -> F64:
    """Return the covariance of the coefficients from leaving each block out (Efron (1982)).

    Twenty blocks tell a variance to a third of itself. In the basis in which the likelihood's own covariance
    is the identity, what they tell is therefore mixed with a multiple of that, as well as it is told.
    """
    phase = solution @ basis
    _, first, curvature = total.score(phase, some)
    hessian = (basis * curvature) @ basis.T
    gradient = basis @ first
    moves = []
    for block in sums:
        _, block_first, block_curvature = block.score(phase, some)
        # One Newton step from the common solution: blocks are small, so it is as good as a fit.
        rest = hessian - (basis * block_curvature) @ basis.T
        rest += 1e-6 * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
        moves.append(np.linalg.solve(rest, gradient - basis @ block_first))
    spread = np.array(moves) - np.mean(moves, axis=0)
    return matrix @ shrunken_covariance(np.sqrt(len(sums) - 1) * spread) @ matrix.T


def shrunken_covariance(samples: F64) -> F64:
    """Return a covariance, drawn towards a multiple of the identity as far as few samples call for it.

    The mixture with the least expected error (Ledoit & Wolf (2004), J. Multivar. Anal. 88:365).

    Parameters
    ----------
    samples : ndarray, shape (samples, values)
        Of mean 0.
    """
    covariance = samples.T @ samples / len(samples)
    plain = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    away = float(np.sum((covariance - plain) ** 2))
    products = samples[:, :, None] * samples[:, None, :]
    unsure = float(np.sum((products - covariance) ** 2)) / len(samples) ** 2
    share = min(1.0, unsure / away) if away > 0 else 1.0
    return np.asarray(share * plain + (1 - share) * covariance)
