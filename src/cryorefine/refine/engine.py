"""Gold-standard auto-refinement: iterate expectation and maximisation until nothing improves."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import gpus
from cryorefine.compute.executor import Executor, News, Tree
from cryorefine.geometry.euler import angles
from cryorefine.geometry.healpix import angular_step, nearest_pixels
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import angular_distance, point_group
from cryorefine.geometry.translations import (
    oversample_translations,
    translation_grid_2d,
    translation_grid_3d,
)
from cryorefine.io.files import write_whole
from cryorefine.io.images import ImageReader
from cryorefine.maps.fsc import GOLD_STANDARD, first_shell_below
from cryorefine.refine import schedule as rules
from cryorefine.refine.accuracy import estimate_accuracies
from cryorefine.refine.ctf_refinement import Stage
from cryorefine.refine.joint_ctf import refine_transfer, with_transfer
from cryorefine.refine.maximisation import MaximisationOptions, MaximisationResult, maximise
from cryorefine.refine.operations import operations
from cryorefine.refine.parameters import ExpectationParameters, ImageModel, Sampling
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.schedule import Schedule
from cryorefine.refine.state import PoseTable, State
from cryorefine.refine.sums import HalfSums
from cryorefine.refine.work import reference_volume, run_chunk

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
ScalarT = TypeVar("ScalarT", bound=np.generic)

# Particles of a chunk, which share slices; fewer where their images as read take more memory (bytes). In a
# search of the whole sphere they share most of them: there a chunk may have more, where a half set still has
# enough chunks for many workers.
LARGEST_CHUNK, SMALLEST_CHUNK = 128, 8
LARGEST_GLOBAL_CHUNK, ENOUGH_CHUNKS = 512, 8
# On a GPU a chunk's time is less, but not that of bringing its volumes back and adding them.
LARGER_ON_GPU = 8
CHUNK_MEMORY = 48 * 2**20
# Chunks of a group, which is one task of a cluster: few enough that even a quarter of a million particles
# leave hundreds of tasks, and so many of more that a task is not over in a second on the fastest device.
CHUNKS_FOR_GROUPS, LARGEST_GROUP = 128, 16
PARTICLES_FOR_ACCURACY = 100
# A tilt series has many images of a particle: fewer particles tell as much, and take as long as 100 do.
IMAGES_FOR_ACCURACY = 800
FEWEST_FOR_ACCURACY = 20
FRACTION = 0.999


@dataclass(frozen=True, eq=False)
class Settings:
    """What a refinement is told once.

    Attributes
    ----------
    images : ImageModel
        Preparation of the images and their CTF.
    symmetry, relax_symmetry : str
        Point group, and the one whose mates local searches also try (empty for none).
    padding : float
        Padding factor.
    mask : ndarray or None
        Solvent mask on the maps' grid, shape (box, box, box).
    solvent_fsc : bool
        Correct the FSC for the solvent.
    first_by_correlation : bool
        Find the first iteration's poses by cross-correlation: the reference's grey scale is unknown.
    initial_lowpass : float
        First filter of the reference in A; 0 for none.
    finer_faster : bool
        Sample finer without waiting for the poses to settle.
    seed : int
        Seed of everything random.
    correct_norm : bool
        Correct the intensities of single images.
    sigma_tilt : float
        Width in degrees of the prior on tilt angles; 0 for none.
    refine_ctf : bool
        Estimate defocus and beam tilt anew after each iteration with a local search.
    threads : int
        Threads of this process, for that estimate and for the accuracies; 0 means as many as there are cores.
    device : str
        Where this process computes.
    worker_device : str
        Where chunks are compared, if that is elsewhere: what a worker calls its device.
    scratch : Path
        Folder for the references that workers read.
    """

    images: ImageModel
    symmetry: str
    relax_symmetry: str
    padding: float
    mask: F32 | None
    solvent_fsc: bool
    first_by_correlation: bool
    initial_lowpass: float
    finer_faster: bool
    seed: int
    correct_norm: bool
    device: str
    scratch: Path
    sigma_tilt: float = 0.0
    refine_ctf: bool = False
    threads: int = 0
    worker_device: str = ""


@dataclass(frozen=True)
class ChunkDone:
    """So many chunks of the iteration's total are done."""

    iteration: int
    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """One sentence about the workers."""

    sentence: str
    warning: bool


