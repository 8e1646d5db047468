"""Compares every particle with a reference, less its own part in that, chunk by chunk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.compute.executor import LocalExecutor
from cryorefine.compute.gpu_turns import Copies, free_memory, turns
from cryorefine.compute.place import shortage
from cryorefine.ctf.aberrations import even_phase, odd_phase
from cryorefine.ctf.ctf import CtfParameters
from cryorefine.errors import UserWarningMessage
from cryorefine.geometry.symmetry import point_group
from cryorefine.refine.ctf_refinement.division import Chunk
from cryorefine.refine.ctf_refinement.frame import (
    Frame,
    GroupPlane,
    comparison_plane,
    group_plane,
    make_frame,
    within,
)
from cryorefine.refine.ctf_refinement.prediction import Inserted, slices
from cryorefine.refine.ctf_refinement.reference import Reference, rebuilt_reference, supplied_reference
from cryorefine.refine.ctf_refinement.settings import SuppliedMaps
from cryorefine.refine.ctf_refinement.spectra import Memory, Part, Spectra
from cryorefine.refine.ctf_refinement.sums import Sums, split_operators
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]
ResultT = TypeVar("ResultT")
# A half set of more particles than this is summed up by several threads, up to eight.
_PART, _PARTS = 2000, 8
# Volumes on a GPU at a time: both references, and what their sums were multiplied with.
_COPIES = 4
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
    own, other : ndarray
        Fourier volumes of the particles' own half set, their noise and all, and of the other one.
    operations : Operations
        Where CTFs and sums over pixels are worked out. The arrays above are on the processor.
    """

    chunk: Chunk
    plane: GroupPlane
    optics: OpticsGroup
    ctf: CtfParameters
    image: C64
    slice: C64
    matrices: F64
    own: C64
    other: C64
    operations: Operations = PROCESSOR

    @property
    def on_gpu(self) -> bool:
        """Whether the chunk is worked on by a GPU."""
        return self.operations is not PROCESSOR

    def there(self, *arrays: Any) -> list[Any]:
        """Return arrays where the chunk is worked on."""
        return [self.operations.array(array) for array in arrays]

    @property
    def odd_correction(self) -> C64:
        """The factor that undoes the odd aberrations of the images, shape (pixels,)."""
        return odd_correction(self.optics, self.plane)

    def without_odd_aberrations(self) -> C64:
        """Return the images with their odd aberrations undone, shape (n, pixels)."""
        return self.image * self.odd_correction

    def sine_and_cosine(self, *, even: bool = True) -> tuple[F32, F32]:
        """Return sin and cos of the phase of the contrast transfer there, shape (n, pixels) each."""
        return sine_and_cosine(self.ctf, self.optics, self.plane, self.operations, even=even)

    def transfer(self) -> F32:
        """Return the CTF with envelope and scale there, shape (n, pixels)."""
        return transfer(self.ctf, self.optics, self.plane, self.operations)


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


def transfer(
    parameters: CtfParameters, optics: OpticsGroup, plane: GroupPlane, where: Operations = PROCESSOR
) -> F32:
    """Return CTFs with envelope and scale, shape (n, pixels)."""
    return where.ctf(parameters, plane.x, plane.y, even=_even(optics, plane))


def sine_and_cosine(
    parameters: CtfParameters,
    optics: OpticsGroup,
    plane: GroupPlane,
    where: Operations = PROCESSOR,
    *,
    even: bool = True,
) -> tuple[F32, F32]:
    """Return sin and cos of gamma without envelope and scale, shape (n, pixels) each."""
    bare = replace(parameters, b_factor=0.0, scale=1.0)
    extra = _even(optics, plane) if even else None
    # The CTF is -sin(gamma); a phase shift of -90 degrees turns that into -cos(gamma).
    turned = replace(bare, phase_shift=np.asarray(bare.phase_shift) - 90.0)
    sine, cosine = (-where.ctf(each, plane.x, plane.y, even=extra) for each in (bare, turned))
    return sine, cosine


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
    envelope: tuple[F64 | float, F64 | float]

    def inserted(self, chunk: Chunk, image: C64, where: Operations) -> Inserted:
        """Return the images of a chunk as they go into the sums; their CTFs are there."""
        plane = self.planes[chunk.view]
        group = self.particles.views[chunk.view].optics
        optics = self.particles.optics[group]
        # Envelopes are measured against the reference: were they used to make it, both would drift.
        parameters = replace(self.particles.ctf, b_factor=self.envelope[0], scale=self.envelope[1])
        shell = np.minimum(plane.plane.shell, self.inverse_noise.shape[1] - 1)
        return Inserted(
            image,
            odd_correction(optics, plane),
            transfer(parameters.take(chunk.particles), optics, plane, where),
            self.weight[chunk.particles].astype(np.float32),
            self.inverse_noise[group, shell].astype(np.float32),
        )


