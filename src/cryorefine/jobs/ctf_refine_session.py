"""How CtfRefine turns options into fits, and what the fits report into events and files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import array_module
from cryorefine.compute.executor import LocalExecutor
from cryorefine.io.particles import ParticleFile
from cryorefine.jobs.base import Event, Notice, Product, Progress, Run
from cryorefine.jobs.command import command
from cryorefine.jobs.ctf_refine import JOB, Options, Result
from cryorefine.jobs.ctf_refine_checkpoint import FILE as CHECKPOINT
from cryorefine.jobs.ctf_refine_checkpoint import Recorder, read_checkpoint
from cryorefine.jobs.ctf_refine_images import groups_in, read_pictures, write_images
from cryorefine.jobs.ctf_refine_input import (
    Reference,
    has_optics_table,
    insist_on_coma,
    insist_on_detail,
    insist_on_enough,
    read_reference,
    read_refined_particles,
)
from cryorefine.jobs.ctf_refine_report import write_logfile
from cryorefine.jobs.ctf_refine_tables import DEFOCUS_CHANGE, Tables, write_beam_tilt
from cryorefine.jobs.ctf_refine_words import Teller
from cryorefine.jobs.particle_places import places_in_angstrom
from cryorefine.refine.ctf_refinement import (
    AberrationImages,
    CtfFit,
    CtfResult,
    Finding,
    Level,
    MicrographValues,
    OpticsSoFar,
    Stage,
    SuppliedMaps,
    refine_ctf,
)
from cryorefine.refine.particle_set import ParticleSet

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Session:
    """Everything that a job needs, checked."""

    options: Options
    particles: ParticleSet
    reference: Reference
    tables: Tables
    micrographs: tuple[str, ...]
    micrograph: Index
    places: NDArray[np.float64]

    @property
    def folder(self) -> Path:
        """The job's folder."""
        assert self.options.output is not None
        return self.options.output


def run_session(options: Options) -> Run[Result]:
    """Read, check, fit and write.

    Yields
    ------
    Event
        Progress, the particles of each micrograph as they come, aberrations and sentences about them.

    Raises
    ------
    UserError
        If something in the input cannot be worked with.
    """
    assert options.output is not None
    assert options.particles is not None
    array_module(options.device)
    yield Progress("Reading", 0, 0, "particles and maps")
    session = open_session(options)
    particles, fit, done = session.particles, session.tables.fit, 0
    copies = len(particles) - len(set(particles.image_names))
    if copies:
        yield Notice(
            f"{copies} of the {len(particles)} images of {options.particles} are there more than once; each "
            "is compared with its own copies, which draws values towards those that are given: remove them.",
            warning=True,
        )
    if options.continue_from is not None:
        checkpoint = read_checkpoint(options.continue_from, particles)
        if checkpoint is None:
            yield Notice(f"{options.continue_from} holds no whole round; the fits begin anew.")
        else:
            particles, done = checkpoint.applied_to(particles), checkpoint.round
            fit = replace(fit, rounds=max(1, fit.rounds - done))
            yield Notice(f"Going on after round {done}.")
    if session.tables.old_style and not session.tables.fits_one_table:
        yield Notice(
            f"{options.particles} is a file of RELION 3.0, which has no place for what is fitted; the result "
            "is written as RELION 3.1 does, with a table of optics groups."
        )
    yield Product("ctf_particles", options.particles.absolute(), "particles")
    maps = SuppliedMaps(
        session.reference.half_maps,
        session.reference.mask,
        session.reference.fsc,
        session.reference.pixel_size,
    )
    teller = Teller()
    recorder = Recorder(options.output / CHECKPOINT, particles)
    with LocalExecutor(options.threads) as executor:
        fitting = refine_ctf(particles, session.micrograph, maps, fit, executor, options.device)
        here = 1
        while True:
            try:
                event = next(fitting)
            except StopIteration as stop:
                outcome: CtfResult = stop.value
                break
            if isinstance(event, Stage):
                if event.round > here:
                    # Defocus that a magnification matrix has changed is reported only where it is fitted.
                    if fit.transfer or not fit.magnification:
                        recorder.write(done + here)
                    here = event.round
                yield Progress(f"Round {done + event.round}: {event.name}", event.done, event.total)
            elif isinstance(event, Finding):
                yield from teller.finding(event)
            elif isinstance(event, OpticsSoFar):
                recorder.optics = event.values
                yield from _beam_tilts(session, event, teller, done)
            else:
                if isinstance(event, MicrographValues):
                    recorder.take(event.particles, event.values)
                yield from _shown(session, event)
    for finding in outcome.findings:
        yield from teller.finding(finding)
    yield from teller.rest()
    yield from _beam_tilts(session, OpticsSoFar(outcome.rounds, outcome.optics), teller, done)
    result = yield from _finish(session, outcome)
    recorder.path.unlink(missing_ok=True)
    return result