@dataclass(frozen=True, eq=False)
class IterationDone:
    """A whole iteration: its state, the maps that only it has, and how long it took in seconds."""

    state: State
    result: MaximisationResult
    current_size: int
    coarse_size: int
    notices: tuple[str, ...]
    seconds: float


def begin_iteration(state: State, settings: Settings) -> Schedule:
    """Turn the sampling a little."""
    schedule = state.schedule
    rng = np.random.default_rng((settings.seed, state.iteration + 1, 0))
    return replace(schedule, perturbation=rules.draw_perturbation(schedule.perturbation, rng))


def make_sampling(schedule: Schedule, settings: Settings, pixel_size: float, dimensions: int) -> Sampling:
    """Trial poses of an iteration."""
    group = "C1" if schedule.is_local else settings.symmetry
    grid = SamplingGrid(schedule.order, group, schedule.perturbation)
    step, reach = schedule.offset_step, schedule.offset_range
    make = translation_grid_3d if dimensions == 3 else translation_grid_2d
    shifts = make(reach, step, schedule.perturbation)
    fine = oversample_translations(shifts, step)
    return Sampling(grid, schedule.local_sigma, settings.relax_symmetry, shifts, fine)


def iterate(
    state: State, particles: ParticleSet, reader: ImageReader, settings: Settings, executor: Executor
) -> Generator[ChunkDone | Note | Stage, None, IterationDone]:
    """Do one iteration.

    Parameters
    ----------
    state : State
        After the iteration before.
    particles : ParticleSet
        All particles; their poses and offsets are taken from the state.
    reader : ImageReader
        Of their images.
    settings : Settings
        Of the whole refinement.
    executor : Executor
        Runs the chunks.

    Returns
    -------
    IterationDone
        Through ``StopIteration``; progress is yielded.
    """
    began = time.monotonic()
    iteration = state.iteration + 1
    first = iteration == 1 and settings.first_by_correlation
    schedule = begin_iteration(state, settings)
    box = state.halves[0].reference.shape[0]
    pixel = state.pixel_size
    diameter = settings.images.mask_diameter
    size = rules.current_size(schedule, box, pixel)
    current = with_transfer(_with_poses(particles, state.table), state.transfer)
    references = _write_references(state, settings)

    def parameters(half: int, plan: Schedule, sampling: Sampling) -> ExpectationParameters:
        model = state.halves[half]
        images = settings.images
        if iteration > 1:
            images = replace(images, reference_ctf_corrected=True)
        directions = sampling.grid.n_directions
        prior = model.direction_prior
        if len(prior) != directions:
            prior = np.full(directions, 1 / directions)
        return ExpectationParameters(
            reference=references[half],
            pixel_size=pixel,
            padding=settings.padding,
            current_size=size,
            coarse_size=rules.coarse_size(angular_step(plan.order), diameter, box, pixel, size),
            screening_size=rules.screening_size(plan, diameter, box, pixel, size),
            images=images,
            sampling=sampling,
            sigma2_noise=model.sigma2_noise,
            direction_prior=prior,
            sigma_offset=model.sigma_offset,
            scale=model.scale,
            mean_norm=model.mean_norm if settings.correct_norm else 0.0,
            cross_correlation=first,
            fraction=FRACTION,
            seed=settings.seed,
            sigma_tilt=settings.sigma_tilt,
            device=settings.worker_device or settings.device,
            image_count=int(np.count_nonzero(state.half[current.image_particle] == half + 1)),
        )

    if not first:
        schedule = _with_accuracies(
            schedule,
            current,
            reader,
            state,
            settings,
            parameters(0, schedule, _sampling(schedule, settings, pixel, current)),
        )
        if iteration > 1:
            schedule = rules.refine_sampling(
                schedule,
                diameter=diameter,
                finest=2 * box * pixel / size,
                faster=settings.finer_faster,
                dimensions=current.dimensions,
            )
            # The iteration that finds that nothing is left to gain is the last one itself.
            schedule = replace(schedule, converged=rules.has_converged(schedule, settings.finer_faster))
            size = rules.current_size(schedule, box, pixel)
    sampling = _sampling(schedule, settings, pixel, current)
    plan = [parameters(h, schedule, sampling) for h in range(2)]
    members = [np.flatnonzero(state.half == h + 1) for h in range(2)]
    chunk = chunk_size(particles, settings.worker_device or settings.device, schedule.is_local)
    trees: list[Tree] = [grouped(_pieces(m, state.table.poses, chunk)) for m in members]
    sums, table = yield from _compare(iteration, trees, executor, current, reader, plan, state.table)

    def by_half(values: NDArray[ScalarT]) -> tuple[NDArray[ScalarT], NDArray[ScalarT]]:
        return values[members[0]], values[members[1]]

    options = MaximisationOptions(
        size=size,
        box=box,
        pixel_size=pixel,
        padding=settings.padding,
        symmetry=settings.symmetry,
        resolution=schedule.resolution,
        last=schedule.converged,
        first=first,
        initial_lowpass=settings.initial_lowpass,
        mask=settings.mask,
        mask_diameter=diameter,
        solvent_fsc=settings.solvent_fsc,
        dimensions=current.dimensions,
        device=settings.device,
    )
    result = maximise(
        sums,
        state.halves,
        options,
        group=by_half(particles.group),
        norms=by_half(table.norm),
        weights=by_half(table.largest_weight),
        likelihoods=by_half(table.log_likelihood),
    )
    schedule, notices = _after(schedule, state, result, table, settings, size)
    transfer = state.transfer
    if settings.refine_ctf and schedule.is_local and not schedule.converged:
        transfer, doubts = yield from refine_transfer(
            _with_poses(current, table),
            (result.halves[0].reference, result.halves[1].reference),
            settings.mask,
            result.fsc,
            pixel_size=pixel,
            mask_diameter=diameter,
            symmetry=settings.symmetry,
            seed=settings.seed,
            threads=settings.threads,
            device=settings.device,
        )
        notices += doubts
    new = State(iteration, pixel, result.halves, table, state.half, result.fsc, schedule, transfer)
    for path in references:
        path.unlink(missing_ok=True)
    return IterationDone(
        new, result, size, plan[0].coarse_size, result.notices + notices, time.monotonic() - began
    )


