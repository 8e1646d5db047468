"""Compares every particle with a reference that it had no part in, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.executor import LocalExecutor
from cryorefine.ctf.aberrations import even_phase, odd_phase
from cryorefine.ctf.ctf import CtfParameters, ctf
from cryorefine.geometry.symmetry import point_group
from cryorefine.refine.ctf_refinement.division import Chunk
from cryorefine.refine.ctf_refinement.frame import Frame, GroupPlane, comparison_plane, group_plane
from cryorefine.refine.ctf_refinement.reference import (
    HalfSums,
    Sums,
    reference_volume,
    split_operators,
    supplied_volume,
)
from cryorefine.refine.ctf_refinement.settings import SuppliedMaps
from cryorefine.refine.ctf_refinement.spectra import Memory, Spectra
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet
from cryorefine.refine.slicing import slices
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]
ResultT = TypeVar("ResultT")
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Compared:
    """Images of a chunk beside their predictions.

    Attributes
    ----------
    chunk : Chunk
        The particles.
    plane : GroupPlane
        Their pixels.
    optics : OpticsGroup
        Their optics group as it is now.
    ctf : CtfParameters
        Of these particles, as they are now.
    image : ndarray of complex64, shape (n, pixels)
        Transforms of the images, odd aberrations and all.
    slice : ndarray of complex64, shape (n, pixels)
        Slices of the reference without any CTF.
    matrices : ndarray, shape (n, 3, 3)
        Where the slices lie in the reference.
    volume, partner : ndarray or None
        The reference, and that of the other half set, for those who asked for them.
    """

    chunk: Chunk
    plane: GroupPlane
    optics: OpticsGroup
    ctf: CtfParameters
    image: C64
    slice: C64
    matrices: F64
    volume: C64 | None
    partner: C64 | None

    def without_odd_aberrations(self) -> C64:
        """Return the images with their odd aberrations undone, shape (n, pixels)."""
        return self.image * odd_correction(self.optics, self.plane)

    def sine_and_cosine(self, *, even: bool = True) -> tuple[F32, F32]:
        """Return sin and cos of the phase of the contrast transfer, shape (n, pixels) each."""
        return sine_and_cosine(self.ctf, self.optics, self.plane, even=even)

    def transfer(self) -> F32:
        """Return the CTF with envelope and scale, shape (n, pixels)."""
        return transfer(self.ctf, self.optics, self.plane)


def odd_correction(optics: OpticsGroup, plane: GroupPlane) -> C64:
    """Return the factor that undoes a group's odd aberrations, shape (pixels,)."""
    phase = odd_phase(
        optics.odd_aberrations,
        *optics.beam_tilt,
        optics.voltage,
        optics.spherical_aberration,
        plane.x,
        plane.y,
    )
    return np.exp(-1j * phase).astype(np.complex64)


def _even(optics: OpticsGroup, plane: GroupPlane) -> F64 | None:
    return even_phase(optics.even_aberrations, plane.x, plane.y) if any(optics.even_aberrations) else None


def transfer(parameters: CtfParameters, optics: OpticsGroup, plane: GroupPlane) -> F32:
    """Return CTFs with envelope and scale, shape (n, pixels)."""
    return ctf(parameters, plane.x, plane.y, even=_even(optics, plane))


def sine_and_cosine(
    parameters: CtfParameters, optics: OpticsGroup, plane: GroupPlane, *, even: bool = True
) -> tuple[F32, F32]:
    """Return sin and cos of gamma without envelope and scale, shape (n, pixels) each."""
    bare = replace(parameters, b_factor=0.0, scale=1.0)
    extra = _even(optics, plane) if even else None
    # The CTF is -sin(gamma); a phase shift of -90 degrees turns that into -cos(gamma).
    turned = replace(bare, phase_shift=np.asarray(bare.phase_shift) - 90.0)
    return -ctf(bare, plane.x, plane.y, even=extra), -ctf(turned, plane.x, plane.y, even=extra)


