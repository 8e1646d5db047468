"""Refines the CTF parameters of particles: rounds of rebuilding the reference and fitting."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.executor import LocalExecutor
from cryorefine.ctf.ctf import CtfParameters
from cryorefine.errors import UserError
from cryorefine.maps.fsc import GOLD_STANDARD, resolution_shell
from cryorefine.refine.ctf_refinement.comparison import Comparison, with_mean_defocus
from cryorefine.refine.ctf_refinement.defocus import per_micrograph, per_particle, scan_defocus
from cryorefine.refine.ctf_refinement.division import divide
from cryorefine.refine.ctf_refinement.expectation import (
    last_shell,
    phases_moved,
    rebuilt_quality,
    scouting_shell,
    signal_to_noise,
    supplied_scale,
    trusted,
)
from cryorefine.refine.ctf_refinement.frame import GroupPlane, make_frame
from cryorefine.refine.ctf_refinement.optics_fit import (
    GroupFit,
    absorb,
    even_to_zernike,
    fit_even,
    fit_magnification,
    fit_odd,
    magnified,
    odd_to_zernike,
    threshold,
    with_magnification,
)
from cryorefine.refine.ctf_refinement.optics_sums import displacement_sums, even_sums, odd_sums
from cryorefine.refine.ctf_refinement.reference import volume_correlation
from cryorefine.refine.ctf_refinement.report import Report
from cryorefine.refine.ctf_refinement.result import CtfEvent, CtfResult, Finding, Stage
from cryorefine.refine.ctf_refinement.settings import CtfFit, Level, SuppliedMaps
from cryorefine.refine.ctf_refinement.signal import Signal, measure, power_spectra
from cryorefine.refine.ctf_refinement.transfer_fit import (
    B_FACTOR,
    DEFOCUS,
    FAMILIES,
    SCALE,
    TransferEstimate,
    fit_transfer,
    free_columns,
    table_of,
    with_level,
    with_table,
)
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet

F64 = NDArray[np.float64]
Index = NDArray[np.int64]

# Images are compared a little beyond the resolution of the maps: better CTFs make it better.
_BEYOND = 1.1
_GROWTH = 1.15
# Rounds end when values move less than this share of their uncertainty.
_SETTLED = 0.5
# Rebuilt half maps with less than this share of the supplied ones' correlation are not used.
_WORSE = 0.8
# Phases of optics groups that are known this well (radians, rms) need no better reference: what is left
# of their error takes half a per cent of the signal.
_PRECISE = 0.1
# Nor do references get better when phases at the resolution limit have moved less than this (radians, rms)
# since they were made.
_CLOSE = 0.2


def refine_ctf(
    particles: ParticleSet,
    micrograph: Index,
    maps: SuppliedMaps,
    fit: CtfFit,
    executor: LocalExecutor,
    device: str = "cpu",
) -> Generator[CtfEvent, None, CtfResult]:
    """Fit CTF parameters to particles whose poses and half sets are known.

    Parameters
    ----------
    particles : ParticleSet
        Single particles; their values are where the fits start from.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each particle, 0, 1, ...
    maps : SuppliedMaps
        Half maps, mask and FSC of post-processing.
    fit : CtfFit
        What is fitted.
    executor : LocalExecutor
        Threads, entered; the result does not depend on their number.
    device : str
        "cpu", or GPUs for slices and sums over particles.

    Yields
    ------
    CtfEvent
        Progress, the values of each micrograph as they come, aberration images, and findings.

    Returns
    -------
    CtfResult
        The values with their uncertainties.

    Raises
    ------
    UserError
        If the images have been multiplied by their CTF.
    """
    for group in particles.used_optics:
        if particles.optics[group].ctf_premultiplied:
            raise UserError(
                f"The images of optics group {particles.optics[group].name} are multiplied by their CTF, so "
                "no other CTF can be fitted to them; extract the particles again without premultiplication."
            )
    refinement = _Refinement(particles, micrograph, maps, fit, executor, device)
    return (yield from refinement.run())


class _Refinement:
    """State of a refinement: the comparison, the present values, and what has been found."""

    def __init__(
        self,
        particles: ParticleSet,
        micrograph: Index,
        maps: SuppliedMaps,
        fit: CtfFit,
        executor: LocalExecutor,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self.given = particles
        self.micrograph = micrograph
        self.maps = maps
        self.fit = fit
        self.executor = executor
        self.chunks = divide(particles, micrograph, fit.seed)
        self.report = Report(particles, micrograph, fit)
        self.group = particles.image_optics
        self.round = 0
        self.moved = 0.0
        self.uncertainty = 0.0
        self.made = particles
        self.recognised = True
        resolved = resolution_shell(maps.fsc)
        self.fsc = maps.fsc
        self.ssnr = signal_to_noise(maps.fsc)
        self.resolution = float("nan")
        shells = int(np.ceil(_BEYOND * resolved)) + 2
        if not fit.transfer:
            # The supplied maps, which may be all that is needed, say nothing beyond.
            shells = min(shells, last_shell(maps.fsc) + 1)
        self._begin(particles, shells)

    def _largest_shell(self) -> int:
        """Return the last shell that both maps and images reach."""
        edge = self.maps.box * self.maps.pixel_size
        finest = min(self.given.optics[g].pixel_size for g in self.given.used_optics)
        return min(self.maps.box // 2 - 1, int(edge / (2 * finest)) - 1)

    def _begin(self, particles: ParticleSet, shells: int) -> None:
        """Start comparing up to a shell."""
        shells = min(shells, self._largest_shell())
        frame = make_frame(self.maps, shells, self.executor.threads)
        self.comparison = Comparison(
            particles,
            self.chunks,
            self.maps,
            frame,
            self.executor,
            symmetry=self.fit.symmetry,
            minimum_resolution=self.fit.minimum_resolution,
            memory=_memory(),
            device=self.device,
        )
        self.comparison.given_envelope(self.given.ctf)
        sigma2, noise = power_spectra(self.comparison)
        count = len(particles)
        self.signal = Signal(
            sigma2, np.ones_like(sigma2), noise, np.ones(count), np.full(count, np.inf), np.ones(count)
        )

    @property
    def particles(self) -> ParticleSet:
        """The particles with their present values."""
        return self.comparison.particles

    def run(self) -> Generator[CtfEvent, None, CtfResult]:
        """Make the rounds."""
        # What all particles share may be found with the other half set's map; of values of single particles
        # that only gives an idea, with which the first references are made.
        scouting = self.fit.rounds > 1 or not self.fit.transfer
        supplied = False
        while True:
            self.round += 1
            self.moved = self.uncertainty = 0.0
            if scouting and self.round == 1:
                yield Stage("measuring signal and noise", self.round, 0, 1)
                self._scout()
                self.signal = self._expected(measure(self.comparison, self.signal))
            else:
                if not supplied:
                    yield from self._rebuild()
                    finding = self._judge() if self.round == 1 + scouting else None
                    if finding is not None:
                        supplied = True
                        self.comparison.use_supplied(other=not self.fit.transfer)
                        self.report.add(finding)
                        yield finding
                if supplied or self.round > 1:
                    yield Stage("measuring signal and noise", self.round, 0, 1)
                    self.signal = measure(self.comparison, self.signal)
                    if supplied:
                        self.comparison.scale = self._scale(self.signal)
                else:
                    self._expect()
            if self.fit.odd:
                yield from self._odd()
            if self.fit.fourth_order:
                yield from self._even()
            if self.fit.magnification:
                yield from self._magnification(supplied)
            if self.fit.transfer:
                yield from self._transfer()
            if self.round >= self.fit.rounds:
                break
            if scouting and self.round == 1:
                enough = self.moved < _SETTLED or self.uncertainty < _PRECISE
                if not self.fit.transfer and self.recognised and enough:
                    supplied = True
                    break
                self._look_further()
                continue
            # Values that came well fitted hardly move, but the first rounds do not see all the signal.
            grown = not supplied and self._grow()
            close = not supplied and phases_moved(self.made, self.particles, self.resolution) < _CLOSE
            settled = self.moved < _SETTLED or (close and not self.fit.magnification)
            if settled and self.round > 1 and not grown:
                break
        if self.fit.transfer:
            yield Stage("measuring signal and noise", self.round, 0, 1)
            self.signal = measure(self.comparison, self.signal)
        result = self.report.result(
            self.particles,
            self.signal,
            rounds=self.round,
            reference="supplied" if supplied else "rebuilt",
            resolution=self.resolution,
        )
        yield from result.findings
        return result

    def _scout(self) -> None:
        """Compare with the other half's map; if only for an idea, no further than nearly all is seen."""
        self.whole, self.whole_signal = self.comparison, self.signal
        if self.fit.transfer:
            frame = self.comparison.frame
            coarsest = 2 * int(np.ceil(frame.edge / self.fit.minimum_resolution))
            shells = max(scouting_shell(self.maps.fsc), coarsest)
            self.comparison = self.comparison.up_to(min(shells, frame.shells))
            self.signal = self.signal.up_to(self.comparison.frame.shells)
        self.comparison.use_supplied(other=True)

    def _look_further(self) -> None:
        """Compare as far as at first again, with the values that were found."""
        if self.comparison is not self.whole:
            self.whole.update(self.particles)
            self.comparison, self.signal = self.whole, self.signal.beyond(self.whole_signal)

    def _rebuild(self) -> Iterator[CtfEvent]:
        """Rebuild the references with the present values, and see how good they are."""
        comparison, self.made = self.comparison, self.particles
        for done, total in comparison.rebuild(1 / self.signal.sigma2, self.signal.weight, self.ssnr):
            yield Stage("rebuilding references", self.round, done, total)
        frame = comparison.frame
        first, second = comparison.references()
        self.fsc = volume_correlation(first.volume, second.volume, frame.padding, frame.shells + 1)
        self.ssnr = signal_to_noise(self.fsc)
        self.resolution = frame.edge / max(resolution_shell(self.fsc), 1)

    def _judge(self) -> Finding | None:
        """Compare the rebuilt half maps with the supplied ones; return why they are not good enough."""
        quality = rebuilt_quality(self.fsc, self.maps.fsc)
        if quality >= _WORSE:
            return None
        return Finding(
            "reference",
            f"Half maps rebuilt from these particles have {100 * quality:.0f} % of the correlation of the "
            "supplied ones, so the supplied ones are used"
            + (
                "; particles that are part of them are compared with their own noise, which draws values "
                "towards those of the maps."
                if self.fit.transfer
                else "."
            ),
            warning=True,
        )

    def _expect(self) -> None:
        """Take the reference's reliability from the FSC, before any value has been improved.

        Images say less of high frequencies than they will, as long as their CTFs are wrong.
        """
        trust = (trusted(self.fsc) > 0).astype(np.float64)
        self.signal = replace(self.signal, slope=np.tile(trust, (len(self.signal.slope), 1)))

    def _expected(self, signal: Signal) -> Signal:
        """Return a signal whose slopes are those that images will have once their CTFs are right.

        The regression of structure on a map with noise is the FSC of such maps.
        """
        trust = trusted(self.maps.fsc)[: self.comparison.frame.shells + 1]
        scale = self._scale(signal)
        # Maps that show nothing of these particles, or another hand of them, decide nothing.
        self.recognised = bool(np.all(scale[self.given.used_optics] > 0))
        self.comparison.scale = scale
        return replace(signal, slope=np.maximum(signal.slope, scale[:, None] * trust))

    def _scale(self, signal: Signal) -> F64:
        first = int(np.ceil(self.comparison.frame.edge / self.fit.minimum_resolution))
        return supplied_scale(signal.slope, self.maps.fsc, first)

    def _grow(self) -> bool:
        """Compare further out when there is signal at the last shells; return whether there is."""
        frame = self.comparison.frame
        if frame.shells < self._largest_shell() and self.fsc[-3:].mean() > GOLD_STANDARD:
            last = self.ssnr[-1]
            self._begin(self.particles, int(np.ceil(_GROWTH * frame.shells)))
            more = self.comparison.frame.shells + 1 - len(self.ssnr)
            self.ssnr = np.concatenate([self.ssnr, np.full(more, min(last, 0.1))])
            return True
        return False

    def _update(
        self, optics: dict[int, OpticsGroup] | None = None, parameters: CtfParameters | None = None
    ) -> None:
        particles = self.particles
        if optics:
            groups = tuple(optics.get(g, o) for g, o in enumerate(particles.optics))
            particles = replace(particles, optics=groups)
        if parameters is not None:
            particles = replace(particles, ctf=parameters)
        self.comparison.update(particles)

    def _plane(self, group: int) -> GroupPlane:
        views = self.particles.views
        return next(p for v, p in self.comparison.planes.items() if views[v].optics == group)

    def _note(self, fit: GroupFit) -> None:
        """Keep in mind how far values moved, and how well they are known."""
        self.moved = max(self.moved, fit.moved)
        self.uncertainty = max(self.uncertainty, fit.uncertainty)

    def _odd(self) -> Iterator[CtfEvent]:
        yield Stage("odd aberrations", self.round, 0, 1)
        changed = {}
        for group, sums in odd_sums(self.comparison, self.signal).items():
            present = self.particles.optics[group]
            plane = self._plane(group)
            fit = fit_odd(sums, plane, self.given.optics[group], present, trefoil=self.fit.trefoil)
            changed[group] = replace(
                present, beam_tilt=(0.0, 0.0), odd_aberrations=odd_to_zernike(fit.values)
            )
            self._note(fit)
            yield self.report.odd(group, fit, plane.plane)
        self._update(changed)
        yield self.report.optics_so_far(self.round, self.particles)

    def _even(self) -> Iterator[CtfEvent]:
        yield Stage("even aberrations", self.round, 0, 1)
        changed = {}
        columns = free_columns(self.fit, "per-particle") + free_columns(self.fit, "per-micrograph")
        table = table_of(self.particles.ctf)
        for group, sums in even_sums(self.comparison, self.signal).items():
            present = self.particles.optics[group]
            plane = self._plane(group)
            fit = fit_even(sums, plane, self.given.optics[group], present)
            yield self.report.even(group, fit, plane.plane)
            members = np.flatnonzero(self.group == group)
            values, own = absorb(fit.values, self.particles.ctf.take(members), present.voltage, columns)
            self.report.kept_even(group, values)
            table[members] = table_of(own)
            changed[group] = replace(present, even_aberrations=even_to_zernike(values))
            self._note(fit)
        parameters = with_table(self.particles.ctf, table) if columns else None
        self._update(changed, parameters)
        yield self.report.optics_so_far(self.round, self.particles)

    def _magnification(self, supplied: bool) -> Iterator[CtfEvent]:
        yield Stage("magnification", self.round, 0, 1)
        fits: dict[int, GroupFit] = {}
        sums = displacement_sums(self.comparison, self.signal)
        relative = len(sums) > 1 or supplied
        for group, parts in sums.items():
            present = self.particles.optics[group]
            plane = self._plane(group)
            edge = present.box * present.pixel_size
            index = (plane.x * edge, plane.y * edge)
            fits[group] = fit_magnification(
                parts, index, self.given.optics[group], present, isotropic=relative
            )
        common = 1.0
        if relative and not supplied:
            # The reference follows a scale that all groups share: their mean stays.
            share = np.array([np.sum(self.group == g) for g in fits], np.float64)
            scales = [
                np.linalg.det(f.values.reshape(2, 2) @ np.linalg.inv(_matrix(self.given.optics[g]))) ** 0.5
                for g, f in fits.items()
            ]
            common = float(np.exp(np.average(np.log(scales), weights=share)))
        table = table_of(self.particles.ctf)
        changed: dict[int, OpticsGroup] = {}
        for group, fit in fits.items():
            present = self.particles.optics[group]
            fit = replace(fit, values=fit.values / common)
            change = fit.values.reshape(2, 2) @ np.linalg.inv(_matrix(present))
            members = np.flatnonzero(self.group == group)
            if not np.allclose(change, np.eye(2), atol=1e-12):
                table[members] = table_of(magnified(self.particles.ctf.take(members), change))
            changed[group] = with_magnification(present, fit.values)
            self._note(fit)
            yield self.report.magnification(group, fit, self._plane(group).plane)
        self._update(changed, with_table(self.particles.ctf, table))
        yield self.report.optics_so_far(self.round, self.particles)

    def _transfer(self) -> Iterator[CtfEvent]:
        fit, total = self.fit, len(self.comparison.chunks)
        before = table_of(self.particles.ctf)
        sigma: F64 = np.full(before.shape, np.nan)
        centre, spread = None, 0.0
        if fit.defocus != "no":
            yield Stage("defocus", self.round, 0, total)
            origin = table_of(self.given.ctf)[:, DEFOCUS]
            scan = scan_defocus(self.comparison, self.signal, origin, fit.defocus_range)
            estimate, alone = per_micrograph(scan, self.micrograph), True
            if fit.defocus == "per-particle":
                own = per_particle(scan, origin, self.micrograph, self.signal.presence)
                alone = own.gain < threshold(1)
                if alone:
                    # Nothing tells particles of a micrograph apart, but all may be off by the same.
                    fit = replace(fit, defocus="no")
                else:
                    estimate, centre, spread = own, own.centre, own.spread
            unclear = estimate.sigma > fit.defocus_range / 4
            if alone and estimate.gain < threshold(int(self.micrograph.max()) + 1):
                unclear[:] = True
            change = np.where(unclear, 0.0, estimate.change)
            sigma[:, DEFOCUS] = np.where(unclear, np.nan, estimate.sigma)
            self._update(parameters=with_mean_defocus(self.particles.ctf, origin + change))
            self.report.defocus(estimate, unclear, alone)
        if fit.astigmatism != "no" or fit.phase_shift != "no" or fit.b_factor != "no":
            yield Stage("astigmatism, phase shift and B-factor", self.round, 0, 1)
            joint = self._fit_transfer(fit, centre, spread)
            if joint is not None:
                self._update(parameters=with_table(self.particles.ctf, self._gauged(joint.table)))
                sigma = np.where(np.isnan(joint.sigma), sigma, joint.sigma)
            self.report.transfer(joint)
        after = table_of(self.particles.ctf)
        for column in np.flatnonzero(np.isfinite(sigma).any(axis=0)):
            step = (after - before)[:, column] / sigma[:, column]
            self.moved = max(self.moved, float(np.sqrt(np.nanmean(step**2))))
        self.report.sigma = sigma
        yield from self.report.micrographs(self.particles, self.signal)

    def _fit_transfer(self, fit: CtfFit, centre: F64 | None, spread: float) -> TransferEstimate | None:
        """Fit astigmatism and the like, as far as the data support it."""
        given = table_of(self.given.ctf)
        while any(getattr(fit, name) != "no" for name in FAMILIES):
            joint = fit_transfer(
                self.comparison,
                self.signal,
                fit,
                self.micrograph,
                given=given,
                defocus_centre=centre,
                defocus_spread=spread,
            )
            untold = [name for name, gain in joint.gains.items() if gain < threshold(joint.counts[name])]
            if not untold:
                return joint
            # What tells no particles apart may tell micrographs apart; what chance could explain as well
            # stays as it came, and the rest is fitted without it.
            table = table_of(self.particles.ctf)
            for name in untold:
                columns = FAMILIES[name]
                table[:, columns] = given[:, columns]
                coarser: Level = "per-micrograph" if getattr(fit, name) == "per-particle" else "no"
                fit = with_level(fit, name, coarser)
            self._update(parameters=with_table(self.particles.ctf, table))
        return None

    def _gauged(self, table: F64) -> F64:
        """Give envelopes the mean that they had at first.

        What all images have in common cannot be told from the reference's own envelope.
        """
        if self.fit.b_factor == "no":
            return table
        given, weight = table_of(self.given.ctf), self.signal.weight
        result = table.copy()
        result[:, B_FACTOR] += np.average(given[:, B_FACTOR] - table[:, B_FACTOR], weights=weight)
        ratio = np.average(given[:, SCALE], weights=weight) / np.average(table[:, SCALE], weights=weight)
        result[:, SCALE] *= ratio
        return result


def _matrix(optics: OpticsGroup) -> F64:
    return np.array(optics.magnification, np.float64).reshape(2, 2)


def _memory() -> int:
    """Return how many bytes transforms of images may take, and predictions as many again."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(8 * 2**30, physical // 8)
