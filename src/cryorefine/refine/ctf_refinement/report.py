"""Turns what the fits found into values with uncertainties, images and plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import beam_tilt_scale
from cryorefine.refine.ctf_refinement.defocus import DefocusEstimate
from cryorefine.refine.ctf_refinement.optics_fit import GroupFit
from cryorefine.refine.ctf_refinement.polynomials import (
    EVEN_TO_ZERNIKE,
    ODD_TO_ZERNIKE,
    to_zernike,
)
from cryorefine.refine.ctf_refinement.result import (
    AberrationImages,
    CtfResult,
    Finding,
    Kind,
    MicrographValues,
    OpticsSoFar,
    OpticsValues,
    ParticleValues,
)
from cryorefine.refine.ctf_refinement.settings import CtfFit
from cryorefine.refine.ctf_refinement.signal import Signal
from cryorefine.refine.ctf_refinement.transfer_fit import (
    ASTIGMATISM_COS,
    ASTIGMATISM_SIN,
    B_FACTOR,
    DEFOCUS,
    PHASE,
    SCALE,
    TransferEstimate,
    free_columns,
)
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.particle_set import ParticleSet

F64 = NDArray[np.float64]
Index = NDArray[np.int64]


class Report:
    """What has been found so far.

    Parameters
    ----------
    particles : ParticleSet
        Particles with the values given at first.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each.
    fit : CtfFit
        What is fitted.
    """

    def __init__(self, particles: ParticleSet, micrograph: Index, fit: CtfFit) -> None:
        self.sigma = np.full((len(particles), 6), np.nan)
        self._given = particles
        self._micrograph = micrograph
        self._fit = fit
        self._group = particles.image_optics
        self._odd: dict[int, GroupFit] = {}
        self._even: dict[int, GroupFit] = {}
        self._kept_even: dict[int, F64] = {}
        self._magnification: dict[int, GroupFit] = {}
        self._images: dict[tuple[int, Kind], AberrationImages] = {}
        self._findings: list[Finding] = []
        self._defocus: tuple[DefocusEstimate, NDArray[np.bool_], bool] | None = None
        self._transfer: tuple[TransferEstimate | None] | None = None
        self._finest = float("nan")

    def add(self, finding: Finding) -> None:
        """Remember a finding."""
        self._findings.append(finding)

    def odd(self, group: int, fit: GroupFit, plane: HalfPlane) -> AberrationImages:
        """Remember a fit of odd aberrations; return its images."""
        self._odd[group] = fit
        return self._image(group, "odd aberrations", fit, plane, -1.0)

    def even(self, group: int, fit: GroupFit, plane: HalfPlane) -> AberrationImages:
        """Remember a fit of even aberrations; return its images."""
        self._even[group] = fit
        return self._image(group, "even aberrations", fit, plane, 1.0)

    def kept_even(self, group: int, values: F64) -> None:
        """Remember what is left of even aberrations after particles have taken their part."""
        self._kept_even[group] = values

    def magnification(self, group: int, fit: GroupFit, plane: HalfPlane) -> AberrationImages:
        """Remember a fit of the magnification; return its images."""
        self._magnification[group] = fit
        return self._image(group, "magnification", fit, plane, -1.0)

    def defocus(self, estimate: DefocusEstimate, unclear: NDArray[np.bool_], together: bool) -> None:
        """Remember estimates of the defocus, which of them say nothing, and if micrographs move whole."""
        self._defocus = estimate, unclear, together

    def transfer(self, estimate: TransferEstimate | None) -> None:
        """Remember a joint fit of particles' parameters; None if the data support no part of it."""
        self._transfer = (estimate,)

    def _image(
        self, group: int, kind: Kind, fit: GroupFit, plane: HalfPlane, friedel: float
    ) -> AberrationImages:
        optics = self._given.optics[group]
        reach = float(np.hypot(plane.kx, plane.ky)[fit.weight[0] > 0].max(initial=1.0))
        self._finest = optics.box * optics.pixel_size / reach
        shape = (len(fit.observed), plane.box, plane.box)
        images = [np.zeros(shape) for _ in range(3)]
        middle = plane.box // 2
        kx, ky = plane.kx.astype(int), plane.ky.astype(int)
        for image, values, sign in zip(
            images, (fit.observed, fit.fitted, fit.weight), (friedel, friedel, 1.0), strict=True
        ):
            for x, y, factor in ((-kx, -ky, sign), (kx, ky, 1.0)):
                inside = (np.abs(x) < middle) & (np.abs(y) < middle)
                image[:, y[inside] + middle, x[inside] + middle] = factor * values[:, inside]
        images[0][images[2] == 0] = 0
        result = AberrationImages(group, kind, *images)
        self._images[group, kind] = result
        return result

    def optics_values(self, particles: ParticleSet) -> tuple[OpticsValues, ...]:
        """Return the values of all optics groups."""
        return tuple(self._optics_values(g, particles) for g in range(len(particles.optics)))

    def optics_so_far(self, number: int, particles: ParticleSet) -> OpticsSoFar:
        """Return the values of all optics groups as an event of a round."""
        return OpticsSoFar(number, self.optics_values(particles))

    def _optics_values(self, group: int, particles: ParticleSet) -> OpticsValues:
        given, now = self._given.optics[group], particles.optics[group]
        tilt, odd = np.array(given.beam_tilt), np.array(given.odd_aberrations)
        sigma_tilt, sigma_odd = np.full(2, np.nan), np.full(len(odd), np.nan)
        if group in self._odd:
            fit = self._odd[group]
            scale = beam_tilt_scale(given.voltage, given.spherical_aberration)
            sigma_tilt = np.sqrt(np.diag(fit.covariance))[2:4] / scale
            if fit.supported:
                tilt = -fit.values[2:4] / scale
            if self._fit.trefoil:
                rest, covariance = fit.values.copy(), fit.covariance.copy()
                rest[2:4], covariance[2:4], covariance[:, 2:4] = 0, 0, 0
                sigma_odd = _deviations(ODD_TO_ZERNIKE, covariance)
                if fit.supported:
                    odd = to_zernike(rest, odd=True)
                    odd[3:5] = 0  # coma has become the beam tilt, but for rounding
                elif len(odd) == 0:
                    sigma_odd = np.empty(0)
        even = np.array(given.even_aberrations)
        sigma_even = np.full(len(even), np.nan)
        if group in self._even:
            fit = self._even[group]
            kept = self._kept_even[group]
            if fit.supported or np.any(kept != fit.values):
                covariance = fit.covariance.copy()
                gone = [c for c in self._absorbed() if c < 4]
                covariance[gone], covariance[:, gone] = 0, 0
                even = to_zernike(kept, odd=False)
                sigma_even = _deviations(EVEN_TO_ZERNIKE, covariance)
        magnification, sigma_magnification = np.array(now.magnification), np.full(4, np.nan)
        if group in self._magnification:
            sigma_magnification = np.sqrt(np.diag(self._magnification[group].covariance))
        return OpticsValues(
            name=given.name,
            particles=int(np.sum(self._group == group)),
            beam_tilt=tilt,
            sigma_beam_tilt=sigma_tilt,
            odd_aberrations=odd,
            sigma_odd_aberrations=sigma_odd,
            even_aberrations=even,
            sigma_even_aberrations=sigma_even,
            magnification=magnification,
            sigma_magnification=sigma_magnification,
        )

    def _absorbed(self) -> list[int]:
        return free_columns(self._fit, "per-particle") + free_columns(self._fit, "per-micrograph")

    def particle_values(self, particles: ParticleSet, signal: Signal) -> ParticleValues:
        """Return the values of all particles."""
        parameters, sigma = particles.ctf, self.sigma
        return ParticleValues(
            defocus_u=parameters.column("defocus_u").copy(),
            defocus_v=parameters.column("defocus_v").copy(),
            defocus_angle=parameters.column("defocus_angle").copy(),
            phase_shift=parameters.column("phase_shift").copy(),
            b_factor=parameters.column("b_factor").copy(),
            scale=parameters.column("scale").copy(),
            sigma_defocus=sigma[:, DEFOCUS],
            # U - V is twice the half difference of the table.
            sigma_astigmatism=2
            * np.sqrt((sigma[:, ASTIGMATISM_COS] ** 2 + sigma[:, ASTIGMATISM_SIN] ** 2) / 2),
            sigma_phase_shift=np.rad2deg(sigma[:, PHASE]),
            sigma_b_factor=sigma[:, B_FACTOR],
            sigma_scale=sigma[:, SCALE],
            signal=signal.found,
            noise=signal.noise,
        )

    def micrographs(self, particles: ParticleSet, signal: Signal) -> Iterator[MicrographValues]:
        """Yield the values of each micrograph's particles."""
        values = self.particle_values(particles, signal)
        order = np.argsort(self._micrograph, kind="stable")
        starts = np.flatnonzero(np.diff(self._micrograph[order], prepend=-1))
        for members in np.split(order, starts[1:]):
            part = ParticleValues(**{f.name: getattr(values, f.name)[members] for f in fields(values)})
            yield MicrographValues(int(self._micrograph[members[0]]), members, part)

    def result(
        self, particles: ParticleSet, signal: Signal, *, rounds: int, reference: str, resolution: float
    ) -> CtfResult:
        """Return the outcome, with all findings."""
        findings = list(self._findings)
        for group, fit in self._odd.items():
            findings += self._about_odd(group, fit)
        for group, fit in self._even.items():
            findings.append(self._about_even(group, fit))
        for group, fit in self._magnification.items():
            findings.append(self._about_magnification(group, fit))
        findings += self._about_defocus(particles)
        findings += self._about_transfer(particles)
        findings += _about_images(signal)
        return CtfResult(
            particles=self.particle_values(particles, signal),
            optics=self.optics_values(particles),
            images=tuple(self._images[key] for key in sorted(self._images)),
            findings=tuple(findings),
            rounds=rounds,
            reference=reference,
            resolution=resolution,
        )

    def _about_odd(self, group: int, fit: GroupFit) -> Iterator[Finding]:
        given = self._given.optics[group]
        scale = beam_tilt_scale(given.voltage, given.spherical_aberration)
        sigma = np.sqrt(np.diag(fit.covariance))
        error = sigma[2:4] / scale
        if not fit.weight.any():
            yield _untold(given.name, "beam tilt", "its beam tilt")
            return
        if not fit.supported:
            x, y = given.beam_tilt
            yield Finding(
                "beam tilt",
                f"Optics group {given.name}: the images show no beam tilt beyond ({x:.3f}, {y:.3f}) mrad "
                f"that chance could not explain (uncertainty {error[0]:.3f}, {error[1]:.3f} mrad); it was "
                "left alone.",
                supported=False,
            )
            return
        tilt = -fit.values[2:4] / scale
        yield Finding(
            "beam tilt",
            f"Optics group {given.name}: beam tilt ({tilt[0]:.3f} +- {error[0]:.3f}, {tilt[1]:.3f} +- "
            f"{error[1]:.3f}) mrad.",
        )
        if self._fit.trefoil:
            finest = self._finest
            amplitude = np.hypot(*fit.values[4:6]) / finest**3
            uncertain = np.hypot(*sigma[4:6]) / np.sqrt(2) / finest**3
            yield Finding(
                "trefoil",
                f"Optics group {given.name}: trefoil of {amplitude:.3f} +- {uncertain:.3f} rad at "
                f"{finest:.2f} A.",
                supported=bool(amplitude > 2 * uncertain),
            )
        else:
            shift = -fit.values[:2] / (2 * np.pi)
            uncertain = sigma[:2] / (2 * np.pi)
            if np.any(np.abs(shift) > np.maximum(3 * uncertain, 0.05)):
                yield Finding(
                    "beam tilt",
                    f"Optics group {given.name}: the particles' offsets had made up for part of the tilt by "
                    f"({shift[0]:.2f}, {shift[1]:.2f}) A; refine the particles again to set them right.",
                )

    def _about_even(self, group: int, fit: GroupFit) -> Finding:
        name = self._given.optics[group].name
        if not fit.weight.any():
            return _untold(name, "fourth-order aberrations", "its even aberrations")
        error = f"{1 / np.sqrt(float(fit.weight.sum()) / 9):.3f}"
        if not fit.supported:
            return Finding(
                "fourth-order aberrations",
                f"Optics group {name}: the images show no even aberrations beyond those given that chance "
                f"could not explain (uncertainty {error} rad); they were left alone.",
                supported=False,
            )
        weight = fit.weight[0]
        rms = float(np.sqrt(np.sum(weight * fit.fitted[0] ** 2) / weight.sum()))
        return Finding(
            "fourth-order aberrations",
            f"Optics group {name}: even aberrations of {rms:.3f} +- {error} rad (rms over the frequencies "
            "compared).",
        )

    def _about_magnification(self, group: int, fit: GroupFit) -> Finding:
        name = self._given.optics[group].name
        if not fit.weight.any():
            return _untold(name, "magnification", "its magnification matrix")
        values = np.linalg.svd(fit.values.reshape(2, 2))[1]
        share, mean = 100 * (values[0] - values[1]), 100 * (values.mean() - 1)
        # Both components of the anisotropy have about this uncertainty.
        error = 100 * float(np.sqrt(fit.covariance[0, 0] + fit.covariance[3, 3] - 2 * fit.covariance[0, 3]))
        if not fit.supported:
            return Finding(
                "magnification",
                f"Optics group {name}: the images show no change of the magnification matrix that chance "
                f"could not explain (uncertainty of the anisotropy {error:.3f} %); it was left alone.",
                supported=False,
            )
        return Finding(
            "magnification",
            f"Optics group {name}: magnification anisotropy {share:.3f} +- {error:.3f} %, mean "
            f"{mean:+.3f} %.",
        )

    def _about_defocus(self, particles: ParticleSet) -> Iterator[Finding]:
        if self._defocus is None:
            return
        estimate, unclear, together = self._defocus
        sigma = self.sigma[:, DEFOCUS]
        clear = np.isfinite(sigma)
        change = _mean_defocus(particles) - _mean_defocus(self._given)
        if not clear.any():
            yield Finding(
                "defocus",
                "The images do not tell their defocus within the range searched, or none but the one given; "
                "all values were left alone.",
                supported=False,
            )
            return
        if self._fit.defocus == "per-particle" and together:
            yield Finding(
                "defocus",
                "The images do not tell the particles of a micrograph apart by their defocus; those of each "
                f"micrograph moved together, by {np.sqrt(np.mean(change[clear] ** 2)):.1f} A (rms over "
                f"particles), with a median uncertainty of {np.median(sigma[clear]):.1f} A.",
                supported=False,
            )
        elif self._fit.defocus == "per-particle":
            yield Finding(
                "defocus",
                f"Particles' defocus moved by {np.sqrt(np.mean(change[clear] ** 2)):.1f} A (rms); the median "
                f"uncertainty is {np.median(sigma[clear]):.1f} A.",
            )
            yield Finding(
                "defocus",
                f"Particles of a micrograph lie {estimate.spread:.0f} A (standard deviation) about its mean"
                + (
                    ", less than their own images can tell, so each mostly took its micrograph's value."
                    if estimate.spread < np.median(sigma[clear])
                    else "."
                ),
                supported=bool(estimate.spread >= np.median(sigma[clear])),
            )
        else:
            yield Finding(
                "defocus",
                f"Micrographs' defocus moved by {np.sqrt(np.mean(change[clear] ** 2)):.1f} A (rms over "
                f"particles); the median uncertainty is {np.median(sigma[clear]):.1f} A.",
            )
        if estimate.beyond.any():
            yield Finding(
                "defocus",
                f"{int(estimate.beyond.sum())} particles are best explained by a defocus at an end of the "
                f"range searched; look at them, or search more than {self._fit.defocus_range:g} A.",
                supported=False,
            )
        if unclear.any():
            yield Finding(
                "defocus",
                f"{int(unclear.sum())} particles do not tell their defocus within a quarter of the range "
                "searched; theirs was left alone.",
                supported=False,
            )

    def _about_transfer(self, particles: ParticleSet) -> Iterator[Finding]:
        if self._transfer is None:
            return
        (estimate,) = self._transfer
        names = (
            (self._fit.astigmatism, "astigmatism", "Astigmatism", ASTIGMATISM_COS, 2.0, "A"),
            (self._fit.phase_shift, "phase shift", "Phase shift", PHASE, float(np.rad2deg(1)), "degrees"),
            (self._fit.b_factor, "B-factor", "B-factor", B_FACTOR, 1.0, "A^2"),
        )
        for level, subject, name, column, factor, unit in names:
            if level == "no":
                continue
            start = f"{name} {level.replace('-', ' ')}: "
            if estimate is None or not np.isfinite(estimate.sigma[:, column]).any():
                yield Finding(
                    subject,
                    start + "the images tell no change that chance could not explain; all values were left "
                    "alone.",
                    supported=False,
                )
                continue
            sigma = factor * float(np.nanmedian(self.sigma[:, column]))
            text = start + f"median uncertainty {sigma:.3g} {unit}"
            supported = True
            if level == "per-particle":
                spread = factor * float(estimate.spread[column])
                supported = bool(np.isfinite(spread))
                text += (
                    f"; particles of a micrograph differ by {spread:.3g} {unit} (standard deviation)"
                    if supported
                    else "; the images do not tell the particles of a micrograph apart, so each took its "
                    "micrograph's value"
                )
            yield Finding(subject, text + ".", supported=supported)


def _untold(group: str, subject: str, what: str) -> Finding:
    return Finding(
        subject,
        f"Optics group {group}: its images hold nothing of the map that is compared with them, so they do "
        f"not tell {what}; the values were left alone.",
        supported=False,
    )


def _deviations(matrix: F64, covariance: F64) -> F64:
    """Return the standard uncertainties of matrix @ values, infinite where nothing is known."""
    if not np.isfinite(covariance).all():
        return np.full(len(matrix), np.inf)
    return np.asarray(np.sqrt(np.diag(matrix @ covariance @ matrix.T)))


def _mean_defocus(particles: ParticleSet) -> F64:
    return np.asarray((particles.ctf.column("defocus_u") + particles.ctf.column("defocus_v")) / 2)


def _about_images(signal: Signal) -> Iterator[Finding]:
    strangers = int(np.sum(signal.presence < 0.5))
    if strangers:
        yield Finding(
            "images",
            f"{strangers} images show little or nothing of their particle and counted for little in what "
            "particles share; the column of the signal found names them.",
        )
    loud = int(np.sum(signal.noise > 2))
    if loud:
        yield Finding("images", f"{loud} images are more than twice as noisy as usual and counted for less.")
