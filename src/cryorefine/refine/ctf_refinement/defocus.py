"""Defocus by a search over the whole range, and the spread of defocus that the data show.

With gamma = gamma0 + x, x proportional to defocus change times u^2, the log-likelihood
sum(A c) - sum(B c^2) / 2 of c = -sin(gamma) needs only four sums over pixels of equal u^2:

    c = -(sin gamma0 cos x + cos gamma0 sin x)
    c^2 = (1 - cos 2 gamma0 cos 2x + sin 2 gamma0 sin 2x) / 2

so a particle's whole range costs one pass over its pixels, and no start can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.ctf.aberrations import even_phase
from cryorefine.ctf.ctf import electron_wavelength, phase_coefficients
from cryorefine.refine.ctf_refinement import dense
from cryorefine.refine.ctf_refinement.comparison import Compared, Comparison, with_mean_defocus
from cryorefine.refine.ctf_refinement.optics_sums import pixel_weights
from cryorefine.refine.ctf_refinement.signal import Signal

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}
# Share of particles whose defocus has nothing to do with their micrograph's.
_STRAY = 0.01
# A gain of log-likelihood that chance brings once in a thousand times.
_CLEARLY = 5.4


@dataclass(frozen=True, eq=False)
class Scan:
    """Log-likelihood of every particle over changes of its mean defocus.

    Attributes
    ----------
    change : ndarray, shape (steps,)
        Changes of the defocus in A.
    score : ndarray of float32, shape (particles, steps)
        Log-likelihood, relative to each particle's best.
    """

    change: F64
    score: F32


def scan_defocus(
    comparison: Comparison,
    signal: Signal,
    origin: F64,
    reach: float,
    done: Callable[[int], None] = lambda count: None,
) -> Scan:
    """Score every particle at every defocus of a range.

    Parameters
    ----------
    comparison : Comparison
        Particles and references.
    signal : Signal
        Weights.
    origin : ndarray, shape (particles,)
        Mean defocus in A that changes are counted from.
    reach : float
        Largest change in A.
    done : callable
        Told of each chunk that is done.
    """
    particles = comparison.particles
    group = np.array([v.optics for v in particles.views])
    top = max(float(plane.square.max()) for plane in comparison.planes.values())
    phase_per_angstrom = np.pi * float(np.max(electron_wavelength(particles.ctf.voltage))) * top
    # Fine enough for the sharpest peaks: those of particles seen well, whose width is a few A.
    step = float(np.clip(0.12 / phase_per_angstrom, 2.0, 20.0))
    steps = int(np.ceil(reach / step))
    change = step * np.arange(-steps, steps + 1)
    change = change[np.abs(change) <= reach + 1e-6]
    bins = int(np.clip(20 * reach * phase_per_angstrom, 128, 2048))
    score = np.empty((len(particles), len(change)), np.float32)
    tables = {
        voltage: _table(voltage, change, np.linspace(0, top, bins))
        for voltage in {optics.voltage for optics in particles.optics}
    }
    results = comparison.each(_scan_chunk, signal, group, origin, tables, top, bins)
    for count, (chunk, values) in enumerate(zip(comparison.chunks, results, strict=True), 1):
        score[chunk.particles] = values
        done(count)
    return Scan(change, score)


def _table(voltage: float, change: F64, square: F64) -> F32:
    """Return what the sums of a bin count for at each change of defocus, shape (bins * 4, steps)."""
    x = -np.pi * float(electron_wavelength(voltage)) * np.outer(square, change)
    tables = np.stack([np.cos(x), np.sin(x), 0.25 * np.cos(2 * x), -0.25 * np.sin(2 * x)], axis=1)
    return tables.reshape(4 * len(square), -1).astype(np.float32)


def _scan_chunk(
    compared: Compared,
    signal: Signal,
    group: Index,
    origin: F64,
    tables: dict[float, F32],
    top: float,
    bins: int,
) -> F32:
    members = compared.chunk.particles
    linear, quadratic = pixel_weights(compared, signal, int(group[compared.chunk.view]))
    parameters = with_mean_defocus(compared.ctf, origin[members])
    plane, optics = compared.plane, compared.optics
    envelope = np.ones((1, 1), np.float32)
    if np.any(compared.ctf.column("b_factor")) or np.any(compared.ctf.column("scale") != 1):
        exponent = -compared.ctf.column("b_factor")[:, None] / 4 * plane.square
        envelope = (compared.ctf.column("scale")[:, None] * np.exp(exponent)).astype(np.float32)
    even = np.zeros(0)
    if any(optics.even_aberrations):
        even = even_phase(optics.even_aberrations, plane.x, plane.y)
    bin_ = np.floor(plane.square / top * (bins - 1) + 0.5).astype(np.int32)
    if compared.on_gpu:
        extra = even if len(even) else np.zeros(len(plane.x))
        arrays = (
            compared.slice,
            compared.without_odd_aberrations(),
            np.stack(phase_coefficients(parameters)),
            plane.x,
            plane.y,
            extra,
            linear * envelope,
            quadratic * envelope**2,
        )
        sums = dense.defocus_sums(compared.operations.xp, compared.there(*arrays), bin_, bins)
        sums = sums.astype(np.float32)
    else:
        sums = np.zeros((len(members), bins, 4), np.float32)
        _collapse(
            compared.slice,
            compared.image,
            compared.odd_correction,
            np.stack(phase_coefficients(parameters)),
            plane.x,
            plane.y,
            even,
            np.broadcast_to(envelope, compared.image.shape),
            linear,
            quadratic,
            bin_,
            np.empty((4, len(plane.x)), np.float32),
            sums,
        )
    table = compared.operations.array(tables[optics.voltage])
    score = to_host(sums.reshape(len(members), -1) @ table)
    score *= signal.weight[members, None].astype(np.float32)
    return np.asarray(score - score.max(axis=1, keepdims=True), np.float32)


# Taylor series of sine and cosine: on [-pi/2, pi/2] they end with errors below 6e-8 and 1e-8.
_S1, _S2, _S3 = np.float32(-1 / 6), np.float32(1 / 120), np.float32(-1 / 5040)
_S4, _S5 = np.float32(1 / 362880), np.float32(-1 / 39916800)
_C1, _C2, _C3 = np.float32(-1 / 2), np.float32(1 / 24), np.float32(-1 / 720)
_C4, _C5, _C6 = np.float32(1 / 40320), np.float32(-1 / 3628800), np.float32(1 / 479001600)


@njit(**_FAST)
def _collapse(
    prediction: C64,
    image: C64,
    correction: C64,
    coefficients: F64,
    x: F64,
    y: F64,
    even: F64,
    envelope: F32,
    linear: F32,
    quadratic: F32,
    bin_: NDArray[np.int32],
    terms: F32,
    out: F32,
) -> None:
    """Sum -A sin, -A cos, B cos 2 gamma and B sin 2 gamma over pixels of one bin; out (n, bins, 4)."""
    pixels = len(x)
    one, two = np.float32(1), np.float32(2)
    for i in range(image.shape[0]):
        xx, xy, yy = coefficients[0, i], coefficients[1, i], coefficients[2, i]
        quartic, constant = coefficients[3, i], coefficients[4, i]
        for p in range(pixels):
            u2 = x[p] * x[p] + y[p] * y[p]
            gamma = xx * x[p] * x[p] + xy * x[p] * y[p] + yy * y[p] * y[p] + quartic * u2 * u2 + constant
            if len(even) > 0:
                gamma += even[p]
            turns = np.floor(gamma * (1 / np.pi) + 0.5)
            r = np.float32(gamma - turns * np.pi)
            r2 = r * r
            sine = r + r * r2 * (_S1 + r2 * (_S2 + r2 * (_S3 + r2 * (_S4 + r2 * _S5))))
            cosine = one + r2 * (_C1 + r2 * (_C2 + r2 * (_C3 + r2 * (_C4 + r2 * (_C5 + r2 * _C6)))))
            # After an odd number of half turns both have the other sign, which products do not show.
            sign = one - two * np.float32(turns - 2.0 * np.floor(0.5 * turns))
            v, w = prediction[i, p], image[i, p] * correction[p]
            e = envelope[i, p]
            a = sign * linear[p] * e * (v.real * w.real + v.imag * w.imag)
            b = quadratic[p] * e * e * (v.real * v.real + v.imag * v.imag)
            terms[0, p] = -a * sine
            terms[1, p] = -a * cosine
            terms[2, p] = b * (one - two * sine * sine)
            terms[3, p] = b * (two * sine * cosine)
        for p in range(pixels):
            sums = out[i, bin_[p]]
            sums[0] += terms[0, p]
            sums[1] += terms[1, p]
            sums[2] += terms[2, p]
            sums[3] += terms[3, p]


@dataclass(frozen=True, eq=False)
class DefocusEstimate:
    """Mean defocus of every particle or micrograph.

    Attributes
    ----------
    change, sigma : ndarray, shape (particles,)
        Change of the mean defocus in A and its standard uncertainty.
    centre : ndarray, shape (micrographs,)
        Defocus in A about which a micrograph's particles lie.
    spread : float
        Standard deviation in A of the particles of a micrograph about its centre.
    gain : float
        Log-likelihood gained by letting values differ: of the particles of a micrograph from each other,
        or of micrographs from those given.
    beyond : ndarray of bool, shape (particles,)
        Whether a particle's defocus may lie beyond the range: an end of it is what its image says, clearly.
    """

    change: F64
    sigma: F64
    centre: F64
    spread: float
    gain: float
    beyond: NDArray[np.bool_]


def _beyond(score: F32 | F64) -> NDArray[np.bool_]:
    """Tell where an end of the range is the best of it, and clearly better than its middle."""
    last = score.shape[1] - 1
    best = score.argmax(axis=1)
    return ((best == 0) | (best == last)) & (score.max(axis=1) - score[:, last // 2] > _CLEARLY)


def per_particle(scan: Scan, origin: F64, micrograph: Index, weight: F64) -> DefocusEstimate:
    """Estimate each particle's defocus, and how far particles of a micrograph lie apart.

    Empirical Bayes: particles of a micrograph lie about a centre with a spread that is the same in all
    micrographs, but for one in a hundred, which may lie anywhere. Centres and spread are those that
    make the data most likely (found by expectation-maximisation); estimates are posterior means, so a
    particle that says little of itself ends near its neighbours.

    Parameters
    ----------
    scan : Scan
        Log-likelihoods.
    origin : ndarray, shape (particles,)
        Mean defocus in A that changes are counted from.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each particle.
    weight : ndarray, shape (particles,)
        Say of each particle in centres and spread.
    """
    count = int(micrograph.max()) + 1
    step = scan.change[1] - scan.change[0]
    likelihood = np.exp(scan.score)
    absolute = origin[:, None] + scan.change
    flat = likelihood / likelihood.sum(axis=1, keepdims=True)
    mean = np.sum(flat * absolute, axis=1)
    variance = np.sum(flat * (absolute - mean[:, None]) ** 2, axis=1) + step**2 / 12
    say = weight / (variance + 100.0**2)
    centre = _centres(mean, say, micrograph, count)
    spread2 = float(np.average((mean - centre[micrograph]) ** 2, weights=say)) + 10.0
    for _ in range(60):
        posterior, stray = _posterior(likelihood, absolute, centre[micrograph], spread2, step)
        mean = np.sum(posterior * absolute, axis=1)
        variance = np.sum(posterior * (absolute - mean[:, None]) ** 2, axis=1)
        belong = weight * (1 - stray)
        shrink = np.clip(1 - variance / max(spread2, 1e-6), 0.01, 1)
        # Accelerated: a posterior mean has gone the share `shrink` from the centre towards the data.
        towards = centre[micrograph] + (mean - centre[micrograph]) / shrink
        new_centre = _centres(towards, belong * shrink, micrograph, count)
        new_spread2 = float(np.average((mean - new_centre[micrograph]) ** 2 + variance, weights=belong))
        new_spread2 = max(new_spread2, 1.0)
        settled = (
            abs(np.sqrt(new_spread2) - np.sqrt(spread2)) < 0.1 and np.abs(new_centre - centre).max() < 0.2
        )
        centre, spread2 = new_centre, new_spread2
        if settled:
            break
    # A centre is known no better than its particles say.
    information = np.bincount(micrograph, belong * shrink / spread2, minlength=count)
    inherited = (1 - shrink) ** 2 / np.maximum(information, 1e-12)[micrograph]
    sigma = np.sqrt(variance + inherited + step**2 / 12)
    apart = np.sum(belong * np.log(_total(likelihood, absolute, centre[micrograph], spread2, step)))
    together = _together(scan.score, scan.change, origin, micrograph, belong)
    return DefocusEstimate(
        mean - origin, sigma, centre, float(np.sqrt(spread2)), float(apart - together), _beyond(scan.score)
    )


def _together(score: F32, change: F64, origin: F64, micrograph: Index, weight: F64) -> float:
    """Return the log-likelihood of all particles of a micrograph at one defocus, the best for each.

    As in :func:`per_particle`, one particle in a hundred may lie anywhere.
    """
    step, half = change[1] - change[0], len(change) // 2
    total = 0.0
    for members in _by_micrograph(micrograph):
        some = score[members]
        likelihood = np.exp(some)
        log = np.log((1 - _STRAY) * likelihood + _STRAY * likelihood.mean(axis=1, keepdims=True))
        # Rows are moved to where the first of them is; what leaves the range counts as its end.
        away = np.round((origin[members] - origin[members[0]]) / step).astype(np.int64)
        place = np.clip(np.arange(len(change)) - away[:, None], 0, 2 * half)
        total += float((weight[members] @ np.take_along_axis(log, place, axis=1)).max())
    return total


def _by_micrograph(micrograph: Index) -> list[Index]:
    order = np.argsort(micrograph, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(micrograph[order])) + 1)


def _centres(value: F64, weight: F64, micrograph: Index, count: int) -> F64:
    total = np.bincount(micrograph, weight, minlength=count)
    return np.bincount(micrograph, weight * value, minlength=count) / np.maximum(total, 1e-300)


def _posterior(likelihood: F32, absolute: F64, centre: F64, spread2: float, step: float) -> tuple[F64, F64]:
    """Return posterior probabilities, and each particle's probability to lie astray."""
    own, other = _likelihoods(likelihood, absolute, centre, spread2, step)
    total = own.sum(axis=1) + other.sum(axis=1)
    return (own + other) / total[:, None], other.sum(axis=1) / total


