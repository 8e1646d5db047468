"""Joint fit of phase shift, defocus, astigmatism, B-factor and scale, per particle or per micrograph.

The model of an image is k exp(-B u^2 / 4) (-sin gamma) V. Gauss-Newton steps with Levenberg's damping
in the natural units of each parameter; values that a micrograph shares are eliminated by a Schur
complement, so any mixture of levels is one small system for each micrograph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.ctf.ctf import CtfParameters, electron_wavelength
from cryorefine.refine.ctf_refinement.comparison import Compared, Comparison
from cryorefine.refine.ctf_refinement.dense import cross_and_power, sums_of_products
from cryorefine.refine.ctf_refinement.optics_sums import pixel_weights
from cryorefine.refine.ctf_refinement.settings import CtfFit, Level
from cryorefine.refine.ctf_refinement.signal import Signal

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]

# Columns of a table of parameters: radians, A, A, A (half of U - V times cos and sin of twice the
# angle), A^2 and a factor.
PHASE, DEFOCUS, ASTIGMATISM_COS, ASTIGMATISM_SIN, B_FACTOR, SCALE = range(6)
_COUNT = 6
FAMILIES = {
    "phase_shift": [PHASE],
    "astigmatism": [ASTIGMATISM_COS, ASTIGMATISM_SIN],
    "b_factor": [B_FACTOR, SCALE],
}
"""Columns of each fit but the defocus, by its name in the settings."""
# How far values of one micrograph's particles are taken to lie apart before the data have spoken.
_SPREAD = np.array([0.3, 300.0, 150.0, 150.0, 40.0, 0.3])
_LOWEST = np.array([-np.inf, -np.inf, -np.inf, -np.inf, -200.0, 0.05])
_HIGHEST = np.array([np.inf, np.inf, np.inf, np.inf, 800.0, 5.0])
_ITERATIONS = 12


def table_of(parameters: CtfParameters) -> F64:
    """Return CTF parameters as a table, shape (n, 6)."""
    half = (parameters.column("defocus_u") - parameters.column("defocus_v")) / 2
    twice = 2 * np.deg2rad(parameters.column("defocus_angle"))
    return np.stack(
        [
            np.deg2rad(parameters.column("phase_shift")),
            (parameters.column("defocus_u") + parameters.column("defocus_v")) / 2,
            half * np.cos(twice),
            half * np.sin(twice),
            parameters.column("b_factor"),
            parameters.column("scale"),
        ],
        axis=1,
    )


def with_table(parameters: CtfParameters, table: F64) -> CtfParameters:
    """Return CTF parameters with the values of a table; U is the larger defocus."""
    half = np.hypot(table[:, ASTIGMATISM_COS], table[:, ASTIGMATISM_SIN])
    angle = np.rad2deg(np.arctan2(table[:, ASTIGMATISM_SIN], table[:, ASTIGMATISM_COS])) / 2
    return replace(
        parameters,
        defocus_u=table[:, DEFOCUS] + half,
        defocus_v=table[:, DEFOCUS] - half,
        defocus_angle=np.mod(angle, 180.0),
        phase_shift=np.rad2deg(table[:, PHASE]),
        b_factor=table[:, B_FACTOR].copy(),
        scale=table[:, SCALE].copy(),
    )


def free_columns(fit: CtfFit, level: str) -> list[int]:
    """Return the columns that are fitted at a level."""
    groups = (
        (fit.phase_shift, FAMILIES["phase_shift"]),
        (fit.defocus, [DEFOCUS]),
        (fit.astigmatism, FAMILIES["astigmatism"]),
        (fit.b_factor, FAMILIES["b_factor"]),
    )
    return [column for chosen, columns in groups if chosen == level for column in columns]


def with_level(fit: CtfFit, name: str, level: Level) -> CtfFit:
    """Return settings with another level of one of :data:`FAMILIES`."""
    match name:
        case "phase_shift":
            return replace(fit, phase_shift=level)
        case "astigmatism":
            return replace(fit, astigmatism=level)
        case _:
            return replace(fit, b_factor=level)


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Log-likelihood of particles with its first and second derivatives.

    Attributes
    ----------
    score : ndarray, shape (n,)
        Log-likelihood.
    gradient : ndarray, shape (n, 6)
        By the columns of the table.
    information : ndarray, shape (n, 6, 6)
        Expected negative second derivatives.
    """

    score: F64
    gradient: F64
    information: F64


