"""The steps of an extraction: which images, one particle after the other, and the tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryorefine import __version__
from cryorefine.compute.gpu_turns import free_memory
from cryorefine.compute.place import shortage
from cryorefine.errors import UserError
from cryorefine.io.files import write_whole
from cryorefine.io.images import parse_reference
from cryorefine.io.mrc import read_layout, write_map, write_stack
from cryorefine.io.optimisation_set import OptimisationSet, project_name, write_optimisation_set
from cryorefine.io.particles import ParticleFile, group_index, write_particles
from cryorefine.io.tomograms import TiltSeries
from cryorefine.io.trajectories import write_trajectories
from cryorefine.tomo.extraction import Transfer, Window, extract, soft_circle, stack_of
from cryorefine.tomo.geometry import image_rotations, project, visible_images
from cryorefine.tomo.operations import PROCESSOR, Operations
from cryorefine.tomo.particles import CENTRED, CORNER, ORIGIN, Subtomograms
from cryorefine.tomo.pseudo_volume import PseudoVolume, levelled_spectra, pseudo_volume
from cryorefine.tomo.tilt_images import TiltImages, require_images

if TYPE_CHECKING:
    from cryorefine.jobs.pseudo_subtomo import Options

F64 = NDArray[np.float64]
Index = NDArray[np.int64]
ResultT = TypeVar("ResultT")
SETTINGS = "extraction.sha256"
"""File in the job's folder that says which settings the images in it belong to."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be extracted from one tilt series.

    Attributes
    ----------
    series : TiltSeries
        The tilt series.
    rows : ndarray of int, shape (n,)
        The particles kept.
    centres, depths : ndarray, shapes (n, tilts, 2) and (n, tilts)
        Where they lie in the tilt images, in px.
    visible : ndarray of bool, shape (n, tilts)
        In which images they are seen.
    radius : float
        How far from the edges of an image a particle has to lie, in px.
    seen : int
        How many images see the particle that most of them see, kept or not.
    """

    series: TiltSeries
    rows: Index
    centres: F64
    depths: F64
    visible: NDArray[np.bool_]
    radius: float
    seen: int


@dataclass(frozen=True, eq=False)
class Source:
    """What the particles of one tilt series and optics group share."""

    images: TiltImages
    transfer: Transfer
    shape: Window
    pixel_size: float
    circle: tuple[NDArray[np.float32], NDArray[np.bool_]]


def plan(options: Options, particles: Subtomograms, series: TiltSeries, rows: Index, shape: Window) -> Plan:
    """Find out where the particles of a tilt series lie and which images show them."""
    require_images(series)
    positions = particles.positions(series, rows, apply_offsets=options.apply_offsets)
    centres, depths = project(series, positions)
    visible = visible_images(series, centres, shape.radius, options.max_dose)
    count = visible.sum(axis=1)
    keep = count >= options.min_frames
    kept = rows[keep]
    for row in kept:
        _file(options, particles, int(row))  # is refused where its name leads elsewhere
    return Plan(
        series, kept, centres[keep], depths[keep], visible[keep], shape.radius, int(count.max(initial=0))
    )


def settings_of(options: Options, entries: OptimisationSet, particles: Subtomograms) -> str:
    """Return a fingerprint of everything that decides the images."""
    digest = hashlib.sha256(__version__.encode())
    for field in fields(options):
        if field.name not in ("output", "threads", "device", "optimisation_set"):
            digest.update(f"{field.name}={getattr(options, field.name)};".encode())
    for path in (entries.particles, entries.tomograms, entries.trajectories):
        digest.update(path.read_bytes() if path is not None else b"")
    for series, _ in particles.by_tomogram():
        values = {label: series.table.words(label).tolist() for label in series.table}
        digest.update(series.projections.tobytes() + repr(values).encode())
        for path in dict.fromkeys(series.root / parse_reference(name)[1] for name in series.image_names):
            found = path.stat()
            digest.update(f"{found.st_size},{found.st_mtime_ns};".encode())
    return digest.hexdigest()


def tasks(
    options: Options, particles: Subtomograms, plans: list[Plan], shape: Window, settings: str
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the particles of one tilt series after the other, as arguments of :func:`extract_one`."""
    record = options.output / SETTINGS
    # Images that an interrupted run has left are whole; they are good if they were made in the same way.
    resume = record.is_file() and record.read_text().strip() == settings
    if not resume:
        with write_whole(record) as temporary:
            temporary.write_text(settings + "\n")
    groups = group_index(particles.file)
    circle = soft_circle(shape.box, shape.crop)
    for one in plans:
        if len(one.rows) == 0:
            continue
        images = TiltImages(one.series)
        pixel_size = one.series.pixel_size * shape.binning
        sources = {
            group: Source(
                images,
                Transfer(one.series, particles.file.optics_columns.row(group), shape.box, pixel_size),
                shape,
                pixel_size,
                circle,
            )
            for group in np.unique(groups[one.rows])
        }
        (_file(options, particles, int(one.rows[0]))).parent.mkdir(parents=True, exist_ok=True)
        yield [
            (options, sources[groups[row]], particles, one, i, _file(options, particles, int(row)), resume)
            for i, row in enumerate(one.rows)
        ]