def with_mean_defocus(parameters: CtfParameters, mean: F64) -> CtfParameters:
    """Return the parameters with another mean defocus (A), shape (n,), and the same astigmatism."""
    move = mean - (parameters.column("defocus_u") + parameters.column("defocus_v")) / 2
    return replace(
        parameters,
        defocus_u=parameters.column("defocus_u") + move,
        defocus_v=parameters.column("defocus_v") + move,
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """What half sets are summed up with."""

    particles: ParticleSet
    planes: dict[int, GroupPlane]
    inverse_noise: F64
    weight: F64


class Comparison:
    """Particles, their images and the references they are compared with.

    Parameters
    ----------
    particles : ParticleSet
        Single particles with the values that they have at first.
    chunks : tuple of Chunk
        Their division.
    maps : SuppliedMaps
        Half maps and mask of post-processing.
    frame : Frame
        Working grid.
    executor : LocalExecutor
        Threads.
    symmetry : str
        Point group.
    minimum_resolution : float
        A; lower frequencies are not compared.
    memory : int
        Bytes for transforms of images, for predictions, and for the sums of folds, each.
    """

    def __init__(
        self,
        particles: ParticleSet,
        chunks: tuple[Chunk, ...],
        maps: SuppliedMaps,
        frame: Frame,
        executor: LocalExecutor,
        *,
        symmetry: str,
        minimum_resolution: float,
        memory: int,
    ) -> None:
        self.chunks = chunks
        self.frame = frame
        self.executor = executor
        self.particles = particles
        self._maps = maps
        self._memory = memory
        self._envelope = particles.ctf.b_factor, particles.ctf.scale
        self._operators, self._turns = split_operators(point_group(symmetry).operators)
        self._minimum_resolution = minimum_resolution
        used = sorted({chunk.view for chunk in chunks})
        planes = {
            v: comparison_plane(particles.optics[particles.views[v].optics], particles.views[v], frame)
            for v in used
        }
        self.planes = {v: self._plane(v, planes[v]) for v in used}
        self.spectra = Spectra(particles, planes, Memory(memory))
        self._slices = Memory(memory)
        self._sums: tuple[HalfSums, HalfSums] | None = None
        self._ssnr = np.ones(1)
        self._recent: dict[tuple[int, int], C64] = {}

    def _plane(self, view: int, plane: HalfPlane) -> GroupPlane:
        v = self.particles.views[view]
        return group_plane(plane, self.particles.optics[v.optics], v, self.frame, self._minimum_resolution)

    def given_envelope(self, parameters: CtfParameters) -> None:
        """Rebuild with these B-factors and scales from now on."""
        self._envelope = parameters.b_factor, parameters.scale

    @property
    def supplied(self) -> bool:
        """Whether particles are compared with the supplied half maps."""
        return self._sums is None

    @property
    def reliability(self) -> F64:
        """Share of the true structure in a reference by shell; the last one holds beyond."""
        return np.ones(1) if self._sums is None else np.asarray(self._ssnr / (1 + self._ssnr))

    def update(self, particles: ParticleSet) -> None:
        """Take over new values; the references stay as they are."""
        moved = any(
            new.magnification != old.magnification
            for new, old in zip(particles.optics, self.particles.optics, strict=True)
        )
        self.particles = particles
        self.planes = {v: self._plane(v, plane.plane) for v, plane in self.planes.items()}
        if moved:
            self._slices.clear()

    def rebuild(self, inverse_noise: F64, weight: F64, ssnr: F64) -> Iterator[tuple[int, int]]:
        """Sum up both half sets with the present values, fold by fold.

        Parameters
        ----------
        inverse_noise : ndarray, shape (optics groups, shells)
            1 / sigma2 of each group.
        weight : ndarray, shape (particles,)
            Weight of each particle.
        ssnr : ndarray, shape (shells,)
            Signal-to-noise ratio expected of the sums without a fold.

        Yields
        ------
        done, total : int
            Folds.
        """
        folds = 1 + max(chunk.fold for chunk in self.chunks)
        members = {
            (half, fold): [c for c in self.chunks if c.half == half and c.fold == fold]
            for half in range(2)
            for fold in range(folds)
        }
        # A fold that is not kept is summed up again with these values, whatever has been fitted since.
        values = _Values(self.particles, dict(self.planes), inverse_noise, weight)

        def make(half: int, fold: int) -> Sums:
            return self._sum(members[half, fold], values)

        edge = 2 * self.frame.limit + 1
        keep = len(members) * edge**2 * (self.frame.limit + 2) * 16 <= self._memory
        halves = tuple(HalfSums(partial(make, half), keep=keep) for half in range(2))
        for done, (key, sums) in enumerate(
            zip(members, self.executor.run(make, list(members)), strict=True), 1
        ):
            halves[key[0]].add(key[1], sums)
            yield done, len(members)
        self._sums = halves[0], halves[1]
        self._ssnr = ssnr
        self._recent.clear()
        self._slices.clear()

    def use_supplied(self) -> None:
        """Compare with the supplied half maps from now on."""
        self._sums = None
        self._recent.clear()
        self._slices.clear()

    def _sum(self, chunks: list[Chunk], values: _Values) -> Sums:
        sums = Sums.empty(self.frame)
        particles, inverse_noise = values.particles, values.inverse_noise
        # Envelopes are measured against the reference: were they used to make it, both would drift.
        parameters = replace(particles.ctf, b_factor=self._envelope[0], scale=self._envelope[1])
        for chunk in chunks:
            plane = values.planes[chunk.view]
            group = particles.views[chunk.view].optics
            optics = particles.optics[group]
            shell = np.minimum(plane.plane.shell, inverse_noise.shape[1] - 1)
            model = transfer(parameters.take(chunk.particles), optics, plane) * np.float32(plane.area)
            w = (values.weight[chunk.particles, None] * inverse_noise[group, shell]).astype(np.float32)
            data = self.spectra(chunk) * odd_correction(optics, plane)
            data *= model * w
            model *= model
            model *= w
            matrices = plane.rotation @ particles.poses[chunk.particles]
            for operator in self._operators:
                sums.insert(matrices @ operator, plane.plane, self.frame.padding, data, model)
        return sums.finish(self._turns, self.frame.padding * (self.frame.size / 2 + 1))

    def reference(self, half: int, fold: int | None) -> C64:
        """Return the Fourier volume that a fold is compared with; of the whole half set for None."""
        threads = self.executor.threads
        if self._sums is None:
            return supplied_volume(self._maps, half, self.frame, threads)
        return reference_volume(self._sums[half].without(fold), self._ssnr, self.frame, threads)

    def first_references(self) -> tuple[C64, C64]:
        """Return the references of both halves' first folds, and have them ready for the comparison."""
        for half in range(2):
            self._recent[half, 0] = self.reference(half, 0)
        return self._recent[0, 0], self._recent[1, 0]

    def each(
        self,
        function: Callable[Concatenate[Compared, P], ResultT],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Iterator[ResultT]:
        """Yield ``function(compared, ...)`` for every chunk, in order."""
        yield from self._each(False, function, *args, **kwargs)

    def each_with_volume(
        self,
        function: Callable[Concatenate[Compared, P], ResultT],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Iterator[ResultT]:
        """Do the same as :meth:`each`, with the references of both halves at hand."""
        yield from self._each(True, function, *args, **kwargs)

    def _each(
        self,
        with_volume: bool,
        function: Callable[Concatenate[Compared, P], ResultT],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Iterator[ResultT]:
        def work(chunk: Chunk, volume: C64 | None, partner: C64 | None) -> ResultT:
            return function(self._compare(chunk, volume, partner), *args, **kwargs)

        half, partner = -1, None
        for part in self._parts():
            volume = None
            if with_volume and part[0].half != half:
                half = part[0].half
                partner = self.reference(1 - half, None)
            if with_volume or not all(chunk.number in self._slices for chunk in part):
                key = part[0].half, part[0].fold
                volume = self._recent.pop(key, None)
                if volume is None:
                    volume = self.reference(*key)
            yield from self.executor.run(work, [(chunk, volume, partner) for chunk in part])

    def _parts(self) -> Iterator[list[Chunk]]:
        """Yield the chunks that share a reference."""
        part: list[Chunk] = []
        for chunk in self.chunks:
            other_fold = part and not self.supplied and chunk.fold != part[0].fold
            if part and (chunk.half != part[0].half or other_fold):
                yield part
                part = []
            part.append(chunk)
        yield part

    def _compare(self, chunk: Chunk, volume: C64 | None, partner: C64 | None) -> Compared:
        particles, plane = self.particles, self.planes[chunk.view]
        matrices = plane.rotation @ particles.poses[chunk.particles]
        prediction = self._slices.get(chunk.number)
        if prediction is None:
            assert volume is not None
            re, im = slices(volume, matrices, plane.plane, self.frame.padding)
            prediction = np.empty(re.shape, np.complex64)
            prediction.real, prediction.imag = re, im
            prediction *= np.float32(plane.area)
            self._slices.keep(chunk.number, prediction)
        return Compared(
            chunk=chunk,
            plane=plane,
            optics=particles.optics[particles.views[chunk.view].optics],
            ctf=particles.ctf.take(chunk.particles),
            image=self.spectra(chunk),
            slice=prediction,
            matrices=matrices,
            volume=volume,
            partner=partner,
        )