def derivatives(comparison: Comparison, signal: Signal, table: F64) -> Derivatives:
    """Evaluate the log-likelihood of every particle."""
    count = len(table)
    result = Derivatives(np.zeros(count), np.zeros((count, _COUNT)), np.zeros((count, _COUNT, _COUNT)))
    group = np.array([v.optics for v in comparison.particles.views])
    for chunk, part in zip(
        comparison.chunks, comparison.each(_derivatives, signal, group, table), strict=True
    ):
        result.score[chunk.particles] = part.score
        result.gradient[chunk.particles] = part.gradient
        result.information[chunk.particles] = part.information
    return result


def _derivatives(compared: Compared, signal: Signal, group: Index, table: F64) -> Derivatives:
    members = compared.chunk.particles
    linear, quadratic = pixel_weights(compared, signal, int(group[compared.chunk.view]))
    here = replace(compared, ctf=with_table(compared.ctf, table[members]))
    where = compared.operations
    model, slope = here.sine_and_cosine()
    envelope = _envelope(compared, table[members])
    model *= -envelope
    slope *= -envelope
    image, prediction = where.array(compared.without_odd_aberrations()), where.array(compared.slice)
    cross, power = cross_and_power(prediction, image)
    cross *= where.array(linear)
    power *= where.array(quadratic)
    rest = cross - power * model
    # Score is sum(cross m - power m^2 / 2) = sum((cross + rest) m) / 2.
    score = 0.5 * to_host(sums_of_products(where.xp, cross + rest, model))
    phase_terms, envelope_terms = _terms(compared)

    def summed(values: F32, terms: F32) -> F32:
        """Sum values (n, pixels) times each of some terms (terms, pixels), on the processor."""
        sums: F32 = to_host(values @ where.array(np.ascontiguousarray(terms.T)))
        return sums

    by_phase = summed(rest * slope, phase_terms)
    by_envelope = summed(rest * model, envelope_terms)
    first = summed(power * slope**2, _products(phase_terms, phase_terms))
    mixed = summed(power * slope * model, _products(phase_terms, envelope_terms))
    second = summed(power * model**2, _products(envelope_terms, envelope_terms))
    count = len(members)
    gradient = np.concatenate([by_phase, by_envelope], axis=1).astype(np.float64)
    information = np.empty((count, _COUNT, _COUNT))
    information[:, :4, :4] = first.reshape(count, 4, 4)
    information[:, :4, 4:] = mixed.reshape(count, 4, 2)
    information[:, 4:, :4] = np.swapaxes(information[:, :4, 4:], 1, 2)
    information[:, 4:, 4:] = second.reshape(count, 2, 2)
    # The derivative by the scale is m / k.
    inverse = 1 / table[members, SCALE]
    gradient[:, SCALE] *= inverse
    information[:, SCALE, :] *= inverse[:, None]
    information[:, :, SCALE] *= inverse[:, None]
    weight = signal.weight[members]
    return Derivatives(score * weight, gradient * weight[:, None], information * weight[:, None, None])


def _envelope(compared: Compared, table: F64) -> F32:
    """Return the envelopes of a chunk there, shape (n, pixels)."""
    where = compared.operations
    rates, scales = ((table[:, k, None] * f).astype(np.float32) for k, f in ((B_FACTOR, -0.25), (SCALE, 1.0)))
    exponent = where.array(rates) * where.array(compared.plane.square.astype(np.float32))
    envelope: F32 = where.xp.exp(exponent) * where.array(scales)
    return envelope


