"""One chunk of particles against one reference: the pure function that all scheduling is built on.

The result depends on the chunk's particles and the parameters alone, never on how many chunks run
side by side or where. A global search scores all coarse poses of many particles at once as matrix
products; a local search, and the fine poses in every search, are lists of (four slices) x (image) x
(four shifts) for the compiled kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import array_module, to_host
from cryorefine.refine import kernels, posterior
from cryorefine.refine.half_plane import HalfPlane, half_plane, shift_phases
from cryorefine.refine.images import (
    PreparedImages,
    contrast_transfer,
    prepare_images,
    remap,
)
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet, View
from cryorefine.refine.volume import C64, F32, empty_volume, volume_limit

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

# Working memory of one chunk for dense scores, for fine scores and for slices, in bytes each.
MEMORY = 96 * 2**20


@dataclass(frozen=True, eq=False)
class ParticleResults:
    """New values of a chunk's particles, in its order.

    ``poses`` (n, 3, 3), ``offsets`` in A (n, dimensions), and of shape (n,): the norm correction, the
    log-likelihood, the largest posterior weight and the number of significant coarse samples.
    """

    poses: F64
    offsets: F64
    norm: F64
    log_likelihood: F64
    largest_weight: F64
    significant: I64


@dataclass(frozen=True, eq=False)
class ChunkSums:
    """What a chunk adds to the maximisation step.

    Attributes
    ----------
    numerator, weight : ndarray
        Fourier volume and its weights (see :mod:`cryorefine.refine.volume`).
    noise : ndarray, shape (optics groups, shells)
        Residual power.
    noise_count : ndarray, shape (optics groups, shells)
        Pixels that it is summed over, times two.
    scale_cross, scale_power : ndarray, shape (groups, shells)
        sum Re(X conj(model)) and sum |model|^2, without the scale.
    directions : ndarray, shape (directions,)
        Probability that fell on each direction; empty in a local search.
    offset_square : float
        Sum of squared distances of the shifts from their prior, in A^2.
    mass : float
        Sum of all weights used.
    """

    numerator: C64
    weight: F32
    noise: F64
    noise_count: F64
    scale_cross: F64
    scale_power: F64
    directions: F64
    offset_square: float
    mass: float


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """Sums and per-particle results of one chunk."""

    sums: ChunkSums
    particles: ParticleResults


@dataclass(frozen=True, eq=False)
class _ViewData:
    """Images of one view, ready for the kernels, and where their particles are.

    Split complex arrays of shape (images, pixels): ``a`` the weighted images of the scores, ``b`` the
    weights of their models, ``x`` and ``model`` masked images and model CTFs, ``y`` and ``weight``
    the weighted unmasked images and their weights in the reconstruction.
    """

    view: View
    rotation: F64
    image: I64
    row_of_particle: I32
    plane: HalfPlane
    a: tuple[F32, F32]
    b: F32
    x: tuple[F32, F32]
    model: F32
    y: tuple[F32, F32]
    weight: F32
    power: F64


@dataclass(frozen=True, eq=False)
class _Samples:
    """Significant coarse samples in order of orientation, particle, shift; and how many each particle has."""

    orientation: I64
    particle: I32
    shift: I32
    prior: F32
    count: I32


def expectation(
    chunk: ParticleSet, raw: list[F32], volume: C64, parameters: ExpectationParameters
) -> ChunkResult:
    """Compare a chunk of particles with a reference and sum what follows from it.

    Parameters
    ----------
    chunk : ParticleSet
        Particles of one half set.
    raw : list of ndarray, each of shape (box, box)
        Their images as read, in the order of the chunk's images.
    volume : ndarray
        Fourier volume of the half's reference.
    parameters : ExpectationParameters
        Everything else.

    Returns
    -------
    ChunkResult
        Sums for the maximisation step and the particles' new values.
    """
    count = len(chunk)
    base = _base_offsets(chunk)
    views = _prepare(chunk, raw, base, parameters)
    shift_prior = _shift_prior(chunk, base, parameters)
    coarse = _Coarse(views, volume, parameters)
    samples = (
        coarse.local_search(chunk, shift_prior)
        if parameters.sampling.local_sigma > 0
        else coarse.global_search(count, shift_prior)
    )
    fine = _Fine(chunk, base, views, volume, parameters)
    for batch in _batches(samples.count, parameters.sampling.fine_shifts.shape[1]):
        fine.add(samples, *batch)
    return fine.result(samples)


def _base_offsets(chunk: ParticleSet) -> F64:
    """Offsets in A that the search starts from: whole pixels for single particles."""
    if chunk.dimensions == 3:
        return chunk.offsets
    pixel = np.array([chunk.optics[v.optics].pixel_size for v in chunk.views])[chunk.image_view][:, None]
    return np.sign(chunk.offsets) * np.floor(np.abs(chunk.offsets) / pixel + 0.5) * pixel


def _shift_prior(chunk: ParticleSet, base: F64, parameters: ExpectationParameters) -> F32:
    """Log prior of each coarse shift of each particle, shape (particles, shifts)."""
    if parameters.cross_correlation:
        return np.zeros((len(chunk), len(parameters.sampling.shifts)), np.float32)
    distance = base[:, None] + parameters.sampling.shifts[None] - chunk.offset_priors[:, None]
    return (-0.5 * np.sum(distance**2, axis=2) / parameters.sigma_offset**2).astype(np.float32)


def effective_rotation(view: View, chunk: ParticleSet, parameters: ExpectationParameters) -> F64:
    """Return what multiplies an orientation so that a slice's points come out in the reference's samples."""
    optics = chunk.optics[view.optics]
    embedded = np.eye(3)
    embedded[:2, :2] = np.reshape(optics.magnification, (2, 2)).T
    return remap(optics, parameters.box, parameters.pixel_size) * embedded @ view.rotation


def _prepare(
    chunk: ParticleSet, raw: list[F32], base: F64, parameters: ExpectationParameters
) -> list[_ViewData]:
    result = []
    mean = parameters.mean_norm
    for index in np.unique(chunk.image_view):
        image = np.flatnonzero(chunk.image_view == index)
        particle = chunk.image_particle[image]
        view = chunk.views[index]
        optics = chunk.optics[view.optics]
        sigma2 = parameters.sigma2_noise[view.optics]
        moved = base[particle] @ view.projection.T / optics.pixel_size
        whole = np.floor(np.abs(moved) + 0.5).astype(np.int64) * np.sign(moved).astype(np.int64)
        if chunk.dimensions == 3:
            whole[:] = 0
        prepared = prepare_images(
            np.stack([raw[i] for i in image]),
            optics=optics,
            box=parameters.box,
            pixel_size=parameters.pixel_size,
            size=parameters.current_size,
            model=parameters.images,
            gain=mean / chunk.norm[particle] if mean > 0 else np.ones(len(image)),
            shifts=whole,
            sigma2=sigma2,
            seeds=parameters.seed + chunk.identity[particle],
            reach=partial(
                within_reach,
                rotation=effective_rotation(view, chunk, parameters),
                size=parameters.current_size,
                padding=parameters.padding,
            ),
        )
        if chunk.dimensions == 3:
            prepared = _shifted(prepared, moved)
        rows = np.full(len(chunk), -1, np.int32)
        rows[particle] = np.arange(len(image))
        result.append(_weighted(chunk, view, image, rows, prepared, parameters))
    return result


def _shifted(prepared: PreparedImages, shifts: F64) -> PreparedImages:
    """Apply sub-pixel shifts (n, 2) in pixels, for images that are not moved in real space."""
    phases = shift_phases(prepared.plane, shifts)
    return PreparedImages(
        prepared.plane, prepared.masked * phases, prepared.unmasked * phases, prepared.power
    )


def _weighted(
    chunk: ParticleSet,
    view: View,
    image: I64,
    rows: I32,
    prepared: PreparedImages,
    parameters: ExpectationParameters,
) -> _ViewData:
    plane = prepared.plane
    optics = chunk.optics[view.optics]
    model_choices = parameters.images
    transfer = contrast_transfer(plane, optics, chunk.ctf.take(image), model_choices)
    # A slice of the reference holds FFT / box^2 of the reference's box; an image's box may differ in A.
    area = np.float32(remap(optics, parameters.box, parameters.pixel_size) ** 2)
    premultiplied = optics.ctf_premultiplied and model_choices.ctf_correction
    compared = transfer if model_choices.reference_ctf_corrected else np.ones_like(transfer)
    model = area * (transfer**2 if premultiplied else compared)
    scale = parameters.scale[chunk.group[chunk.image_particle[image]]].astype(np.float32)[:, None]
    inverse = (1 / parameters.sigma2_noise[view.optics])[np.minimum(plane.shell, parameters.shells - 1)]
    inverse[plane.shell >= parameters.shells] = 0
    inverse = inverse.astype(np.float32)
    # The origin holds the background's mean: it is reconstructed but not compared.
    compared_inverse = inverse.copy()
    compared_inverse[0] = 0
    if parameters.cross_correlation:
        compared_inverse = (compared_inverse > 0).astype(np.float32)
        scale_model = model
        length = np.sqrt(np.sum(np.abs(prepared.masked) ** 2 * compared_inverse, axis=1, keepdims=True))
        a = prepared.masked * (model * compared_inverse / np.maximum(length, 1e-30))
        b = model**2 * compared_inverse
    else:
        scale_model = scale * model
        a = prepared.masked * (scale_model * compared_inverse)
        b = 0.5 * scale_model**2 * compared_inverse
    in_numerator = area * scale * (np.float32(1) if premultiplied else transfer)
    y = prepared.unmasked * (in_numerator * inverse)
    return _ViewData(
        view=view,
        rotation=effective_rotation(view, chunk, parameters),
        image=image,
        row_of_particle=rows,
        plane=plane,
        a=_split(a),
        b=np.ascontiguousarray(b, np.float32),
        x=_split(prepared.masked),
        model=np.ascontiguousarray(model, np.float32),
        y=_split(y),
        weight=np.ascontiguousarray((area * scale * transfer) ** 2 * inverse, np.float32),
        power=prepared.power,
    )


def _split(values: NDArray[np.complex64]) -> tuple[F32, F32]:
    return np.ascontiguousarray(values.real, np.float32), np.ascontiguousarray(values.imag, np.float32)


def _phases(data: _ViewData, plane: HalfPlane, chunk_optics_pixel: float, shifts: F64) -> tuple[F32, F32]:
    """Phases of shifts (blocks, 4, dimensions) in A, split, shape (blocks, 4, pixels) each."""
    return _split(shift_phases(plane, shifts @ data.view.projection.T / chunk_optics_pixel))


def _in_fours(values: F64) -> F64:
    """Arrange rows in blocks of four, the last filled up with copies of its final row."""
    fill = -len(values) % 4
    return np.concatenate([values, np.repeat(values[-1:], fill, axis=0)]).reshape(-1, 4, values.shape[-1])


class _Coarse:
    """Coarse search of all particles of a chunk."""

    def __init__(self, views: list[_ViewData], volume: C64, parameters: ExpectationParameters) -> None:
        self.views = views
        self.volume = volume
        self.parameters = parameters
        self.planes = []
        self.columns = []
        for data in views:
            full = data.plane
            optics_size = (
                int(np.ceil(parameters.coarse_size * full.size / parameters.current_size / 2 - 1e-6)) * 2
            )
            radius = min(optics_size, full.size) / 2
            inner = full.kx**2 + full.ky**2 <= radius**2
            self.planes.append(full.take(inner))
            self.columns.append(np.flatnonzero(inner))

    def _slices(self, data: _ViewData, plane: HalfPlane, matrices: F64) -> tuple[F32, F32]:
        return slices(self.volume, data.rotation @ matrices, plane, self.parameters.padding)

    def global_search(self, particles: int, shift_prior: F32) -> _Samples:
        """Score every coarse pose of every particle as matrix products."""
        sampling = self.parameters.sampling
        grid = sampling.grid
        orientations, shifts = grid.n_orientations, len(sampling.shifts)
        with np.errstate(divide="ignore"):
            log_direction = np.log(self.parameters.direction_prior).astype(np.float32)
        if self.parameters.cross_correlation:
            log_direction[:] = 0
        orientation_prior = np.repeat(log_direction, grid.n_psi)
        batch = max(1, min(particles, MEMORY // (4 * orientations * shifts)))
        block = max(64, 4096 * 512 // max(512, max(p.pixels for p in self.planes)))
        parts = []
        for first in range(0, particles, batch):
            members = np.arange(first, min(first + batch, particles))
            scores = np.zeros((orientations, len(members), shifts), np.float32)
            norms = np.zeros((orientations, len(members)), np.float32)
            for data, plane, columns in zip(self.views, self.planes, self.columns, strict=True):
                rows = data.row_of_particle[members]
                here = np.flatnonzero(rows >= 0)
                if len(here) == 0:
                    continue
                xp = array_module(self.parameters.device)
                phase = shift_phases(
                    plane, sampling.shifts @ data.view.projection.T / _pixel(data, self.parameters)
                )
                image = data.a[0][rows[here]][:, columns] + 1j * data.a[1][rows[here]][:, columns]
                moved = (image[:, None] * phase[None]).reshape(-1, plane.pixels)
                right = xp.asarray(np.concatenate([moved.real, moved.imag], axis=1).T)
                weights = data.b[rows[here]][:, columns].T
                for start in range(0, orientations, block):
                    some = np.arange(start, min(start + block, orientations))
                    re, im = self._slices(data, plane, grid.coarse_matrices(some))
                    left = xp.asarray(np.concatenate([re, im], axis=1))
                    dots = to_host(left @ right).reshape(len(some), len(here), shifts)
                    scores[some[0] : some[-1] + 1, here] += dots
                    norms[some[0] : some[-1] + 1, here] += (re**2 + im**2) @ weights
            if self.parameters.cross_correlation:
                scores /= np.sqrt(np.maximum(norms, 1e-30))[:, :, None]
                norms[:] = 0
            posterior.add_priors(scores, norms, orientation_prior, shift_prior[members])
            found = posterior.select_dense(
                scores, self.parameters.fraction, self.parameters.cross_correlation
            )
            parts.append((found[0].astype(np.int64), found[1] + np.int32(first), found[2], found[3]))
        orientation, particle, shift, count = (np.concatenate(part) for part in zip(*parts, strict=True))
        prior = orientation_prior[orientation] + shift_prior[particle, shift]
        return _ordered(orientation, particle, shift, prior, count)

    def local_search(self, chunk: ParticleSet, shift_prior: F32) -> _Samples:
        """Score the coarse poses near each particle's previous one."""
        sampling = self.parameters.sampling
        grid = sampling.grid
        pointer, candidates, weights = grid.local_candidates_many(
            chunk.poses, sampling.local_sigma, sampling.relax_group or None
        )
        particle = np.repeat(np.arange(len(chunk)), np.diff(pointer))
        # Four consecutive orientations share a slice block, whoever wants them.
        key = (candidates // 4) * len(chunk) + particle
        pairs, place = np.unique(key, return_inverse=True)
        pair_particle = (pairs % len(chunk)).astype(np.int32)
        pair_block = pairs // len(chunk)
        orientation_prior = np.full((len(pairs), 4), -np.inf, np.float32)
        orientation_prior[place, candidates % 4] = np.log(weights)
        blocks = -(-len(sampling.shifts) // 4)
        dots = np.zeros((len(pairs), blocks, 4, 4), np.float32)
        norms = np.zeros((len(pairs), 4), np.float32)
        shifts = _in_fours(sampling.shifts)
        for data, plane, columns in zip(self.views, self.planes, self.columns, strict=True):
            phases = _phases(data, plane, _pixel(data, self.parameters), shifts)
            image = tuple(np.ascontiguousarray(part[:, columns]) for part in data.a)
            weight = np.ascontiguousarray(data.b[:, columns])
            rows = data.row_of_particle[pair_particle]
            for start, stop in _segments(pair_block, plane.pixels):
                here = np.arange(start, stop)[rows[start:stop] >= 0]
                if len(here) == 0:
                    continue
                unique, block = np.unique(pair_block[here], return_inverse=True)
                four = (4 * unique[:, None] + np.arange(4)).ravel()
                re, im = self._slices(
                    data, plane, grid.coarse_matrices(np.minimum(four, grid.n_orientations - 1))
                )
                entry_dots = np.zeros((len(here) * blocks, 4, 4), np.float32)
                entry_norms = np.zeros((len(here) * blocks, 4), np.float32)
                kernels.score_entries(
                    re,
                    im,
                    *image,
                    weight,
                    *phases,
                    np.repeat(block.astype(np.int32), blocks),
                    np.repeat(rows[here], blocks),
                    np.tile(np.arange(blocks, dtype=np.int32), len(here)),
                    entry_dots,
                    entry_norms,
                )
                dots[here] += entry_dots.reshape(len(here), blocks, 4, 4)
                norms[here] += entry_norms[::blocks]
        pair, row, shift = posterior.select_sparse(
            dots,
            norms,
            pair_particle,
            orientation_prior,
            shift_prior,
            len(sampling.shifts),
            len(chunk),
            self.parameters.fraction,
        )
        orientation = 4 * pair_block[pair] + row
        chosen = pair_particle[pair]
        prior = orientation_prior[pair, row] + shift_prior[chosen, shift]
        return _ordered(orientation, chosen, shift, prior, np.bincount(chosen, minlength=len(chunk)))


def _ordered(
    orientation: NDArray[np.integer], particle: I32, shift: I32, prior: F32, count: NDArray[np.integer]
) -> _Samples:
    order = np.lexsort((shift, particle, orientation))
    return _Samples(
        orientation[order].astype(np.int64),
        particle[order],
        shift[order],
        prior[order].astype(np.float32),
        count.astype(np.int32),
    )


def slices(volume: C64, matrices: F64, plane: HalfPlane, padding: float) -> tuple[F32, F32]:
    """Central slices, split into real and imaginary parts, shape (orientations, pixels) each."""
    re = np.empty((len(matrices), plane.pixels), np.float32)
    im = np.empty_like(re)
    kernels.slice_volume(
        volume.view(np.float32), matrices.astype(np.float32), plane.kx, plane.ky, padding, re, im
    )
    return re, im


def within_reach(plane: HalfPlane, rotation: F64, size: int, padding: float) -> HalfPlane:
    """Keep the pixels of a plane whose samples lie inside the Fourier volume of a current size.

    Magnification and other pixel sizes can carry a plane's rim beyond it.
    """
    length = np.linalg.norm(np.stack([plane.kx, plane.ky], axis=1) @ rotation[:2], axis=1)
    return plane.take(padding * length < volume_limit(size, padding) - 0.01)


def _segments(block: I64, pixels: int) -> list[tuple[int, int]]:
    """Cut a sorted list of blocks of four slices into runs whose slices fit the working memory."""
    unique, first = np.unique(block, return_index=True)
    most = max(1, MEMORY // (4 * 8 * pixels))
    starts = first[::most]
    return list(zip(starts, [*starts[1:], len(block)], strict=True)) if len(unique) else []


def _batches(count: I32, fine_per_shift: int) -> list[tuple[int, int]]:
    """Cut the particles into runs whose fine scores fit the working memory."""
    cost = np.cumsum(count.astype(np.int64) * 8 * fine_per_shift * 4)
    result, first = [], 0
    while first < len(count):
        spent = cost[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(cost, spent + MEMORY, "right")))
        result.append((first, last))
        first = last
    return result


class _Fine:
    """Fine search, posterior and weighted sums, a batch of particles at a time."""

    def __init__(
        self,
        chunk: ParticleSet,
        base: F64,
        views: list[_ViewData],
        volume: C64,
        parameters: ExpectationParameters,
    ) -> None:
        self.chunk, self.base, self.views, self.volume, self.parameters = (
            chunk,
            base,
            views,
            volume,
            parameters,
        )
        sampling = parameters.sampling
        self.fine_shifts = sampling.fine_shifts.reshape(-1, 4, sampling.fine_shifts.shape[-1])
        self.shift_blocks = sampling.fine_shifts.shape[1] // 4
        self.phases = [_phases(d, d.plane, _pixel(d, parameters), self.fine_shifts) for d in views]
        self.numerator, self.weight = empty_volume(parameters.current_size, parameters.padding)
        shells = parameters.shells
        self.cross = [np.zeros((len(d.image), shells)) for d in views]
        self.power = [np.zeros((len(d.image), shells)) for d in views]
        local = sampling.local_sigma > 0
        self.directions = np.zeros(0 if local else sampling.grid.n_directions)
        self.offset_square = 0.0
        n = len(chunk)
        self.poses = chunk.poses.copy()
        self.offsets = chunk.offsets.copy()
        self.log_sum = np.zeros(n)
        self.largest = np.zeros(n)
        self.used = np.zeros(n)

    def add(self, samples: _Samples, first: int, last: int) -> None:
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
        dots = np.zeros((len(block), 4, 4), np.float32)
        norms = np.zeros((len(block), 4), np.float32)
        self._score(unique, block, entry_particle, shift_block, first, dots, norms)
        single = self.parameters.cross_correlation
        if single:
            dots /= np.sqrt(np.maximum(norms, 1e-30))[:, :, None]
            norms[:] = 0
            prior[:] = 0
        log_sum, largest, best, used = posterior.normalise(
            dots, norms, entry_particle, prior, last - first, self.parameters.fraction, single
        )
        self.log_sum[first:last], self.largest[first:last], self.used[first:last] = log_sum, largest, used
        self._best_poses(unique, block, shift_block, first, best)
        self._pose_sums(unique, block, entry_particle, shift_block, first, dots)
        self._sum(unique, block, entry_particle, shift_block, first, dots)

    def _rows(self, data: _ViewData, particle: I32, first: int) -> I32:
        return data.row_of_particle[particle + first]

    def _slices(self, data: _ViewData, unique: I64, blocks: I64) -> tuple[F64, F32, F32]:
        """Slices of whole blocks of four fine orientations, with their matrices."""
        grid = self.parameters.sampling.grid
        fine = grid.fine_matrices(unique[blocks // 2]).reshape(-1, 2, 4, 3, 3)
        matrices = data.rotation @ fine[np.arange(len(blocks)), blocks % 2].reshape(-1, 3, 3)
        return matrices, *slices(self.volume, matrices, data.plane, self.parameters.padding)

    def _score(
        self, unique: I64, block: I32, particle: I32, shift: I32, first: int, dots: F32, norms: F32
    ) -> None:
        for data, phases in zip(self.views, self.phases, strict=True):
            rows = self._rows(data, particle, first)
            for start, stop in _segments(block, data.plane.pixels):
                here = (
                    slice(start, stop)
                    if np.all(rows[start:stop] >= 0)
                    else np.arange(start, stop)[rows[start:stop] >= 0]
                )
                own, place = np.unique(block[here], return_inverse=True)
                _, re, im = self._slices(data, unique, own)
                part_dots, part_norms = dots[here], norms[here]
                kernels.score_entries(
                    re,
                    im,
                    *data.a,
                    data.b,
                    *phases,
                    place.astype(np.int32),
                    rows[here],
                    shift[here],
                    part_dots,
                    part_norms,
                )
                if not isinstance(here, slice):
                    dots[here], norms[here] = part_dots, part_norms

    def _sum(self, unique: I64, block: I32, particle: I32, shift: I32, first: int, weights: F32) -> None:
        keep = np.flatnonzero(weights.reshape(len(weights), -1).any(axis=1))
        block, particle, shift, weights = block[keep], particle[keep], shift[keep], weights[keep]
        for k, (data, phases) in enumerate(zip(self.views, self.phases, strict=True)):
            rows = self._rows(data, particle, first)
            present = np.flatnonzero(rows >= 0)
            own_block, own_rows, own_shift, own_weights = (v[present] for v in (block, rows, shift, weights))
            for start, stop in _segments(own_block, data.plane.pixels):
                here = slice(start, stop)
                own, place = np.unique(own_block[here], return_inverse=True)
                matrices, re, im = self._slices(data, unique, own)
                sums = [np.zeros_like(re) for _ in range(3)]
                kernels.sum_entries(
                    re,
                    im,
                    *data.x,
                    data.model,
                    *data.y,
                    data.weight,
                    *phases,
                    np.minimum(data.plane.shell, self.parameters.shells - 1),
                    place.astype(np.int32),
                    own_rows[here],
                    own_shift[here],
                    own_weights[here],
                    *sums,
                    self.cross[k],
                    self.power[k],
                )
                kernels.insert_slices(
                    self.numerator,
                    self.weight,
                    matrices.astype(np.float32),
                    data.plane.kx,
                    data.plane.ky,
                    self.parameters.padding,
                    *sums,
                )

    def _best_poses(self, unique: I64, block: I32, shift: I32, first: int, best: I64) -> None:
        entry, sample = best // 16, best % 16
        blocks = block[entry].astype(np.int64)
        fine = self.parameters.sampling.grid.fine_matrices(unique[blocks // 2]).reshape(-1, 8, 3, 3)
        here = slice(first, first + len(best))
        self.poses[here] = fine[np.arange(len(best)), 4 * (blocks % 2) + sample // 4]
        self.offsets[here] = self.base[here] + self.fine_shifts[shift[entry], sample % 4]

    def _pose_sums(
        self, unique: I64, block: I32, particle: I32, shift: I32, first: int, weights: F32
    ) -> None:
        here = slice(first, int(first + particle.max(initial=-1) + 1))
        direction = (unique // self.parameters.sampling.grid.n_psi)[block // 2].astype(np.int32)
        centre = (self.chunk.offset_priors - self.base)[here]
        self.offset_square += posterior.pose_sums(
            weights, particle, shift, direction, self.fine_shifts, centre, self.directions
        )

    def result(self, samples: _Samples) -> ChunkResult:
        """Turn the sums into the chunk's result."""
        chunk, parameters = self.chunk, self.parameters
        shells = parameters.shells
        noise = np.zeros((len(chunk.optics), shells))
        count = np.zeros_like(noise)
        scale_cross = np.zeros((len(chunk.groups), shells))
        scale_power = np.zeros_like(scale_cross)
        residual = np.zeros(len(chunk))
        log_likelihood = self.log_sum.copy()
        for data, cross, power in zip(self.views, self.cross, self.power, strict=True):
            particle = chunk.image_particle[data.image]
            used = self.used[particle][:, None]
            scale = parameters.scale[chunk.group[particle]][:, None]
            spectrum = data.power * used - 2 * scale * cross + scale**2 * power
            # A residual cannot be negative; rounding can make it so where the model explains all.
            spectrum = np.maximum(spectrum, 0)
            whole = half_plane(data.plane.box, data.plane.box, data.plane.scale)
            pixels = np.bincount(whole.shell[whole.shell < shells], minlength=shells)
            group = data.view.optics
            noise[group] += spectrum.sum(axis=0)
            count[group] += 2 * used.sum() * pixels
            np.add.at(scale_cross, chunk.group[particle], cross)
            np.add.at(scale_power, chunk.group[particle], power)
            np.add.at(residual, particle, spectrum.sum(axis=1))
            sigma2 = parameters.sigma2_noise[group]
            inside = np.bincount(data.plane.shell[data.plane.shell < shells], minlength=shells)
            x2 = np.zeros((len(data.image), shells))
            re, im = data.x
            for row, (r, i) in enumerate(zip(re, im, strict=True)):
                x2[row] = np.bincount(
                    np.minimum(data.plane.shell, shells - 1), r * r + i * i, minlength=shells
                )[:shells]
            constant = -0.5 * np.sum((x2 / sigma2)[:, 1:], axis=1) - np.sum(
                (inside * np.log(2 * np.pi * sigma2))[1:]
            )
            np.add.at(log_likelihood, particle, constant)
        mean = parameters.mean_norm if parameters.mean_norm > 0 else 1.0
        norm = chunk.norm / mean * np.sqrt(2 * residual) if parameters.mean_norm > 0 else chunk.norm
        if parameters.cross_correlation:
            norm = chunk.norm
        sums = ChunkSums(
            self.numerator,
            self.weight,
            noise,
            count,
            scale_cross,
            scale_power,
            self.directions,
            self.offset_square,
            float(self.used.sum()),
        )
        particles = ParticleResults(
            self.poses, self.offsets, norm, log_likelihood, self.largest, samples.count.astype(np.int64)
        )
        return ChunkResult(sums, particles)


def _pixel(data: _ViewData, parameters: ExpectationParameters) -> float:
    """Pixel size in A of a view's images: their box in A is the reference's over the remapping."""
    return parameters.box * parameters.pixel_size / data.plane.scale / data.plane.box
