"""One chunk of particles against one reference: the pure function that all scheduling is built on.

The result depends on the chunk's particles and the parameters alone, never on how many chunks run
side by side or where. A global search scores all coarse poses of many particles at once as matrix
products; a local search, and the fine poses in every search, are lists of (four slices) x (image) x
(four shifts) for the compiled kernels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.place import shortage
from cryorefine.errors import UserWarningMessage
from cryorefine.refine.chunk_images import ViewData, prepare_views, shift_prior
from cryorefine.refine.coarse import CoarseSearch, Samples
from cryorefine.refine.fine import FineSearch, batches
from cryorefine.refine.half_plane import half_plane, pixels_per_shell
from cryorefine.refine.insertion import VolumeSums
from cryorefine.refine.operations import PROCESSOR, Operations, ProcessorOperations, operations
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.volume import C64, F32, ReferenceVolume

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


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
    volume : VolumeSums
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

    volume: VolumeSums
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


def expectation(
    chunk: ParticleSet,
    raw: list[F32],
    volume: C64 | ReferenceVolume,
    parameters: ExpectationParameters,
    squared_ctf: list[F32] | None = None,
) -> ChunkResult:
    """Compare a chunk of particles with a reference and sum what follows from it.

    Parameters
    ----------
    chunk : ParticleSet
        Particles of one half set.
    raw : list of ndarray, each of shape (box, box) or (box, box, box)
        Their images as read, in the order of the chunk's images.
    volume : ndarray or ReferenceVolume
        Fourier volume of the half's reference.
    parameters : ExpectationParameters
        Everything else.
    squared_ctf : list of ndarray, each of shape (box, box, box/2 + 1), or None
        What volumes hold of the CTF.

    Returns
    -------
    ChunkResult
        Sums for the maximisation step and the particles' new values.
    """
    with operations(parameters.device, volume) as where:
        return _in_parts(chunk, raw, volume, parameters, squared_ctf, where)


def _in_parts(
    chunk: ParticleSet,
    raw: list[F32],
    volume: C64 | ReferenceVolume,
    parameters: ExpectationParameters,
    squared_ctf: list[F32] | None,
    operations: Operations,
) -> ChunkResult:
    """Halve the chunk and the working memory until a GPU's memory suffices; at last do without the GPU."""
    try:
        with shortage():
            return _compare(chunk, raw, operations.volume(volume), parameters, squared_ctf, operations)
    except MemoryError:
        if isinstance(operations, ProcessorOperations):
            raise
    # Only here is what the failed attempt held let go.
    if not operations.shrink():
        warnings.warn(
            f"The GPU's memory is too small for particles of {parameters.box} pixels compared up to size "
            f"{parameters.current_size}, so that the processor compares them; --padding 1 takes less memory.",
            UserWarningMessage,
            stacklevel=2,
        )
        return _compare(chunk, raw, PROCESSOR.volume(volume), parameters, squared_ctf, PROCESSOR)
    middle = len(chunk) // 2
    order = np.argsort(chunk.image_particle, kind="stable")
    parts = []
    for first, last in ((0, middle), (middle, len(chunk))):
        if first == last:
            continue
        owner = chunk.image_particle[order]
        images = order[(owner >= first) & (owner < last)]
        parts.append(
            _in_parts(
                chunk.take(np.arange(first, last)),
                [raw[i] for i in images],
                volume,
                parameters,
                None if squared_ctf is None else [squared_ctf[i] for i in images],
                operations,
            )
        )
    return joined(*parts) if len(parts) == 2 else parts[0]


def joined(first: ChunkResult, second: ChunkResult) -> ChunkResult:
    """Return the result of two chunks as that of one."""
    sums: dict[str, Any] = {"volume": first.sums.volume.plus(second.sums.volume)}
    for name, values in vars(first.sums).items():
        if name not in sums:
            sums[name] = values + getattr(second.sums, name)
    particles = {
        name: np.concatenate([values, getattr(second.particles, name)])
        for name, values in vars(first.particles).items()
    }
    return ChunkResult(ChunkSums(**sums), ParticleResults(**particles))