def _terms(compared: Compared) -> tuple[F32, F32]:
    """Return derivatives of gamma (4, pixels), and of the logarithm of the envelope (2, pixels)."""
    plane = compared.plane
    x, y = plane.x, plane.y
    factor = -np.pi * float(electron_wavelength(compared.optics.voltage))
    phase = np.stack(
        [-np.ones_like(x), factor * plane.square, factor * (x * x - y * y), factor * (2 * x * y)]
    )
    envelope = np.stack([-plane.square / 4, np.ones_like(x)])
    return phase.astype(np.float32), envelope.astype(np.float32)


def _products(first: F32, second: F32) -> F32:
    """Return all products of two sets of terms, shape (terms * terms, pixels)."""
    return (first[:, None] * second[None]).reshape(-1, first.shape[1])


@dataclass(frozen=True, eq=False)
class TransferEstimate:
    """Outcome of a joint fit.

    Attributes
    ----------
    table, sigma : ndarray, shape (particles, 6)
        Values and their standard uncertainties, NaN where they were not fitted.
    spread : ndarray, shape (6,)
        Standard deviation of particles within a micrograph, for values fitted per particle.
    gains : dict
        Log-likelihood gained, for each of :data:`FAMILIES` that was fitted, by letting values differ: of the
        particles of a micrograph from each other, or of micrographs from those given.
    counts : dict
        How many values chance had for that: the spreads, or the values of all micrographs.
    """

    table: F64
    sigma: F64
    spread: F64
    gains: dict[str, float]
    counts: dict[str, int]


@dataclass(eq=False)
class _Prior:
    """Where values of a micrograph's particles lie."""

    columns: list[int]
    centre: F64  # (micrographs, columns)
    spread: F64  # (columns,)
    fixed: list[bool]

    def penalty(self, table: F64, micrograph: Index) -> tuple[F64, F64]:
        """Return log prior (n,) and its gradient (n, columns)."""
        away = (table[:, self.columns] - self.centre[micrograph]) / self.spread
        return -0.5 * np.sum(away**2, axis=1), -away / self.spread

    def learn(self, table: F64, covariance: F64, weight: F64, micrograph: Index) -> None:
        """Move centres and spreads to where the particles are."""
        count = len(self.centre)
        for k, column in enumerate(self.columns):
            if self.fixed[k]:
                continue
            variance = covariance[:, k, k]
            told = np.clip(1 - variance / self.spread[k] ** 2, 0.01, 1) * weight
            old = self.centre[micrograph, k]
            towards = old + (table[:, column] - old) / np.clip(told / weight, 0.01, 1)
            total = np.bincount(micrograph, told, minlength=count)
            self.centre[:, k] = np.bincount(micrograph, told * towards, minlength=count) / total
            scatter = (table[:, column] - self.centre[micrograph, k]) ** 2 + variance
            self.spread[k] = max(np.sqrt(np.average(scatter, weights=weight)), 0.02 * _SPREAD[column])


