"""The steps of a reconstruction: what goes in, the sums over particles, the maps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import gpus, to_host
from cryorefine.compute.gpu_turns import free_memory
from cryorefine.compute.memory import physical_memory
from cryorefine.compute.place import Place, shortage
from cryorefine.errors import UserError
from cryorefine.geometry.symmetry import point_group
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import write_map
from cryorefine.io.optimisation_set import OptimisationSet
from cryorefine.io.particles import group_index, project_root
from cryorefine.io.tomograms import MissingImages, TiltSeries, read_tomograms
from cryorefine.jobs.base import Notice, Progress, Run
from cryorefine.maps import fft
from cryorefine.maps.slabs import thread_count
from cryorefine.refine.particle_reconstruction import (
    cropped,
    empty_sums,
    insert_images,
    solve,
    split_sums,
    symmetric_mean,
)
from cryorefine.refine.volume import map_from_fourier
from cryorefine.tomo.extraction import Transfer, Window, extract, soft_circle, window
from cryorefine.tomo.geometry import image_rotations, project, visible_images
from cryorefine.tomo.operations import PROCESSOR, Circle, Operations
from cryorefine.tomo.particles import (
    Subtomograms,
    doubtful_coordinates,
    positions_in_stack,
    read_subtomograms,
)
from cryorefine.tomo.pseudo_volume import LEAST_DOSE_WEIGHT
from cryorefine.tomo.tilt_images import TiltImages
from cryorefine.tomo.unseen import too_large_a_box, why_none_is_seen

if TYPE_CHECKING:
    from cryorefine.jobs.reconstruct_particle import Options

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]
Images = Callable[[int, Operations], tuple[C64, F32, Index]]
"""Gives the transforms, gains and tilts of one of a batch's particles, made by some operations."""

LEFT_GPU = "The GPU's memory was too small for a part of the particles, which the processor summed up."
_PARTS = 16
_PARTICLES = 64
_MEMORY = 4 << 30


@dataclass(frozen=True, eq=False)
class Batch:
    """The particles of one tilt series and optics group.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        The particles.
    images : callable
        Gives the images of the n-th of them.
    orientations : ndarray, shape (n, tilts, 3, 3)
        From the reference to each image.
    keep : ndarray of bool, shape (tilts, pixels)
        Pixels of which the dose has left enough.
    ratio : float
        Width of the images in A over that of the map.
    """

    rows: Index
    images: Images
    orientations: F64
    keep: NDArray[np.bool_]
    ratio: float


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a reconstruction works on.

    Attributes
    ----------
    particles : Subtomograms
        The particles.
    batches : list of Batch
        Their images.
    box, crop : int
        Edge of the maps before and after cropping, in px.
    pixel_size : float
        Of the maps in A.
    notices : list of (str, bool)
        Sentences, and whether something is probably wrong.
    """

    particles: Subtomograms
    batches: list[Batch]
    box: int
    crop: int
    pixel_size: float
    notices: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of particles."""
        return sum(len(batch.rows) for batch in self.batches)

    @property
    def halves(self) -> tuple[int, ...]:
        """The half sets, 1 and 2; nothing when the particles are not in two halves."""
        return (1, 2) if len(self._half_sets) == 2 else ()

    @property
    def without_halves(self) -> str:
        """Why there are no half sets, as the beginning of a sentence."""
        if self._half_sets == (0,):
            return "The particles have no halves (rlnRandomSubset)"
        return f"All particles are in half set {self._half_sets[0]} (rlnRandomSubset)"

    @property
    def _half_sets(self) -> tuple[int, ...]:
        found = np.concatenate([self.particles.half[batch.rows] for batch in self.batches])
        return tuple(np.unique(found).tolist())


def read_inputs(options: Options, entries: OptimisationSet) -> Inputs:
    """Read the tables and open the images."""
    assert entries.particles is not None
    assert entries.tomograms is not None
    from_stacks = options.source == "stacks"
    if not from_stacks:
        try:
            particles = read_subtomograms(
                entries.particles, read_tomograms(entries.tomograms), entries.trajectories
            )
        except MissingImages:
            if options.source == "tilt-images":
                raise
            from_stacks = True
    if from_stacks:
        tomograms = read_tomograms(entries.tomograms, images=False)
        particles = read_subtomograms(entries.particles, tomograms, entries.trajectories)
    inputs = _stacks(options, particles) if from_stacks else _tilt_images(options, particles)
    box = 0 if from_stacks else window(options.box_size, options.crop_size, options.binning).unbinned
    for sentence in (doubtful_coordinates(particles), too_large_a_box(particles, box)):
        if sentence:
            inputs.notices.append((sentence, True))
    if inputs.count == 0:
        raise UserError(_why_none(options, particles, from_stacks))
    _check_halves(particles)
    if inputs.count < len(particles):
        missing = len(particles) - inputs.count
        inputs.notices.append(
            (f"{missing} of {len(particles)} particles are left out: no image shows them wholly.", False)
        )
    return inputs


