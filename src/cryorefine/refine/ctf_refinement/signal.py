"""How much signal and noise there is, by shell and by particle, and what each particle may weigh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.errors import UserError
from cryorefine.refine.ctf_refinement import dense
from cryorefine.refine.ctf_refinement.comparison import Compared, Comparison

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}
# Share of particles that are taken to be no particles, before their images are looked at.
_STRANGERS = 0.02


@dataclass(frozen=True, eq=False)
class Signal:
    """Spectra of signal and noise.

    Attributes
    ----------
    sigma2 : ndarray, shape (optics groups, shells)
        Variance of the noise of a real or imaginary part.
    slope : ndarray, shape (optics groups, shells)
        Factor that makes slices of the reference the best prediction of images.
    noise : ndarray, shape (particles,)
        Each particle's noise variance relative to its group's.
    found, found_sigma : ndarray, shape (particles,)
        Share of the predicted signal found in each image, and its standard uncertainty.
    presence : ndarray, shape (particles,)
        Probability that the image shows the particle as predicted.
    """

    sigma2: F64
    slope: F64
    noise: F64
    found: F64
    found_sigma: F64
    presence: F64

    @property
    def weight(self) -> F64:
        """Weight of each particle in what particles have in common, shape (particles,)."""
        return self.presence / self.noise

    def up_to(self, shells: int) -> Signal:
        """Return the same up to a shell."""
        return replace(self, sigma2=self.sigma2[:, : shells + 1], slope=self.slope[:, : shells + 1])

    def beyond(self, other: Signal) -> Signal:
        """Return the same with another one's spectra beyond the last shell."""
        shells = self.sigma2.shape[1]
        spectra = {
            name: np.concatenate([getattr(self, name), getattr(other, name)[:, shells:]], axis=1)
            for name in ("sigma2", "slope")
        }
        return replace(self, **spectra)