def fit_transfer(
    comparison: Comparison,
    signal: Signal,
    fit: CtfFit,
    micrograph: Index,
    *,
    given: F64 | None = None,
    defocus_centre: F64 | None,
    defocus_spread: float,
    done: Callable[[int, int], None] = lambda iteration, total: None,
) -> TransferEstimate:
    """Fit all chosen parameters together, starting from the present values.

    Parameters
    ----------
    comparison : Comparison
        Particles and references.
    signal : Signal
        Weights.
    fit : CtfFit
        What is fitted at which level.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each particle.
    given : ndarray, shape (particles, 6), optional
        Values that the job began with, if they are not the present ones.
    defocus_centre : ndarray, shape (micrographs,), optional
        Defocus in A about which particles lie, where it is fitted per particle.
    defocus_spread : float
        Their standard deviation in A.
    done : callable
        Told of each iteration that is done.
    """
    particle, shared = free_columns(fit, "per-particle"), free_columns(fit, "per-micrograph")
    table = table_of(comparison.particles.ctf)
    count = int(micrograph.max()) + 1
    prior = _prior(particle, table, micrograph, count, defocus_centre, defocus_spread)
    weight = np.maximum(signal.presence, 1e-3)
    best, now = table, derivatives(comparison, signal, table)
    damping = np.full(count if shared else len(table), 1e-3)
    unit = micrograph if shared else np.arange(len(table))

    def merit(of: Derivatives, where: F64) -> F64:
        value = of.score + prior.penalty(where, micrograph)[0]
        return np.asarray(np.bincount(unit, value, minlength=len(damping)), np.float64)

    for iteration in range(_ITERATIONS):
        step, covariance, _ = _solve(now, best, prior, particle, shared, micrograph, damping[unit])
        # Spreads are learnt along the way; they settle with the values.
        prior.learn(best, covariance, weight, micrograph)
        trial = np.clip(best + step, _LOWEST, _HIGHEST)
        new = derivatives(comparison, signal, trial)
        better = merit(new, trial) >= merit(now, best) - 1e-6
        damping = np.where(better, damping / 5, damping * 8)
        taken = better[unit]
        moved = np.abs(np.where(taken[:, None], trial - best, 0)) / _SPREAD
        best = np.where(taken[:, None], trial, best)
        now = Derivatives(
            np.where(taken, new.score, now.score),
            np.where(taken[:, None], new.gradient, now.gradient),
            np.where(taken[:, None, None], new.information, now.information),
        )
        done(iteration + 1, _ITERATIONS)
        if moved.max() < 0.01 and np.all(better | (damping > 1e6)):
            break
    _, covariance, shared_covariance = _solve(
        now, best, prior, particle, shared, micrograph, np.zeros(len(table))
    )
    sigma = np.full_like(best, np.nan)
    sigma[:, particle] = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    sigma[:, shared] = np.sqrt(np.maximum(np.diagonal(shared_covariance, axis1=1, axis2=2), 0))[micrograph]
    spread = np.full(_COUNT, np.nan)
    spread[particle] = prior.spread
    gains, counts = {}, {}
    for name, columns in FAMILIES.items():
        if columns[0] in particle:
            gains[name] = _gain_of_spread(now, best, prior, columns, micrograph)
            counts[name] = len(columns)
        elif columns[0] in shared:
            some = [shared.index(column) for column in columns]
            firsts = np.unique(micrograph, return_index=True)[1]
            change = (best - (table if given is None else given))[firsts][:, columns]
            inside = shared_covariance[micrograph[firsts]][:, some][:, :, some]
            gains[name] = 0.5 * float(np.sum(change * np.linalg.solve(inside, change[..., None])[..., 0]))
            counts[name] = change.size
    return TransferEstimate(best, sigma, spread, gains, counts)


def _gain_of_spread(
    now: Derivatives, table: F64, prior: _Prior, columns: list[int], micrograph: Index
) -> float:
    """Return the log-likelihood gained by letting particles of a micrograph differ in some values.

    Likelihoods are taken for the Gaussians that their derivatives describe, and summed over all values that
    particles may have.
    """
    own = prior.columns
    information = now.information[:, own][:, :, own]
    away = table[:, own] - prior.centre[micrograph]
    slope = now.gradient[:, own] + np.einsum("npq,nq->np", information, away)
    precision = 1 / prior.spread**2

    def evidence(some: list[int]) -> F64:
        inner = information[:, some][:, :, some] + np.diag(precision[some])
        side = slope[:, some]
        found = np.linalg.solve(inner, side[..., None])[..., 0]
        determinant = np.linalg.slogdet(inner)[1]
        return np.asarray(
            0.5 * (np.sum(side * found, axis=1) + np.sum(np.log(precision[some])) - determinant)
        )

    tested = [own.index(column) for column in columns]
    others = [k for k in range(len(own)) if k not in tested]
    gain = float(np.sum(evidence(list(range(len(own)))) - evidence(others)))
    # Without a spread, the values of a micrograph are still those that suit its particles best.
    cross = information[:, tested][:, :, others]
    inner = information[:, others][:, :, others] + np.diag(precision[others])
    reduced = cross @ np.linalg.inv(inner)
    rest = information[:, tested][:, :, tested] - reduced @ np.swapaxes(cross, 1, 2)
    side = slope[:, tested] - np.einsum("npq,nq->np", reduced, slope[:, others])
    units = len(prior.centre)
    total, sides = np.zeros((units, len(tested), len(tested))), np.zeros((units, len(tested)))
    np.add.at(total, micrograph, rest)
    np.add.at(sides, micrograph, side)
    total += np.diag(1e-6 * precision[tested])
    return gain - 0.5 * float(np.sum(sides * np.linalg.solve(total, sides[..., None])[..., 0]))