def _why_none(options: Options, particles: Subtomograms, from_stacks: bool) -> str:
    """Return what to change when there is nothing to sum up."""
    if from_stacks:
        return (
            f"No stack of {particles.file.path} has a visible image with a dose of at most "
            f"{options.max_dose or np.inf:g} e/A^2; give a higher --max-dose or look at rlnTomoVisibleFrames."
        )
    if "rlnTomoVisibleFrames" in particles.file.particles and not any(
        particles.visible_frames(series, rows).any() for series, rows in particles.by_tomogram()
    ):
        return (
            f"No particle of {particles.file.path} has a visible image (rlnTomoVisibleFrames); extract the "
            "particles again or remove the column."
        )
    radius = window(options.box_size, options.crop_size, options.binning).radius
    return why_none_is_seen(particles, radius, options.max_dose)


def _check_halves(particles: Subtomograms) -> None:
    wrong = particles.half[~np.isin(particles.half, (1, 2))]
    if len(wrong) and particles.half.any():
        raise UserError(
            f"{particles.file.path} has rlnRandomSubset {wrong[0]}; give every particle 1 or 2, or remove "
            "the column."
        )


def insert_all(options: Options, inputs: Inputs, stage: str) -> Run[list[F32]]:
    """Sum up the images of all particles; return the sums of both halves, or of everything.

    Particles are dealt into a number of parts that depends on their number and the box alone, and the
    parts' sums are added in order, so that the maps do not depend on the number of threads.
    """
    halves = inputs.halves
    room = _MEMORY // (2 * empty_sums_bytes(inputs.box))
    parts = max(1, min(_PARTS, inputs.count // _PARTICLES, room))
    threads = thread_count(options.threads)
    count = len(halves) or 1
    _check_memory(inputs.box, count + min(threads, parts * count))
    totals: list[F32] = []
    done = _Counter()
    gpus(options.device)  # is refused where it cannot be used
    jobs = [(k, part) for part in range(parts) for k in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        futures = [
            pool.submit(
                _insert_part, options.device, inputs, halves[k] if halves else None, part, parts, done
            )
            for k, part in jobs
        ]
        try:
            for (k, _), future in zip(jobs, futures, strict=True):
                while not future.done():
                    wait([future], timeout=0.2, return_when=FIRST_EXCEPTION)
                    yield Progress(stage, done.value, inputs.count + 1)
                sums, left_gpu = future.result()
                if len(totals) < count:
                    totals.append(sums)
                else:
                    totals[k] += sums
                if left_gpu:
                    yield Notice(LEFT_GPU, warning=True)
        finally:
            done.stopped = True
            for future in futures:
                future.cancel()
    return totals


def _check_memory(box: int, sums: int) -> None:
    """Refuse a box whose sums this machine cannot hold, before hours are spent on them."""
    needed, there = sums * empty_sums_bytes(box), physical_memory()
    if needed > there:
        raise UserError(
            f"--box-size {box} needs {needed / 2**30:.0f} GB of memory for the sums, but this machine has "
            f"{there / 2**30:.0f} GB; give a smaller box or fewer --threads."
        )


def empty_sums_bytes(box: int) -> int:
    """Return the memory of :func:`empty_sums`."""
    return 16 * (box + 1) ** 2 * (box // 2 + 2)


def write_maps(options: Options, inputs: Inputs, sums: list[F32], place: Place) -> dict[str, Path]:
    """Solve for half maps and map, where they belong, and write them; return name -> file."""
    operators = point_group(options.symmetry).operators
    threads = thread_count(options.threads)
    # A GPU belongs to one thread.
    with ThreadPoolExecutor(1 if place.on_gpu else min(2, threads)) as pool:

        def mean(one: F32) -> tuple[C64, F32]:
            return place.do(symmetric_mean, *split_sums(one), operators=operators)

        means = list(pool.map(mean, sums))
        named = dict(zip(("half1", "half2"), means, strict=True)) if len(means) == 2 else {}
        named["merged"] = place.do(_sum, *means[0], *means[1]) if len(means) == 2 else means[0]

        def solved(item: tuple[str, tuple[C64, F32]]) -> tuple[str, Path]:
            name, (numerator, weight) = item
            path = options.output / f"{name}.mrc"
            few = max(1, threads // 2)
            volume = place.do(solve, numerator, weight, inputs.box, snr=options.snr, threads=few)
            if options.sums:
                data = map_from_fourier(to_host(numerator), inputs.box, 1.0, threads)
                data /= np.float32(inputs.box) ** 2
                write_map(path.with_name(f"data_{name}.mrc"), data, inputs.pixel_size)
                write_map(path.with_name(f"weight_{name}.mrc"), _whole(to_host(weight)), inputs.pixel_size)
            if inputs.crop < inputs.box:
                write_map(path.with_name(f"{name}_full.mrc"), volume, inputs.pixel_size)
            write_map(path, cropped(volume, inputs.crop), inputs.pixel_size)
            return name, path

        return dict(pool.map(solved, named.items()))


class _Counter:
    """How many particles all threads together have done, and this one, and whether they should stop."""

    def __init__(self) -> None:
        self.value = 0
        self.stopped = False
        self._lock = threading.Lock()
        self._own = threading.local()

    @property
    def here(self) -> int:
        """How many this thread has done."""
        return getattr(self._own, "value", 0)

    def add(self, count: int = 1) -> None:
        self._own.value = self.here + count
        with self._lock:
            self.value += count


def _sum(data: C64, weight: F32, more_data: C64, more_weight: F32) -> tuple[C64, F32]:
    return data + more_data, weight + more_weight


def _insert_part(
    device: str, inputs: Inputs, half: int | None, part: int, parts: int, done: _Counter
) -> tuple[F32, bool]:
    """Sum up a part; tells whether the memory of the GPU asked for was too small for it."""
    if device == "cpu":
        return _inserted(PROCESSOR, inputs, half, part, parts, done), False
    from cryorefine.refine.gpu.extraction import extraction

    before = done.here
    with extraction(device) as where:
        try:
            with shortage():
                return to_host(_inserted(where, inputs, half, part, parts, done)), False
        except MemoryError:
            if where is PROCESSOR:
                raise
        free_memory()
    # What was done is done again.
    done.add(before - done.here)
    return _inserted(PROCESSOR, inputs, half, part, parts, done), True


def _inserted(
    where: Operations, inputs: Inputs, half: int | None, part: int, parts: int, done: _Counter
) -> F32:
    sums = where.array(empty_sums(inputs.box))
    for batch in inputs.batches:
        mine = np.arange(part, len(batch.rows), parts)
        if half is not None:
            mine = np.flatnonzero(inputs.particles.half[batch.rows] == half)[part::parts]
        for index in mine:
            if done.stopped:
                return sums
            spectra, gain, tilts = batch.images(int(index), where)
            insert_images(
                sums, spectra, gain, batch.keep[tilts], batch.orientations[index, tilts], batch.ratio
            )
            done.add()
    return sums


def _tilt_images(options: Options, particles: Subtomograms) -> Inputs:
    """Make batches that cut particles out of tilt images."""
    shape = window(options.box_size, options.crop_size, options.binning)
    groups = group_index(particles.file)
    # A circle about the box in the tilt images, as large as it.
    circle = soft_circle(shape.unbinned, shape.unbinned)
    batches: list[Batch] = []
    first_pixel = 0.0
    for series, rows in particles.by_tomogram():
        first_pixel = first_pixel or series.pixel_size
        centres, depths = project(series, particles.positions(series, rows))
        visible = visible_images(series, centres, shape.radius, options.max_dose)
        visible &= particles.visible_frames(series, rows)
        images = TiltImages(series)
        for group in np.unique(groups[rows]):
            mine = np.flatnonzero((groups[rows] == group) & visible.any(axis=1))
            if len(mine) == 0:
                continue
            optics = particles.file.optics_columns.row(group)
            transfer = Transfer(series, optics, shape.box, series.pixel_size * shape.binning)
            batches.append(
                Batch(
                    rows=rows[mine],
                    images=_cutter(
                        images, shape, transfer, circle, centres[mine], depths[mine], visible[mine]
                    ),
                    orientations=_orientations(particles, series, rows[mine]),
                    keep=transfer.dose > LEAST_DOSE_WEIGHT,
                    ratio=series.pixel_size / first_pixel,
                )
            )
    return Inputs(particles, batches, shape.box, shape.crop, first_pixel * shape.binning)


def _cutter(
    images: TiltImages,
    shape: Window,
    transfer: Transfer,
    circle: Circle,
    centres: F64,
    depths: F64,
    visible: NDArray[np.bool_],
) -> Images:
    def cut(index: int, where: Operations) -> tuple[C64, F32, Index]:
        tilts = np.flatnonzero(visible[index])
        spectra, gain = extract(
            images, shape, transfer, centres[index], depths[index], tilts, level=circle, where=where
        )
        assert gain is not None
        return spectra, gain, tilts

    return cut


def _stacks(options: Options, particles: Subtomograms) -> Inputs:
    """Make batches that read extracted stacks."""
    file = particles.file
    for label in ("rlnImageName", "rlnTomoVisibleFrames", "rlnImagePixelSize"):
        if label not in file and label not in file.optics_columns:
            raise UserError(
                f"{file.path} has no stacks to read (it lacks {label}) and the tilt images are not there; "
                "extract the particles first or restore the tilt images."
            )
    table = file.optics_columns
    if "rlnImageDimensionality" in table and (table.numbers("rlnImageDimensionality") == 3).any():
        raise UserError(
            f"{file.path} holds 3D pseudo-subtomograms, and the tilt images are not there; reconstruct "
            "from 2D stacks or restore the tilt images."
        )
    names = file.columns.words("rlnImageName")
    reader = ImageReader(project_root(file.path or Path(), str(names[0])))
    groups = group_index(file)
    box = reader.shape(str(names[0]))[0]
    pixel_size = float(table["rlnImagePixelSize"][groups[0]])
    batches: list[Batch] = []
    for series, rows in particles.by_tomogram():
        _, depths = project(series, particles.positions(series, rows))
        frames = particles.visible_frames(series, rows)
        dose = series.dose <= options.max_dose if options.max_dose else np.ones(len(series), bool)
        for group in np.unique(groups[rows]):
            mine = np.flatnonzero((groups[rows] == group) & (frames & dose).any(axis=1))
            if len(mine) == 0:
                continue
            optics = table.row(group)
            size = reader.shape(str(names[rows[mine[0]]]))[0]
            pixels = float(optics["rlnImagePixelSize"])
            transfer = Transfer(series, optics, size, pixels)
            rotations = image_rotations(series, particles.sub_rotations[rows[mine]])
            # An offset moves the image by what the image sees of it.
            shifts = np.einsum("ntij,nj->nti", rotations, particles.offsets[rows[mine]])[..., :2] / pixels
            batches.append(
                Batch(
                    rows=rows[mine],
                    images=_stack_reader(
                        reader,
                        names[rows[mine]],
                        particles.names[rows[mine]],
                        transfer,
                        bool(int(optics.get("rlnCtfDataAreCtfPremultiplied", 0))),
                        frames[mine],
                        dose,
                        depths[mine],
                        shifts,
                    ),
                    orientations=_orientations(particles, series, rows[mine]),
                    keep=transfer.dose > LEAST_DOSE_WEIGHT,
                    ratio=size * pixels / (box * pixel_size),
                )
            )
    crop = min(options.crop_size or box, box)
    inputs = Inputs(particles, batches, box, crop, pixel_size)
    inputs.notices.append(
        (f"The maps are made from the extracted stacks, in boxes of {box} px of {pixel_size:g} A.", False)
    )
    return inputs


def _stack_reader(
    reader: ImageReader,
    names: NDArray[np.object_],
    particle_names: NDArray[np.object_],
    transfer: Transfer,
    premultiplied: bool,
    frames: NDArray[np.bool_],
    dose: NDArray[np.bool_],
    depths: F64,
    shifts: F64,
) -> Images:
    def read(index: int, where: Operations) -> tuple[C64, F32, Index]:
        name = str(names[index])
        stack = reader.read_stack(name)
        place = positions_in_stack(reader, name, frames[index], particle_names[index])
        if stack.shape[1:] != (transfer.box, transfer.box):
            raise UserError(
                f"{name} has {stack.shape[2]} x {stack.shape[1]} pixels but others of its optics group "
                f"{transfer.box}; extract the particles again."
            )
        tilts = np.flatnonzero(frames[index] & dose)
        gain = transfer(depths[index], tilts, where)
        transforms = fft.real_forward(where.array(stack[place[tilts]]), (1, 2))
        factors = None if premultiplied else gain
        factor = float(transfer.box**2)
        spectra = where.crop_shift_multiply(transforms, shifts[index, tilts], factors, factor, transfer.box)
        return spectra, gain, tilts

    return read


def _orientations(particles: Subtomograms, series: TiltSeries, rows: Index) -> F64:
    rotations = image_rotations(series, particles.sub_rotations[rows])
    return rotations @ particles.poses[rows][:, None]


def _whole(weight: F32) -> F32:
    """Return weights over all of Fourier space, the origin at ``box // 2``, from those with x >= 0."""
    limit = weight.shape[0] // 2
    right = weight[:-1, :-1, :limit]
    left = weight[:0:-1, :0:-1, limit:0:-1]
    return np.concatenate([left, right], axis=2)