def _total(likelihood: F32, absolute: F64, centre: F64, spread2: float, step: float) -> F64:
    """Return each particle's likelihood, summed over where it may lie."""
    return np.asarray(
        sum(part.sum(axis=1) for part in _likelihoods(likelihood, absolute, centre, spread2, step))
    )


def _likelihoods(likelihood: F32, absolute: F64, centre: F64, spread2: float, step: float) -> tuple[F64, F64]:
    """Return likelihoods times the probability to lie there, for particles near the centre and astray."""
    near = np.exp(-0.5 * (absolute - centre[:, None]) ** 2 / spread2) * (step / np.sqrt(2 * np.pi * spread2))
    if spread2 < step**2:
        near /= np.maximum(near.sum(axis=1, keepdims=True), 1e-300)
    near *= 1 - _STRAY
    far = _STRAY / likelihood.shape[1]
    return likelihood * near, likelihood * far


def per_micrograph(scan: Scan, micrograph: Index) -> DefocusEstimate:
    """Estimate one change of defocus for all particles of a micrograph.

    Parameters
    ----------
    scan : Scan
        Log-likelihoods.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each particle.
    """
    count = int(micrograph.max()) + 1
    step = scan.change[1] - scan.change[0]
    total = np.zeros((count, len(scan.change)))
    np.add.at(total, micrograph, scan.score)
    best = total.argmax(axis=1)
    # A parabola through the best of the grid and its neighbours.
    inner = np.clip(best, 1, len(scan.change) - 2)
    rows = np.arange(count)
    left, middle, right = (total[rows, inner + k] for k in (-1, 0, 1))
    curvature = np.minimum(left - 2 * middle + right, -1e-12)
    offset = np.clip(0.5 * (left - right) / curvature, -1, 1)
    change = scan.change[inner] + offset * step
    sigma = step / np.sqrt(-curvature)
    gain = float(np.sum(total[rows, best] - total[rows, len(scan.change) // 2]))
    return DefocusEstimate(
        change[micrograph], sigma[micrograph], change, 0.0, gain, _beyond(total)[micrograph]
    )
