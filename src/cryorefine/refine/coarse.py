"""Coarse search: which poses of each particle deserve a closer look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine import posterior
from cryorefine.refine.chunk_images import ViewData, in_fours, split_phases
from cryorefine.refine.half_plane import HalfPlane, shift_phases
from cryorefine.refine.operations import Operations
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.polar import polar_slices
from cryorefine.refine.slicing import slices
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

# A local search at this order or above looks at groups of eight orientations first, where each particle
# has more candidates than that. It keeps so many groups even where one looks much better than the others:
# where images are clear, half a group's width makes such a difference that the best one need not hold the
# best pose.
SCREENING_ORDER, WORTH_SCREENING = 3, 64
FEWEST_GROUPS = 10
# Of particles with so many images each, every fourth view is compared first, and the others only where that
# leaves hope: within a larger distance of the best log-likelihood, as a quarter of the images scatters more.
IMAGES_FOR_PORTION, PORTION = 16, 4
PORTION_MARGIN, FEWEST_ORIENTATIONS = 100.0, 16
# Scores by expanded slices are worked out in batches so many times smaller, which a cache almost holds.
SMALLER_BATCHES = 4


@dataclass(frozen=True, eq=False)
class Samples:
    """Significant coarse samples in order of orientation, particle, shift.

    ``orientation``, ``particle``, ``shift`` and the log ``prior`` of each, shape (samples,), and the
    ``count`` of each particle, shape (particles,).
    """

    orientation: I64
    particle: I32
    shift: I32
    prior: F32
    count: I32


@dataclass(frozen=True, eq=False)
class Candidates:
    """Orientations to try for each particle.

    Those of particle i, and their log ``prior``, are at ``pointer[i]:pointer[i + 1]``.
    """

    pointer: I64
    orientation: I64
    prior: F64

    @property
    def owner(self) -> I64:
        """Whose each candidate is, shape (candidates,)."""
        return np.repeat(np.arange(len(self.pointer) - 1), np.diff(self.pointer))

    def take(self, keep: NDArray[np.bool_]) -> Candidates:
        """Return some of them, those of a mask of shape (candidates,)."""
        before = np.concatenate([[0], np.cumsum(keep)])
        return Candidates(before[self.pointer], self.orientation[keep], self.prior[keep])


class Level:
    """Pixels of each view that take part in a search: ``planes``, and their ``columns`` in the images."""

    def __init__(self, views: list[ViewData], parameters: ExpectationParameters, size: int) -> None:
        self.planes: list[HalfPlane] = []
        self.columns: list[I64] = []
        for data in views:
            full = data.plane
            optics_size = int(np.ceil(size * full.size / parameters.current_size / 2 - 1e-6)) * 2
            radius = min(optics_size, full.size) / 2
            inner = np.sum(full.indices**2, axis=1) <= radius**2
            self.planes.append(full.take(inner))
            self.columns.append(np.flatnonzero(inner))


class CoarseSearch:
    """Coarse search of all particles of a chunk."""

    def __init__(
        self, views: list[ViewData], volume: C64, parameters: ExpectationParameters, operations: Operations
    ) -> None:
        self.operations = operations
        self.views = views
        self.volume = volume
        self.parameters = parameters
        self.coarse = Level(views, parameters, parameters.coarse_size)
        self.screening = Level(views, parameters, parameters.screening_size)

    def _slices(self, data: ViewData, plane: HalfPlane, matrices: F64) -> tuple[F32, F32]:
        rotated = data.rotation @ matrices
        return slices(self.volume, rotated, plane, self.parameters.padding, self.operations)

    def global_search(self, chunk: ParticleSet, shift_prior: F32) -> Samples:
        """Score every coarse pose of every particle."""
        particles = len(chunk)
        sampling = self.parameters.sampling
        grid = sampling.grid
        orientations, shifts = grid.n_orientations, len(sampling.shifts)
        with np.errstate(divide="ignore"):
            log_direction = np.log(self.parameters.direction_prior).astype(np.float32)
        if self.parameters.cross_correlation:
            log_direction[:] = 0
        orientation_prior = np.repeat(log_direction, grid.n_psi)[:, None]
        operations, xp = self.operations, self.operations.xp
        expanded = polar_slices(
            self.views, self.coarse.planes, self.volume, grid, self.parameters.padding, operations
        )
        # Direct sums share each block of slices among the particles of a batch.
        memory = operations.memory // (1 if None in expanded else SMALLER_BATCHES)
        batch = max(1, memory // (4 * orientations * shifts))
        split = np.array_split(np.arange(particles), -(-particles // batch))
        room = operations.zeros(orientations * len(split[0]) * shifts, np.float32)
        parts = []
        for members in split:
            scores = room[: orientations * len(members) * shifts].reshape(orientations, len(members), shifts)
            scores[:] = 0
            norms = operations.zeros((orientations, len(members)), np.float32)
            for data, plane, columns, own in zip(
                self.views, self.coarse.planes, self.coarse.columns, expanded, strict=True
            ):
                rows = data.row_of_particle[members]
                here = np.flatnonzero(rows >= 0)
                if len(here) == 0:
                    continue
                moves = sampling.shifts @ data.view.projection.T / data.pixel_size
                phase = shift_phases(plane, moves, xp)
                pixels, images = operations.array(columns), operations.array(rows[here])
                re, im, weights = (part[images][:, pixels] for part in (*data.a, data.b))
                if own is None:
                    self._add_products(data, plane, (re, im), weights, phase, here, scores, norms)
                else:
                    own.add_scores((re, im), weights, phase, here, scores, norms)
            if self.parameters.cross_correlation:
                scores /= xp.sqrt(xp.maximum(norms, 1e-30))[:, :, None]
                norms[:] = 0
            prior = orientation_prior
            if self.parameters.sigma_tilt > 0:
                prior = prior + self._tilt_prior(chunk.take(members), orientations)
            operations.add_priors(scores, norms, prior, shift_prior[members])
            found = operations.select_dense(
                scores, self.parameters.fraction, self.parameters.cross_correlation
            )
            of_orientation = prior[found[0], found[1] if prior.shape[1] > 1 else 0]
            particle = found[1] + np.int32(members[0])
            parts.append((found[0].astype(np.int64), particle, found[2], of_orientation, found[3]))
        orientation, particle, shift, of_orientation, count = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        return _ordered(orientation, particle, shift, of_orientation + shift_prior[particle, shift], count)

    def _add_products(
        self,
        data: ViewData,
        plane: HalfPlane,
        images: tuple[F32, F32],
        weights: F32,
        phase: C64,
        here: I64,
        scores: F32,
        norms: F32,
    ) -> None:
        """Do as :meth:`.PolarSlices.add_scores` by direct sums."""
        xp, grid = self.operations.xp, self.parameters.sampling.grid
        orientations, particles, shifts = scores.shape
        moved = ((images[0] + 1j * images[1])[:, None] * phase[None]).reshape(-1, plane.pixels)
        right = xp.concatenate([moved.real, moved.imag], axis=1).T
        # Where every particle has an image in the view nothing need be picked.
        into = slice(None) if len(here) == particles else self.operations.array(here)
        block = max(64, self.operations.slice_pixels // max(512, max(p.pixels for p in self.coarse.planes)))
        for start in range(0, orientations, block):
            some = np.arange(start, min(start + block, orientations))
            re, im = self._slices(data, plane, grid.coarse_matrices(some))
            dots = xp.concatenate([re, im], axis=1) @ right
            scores[some[0] : some[-1] + 1, into] += dots.reshape(len(some), len(here), shifts)
            norms[some[0] : some[-1] + 1, into] += (re**2 + im**2) @ weights.T

    def _tilt_prior(self, chunk: ParticleSet, orientations: int) -> F32:
        """Log prior of every coarse orientation of each particle, shape (orientations, particles)."""
        grid, sigma = self.parameters.sampling.grid, self.parameters.sigma_tilt
        assert chunk.tilt_priors is not None
        axes = np.ascontiguousarray(grid.coarse_matrices(np.arange(orientations))[:, :, 2])
        return log_tilt_prior(axes @ chunk.tilt_axes.T, chunk.tilt_priors, sigma)

    def local_search(self, chunk: ParticleSet, shift_prior: F32) -> Samples:
        """Score the coarse poses near each particle's previous one."""
        sampling = self.parameters.sampling
        single = self.parameters.cross_correlation
        near = self._near(chunk)
        fine = sampling.grid.order >= SCREENING_ORDER
        # Correlations are no log-likelihoods: they do not tell which groups hold the probability.
        if fine and not single and len(near.orientation) > WORTH_SCREENING * len(chunk):
            near = self._screened(near, shift_prior)
        index, prior, owner = _quads(near)
        quads = near.orientation[index]
        dots, norms = self._scores(quads, owner, sampling.grid.coarse_matrices, self.coarse)
        if single:
            dots /= self.operations.xp.sqrt(self.operations.xp.maximum(norms, 1e-30))[:, None, :, None]
            norms[:] = 0
            prior = np.where(np.isfinite(prior), np.float32(0), prior)
        pair, row, shift = self.operations.select_sparse(
            dots,
            norms,
            owner,
            prior,
            shift_prior,
            len(sampling.shifts),
            len(chunk),
            self.parameters.fraction,
            single,
        )
        particle = owner[pair]
        total = prior[pair, row] + shift_prior[particle, shift]
        count = np.bincount(particle, minlength=len(chunk))
        return _ordered(quads[pair, row], particle, shift, total, count)

    def _near(self, chunk: ParticleSet) -> Candidates:
        """Coarse orientations near each particle's previous one."""
        sampling = self.parameters.sampling
        pointer, orientation, weight = sampling.grid.local_candidates_many(
            chunk.poses, sampling.local_sigma, sampling.relax_group or None
        )
        prior = np.log(weight)
        if self.parameters.sigma_tilt > 0:
            owner = np.repeat(np.arange(len(chunk)), np.diff(pointer))
            axes = sampling.grid.coarse_matrices(orientation)[:, :, 2]
            cosine = np.einsum("ki,ki->k", axes, chunk.tilt_axes[owner])
            assert chunk.tilt_priors is not None
            prior = prior + log_tilt_prior(cosine, chunk.tilt_priors[owner], self.parameters.sigma_tilt)
        return Candidates(pointer, orientation, prior)

    def _screened(self, candidates: Candidates, shift_prior: F32) -> Candidates:
        """Leave out candidates that look hopeless, by groups of eight and in a part of the images.

        A group is judged from its centre, at about three quarters of the resolution.
        """
        grid = self.parameters.sampling.grid
        groups, group = self._groups(candidates)
        left = np.arange(len(groups.orientation))
        everything = slice(None)
        part = self._portion(len(groups.pointer) - 1)
        if part is not None:
            hopeful = self._hopeful(
                groups, grid.parent_matrices, self.screening, part, shift_prior, FEWEST_GROUPS, PORTION_MARGIN
            )
            groups, left = groups.take(hopeful), left[hopeful]
        hopeful = self._hopeful(
            groups,
            grid.parent_matrices,
            self.screening,
            everything,
            shift_prior,
            FEWEST_GROUPS,
            posterior.COARSE_MARGIN,
        )
        candidates = candidates.take(np.isin(group, left[hopeful]))
        if part is None:
            return candidates
        return candidates.take(
            self._hopeful(
                candidates,
                grid.coarse_matrices,
                self.coarse,
                part,
                shift_prior,
                FEWEST_ORIENTATIONS,
                PORTION_MARGIN,
            )
        )

    def _portion(self, particles: int) -> slice | None:
        """Return the views that are compared first where particles have many images."""
        images = sum(len(data.image) for data in self.views)
        if images < IMAGES_FOR_PORTION * particles:
            return None
        return slice(PORTION // 2, None, PORTION)

    def _groups(self, candidates: Candidates) -> tuple[Candidates, I64]:
        """Return the groups of eight that candidates belong to, and the place of each one's group."""
        grid = self.parameters.sampling.grid
        span = grid.n_orientations
        key, group = np.unique(
            candidates.owner * span + grid.parents(candidates.orientation), return_inverse=True
        )
        particle, parent = np.divmod(key, span)
        prior = np.full(len(key), -np.inf)
        np.logaddexp.at(prior, group, candidates.prior)
        pointer = np.searchsorted(particle, np.arange(len(candidates.pointer)))
        return Candidates(pointer, parent, prior), group

    def _hopeful(
        self,
        candidates: Candidates,
        matrices: Callable[[I64], F64],
        level: Level,
        views: slice,
        shift_prior: F32,
        fewest: int,
        margin: float,
    ) -> NDArray[np.bool_]:
        """Tell which candidates may hold a significant pose, as far as these views and pixels show."""
        index, prior, owner = _quads(candidates)
        dots, norms = self._scores(candidates.orientation[index], owner, matrices, level, views)
        log_weight = self.operations.sum_over_shifts(dots, norms, owner, shift_prior) + prior
        real = np.isfinite(prior)
        total = np.empty(len(candidates.orientation))
        total[index[real]] = log_weight[real]
        return posterior.promising(total, candidates.owner, self.parameters.fraction, fewest, margin)

    def _scores(
        self,
        quads: I64,
        owner: I32,
        matrices: Callable[[I64], F64],
        level: Level,
        views: slice = slice(None),
    ) -> tuple[F32, F32]:
        """Compare four orientations each with their owners' images, summed over views.

        Parameters
        ----------
        quads : ndarray of int, shape (pairs, 4)
            Orientations.
        owner : ndarray of int, shape (pairs,)
            Particles.
        matrices : callable
            From indices of orientations to their matrices.
        level : Level
            Pixels to compare.
        views : slice
            Which of the views.

        Returns
        -------
        dots, norms : ndarray of float32, shapes (pairs, shift blocks, 4, 4) and (pairs, 4)
            As :func:`cryorefine.refine.kernels.score_entries` gives them, (orientation, shift).
        """
        shifts = in_fours(self.parameters.sampling.shifts)
        blocks = len(shifts)
        operations = self.operations
        dots = operations.zeros((len(quads), blocks, 4, 4), np.float32)
        norms = operations.zeros((len(quads), 4), np.float32)
        chosen = (self.views[views], level.planes[views], level.columns[views])
        for data, plane, columns in zip(*chosen, strict=True):
            phases = split_phases(data, plane, shifts, operations)
            pixels = operations.array(columns)
            a_re, a_im = (operations.xp.ascontiguousarray(part[:, pixels]) for part in data.a)
            weight = operations.xp.ascontiguousarray(data.b[:, pixels])
            rows = data.row_of_particle[owner]
            most = max(1, operations.slice_memory // (4 * 8 * plane.pixels))
            for first in range(0, len(quads), most):
                here = np.arange(first, min(first + most, len(quads)))
                here = here[rows[here] >= 0]
                if len(here) == 0:
                    continue
                # Particles with similar poses want the same slices: each is made once.
                unique, place = np.unique(quads[here], return_inverse=True)
                re, im = self._slices(data, plane, matrices(unique))
                entry_dots = operations.zeros((len(here) * blocks, 4, 4), np.float32)
                entry_norms = operations.zeros((len(here) * blocks, 4), np.float32)
                operations.score_entries(
                    re,
                    im,
                    a_re,
                    a_im,
                    weight,
                    *phases,
                    place.reshape(-1, 4).astype(np.int32),
                    np.repeat(np.arange(len(here), dtype=np.int32), blocks),
                    np.repeat(rows[here], blocks),
                    np.tile(np.arange(blocks, dtype=np.int32), len(here)),
                    entry_dots,
                    entry_norms,
                )
                into = operations.array(here)
                dots[into] += entry_dots.reshape(len(here), blocks, 4, 4)
                norms[into] += entry_norms[::blocks]
        return dots, norms


def log_tilt_prior(cosine: F64, centre: F64, sigma: float) -> F32:
    """Gaussian prior on tilt angles, up to a constant.

    Parameters
    ----------
    cosine : ndarray, shape (..., particles)
        Cosine of the tilt angle.
    centre : ndarray, shape (particles,)
        Centre of the prior in degrees.
    sigma : float
        Standard deviation in degrees.
    """
    tilt = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    return (-0.5 * ((tilt - centre) / sigma) ** 2).astype(np.float32)


def _quads(candidates: Candidates) -> tuple[I64, F32, I32]:
    """Arrange each particle's candidates in fours, the last four filled up with copies that do not count.

    Returns
    -------
    index : ndarray of int64, shape (pairs, 4)
        Which candidates, in order of the first orientation of each four.
    prior : ndarray of float32, shape (pairs, 4)
        Log priors; -inf for copies.
    particle : ndarray of int32, shape (pairs,)
        Whose candidates they are.
    """
    pointer = candidates.pointer
    counts = np.diff(pointer)
    fours = -(-counts // 4)
    particle = np.repeat(np.arange(len(counts)), fours)
    start = np.repeat(pointer[:-1], fours) + 4 * (
        np.arange(fours.sum()) - np.repeat(np.cumsum(fours) - fours, fours)
    )
    index = start[:, None] + np.arange(4)
    inside = index < pointer[particle + 1][:, None]
    index = np.where(inside, index, start[:, None])
    prior = np.where(inside, candidates.prior[index], -np.inf).astype(np.float32)
    order = np.lexsort((particle, candidates.orientation[index[:, 0]]))
    return index[order], prior[order], particle[order].astype(np.int32)


def _ordered(
    orientation: NDArray[np.integer], particle: I32, shift: I32, prior: F32, count: NDArray[np.integer]
) -> Samples:
    order = np.lexsort((shift, particle, orientation))
    return Samples(
        orientation[order].astype(np.int64),
        particle[order],
        shift[order],
        prior[order].astype(np.float32),
        count.astype(np.int32),
    )