def open_session(options: Options) -> Session:
    """Read and check all input; nothing is written yet.

    Raises
    ------
    UserError
        If something in the input cannot be worked with.
    """
    assert options.particles is not None
    assert options.postprocess is not None
    reference = read_reference(options.postprocess)
    insist_on_detail(reference, options.minimum_resolution)
    file, particles = read_refined_particles(options.particles, reference)
    if options.fits_optics:
        insist_on_enough(file, particles, options.particles)
    if options.fit_beamtilt:
        insist_on_coma(file, particles, options.particles)
    fit = CtfFit(
        defocus=cast(Level, options.fit_defocus),
        astigmatism=cast(Level, options.fit_astigmatism),
        phase_shift=cast(Level, options.fit_phase_shift),
        b_factor=cast(Level, options.fit_bfactor),
        beam_tilt=options.fit_beamtilt,
        trefoil=options.fit_trefoil,
        fourth_order=options.fit_fourth_order,
        magnification=options.fit_anisotropic_magnification,
        minimum_resolution=options.minimum_resolution,
        defocus_range=options.defocus_range,
        symmetry=options.symmetry,
    )
    names, micrograph = micrographs_of(file)
    tables = Tables(file, options.particles, not has_optics_table(options.particles), fit)
    return Session(options, particles, reference, tables, names, micrograph, places_in_angstrom(file))


def micrographs_of(file: ParticleFile) -> tuple[tuple[str, ...], Index]:
    """Return the names of the micrographs, in the order of the file, and each particle's number."""
    names = file.columns.words("rlnMicrographName")
    known: dict[str, int] = {}
    numbers = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
    return tuple(known), numbers


def _shown(session: Session, event: MicrographValues | AberrationImages) -> list[Event]:
    """Write what an event brings and return what the person is told."""
    folder = session.folder
    if isinstance(event, MicrographValues):
        path = session.tables.write_micrograph(folder, event.particles, event.values)
        return [Product("defocus_fit", path, session.micrographs[event.micrograph])]
    optics = session.particles.optics[event.optics]
    path = write_images(folder, event, optics.pixel_size, session.tables.fit)
    return [Product("aberrations", path, f"{event.kind} of {optics.name}")]


def _beam_tilts(session: Session, event: OpticsSoFar, teller: Teller, done: int) -> list[Event]:
    """Write the beam tilts and tell them; ``done`` rounds were made before the job went on."""
    if not session.tables.fit.odd:
        return []
    for number, values in enumerate(event.values):
        if values.particles > 0:
            write_beam_tilt(session.folder / f"beamtilt_{number}.txt", values)
    return teller.beam_tilts(done + event.round, event.values)


def _finish(session: Session, outcome: CtfResult) -> Run[Result]:
    options, tables, folder = session.options, session.tables, session.folder
    yield Progress("Writing", 0, 0, "particles")
    for images in outcome.images:
        pixel_size = session.particles.optics[images.optics].pixel_size
        write_images(folder, images, pixel_size, tables.fit)
    ordered = np.argsort(session.micrograph, kind="stable")
    members = np.split(ordered, np.cumsum(np.bincount(session.micrograph))[:-1])
    yield from _drawn(session, outcome, members)
    path = folder / "particles_ctf_refine.star"
    tables.write(path, outcome.particles, outcome.optics, " ".join(command(JOB, options)))
    yield Product("ctf_particles", path, "refined particles")
    change = tables.particle_columns(outcome.particles).get(DEFOCUS_CHANGE, np.zeros(1))
    rms = float(np.sqrt(np.mean(change**2)))
    return Result(output=folder, particles=path, logfile=folder / "logfile.pdf", defocus_change=rms)


def _drawn(session: Session, outcome: CtfResult, members: list[Index]) -> Run[None]:
    folder = session.folder
    drawing = write_logfile(
        folder / "logfile.pdf",
        outcome.findings,
        [picture for group in groups_in(folder) for picture in read_pictures(folder, group)],
        list(zip(session.micrographs, members, strict=True)),
        session.places,
        (outcome.particles.defocus_u + outcome.particles.defocus_v) / 2,
    )
    for done in drawing:
        yield Progress("Drawing", done, len(members))
