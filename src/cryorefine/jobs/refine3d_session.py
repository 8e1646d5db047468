"""How Refine3D turns options into a refinement, and its iterations into events and files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryorefine.compute.array_module import array_module
from cryorefine.compute.cluster import worker_device
from cryorefine.compute.executor import make_executor
from cryorefine.errors import UserError
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import point_group
from cryorefine.io.images import ImageReader
from cryorefine.io.particles import ParticleFile, group_index, read_particles
from cryorefine.jobs.base import Curve, Event, Figures, Notice, Product, Progress, Run
from cryorefine.jobs.command import command
from cryorefine.jobs.folder import stop_after_iteration
from cryorefine.jobs.refine3d import ANGULAR_STEPS, JOB, Options, Result
from cryorefine.jobs.refine3d_input import Inputs, find_inputs, write_set
from cryorefine.jobs.vocabulary import NO_CLUSTER
from cryorefine.maps.fsc import resolution
from cryorefine.refine.checkpoints import (
    checkpoint_of,
    discard_checkpoints,
    iterations_to_continue,
    latest_checkpoint,
)
from cryorefine.refine.ctf_refinement import Stage
from cryorefine.refine.engine import ChunkDone, IterationDone, Note, Settings, refine
from cryorefine.refine.initial import initial_model, initial_noise
from cryorefine.refine.loading import check_geometry, check_images, load_particles
from cryorefine.refine.outputs import write_final, write_iteration
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.references import load_mask, load_references
from cryorefine.refine.schedule import NEVER, Schedule
from cryorefine.refine.state import PoseTable, State, load_state
from cryorefine.refine.subtomogram_loading import load_subtomograms
from cryorefine.tomo.suggestions import next_binning


@dataclass(frozen=True, eq=False)
class Session:
    """Everything that a refinement needs, checked: ready to iterate."""

    options: Options
    inputs: Inputs
    file: ParticleFile
    particles: ParticleSet
    reader: ImageReader
    settings: Settings
    state: State


def open_session(options: Options) -> Run[Session]:
    """Read and check all input; nothing is written yet.

    Yields
    ------
    Event
        Progress of reading, and notices.

    Raises
    ------
    UserError
        If something in the input cannot be worked with.
    """
    assert options.output is not None
    point_group(options.symmetry)
    if options.relax_symmetry:
        point_group(options.relax_symmetry)
    device = options.device
    if device != "cpu" and (options.scheduler or options.cluster.startswith("slurm")):
        device = "auto"  # the workers have them; this machine perhaps
    array_module(device)
    inputs = find_inputs(options)
    if inputs.notice:
        yield Notice(inputs.notice)
    if inputs.tomograms is not None:
        file, particles = load_subtomograms(
            inputs.particles,
            inputs.tomograms,
            inputs.trajectories,
            seed=options.random_seed,
            tilt_prior=bool(options.sigma_tilt),
            draw_halves=len(inputs.references) < 2,
        )
        if options.sigma_tilt and "rlnAngleTiltPrior" not in file:
            yield Notice(
                f"{inputs.particles} has no rlnAngleTiltPrior, so the prior is centred on the tilt angles "
                "that the particles start with."
            )
    else:
        table = read_particles(inputs.particles)
        file, particles = load_particles(
            table,
            inputs.particles,
            seed=options.random_seed,
            ctf_correction=options.ctf_correction,
        )
        if len(inputs.references) > 1 and "rlnRandomSubset" not in table.particles:
            yield Notice(
                f"{inputs.particles} does not say which half set its particles are in (rlnRandomSubset), so "
                "halves are drawn; particles that went into the other half map make the FSC look better than "
                "it is up to the initial low-pass filter.",
                warning=True,
            )
    check_geometry(particles, options.mask_diameter, inputs.particles)
    mask = None
    optics = _reference_optics(particles)
    if inputs.mask is not None:
        mask, notice = load_mask(inputs.mask, particles.optics[optics])
        if notice:
            yield Notice(notice)
    settings = Settings(
        images=ImageModel(
            mask_diameter=options.mask_diameter,
            zero_mask=options.zero_mask,
            ctf_correction=options.ctf_correction,
            intact_first_peak=options.ctf_intact_first_peak,
            phase_flipped=options.data_phase_flipped,
            reference_ctf_corrected=options.reference_ctf_corrected,
        ),
        symmetry=options.symmetry,
        relax_symmetry=options.relax_symmetry,
        padding=float(options.padding),
        mask=mask,
        solvent_fsc=options.solvent_flattened_fsc,
        first_by_correlation=not options.absolute_greyscale,
        initial_lowpass=options.initial_lowpass,
        finer_faster=options.finer_sampling_faster,
        seed=options.random_seed,
        # Images of one particle cannot be brighter or darker by themselves than the dose makes them.
        correct_norm=inputs.tomograms is None,
        sigma_tilt=options.sigma_tilt or 0.0,
        refine_ctf=options.refine_ctf,
        threads=options.threads,
        device=device,
        worker_device=worker_device(options.device) if options.scheduler or _cluster(options) else "",
        scratch=options.output.absolute(),
    )
    reader = ImageReader(particles.root)
    if options.continue_from is not None:
        state = _resumed(options, len(particles))
        file = file.replace(particles=file.columns.with_columns(rlnRandomSubset=state.half))
        particles = replace(particles, half=state.half)
        yield Notice(f"Going on after iteration {state.iteration}.")
    else:
        yield from _checking(particles, reader, options)
        state = yield from _first_state(options, inputs, particles, reader, settings, optics)
    return Session(options, inputs, file, particles, reader, settings, state)


def _cluster(options: Options) -> str:
    return "" if options.cluster == NO_CLUSTER else options.cluster


def _reference_optics(particles: ParticleSet) -> int:
    """First optics group that has particles: its pixels and box are those of the maps."""
    return int(min(particles.views[v].optics for v in np.unique(particles.image_view)))


def _checking(particles: ParticleSet, reader: ImageReader, options: Options) -> Run[None]:
    for done, total, warning in check_images(particles, reader, options.mask_diameter):
        yield Progress("Checking images", done, total)
        if warning:
            yield Notice(warning, warning=True)


def _first_state(
    options: Options,
    inputs: Inputs,
    particles: ParticleSet,
    reader: ImageReader,
    settings: Settings,
    optics: int,
) -> Run[State]:
    group = particles.optics[optics]
    references = load_references(inputs.references, group)
    for notice in references.notices:
        yield Notice(notice)
    box, pixel = group.box, group.pixel_size
    noise = initial_noise(particles, reader, settings.images, box=box, pixel_size=pixel)
    order = _order(options.initial_angular_sampling)
    schedule = Schedule(
        order=order,
        local_order=_order(options.local_search_from),
        offset_range=options.initial_offset_range * pixel,
        # The step on the form is the fine one, twice as fine as the coarse search.
        offset_step=2 * options.initial_offset_step * pixel,
        resolution=_first_shell(options.initial_lowpass, box, pixel) / (box * pixel),
    )
    grid = SamplingGrid(order, "C1" if schedule.is_local else options.symmetry)
    count = len(particles)
    models = [
        initial_model(
            reference,
            noise,
            lowpass=options.initial_lowpass,
            pixel_size=pixel,
            grid=grid,
            groups=len(particles.groups),
            particles=int(np.sum(particles.half == h + 1)),
        )
        for h, reference in enumerate(references.maps)
    ]
    table = PoseTable(
        particles.poses,
        particles.offsets,
        particles.norm,
        np.zeros(count),
        np.zeros(count),
        np.zeros(count, np.int64),
    )
    shells = box // 2 + 1
    return State(0, pixel, (models[0], models[1]), table, particles.half, np.ones(shells), schedule)


def _first_shell(lowpass: float, box: int, pixel: float) -> int:
    if lowpass <= 0:
        return box // 2
    return min(int(np.floor(box * pixel / lowpass + 0.5)), box // 2)


def _order(step: float) -> int:
    """HEALPix order of the coarse grid whose fine step is nearest to a label in degrees."""
    return int(np.argmin([abs(np.log(float(label) / step)) for label in ANGULAR_STEPS]))


def _resumed(options: Options, particles: int) -> State:
    assert options.continue_from is not None
    assert options.output is not None
    folder, number = options.continue_from, options.continue_iteration
    checkpoint = newest = latest_checkpoint(folder)
    if number is not None and number not in (found := iterations_to_continue(folder)):
        raise UserError(
            f"{folder} cannot go on from iteration {number}; it can from {_listed(found) or 'none'}."
        )
    if number is not None:
        checkpoint = checkpoint_of(folder, number)
    if checkpoint != newest and options.output.resolve() == folder.resolve():
        raise UserError(
            f"{folder} holds iterations after {number}, which would be lost; give another folder with "
            "--output."
        )
    if checkpoint is None:
        raise UserError(
            f"{folder} holds no whole iteration to go on from; start the refinement anew in another folder."
        )
    state = load_state(checkpoint)
    if state.schedule.converged:
        raise UserError(f"{folder} holds a refinement that has converged; there is nothing to go on with.")
    if len(state.half) != particles:
        raise UserError(
            f"{checkpoint} is about {len(state.half)} particles, but the particle file now has {particles}; "
            "restore the file or start a new job."
        )
    return state


def _listed(numbers: list[int]) -> str:
    """Return e.g. "3 to 12" where none is missing, or "3, 5, 6"."""
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def run_session(session: Session) -> Run[Result]:
    """Iterate until convergence, writing every whole iteration, then the final files."""
    options, folder = session.options, session.settings.scratch
    assert options.output is not None
    words = " ".join(command(JOB, options))
    if options.continue_from is None:
        # An earlier run in this folder must not be what a continuation finds.
        discard_checkpoints(folder)
    warned: set[str] = set()
    last: IterationDone | None = None
    optimisation_set: Path | None = None
    about = (session.file, session.particles, session.settings, words)
    where = make_executor(
        options.threads, options.scheduler, _cluster(options), device=options.device, folder=folder
    )
    with where as executor:
        for sentence in executor.notices:
            yield Notice(sentence)
        for step in refine(session.state, session.particles, session.reader, session.settings, executor):
            if isinstance(step, ChunkDone):
                yield Progress(f"Iteration {step.iteration}", step.done, step.total)
                continue
            if isinstance(step, Note):
                yield Notice(step.sentence, warning=step.warning)
                continue
            if isinstance(step, Stage):
                yield Progress(f"CTF: {step.name}", step.done, step.total)
                continue
            last = step
            for notice in step.notices:
                if notice not in warned:
                    warned.add(notice)
                    yield Notice(notice, warning=True)
            write = write_final if step.state.schedule.converged else write_iteration
            files = write(folder, step, *about)
            optimisation_set = write_set(session.inputs, files)
            yield from _iteration_events(step, files)
            if not step.state.schedule.converged:
                stop_after_iteration(folder)
    assert last is not None
    box = last.state.halves[0].reference.shape[0]
    reached = resolution(last.state.fsc, box, last.state.pixel_size)
    yield Product("map", files["map"], "refined map")
    yield Notice(f"Final resolution (without masking) is: {reached:.4g} A")
    if session.inputs.tomograms is not None and (sentence := next_binning_of(session.file, reached)):
        yield Notice(sentence)
    return Result(
        output=options.output,
        half_maps=(files["half1"], files["half2"]),
        map=files["map"],
        data=files["data"],
        model=files["model"],
        resolution=reached,
        iterations=last.state.iteration,
        optimisation_set=optimisation_set,
    )


def next_binning_of(file: ParticleFile, reached: float) -> str:
    """Say which binning to go on with, where the pixels of subtomograms hold the refinement back.

    Parameters
    ----------
    file : ParticleFile
        The subtomograms, extracted.
    reached : float
        Resolution of their map in A.

    Returns
    -------
    str
        One sentence, or nothing where finer pixels would not help.
    """
    group = file.optics.iloc[int(group_index(file).min())]
    unbinned = float(group["rlnTomoTiltSeriesPixelSize"])
    binning = round(float(group["rlnImagePixelSize"]) / unbinned, 3)
    suggestion = next_binning(reached, unbinned, binning)
    return suggestion.reason if suggestion.value < binning else ""


def _iteration_events(step: IterationDone, files: dict[str, Path]) -> list[Event]:
    state, schedule = step.state, step.state.schedule
    box = state.halves[0].reference.shape[0]
    frequency = np.arange(len(state.fsc)) / (box * state.pixel_size)
    values: dict[str, float | int | str] = {
        "iteration": state.iteration,
        "resolution (A)": 1 / schedule.resolution,
        "angular step (degrees)": schedule.fine_step,
    }
    if schedule.accuracy_angle < NEVER:
        values["accuracy (degrees)"] = schedule.accuracy_angle
        values["accuracy (A)"] = schedule.accuracy_shift
    details = {
        "local search": int(schedule.is_local),
        "offset step (A)": schedule.offset_step / 2,
        "change of orientations (degrees)": schedule.change_angle,
        "change of offsets (A)": schedule.change_offset,
        "largest weight": schedule.mean_largest_weight,
        "image size (px)": step.current_size,
        "seconds": step.seconds,
    }
    events: list[Event] = [
        Figures(values, details),
        Curve("FSC", frequency.tolist(), {f"iteration {state.iteration}": state.fsc.tolist()}),
    ]
    events += [
        Product("half_map", files[f"half{h}"], f"half {h}, iteration {state.iteration}") for h in (1, 2)
    ]
    return events