def _compare(
    chunk: ParticleSet,
    raw: list[F32],
    volume: C64,
    parameters: ExpectationParameters,
    squared_ctf: list[F32] | None,
    operations: Operations,
) -> ChunkResult:
    """Do as :func:`expectation`, on a volume that lives where the operations do."""
    views = prepare_views(chunk, raw, parameters, squared_ctf, operations)
    prior = shift_prior(chunk, parameters)
    coarse = CoarseSearch(views, volume, parameters, operations)
    if parameters.sampling.local_sigma > 0:
        samples = coarse.local_search(chunk, prior)
    else:
        samples = coarse.global_search(chunk, prior)
    fine = FineSearch(chunk, views, volume, parameters, operations)
    for batch in batches(samples.count, parameters.sampling.fine_shifts.shape[1], operations.memory):
        fine.add(samples, *batch)
    return _result(chunk, samples, fine, parameters, operations)


def _result(
    chunk: ParticleSet,
    samples: Samples,
    fine: FineSearch,
    parameters: ExpectationParameters,
    operations: Operations,
) -> ChunkResult:
    """Turn the spectra of models and images into noise, scale and norm."""
    shells = parameters.shells
    noise = np.zeros((len(chunk.optics), shells))
    count = np.zeros_like(noise)
    scale_cross = np.zeros((len(chunk.groups), shells))
    scale_power = np.zeros_like(scale_cross)
    residual = np.zeros(len(chunk))
    log_likelihood = fine.log_sum.copy()
    for data, *spectra in zip(fine.views, fine.cross, fine.power, strict=True):
        cross, power = (operations.host(each) for each in spectra)
        particle = chunk.image_particle[data.image]
        used = fine.used[particle][:, None]
        scale = parameters.scale[chunk.group[particle]][:, None]
        # |X - scale m|^2 summed over shells; it cannot be negative, but rounding can make it so.
        spectrum = np.maximum(data.power * used - 2 * scale * cross + scale**2 * power, 0)
        group = data.view.optics
        noise[group] += spectrum.sum(axis=0)
        # An image's power holds that of the real and of the imaginary parts.
        count[group] += 2 * (used * data.independent).sum(axis=0)
        np.add.at(scale_cross, chunk.group[particle], cross)
        np.add.at(scale_power, chunk.group[particle], power)
        np.add.at(residual, particle, spectrum.sum(axis=1))
        np.add.at(log_likelihood, particle, _constant(data, parameters.sigma2_noise[group], operations))
    norm = chunk.norm
    if parameters.mean_norm > 0 and not parameters.cross_correlation:
        # The variance of an image is that of the real and of the imaginary parts together.
        norm = chunk.norm / parameters.mean_norm * np.sqrt(2 * residual)
    sums = ChunkSums(
        fine.insertion.kept(),
        noise,
        count,
        scale_cross,
        scale_power,
        fine.directions,
        fine.offset_square,
        float(fine.used.sum()),
    )
    particles = ParticleResults(
        fine.poses, fine.offsets, norm, log_likelihood, fine.largest, samples.count.astype(np.int64)
    )
    return ChunkResult(sums, particles)


def _constant(data: ViewData, sigma2: F64, operations: Operations) -> F64:
    """Part of each image's log-likelihood that no pose changes, shape (images,)."""
    shells = len(sigma2)
    compared = np.flatnonzero((data.plane.shell > 0) & (data.plane.shell < shells))
    shell = data.plane.shell[compared]
    whole = half_plane(data.plane.box, data.plane.box, data.plane.scale, data.plane.dimensions)
    # Of the noise of premultiplied images the CTF has left a part, here its mean over a shell.
    left = data.independent / np.maximum(pixels_per_shell(whole, shells), 1)
    xp = operations.xp
    variance = xp.asarray(np.maximum(sigma2 * left, 1e-300))[:, xp.asarray(shell)]
    re, im = (part[:, xp.asarray(compared)].astype(np.float64) for part in data.x)
    total = xp.sum(-0.5 * (re**2 + im**2) / variance - xp.log(2 * np.pi * variance), axis=1)
    return np.asarray(operations.host(total))