class Comparison:
    """Particles, their images and the references they are compared with.

    Attributes
    ----------
    scale : ndarray, shape (optics groups,)
        Of the images relative to the references; 1 for those that are made of them.

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
        Bytes for transforms of images, for predictions, and for sums over parts of a half set, each.
    device : str
        "cpu", or GPUs for what is done for each pixel of each image: slices and sums over particles.
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
        device: str = "cpu",
    ) -> None:
        self._gpus = turns(device)
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
        self.spectra: Spectra | Part = Spectra(particles, planes, Memory(memory))
        self._slices = Memory(memory)
        self._built: _Values | None = None
        self._references: list[Reference] = []
        self._other = False
        self._ssnr = np.ones(1)
        self.scale: F64 = np.ones(len(particles.optics))

    def up_to(self, shells: int) -> Comparison:
        """Return a comparison of the same images up to a nearer shell, on a grid as coarse as that allows."""
        inner = copy(self)
        inner.frame = make_frame(self._maps, shells, self.executor.threads)
        planes = {v: plane.plane for v, plane in self.planes.items()}
        inside = {
            v: within(plane, self.planes[v].rotation, inner.frame.shells) for v, plane in planes.items()
        }
        inner.planes = {v: inner._plane(v, plane.take(inside[v])) for v, plane in planes.items()}
        inner.spectra = Part(self.spectra, inside)
        inner._slices = Memory(self._memory)
        inner._built, inner._references = None, []
        inner.scale = np.ones_like(self.scale)
        return inner

    def _plane(self, view: int, plane: HalfPlane) -> GroupPlane:
        v = self.particles.views[view]
        return group_plane(plane, self.particles.optics[v.optics], v, self.frame, self._minimum_resolution)

    def given_envelope(self, parameters: CtfParameters) -> None:
        """Rebuild with these B-factors and scales from now on."""
        self._envelope = parameters.b_factor, parameters.scale

    @property
    def reliability(self) -> F64:
        """Share of the true structure in a reference by shell; the last one holds beyond."""
        return np.ones(1) if self._built is None else np.asarray(self._ssnr / (1 + self._ssnr))

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
        """Sum up both half sets with the present values and compare with the maps that they give.

        Every particle is compared with its own half set from now on, less its own part in it.

        Parameters
        ----------
        inverse_noise : ndarray, shape (optics groups, shells)
            1 / sigma2 of each group.
        weight : ndarray, shape (particles,)
            Weight of each particle.
        ssnr : ndarray, shape (shells,)
            Signal-to-noise ratio expected of the sums.

        Yields
        ------
        done, total : int
            Parts of the half sets.
        """
        values = _Values(self.particles, dict(self.planes), inverse_noise, weight, self._envelope)
        parts = [(half, part) for half in range(2) for part in self._parts(half)]
        # What is compared with until now gives its memory to what comes.
        self._references = []
        self._slices.clear()
        totals: dict[int, Sums] = {}
        results = self.executor.run(self._sum, [(part, values) for _, part in parts])
        for done, ((half, _), sums) in enumerate(zip(parts, results, strict=True), 1):
            if half in totals:
                totals[half].add(sums)
            else:
                totals[half] = sums
            del sums
            yield done, len(parts)
        self._references = self._both(lambda half, threads: self._solved(totals.pop(half), ssnr, threads))
        self._built, self._ssnr, self._other = values, ssnr, False
        self.scale = np.ones_like(self.scale)

    def use_supplied(self, *, other: bool) -> None:
        """Compare with the supplied half maps from now on: with that of the other half set, or its own."""
        self._references = []
        self._built, self._other = None, other
        self._slices.clear()

    def _parts(self, half: int) -> list[list[Chunk]]:
        """Return the chunks of a half set in a few parts, which are summed up by one thread each."""
        chunks = [chunk for chunk in self.chunks if chunk.half == half]
        room = self._memory // self._volume
        wanted = sum(len(chunk.particles) for chunk in chunks) // _PART
        count = max(1, min(wanted, room, _PARTS))
        edges = np.linspace(0, len(chunks), count + 1).astype(int)
        return [chunks[a:b] for a, b in pairwise(edges)]

    def _sum(self, chunks: list[Chunk], values: _Values) -> Sums:
        return self._on_device(lambda where: self._sum_there(chunks, values, where))

    def _sum_there(self, chunks: list[Chunk], values: _Values, where: Operations) -> Sums:
        sums = Sums.empty(self.frame)
        parts = where.array(sums.parts)
        for chunk in chunks:
            plane = values.planes[chunk.view]
            own = values.inserted(chunk, self.spectra(chunk, where.xp), where)
            arrays = (own.image, own.correction, own.transfer, own.weight, own.inverse_noise)
            image, correction, transfer, weight, inverse_noise = (where.array(array) for array in arrays)
            model = transfer * np.float32(plane.area)
            weighted = weight[:, None] * inverse_noise * model
            data = image * correction
            data *= weighted
            weighted *= model
            matrices = plane.rotation @ values.particles.poses[chunk.particles]
            turned = [matrices @ operator for operator in self._operators]
            if where is PROCESSOR:
                for each in turned:
                    sums.insert(each, plane.plane, self.frame.padding, data, weighted)
            else:
                from cryorefine.refine.ctf_refinement.rebuild import add_slices

                add_slices(parts, turned, plane.plane, self.frame.padding, data, weighted)
        return sums if where is PROCESSOR else Sums(to_host(parts))

    def _both(self, make: Callable[[int, int], Reference]) -> list[Reference]:
        """Make the references of both half sets, at the same time where there are threads and memory for it.

        ``make`` is called with the number of the half set and that of threads.
        """
        threads = self.executor.threads
        if threads == 1 or self._gpus is not None or 7 * self._volume > self._memory:
            return [make(half, threads) for half in range(2)]
        # Made once for both.
        assert self.frame.window is not None
        return list(self.executor.run(make, [(half, max(1, threads // 2)) for half in range(2)]))

    @property
    def _volume(self) -> int:
        """Bytes of the sums of a half set."""
        return 12 * (2 * self.frame.limit + 1) ** 2 * (self.frame.limit + 2)

    def _solved(self, sums: Sums, ssnr: F64, threads: int) -> Reference:
        return self._on_device(lambda where: self._solved_there(sums, ssnr, threads, where))

    def _solved_there(self, sums: Sums, ssnr: F64, threads: int, where: Operations) -> Reference:
        if where is not PROCESSOR:
            from cryorefine.refine.ctf_refinement.rebuild import solved

            return solved(where.array(sums.parts), self._turns, ssnr, self.frame)
        return rebuilt_reference(sums, self._turns, ssnr, self.frame, threads)

    def images(self, chunk: Chunk) -> C64:
        """Return the transforms of a chunk's images, on the processor, shape (n, pixels)."""
        return self._on_device(lambda where: self.spectra(chunk, where.xp))

    def _on_device(self, work: Callable[[Operations], ResultT]) -> ResultT:
        """Do some work on a GPU, if there is one with the memory, or else on the processor."""
        if self._gpus is None:
            return work(PROCESSOR)
        with self._gpus.turn() as copies:
            try:
                with shortage():
                    return work(_on_gpu(copies))
            except MemoryError:
                pass
            # Only here is what the failed attempt held let go.
            free_memory()
        warnings.warn(
            "The GPU's memory is too small for a part of the CTF refinement, which the processor does.",
            UserWarningMessage,
            stacklevel=2,
        )
        return work(PROCESSOR)

    def references(self) -> tuple[Reference, Reference]:
        """Return the references made of the two half sets."""
        if not self._references:
            self._references = self._both(
                lambda half, threads: supplied_reference(self._maps, half, self.frame, threads)
            )
        return self._references[0], self._references[1]

    def each(
        self,
        function: Callable[Concatenate[Compared, P], ResultT],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Iterator[ResultT]:
        """Yield ``function(compared, ...)`` for every chunk, in order."""
        references = self.references()

        def work(chunk: Chunk) -> ResultT:
            return self._on_device(
                lambda where: function(self._compare(chunk, references, where), *args, **kwargs)
            )

        yield from self.executor.run(work, [(chunk,) for chunk in self.chunks])

    def _compare(self, chunk: Chunk, references: tuple[Reference, Reference], where: Operations) -> Compared:
        particles, plane = self.particles, self.planes[chunk.view]
        matrices = plane.rotation @ particles.poses[chunk.particles]
        image = self.spectra(chunk, where.xp)
        half = 1 - chunk.half if self._other else chunk.half
        prediction = self._slices.get(chunk.number)
        if prediction is None:
            own = None if self._built is None else self._built.inserted(chunk, image, where)
            prediction = slices(
                references[half],
                matrices,
                plane.plane,
                self.frame.padding,
                plane.area,
                own,
                self.frame.coupling if own is not None else None,
                where,
            )
            self._slices.keep(chunk.number, prediction)
        return Compared(
            chunk=chunk,
            plane=plane,
            optics=particles.optics[particles.views[chunk.view].optics],
            ctf=particles.ctf.take(chunk.particles),
            image=image,
            slice=prediction,
            matrices=matrices,
            own=references[chunk.half].volume,
            other=references[1 - chunk.half].volume,
            operations=where,
        )


def _on_gpu(copies: Copies) -> Operations:
    """Return the operations on the GPU whose turn it is, which copies volumes there."""
    import cupy

    from cryorefine.refine.gpu.operations import GpuOperations

    return GpuOperations(cupy, 0, partial(copies.of, kept=_COPIES))