def _prior(
    columns: list[int],
    table: F64,
    micrograph: Index,
    count: int,
    defocus_centre: F64 | None,
    defocus_spread: float,
) -> _Prior:
    size = np.maximum(np.bincount(micrograph, minlength=count), 1)
    centre = np.zeros((count, len(columns)))
    for k, column in enumerate(columns):
        centre[:, k] = np.bincount(micrograph, table[:, column], minlength=count) / size
    spread = _SPREAD[columns].copy()
    fixed = [False] * len(columns)
    if DEFOCUS in columns and defocus_centre is not None:
        k = columns.index(DEFOCUS)
        centre[:, k], spread[k], fixed[k] = defocus_centre, max(defocus_spread, 1.0), True
    return _Prior(columns, centre, spread, fixed)


def _solve(
    now: Derivatives,
    table: F64,
    prior: _Prior,
    particle: list[int],
    shared: list[int],
    micrograph: Index,
    damping: F64,
) -> tuple[F64, F64, F64]:
    """Return a step (n, 6), and covariances of particles' (n, p, p) and shared values (m, s, s)."""
    count, units = len(table), len(prior.centre)
    _, pull = prior.penalty(table, micrograph)
    own = now.information[:, particle][:, :, particle] + np.diag(1 / prior.spread**2)
    own_gradient = now.gradient[:, particle] + pull
    # Variables are scaled to their natural spreads, so that one damping suits all.
    damped = own + damping[:, None, None] * np.eye(len(particle)) * own
    inverse: F64 = np.asarray(np.linalg.inv(damped), np.float64)
    step = np.zeros((count, _COUNT))
    if not shared:
        step[:, particle] = np.einsum("npq,nq->np", inverse, own_gradient)
        return step, inverse, np.zeros((units, 0, 0))
    cross = now.information[:, particle][:, :, shared]
    reduced = inverse @ cross
    schur = now.information[:, shared][:, :, shared] - np.swapaxes(cross, 1, 2) @ reduced
    right = now.gradient[:, shared] - np.einsum("nps,np->ns", reduced, own_gradient)
    total, side = np.zeros((units, len(shared), len(shared))), np.zeros((units, len(shared)))
    np.add.at(total, micrograph, schur)
    np.add.at(side, micrograph, right)
    # A micrograph that says nothing stays where it is.
    total += np.diag(1e-6 / _SPREAD[shared] ** 2)
    level = np.zeros(units)
    np.maximum.at(level, micrograph, damping)
    moved = total + level[:, None, None] * np.eye(len(shared)) * total
    common = np.linalg.solve(moved, side[..., None])[..., 0]
    covariance: F64 = np.asarray(np.linalg.inv(total), np.float64)
    step[:, shared] = common[micrograph]
    step[:, particle] = np.einsum("npq,nq->np", inverse, own_gradient) - np.einsum(
        "nps,ns->np", reduced, common[micrograph]
    )
    inherited = reduced @ covariance[micrograph] @ np.swapaxes(reduced, 1, 2)
    return step, inverse + inherited, covariance
