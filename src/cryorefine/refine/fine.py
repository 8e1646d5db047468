"""Fine search: the posterior over poses around the significant coarse ones, and the sums it weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine import posterior
from cryorefine.refine.chunk_images import ViewData, segments, split_phases
from cryorefine.refine.coarse import Samples
from cryorefine.refine.operations import Operations
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.slicing import slices
from cryorefine.refine.volume import C64, F32, volume_shape

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def batches(count: I32, fine_per_shift: int, memory: int) -> list[tuple[int, int]]:
    """Cut the particles into runs whose fine scores fit a working memory in bytes."""
    cost = np.cumsum(count.astype(np.int64) * 8 * fine_per_shift * 4)
    result, first = [], 0
    while first < len(count):
        spent = cost[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(cost, spent + memory, "right")))
        result.append((first, last))
        first = last
    return result


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices of a run of entries, those from ``start`` to ``stop``.

    ``block`` (blocks,) holds which blocks of four fine orientations they are, ``matrices`` (4 blocks, 3, 3)
    their matrices, and ``re`` and ``im`` (4 blocks, pixels) themselves, if they are kept.
    """

    start: int
    stop: int
    block: I32
    matrices: F64
    re: F32 | None
    im: F32 | None


class FineSearch:
    """Fine search, posterior and weighted sums, a batch of particles at a time.

    Volumes, phases, scores, weights and spectra live where the operations do.
    """

    def __init__(
        self,
        chunk: ParticleSet,
        views: list[ViewData],
        volume: C64,
        parameters: ExpectationParameters,
        operations: Operations,
    ) -> None:
        self.chunk, self.views, self.volume, self.parameters = (
            chunk,
            views,
            volume,
            parameters,
        )
        self.operations = operations
        sampling = parameters.sampling
        self.fine_shifts = sampling.fine_shifts.reshape(-1, 4, sampling.fine_shifts.shape[-1])
        self.shift_blocks = sampling.fine_shifts.shape[1] // 4
        self.phases = [split_phases(d, d.plane, self.fine_shifts, operations) for d in views]
        shape = volume_shape(parameters.current_size, parameters.padding)
        images = [(*data.y, data.weight) for data in views]
        self.insertion = operations.insertion(shape, images, parameters.expected_sums)
        shells = parameters.shells
        self.cross = [operations.zeros((len(d.image), shells), np.float64) for d in views]
        self.power = [operations.zeros((len(d.image), shells), np.float64) for d in views]
        local = sampling.local_sigma > 0
        self.directions = np.zeros(0 if local else sampling.grid.n_directions)
        self.offset_square = 0.0
        n = len(chunk)
        self.poses = chunk.poses.copy()
        self.offsets = chunk.offsets.copy()
        self.log_sum = np.zeros(n)
        self.largest = np.zeros(n)
        self.used = np.zeros(n)

    def add(self, samples: Samples, first: int, last: int) -> None:
        """Search the children of the samples of particles first..last-1 and add their sums."""
        here = (samples.particle >= first) & (samples.particle < last)
        coarse, particle, shift = (
            samples.orientation[here],
            samples.particle[here] - first,
            samples.shift[here],
        )
        unique, place = np.unique(coarse, return_inverse=True)
        s = self.shift_blocks
        # Each coarse sample becomes 2 blocks of four orientations times s blocks of four shifts. Both
        # blocks of an orientation keep the order (particle, shift), so that slices stay in cache.
        block = (2 * place[:, None, None] + np.arange(2)[None, :, None] + np.zeros((1, 1, s), int)).ravel()
        entry_particle = np.repeat(particle, 2 * s)
        shift_block = (shift[:, None, None] * s + np.arange(s)[None, None] + np.zeros((1, 2, 1), int)).ravel()
        prior = np.repeat(samples.prior[here], 2 * s)
        order = np.argsort(block, kind="stable")
        block = block[order].astype(np.int32)
        entry_particle = entry_particle[order].astype(np.int32)
        shift_block = shift_block[order].astype(np.int32)
        prior = prior[order]
        xp = self.operations.xp
        dots = self.operations.zeros((len(block), 4, 4), np.float32)
        norms = self.operations.zeros((len(block), 4), np.float32)
        made = self._score(unique, block, entry_particle, shift_block, first, dots, norms)
        single = self.parameters.cross_correlation
        if single:
            dots /= xp.sqrt(xp.maximum(norms, 1e-30))[:, :, None]
            norms[:] = 0
            prior[:] = 0
        log_sum, largest, best, used = self.operations.normalise(
            dots, norms, entry_particle, prior, last - first, self.parameters.fraction, single
        )
        self.log_sum[first:last], self.largest[first:last], self.used[first:last] = log_sum, largest, used
        self._best_poses(unique, block, shift_block, first, best)
        kept = xp.flatnonzero(dots.reshape(len(dots), -1).any(axis=1))
        weights = dots[kept]
        kept = self.operations.host(kept)
        lists = (block[kept], entry_particle[kept], shift_block[kept], first)
        self._pose_sums(unique, *lists, self.operations.host(weights))
        self._sum(made, kept, *lists, weights)

    def _rows(self, data: ViewData, particle: I32, first: int) -> I32:
        return data.row_of_particle[particle + first]

    def _matrices(self, data: ViewData, unique: I64, blocks: I32) -> F64:
        """Return the matrices of whole blocks of four fine orientations."""
        grid = self.parameters.sampling.grid
        parents, place = np.unique(blocks // 2, return_inverse=True)
        fine = grid.fine_matrices(unique[parents]).reshape(-1, 2, 4, 3, 3)
        matrices: F64 = data.rotation @ fine[place, blocks % 2].reshape(-1, 3, 3)
        return matrices

    def _slices(self, data: ViewData, matrices: F64) -> tuple[F32, F32]:
        return slices(self.volume, matrices, data.plane, self.parameters.padding, self.operations)

    def _score(
        self, unique: I64, block: I32, particle: I32, shift: I32, first: int, dots: F32, norms: F32
    ) -> list[list[Slices]]:
        """Score all entries; returns the slices of each view, and keeps as many as fit the working memory."""
        made: list[list[Slices]] = []
        room = self.operations.memory
        for data, phases in zip(self.views, self.phases, strict=True):
            rows = self._rows(data, particle, first)
            made.append([])
            for run in segments(block, data.plane.pixels, self.operations.slice_memory):
                present = rows[run] >= 0
                # A slice is a view of the arrays, so that the usual case copies nothing.
                here = run if present.all() else np.arange(run.start, run.stop)[present]
                own, place = np.unique(block[here], return_inverse=True)
                matrices = self._matrices(data, unique, own)
                re, im = self._slices(data, matrices)
                part = here if isinstance(here, slice) else self.operations.array(here)
                part_dots, part_norms = dots[part], norms[part]
                self.operations.score_entries(
                    re,
                    im,
                    *data.a,
                    data.b,
                    *phases,
                    np.arange(4 * len(own), dtype=np.int32).reshape(-1, 4),
                    place.astype(np.int32),
                    rows[here],
                    shift[here],
                    part_dots,
                    part_norms,
                )
                if not isinstance(here, slice):
                    dots[part], norms[part] = part_dots, part_norms
                room -= re.nbytes + im.nbytes
                parts = (re, im) if room >= 0 else (None, None)
                made[-1].append(Slices(run.start, run.stop, own, matrices, *parts))
        return made

    def _sum(
        self,
        made: list[list[Slices]],
        kept: I64,
        block: I32,
        particle: I32,
        shift: I32,
        first: int,
        weights: F32,
    ) -> None:
        """Sum images and spectra with the weights of the entries that are ``kept``."""
        zeros = self.operations.zeros
        for k, (data, phases) in enumerate(zip(self.views, self.phases, strict=True)):
            rows = self._rows(data, particle, first)
            for source in made[k]:
                here = np.arange(*np.searchsorted(kept, (source.start, source.stop)))
                here = here[rows[here] >= 0]
                if len(here) == 0:
                    continue
                own, place = np.unique(block[here], return_inverse=True)
                row = (4 * np.searchsorted(source.block, own)[:, None] + np.arange(4)).ravel()
                matrices = source.matrices[row]
                if source.re is None or source.im is None:
                    re, im = self._slices(data, matrices)
                else:
                    picked = self.operations.array(row)
                    re, im = source.re[picked], source.im[picked]
                sums = zeros(re.shape, np.float32), zeros(re.shape, np.float32), zeros(re.shape, np.float32)
                self.operations.sum_entries(
                    re,
                    im,
                    *data.x,
                    data.model,
                    *data.y,
                    data.weight,
                    *phases,
                    np.minimum(data.plane.shell, self.parameters.shells - 1),
                    place.astype(np.int32),
                    rows[here],
                    shift[here],
                    weights[self.operations.array(here)],
                    *sums,
                    self.cross[k],
                    self.power[k],
                )
                self.insertion.add(
                    matrices.astype(np.float32),
                    data.plane.kx,
                    data.plane.ky,
                    data.plane.kz,
                    self.parameters.padding,
                    *sums,
                )

    def _best_poses(self, unique: I64, block: I32, shift: I32, first: int, best: I64) -> None:
        entry, sample = best // 16, best % 16
        blocks = block[entry].astype(np.int64)
        fine = self.parameters.sampling.grid.fine_matrices(unique[blocks // 2]).reshape(-1, 8, 3, 3)
        here = slice(first, first + len(best))
        self.poses[here] = fine[np.arange(len(best)), 4 * (blocks % 2) + sample // 4]
        self.offsets[here] = self.chunk.offsets[here] + self.fine_shifts[shift[entry], sample % 4]

    def _pose_sums(
        self, unique: I64, block: I32, particle: I32, shift: I32, first: int, weights: F32
    ) -> None:
        here = slice(first, int(first + particle.max(initial=-1) + 1))
        direction = (unique // self.parameters.sampling.grid.n_psi)[block // 2].astype(np.int32)
        centre = (self.chunk.offset_priors - self.chunk.offsets)[here]
        self.offset_square += posterior.pose_sums(
            weights, particle, shift, direction, self.fine_shifts, centre, self.directions
        )