def extract_one(
    options: Options,
    source: Source,
    particles: Subtomograms,
    plan: Plan,
    index: int,
    path: Path,
    resume: bool,
) -> tuple[str, bool, bool]:
    """Extract one particle and write its images.

    Returns
    -------
    name : str
        Of the particle.
    empty : bool
        Whether its images are all zero.
    left_gpu : bool
        Whether the processor had to do it, because the memory of the GPU asked for was too small.
    """
    name = str(particles.names[plan.rows[index]])
    crop = source.shape.crop
    tilts = np.flatnonzero(plan.visible[index])
    weights = path.with_name(path.name.replace("_data.mrc", "_weights.mrc"))
    expected = {path: (len(tilts), crop, crop)}
    if not options.stack_2d:
        expected = {path: (crop, crop, crop), weights: (2 * crop, crop, crop // 2 + 1)}
    if resume and all(_is_whole(file, size) for file, size in expected.items()):
        return name, False, False
    path.parent.mkdir(parents=True, exist_ok=True)
    made, left_gpu = _on_device(
        options.device, lambda where: _images(options, source, particles, plan, index, tilts, where)
    )
    if isinstance(made, PseudoVolume):
        # The weights first: a volume is whole when its own file is there.
        write_map(weights, made.weights, 1 / source.pixel_size)
        write_map(path, made.data, source.pixel_size)
        return name, not made.data.any(), left_gpu
    write_stack(path, made, source.pixel_size, options.float16, flush=False)
    return name, not made.any(), left_gpu


def _images(
    options: Options,
    source: Source,
    particles: Subtomograms,
    plan: Plan,
    index: int,
    tilts: Index,
    where: Operations,
) -> NDArray[np.float32] | PseudoVolume:
    """Return the stack or the volume of a particle."""
    shape = source.shape
    spectra, gain = extract(
        source.images,
        shape,
        source.transfer,
        plan.centres[index],
        plan.depths[index],
        tilts,
        premultiply=options.premultiply,
        where=where,
    )
    if options.stack_2d:
        return stack_of(spectra, shape, source.circle, where)
    rotations = image_rotations(plan.series, particles.sub_rotations[plan.rows[index]][None])[0, tilts]
    spectra = levelled_spectra(spectra, shape, source.circle, where)
    return pseudo_volume(spectra, gain, source.transfer.dose[tilts], rotations, shape, where)


def _on_device(device: str, work: Callable[[Operations], ResultT]) -> tuple[ResultT, bool]:
    """Return what work comes to, and whether the memory of the device was too small for it."""
    if device == "cpu":
        return work(PROCESSOR), False
    from cryorefine.refine.gpu.extraction import extraction

    with extraction(device) as where:
        try:
            with shortage():
                return work(where), False
        except MemoryError:
            if where is PROCESSOR:
                raise
        # Only here is what the failed attempt held let go.
        free_memory()
    return work(PROCESSOR), True


def write_tables(
    options: Options, entries: OptimisationSet, particles: Subtomograms, plans: list[Plan], shape: Window
) -> tuple[Path, Path, float]:
    """Write particles.star, motion.star if particles were left out, and optimisation_set.star.

    Returns
    -------
    particles, optimisation_set : Path
        The files.
    pixel_size : float
        Of the first optics group's images, in A.
    """
    rows = np.sort(np.concatenate([plan.rows for plan in plans]))
    visible = {
        int(row): "[" + ",".join("1" if v else "0" for v in frames) + "]"
        for plan in plans
        for row, frames in zip(plan.rows, plan.visible, strict=True)
    }
    file = particles.take(rows)
    table = file.columns.without(*CORNER, "rlnCtfImage")
    centred, offsets = particles.centred[rows], particles.offsets[rows]
    if options.apply_offsets:
        centred = centred - np.einsum("nij,nj->ni", particles.sub_rotations[rows], offsets)
        offsets = np.zeros_like(offsets)
    columns: dict[str, Any] = dict(zip(CENTRED, centred.T, strict=True))
    columns.update(zip(ORIGIN, offsets.T, strict=True))
    columns["rlnTomoVisibleFrames"] = [visible[int(row)] for row in rows]
    names = [_file(options, particles, int(row)) for row in rows]
    columns["rlnImageName"] = [project_name(name) for name in names]
    if not options.stack_2d:
        columns["rlnCtfImage"] = [
            project_name(name.with_name(name.name.replace("_data.mrc", "_weights.mrc"))) for name in names
        ]
    optics = file.optics_columns
    pixels = optics.numbers("rlnTomoTiltSeriesPixelSize") * shape.binning
    optics = optics.with_columns(
        rlnCtfDataAreCtfPremultiplied=int(options.premultiply),
        rlnImageDimensionality=2 if options.stack_2d else 3,
        rlnTomoSubtomogramBinning=shape.binning,
        rlnImagePixelSize=pixels,
        rlnImageSize=shape.crop,
    )
    general = {**(file.general or {}), "rlnTomoSubTomosAre2DStacks": int(options.stack_2d)}
    path = options.output / "particles.star"
    write_particles(path, ParticleFile(optics, table.with_columns(**columns), general))
    trajectories = entries.trajectories
    if particles.trajectories is not None and len(rows) < len(particles):
        trajectories = options.output / "motion.star"
        write_trajectories(trajectories, {str(n): particles.trajectories[n] for n in particles.names[rows]})
    optimisation_set = options.output / "optimisation_set.star"
    write_optimisation_set(optimisation_set, entries.with_entries(particles=path, trajectories=trajectories))
    return path, optimisation_set, float(pixels[0])


def _file(options: Options, particles: Subtomograms, row: int) -> Path:
    """Return the file of a particle's images, named as RELION names it."""
    name = str(particles.names[row])
    whole = name if "/" in name else f"{particles.tomogram_names[row]}/{name}"
    if ".." in whole.split("/") or whole.startswith("/"):
        raise UserError(
            f"{particles.file.path} has the particle name {name}, which would lie outside the job's folder; "
            "rename it or remove the column rlnTomoParticleName."
        )
    return options.output / "Subtomograms" / f"{whole}{'_stack2d.mrcs' if options.stack_2d else '_data.mrc'}"


def _is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    try:
        return path.is_file() and read_layout(path).shape == shape
    except UserError:
        return False