def _sampling(schedule: Schedule, settings: Settings, pixel: float, current: ParticleSet) -> Sampling:
    return make_sampling(schedule, settings, pixel, current.dimensions)


def _with_poses(particles: ParticleSet, table: PoseTable) -> ParticleSet:
    return replace(particles, poses=table.poses, offsets=table.offsets, norm=table.norm)


def _write_references(state: State, settings: Settings) -> list[Path]:
    """Put both references where every worker can read them.

    A file is named after what it holds: a network's file system may show a worker the older one of two
    files of the same name.
    """
    for left in settings.scratch.glob("reference_half?_*.npy"):
        left.unlink()  # by a run that was killed
    paths = []
    for h, model in enumerate(state.halves):
        digest = hashlib.blake2b(np.ascontiguousarray(model.reference).data, digest_size=8).hexdigest()
        path = settings.scratch / f"reference_half{h + 1}_{digest}.npy"
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, model.reference)
        paths.append(path)
    return paths


def _compare(
    iteration: int,
    trees: list[Tree],
    executor: Executor,
    current: ParticleSet,
    reader: ImageReader,
    plan: list[ExpectationParameters],
    table: PoseTable,
) -> Generator[ChunkDone | Note, None, tuple[tuple[HalfSums, HalfSums], PoseTable]]:
    """Compare all chunks of both half sets with their references; returns sums and the new table."""

    def arguments(half: int, piece: I64) -> tuple[ParticleSet, ImageReader, ExpectationParameters]:
        return current.take(piece), reader, plan[half]

    columns = {field.name: getattr(table, field.name).copy() for field in dataclasses.fields(table)}
    total = sum(len(group) for tree in trees for group in tree)
    done = 0
    running = executor.reduce(run_chunk, arguments, trees)
    yield ChunkDone(iteration, done, total)
    while True:
        try:
            event = next(running)
        except StopIteration as stop:
            first, second = stop.value
            return (first, second), PoseTable(**columns)
        if isinstance(event, News):
            if event.sentence:
                yield Note(event.sentence, event.warning)
            if done == total:
                continue  # only the sums are on their way
        else:
            done += 1
            for name, column in columns.items():
                column[event.chunk] = getattr(event.value, name)
        yield ChunkDone(iteration, done, total)