def power_spectra(comparison: Comparison) -> tuple[F64, F64]:
    """Return the images' power before anything is known, by group and by particle.

    Returns
    -------
    sigma2 : ndarray, shape (optics groups, shells)
        Median over particles of the power of a real or imaginary part.
    noise : ndarray, shape (particles,)
        Each particle's power relative to its group's.
    """
    particles = comparison.particles
    shells = comparison.frame.shells + 1
    power = np.zeros((len(particles), shells))
    tasks = [(comparison, chunk) for chunk in comparison.chunks]
    for chunk, values in zip(comparison.chunks, comparison.executor.run(_power, tasks), strict=True):
        power[chunk.particles] = values
    _insist_on_content(power[:, 1:].sum(axis=1), particles.image_names)
    group = particles.image_optics
    sigma2 = np.ones((len(particles.optics), shells))
    noise = np.ones(len(particles))
    for g in particles.used_optics:
        members = np.flatnonzero(group == g)
        sigma2[g] = np.maximum(np.median(power[members], axis=0), 1e-30)
        # High frequencies hold next to no signal.
        high = slice(shells // 2, shells)
        noise[members] = np.mean(power[members, high] / sigma2[g, high], axis=1)
    return sigma2, np.maximum(noise, 1e-3)


def _insist_on_content(power: F64, names: NDArray[np.object_]) -> None:
    """Refuse images without any detail, which would pass for images without noise."""
    empty = np.flatnonzero(power <= 1e-10 * np.median(power))
    if len(empty):
        raise UserError(f"{names[empty[0]]} is empty (every pixel is the same); remove this particle.")


def _power(comparison: Comparison, chunk: Any) -> F64:
    plane = comparison.planes[chunk.view].plane
    image = comparison.images(chunk)
    shells = comparison.frame.shells + 1
    result = np.zeros((3, len(image), shells))
    transfer = np.ones(image.shape, np.float32)
    _shell_sums(image, image, np.ones(image.shape[1], np.complex64), transfer, plane.shell, result)
    count = np.bincount(plane.shell, minlength=shells)[:shells]
    return result[2] / (2 * np.maximum(count, 1))


def measure(comparison: Comparison, before: Signal) -> Signal:
    """Measure signal and noise with the present values of all parameters."""
    particles = comparison.particles
    count, shells = len(particles), comparison.frame.shells + 1
    sums = np.zeros((3, count, shells), np.float32)
    for chunk, values in zip(comparison.chunks, comparison.each(_spectra, shells), strict=True):
        sums[:, chunk.particles] = values
    group = particles.image_optics
    sigma2, slope = before.sigma2.copy(), before.slope.copy()
    noise, presence = before.noise.copy(), before.presence.copy()
    found, found_sigma = np.ones(count), np.full(count, np.inf)
    for g in particles.used_optics:
        members = np.flatnonzero(group == g)
        plane = next(p for v, p in comparison.planes.items() if particles.views[v].optics == g)
        pixels = np.bincount(plane.plane.shell, minlength=shells)[:shells]
        compared = np.bincount(plane.plane.shell[plane.compared], minlength=shells)[:shells] > 0
        cross, power, total = (s[members].astype(np.float64) for s in sums)
        for _ in range(3):
            weight = presence[members] / noise[members]
            slope[g] = _slope(weight @ cross, weight @ power, sigma2[g])
            rest = total - 2 * slope[g] * cross + slope[g] ** 2 * power
            # Power weighted by 1/noise: each particle then counts alike.
            sigma2[g] = np.maximum((1 / noise[members]) @ rest / (2 * pixels * len(members)), 1e-30)
            noise[members] = np.maximum(
                np.sum((rest / sigma2[g])[:, compared], axis=1) / (2 * pixels[compared].sum()), 1e-3
            )
            noise[members] /= np.median(noise[members])
            information = (slope[g] ** 2 * power / sigma2[g])[:, compared].sum(axis=1) / noise[members]
            score = (slope[g] * cross / sigma2[g])[:, compared].sum(axis=1) / noise[members]
            found[members] = score / np.maximum(information, 1e-12)
            found_sigma[members] = 1 / np.sqrt(np.maximum(information, 1e-12))
            presence[members] = _presence(found[members], found_sigma[members])
    return Signal(sigma2, slope, noise, found, found_sigma, presence)


def _spectra(compared: Compared, shells: int) -> F32:
    if compared.on_gpu:
        arrays = compared.there(compared.slice, compared.image, compared.odd_correction, compared.transfer())
        sums = dense.shell_sums(compared.operations.xp, arrays, compared.plane.plane.shell, shells)
        return np.asarray(to_host(sums), np.float32)
    result = np.zeros((3, len(compared.image), shells))
    _shell_sums(
        compared.slice,
        compared.image,
        compared.odd_correction,
        compared.transfer(),
        compared.plane.plane.shell,
        result,
    )
    return result.astype(np.float32)


@njit(**_FAST)
def _shell_sums(
    prediction: C64, image: C64, correction: C64, transfer: F32, shell: NDArray[np.int32], out: F64
) -> None:
    """Sum Re(conj(c V) X), |c V|^2 and |X|^2 by shell for each image; out (3, n, shells)."""
    for i in range(image.shape[0]):
        for p in range(image.shape[1]):
            k = shell[p]
            if k >= out.shape[2]:
                continue
            v, x, c = prediction[i, p], image[i, p] * correction[p], transfer[i, p]
            out[0, i, k] += c * (v.real * x.real + v.imag * x.imag)
            out[1, i, k] += c * c * (v.real * v.real + v.imag * v.imag)
            out[2, i, k] += x.real * x.real + x.imag * x.imag


def _slope(cross: F64, power: F64, sigma2: F64) -> F64:
    """Return the regression of images on predictions by shell, smoothed, 0 where it is not significant."""
    kernel = np.ones(5)
    # Shells of a weak signal are pooled; the power of predictions falls off too fast for plain sums.
    each = np.divide(1.0, power, out=np.zeros_like(power), where=power > 0)
    precision = np.divide(power, sigma2)
    value = cross * each
    total = np.convolve(precision, kernel, "same")
    slope = np.divide(
        np.convolve(precision * value, kernel, "same"), total, out=np.zeros_like(total), where=total > 0
    )
    error = np.divide(1.0, np.sqrt(total), out=np.full_like(total, np.inf), where=total > 0)
    slope[slope < 2 * error] = 0
    return np.maximum(slope, 0)


def _presence(found: F64, sigma: F64) -> F64:
    """Return the probability of each image to show the particle rather than nothing of it.

    Found shares scatter about 1 by their uncertainty and by a spread of their own, which is estimated;
    those of images without the particle scatter about 0 by their uncertainty alone.
    """
    finite = np.isfinite(sigma) & (sigma < 10)
    if finite.sum() < 10:
        return np.ones(len(found))
    middle = np.median(found[finite])
    spread2 = max(
        (1.4826 * np.median(np.abs(found[finite] - middle))) ** 2 - float(np.median(sigma[finite])) ** 2, 0.01
    )
    variance = sigma**2 + spread2
    # An image with more signal than expected is no stranger.
    shown = (
        (1 - _STRANGERS) * np.exp(-0.5 * np.minimum(found - middle, 0) ** 2 / variance) / np.sqrt(variance)
    )
    empty = _STRANGERS * np.exp(-0.5 * np.maximum(found, 0) ** 2 / sigma**2) / sigma
    result = shown / np.maximum(shown + empty, 1e-300)
    return np.where(finite, np.clip(result, 1e-3, 1), 1.0)