def _with_accuracies(
    schedule: Schedule,
    current: ParticleSet,
    reader: ImageReader,
    state: State,
    settings: Settings,
    parameters: ExpectationParameters,
) -> Schedule:
    """Estimate from a random sample of half 1 how accurate its poses are."""
    if state.iteration == 0:
        return schedule
    members = np.flatnonzero(state.half == 1)
    rng = np.random.default_rng((settings.seed, state.iteration + 1, 1))
    images = len(current.image_names) / len(current)
    wanted = int(np.clip(IMAGES_FOR_ACCURACY / images, FEWEST_FOR_ACCURACY, PARTICLES_FOR_ACCURACY))
    sample = np.sort(rng.permutation(members)[:wanted])
    volume = reference_volume(parameters)
    threads = settings.threads or len(os.sched_getaffinity(0))
    with operations(settings.device, volume) as where:
        angle, shift = estimate_accuracies(current.take(sample), reader, volume, parameters, where, threads)
    return replace(schedule, accuracy_angle=angle, accuracy_shift=shift)


def chunk_size(particles: ParticleSet, device: str, local: bool) -> int:
    """Particles of a chunk, by the search, and by the memory that their images take on average."""
    largest, memory = LARGEST_CHUNK, CHUNK_MEMORY
    if device.startswith("gpu") or gpus(device):
        largest, memory = LARGER_ON_GPU * largest, LARGER_ON_GPU * memory
    elif not local:
        largest = int(np.clip(len(particles) // (2 * ENOUGH_CHUNKS), largest, LARGEST_GLOBAL_CHUNK))
    optics = np.array([view.optics for view in particles.views])[particles.image_view]
    values = np.array([float(group.box) ** group.dimensions for group in particles.optics])
    mean = 4 * values[optics].sum() / len(particles)
    return int(np.clip(memory // mean, SMALLEST_CHUNK, largest))


def _pieces(members: I64, poses: F64, chunk: int) -> list[I64]:
    """Cut a half set into equal chunks of similar views, which share more slices.

    How depends on the poses alone, not on who works on the chunks.
    """
    rot, tilt, psi = angles(poses[members])
    order = np.lexsort((members, np.floor(psi / 15), nearest_pixels(rot, tilt, 3)))
    count = max(1, -(-len(members) // chunk))
    return [piece for piece in np.array_split(members[order], count) if len(piece)]


def grouped(pieces: list[I64]) -> list[list[I64]]:
    """Put chunks into groups; how depends on their number alone, not on who works on them."""
    size = int(np.clip(len(pieces) // CHUNKS_FOR_GROUPS, 1, LARGEST_GROUP))
    return [pieces[k : k + size] for k in range(0, len(pieces), size)]


def _after(
    schedule: Schedule,
    before: State,
    result: MaximisationResult,
    table: PoseTable,
    settings: Settings,
    size: int,
) -> tuple[Schedule, tuple[str, ...]]:
    """Note resolution, changes and limits of the iteration that has just been done."""
    fsc = result.fsc
    edge = 2 * (len(fsc) - 1) * before.pixel_size
    notices: list[str] = []
    half = _first_below(fsc, 0.5)
    gold = _first_below(fsc, GOLD_STANDARD)
    increment = max(schedule.increment, gold - half + 5)
    at_limit = schedule.high_fsc_at_limit or bool(fsc[size // 2 - 1] > 0.2)
    shell, rose = rules.resolution_shell(result.halves[0].ssnr)
    if rose:
        notices.append(
            "The FSC dipped below 0.5 and rose again; look at the map: the particles may be misaligned or "
            "the mask may be too tight."
        )
    if before.iteration == 0 and settings.first_by_correlation and settings.initial_lowpass > 0:
        shell = int(np.floor(edge / settings.initial_lowpass + 0.5))
    schedule = rules.count_gain(schedule, shell / edge)
    moved = table.offsets - before.table.offsets
    dimensions = moved.shape[1]
    offset = float(np.sqrt(np.mean(np.sum(moved**2, axis=1)) / dimensions))
    angle = float(np.mean(angular_distance(table.poses, before.table.poses, point_group(settings.symmetry))))
    schedule = rules.count_changes(schedule, angle, offset)
    schedule = replace(
        schedule,
        increment=increment,
        high_fsc_at_limit=at_limit,
        mean_largest_weight=result.halves[0].mean_largest_weight,
    )
    return schedule, tuple(notices)


def _first_below(fsc: F64, threshold: float) -> int:
    shell = first_shell_below(fsc, threshold)
    return len(fsc) - 1 if shell is None else shell


def refine(
    state: State, particles: ParticleSet, reader: ImageReader, settings: Settings, executor: Executor
) -> Generator[ChunkDone | Note | Stage | IterationDone, None, State]:
    """Iterate until convergence, then once more with both halves joined."""
    while True:
        outcome = yield from iterate(state, particles, reader, settings, executor)
        yield outcome
        state = outcome.state
        if state.schedule.converged:
            return state
