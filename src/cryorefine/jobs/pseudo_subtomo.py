"""Extract subtomos: particles cut out of tilt series, as 2D stacks or 3D pseudo-subtomograms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary, vocabulary_tomo
from cryorefine.jobs.base import Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    from cryorefine.jobs.pseudo_subtomo_work import Plan
    from cryorefine.tomo.particles import Subtomograms

JOB = Job(
    name="pseudo-subtomo",
    title="Extract subtomos",
    folder="Extract",
    relion_label="relion.pseudosubtomo",
    summary="Cut particles out of tilt series, as 2D stacks or 3D pseudo-subtomograms",
)

_STAGE = "Extracting"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one extraction is asked to do."""

    optimisation_set: Path | None = vocabulary_tomo.optimisation_set()
    particles: Path | None = vocabulary_tomo.particles()
    tomograms: Path | None = vocabulary_tomo.tomograms()
    trajectories: Path | None = vocabulary_tomo.trajectories()
    output: Path = option(
        label="Output folder",
        help="The folder of this job, e.g. Extract/job010; particles.star, optimisation_set.star and the "
        "images are written there.",
        kind="folder",
    )
    binning: float = vocabulary_tomo.binning()
    box_size: int = vocabulary_tomo.box_size()
    crop_size: int | None = vocabulary_tomo.crop_size()
    max_dose: float | None = vocabulary_tomo.max_dose(relion="max_dose")
    min_frames: int = option(
        1,
        label="Minimum nr. frames",
        help="Particles that fewer tilt images show are left out.",
        group="Reconstruct",
        minimum=1,
        maximum=10000,
        step=1,
        relion="min_frames",
    )
    stack_2d: bool = option(
        True,
        label="Write output as 2D stacks?",
        help="A stack of the particle's tilt images, which is what refinement works with best; otherwise a "
        "3D pseudo-subtomogram with its CTF and multiplicity.",
        group="Reconstruct",
        relion="do_stack2d",
    )
    float16: bool = option(
        True,
        label="Write output in float16?",
        help="Stacks take half the room; nothing that matters is lost. Volumes always have 32 bits.",
        group="Reconstruct",
        relion="do_float16",
    )
    apply_offsets: bool = option(
        True,
        label="Apply offsets?",
        help="Centre the boxes on the refined positions and write these as new coordinates; otherwise the "
        "offsets stay as they are.",
        group="Reconstruct",
    )
    premultiply: bool = option(
        True,
        label="Multiply by CTF and dose weights?",
        help="What refinement here and in RELION expects; without it, images are for other programs.",
        group="Reconstruct",
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()

    def check(self) -> None:
        """Say what is missing or does not go together."""
        vocabulary.check_device(self.device)
        vocabulary_tomo.check_input(self)
        vocabulary_tomo.check_boxes(self.box_size, self.crop_size)


@dataclass(frozen=True)
class Result:
    """What a finished extraction leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    particles : Path
        particles.star.
    optimisation_set : Path
        optimisation_set.star, with everything of the old one but the particles.
    extracted : int
        How many particles were extracted.
    left_out : int
        How many too few images show.
    pixel_size : float
        Of the images, in A (of the first optics group).
    """

    output: Path
    particles: Path
    optimisation_set: Path
    extracted: int
    left_out: int
    pixel_size: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Extract the particles; yields events and returns the result."""
    from cryorefine.compute.array_module import gpus
    from cryorefine.compute.executor import LocalExecutor
    from cryorefine.io.tomograms import read_tomograms
    from cryorefine.jobs import pseudo_subtomo_work as work
    from cryorefine.tomo.extraction import window
    from cryorefine.tomo.particles import doubtful_coordinates, read_subtomograms
    from cryorefine.tomo.unseen import too_large_a_box

    gpus(options.device)  # is refused where it cannot be used
    yield Progress(_STAGE, 0, 0, "reading the tables")
    entries = vocabulary_tomo.entries_of(options)
    assert entries.particles is not None
    assert entries.tomograms is not None
    particles = read_subtomograms(entries.particles, read_tomograms(entries.tomograms), entries.trajectories)
    shape = window(options.box_size, options.crop_size, options.binning)
    if abs(shape.binning / options.binning - 1) > 1e-9:
        yield Notice(
            f"The box is {shape.unbinned} px of the tilt images, so the binning is {shape.binning:.6g} "
            f"instead of {options.binning:g}."
        )
    for sentence in (doubtful_coordinates(particles), too_large_a_box(particles, shape.unbinned)):
        if sentence:
            yield Notice(sentence, warning=True)
    plans = [work.plan(options, particles, series, rows, shape) for series, rows in particles.by_tomogram()]
    kept = sum(len(plan.rows) for plan in plans)
    left_out = len(particles) - kept
    if kept == 0:
        raise UserError(_why_none(options, particles, plans))
    if left_out:
        seen = f"only {options.min_frames - 1} or fewer" if options.min_frames > 1 else "none"
        yield Notice(
            f"{left_out} of {len(particles)} particles are left out: {seen} of their tilt images show them "
            "wholly.",
            warning=left_out > len(particles) / 2,
        )

    settings = work.settings_of(options, entries, particles)
    done, black, too_large = 0, [], 0
    with LocalExecutor(options.threads) as executor:
        for tasks in work.tasks(options, particles, plans, shape, settings):
            for name, empty, left_gpu in executor.run(work.extract_one, tasks):
                done += 1
                too_large += left_gpu
                black += [name] if empty else []
                yield Progress(_STAGE, done, kept)
    if too_large:
        yield Notice(
            f"The GPU's memory was too small for {too_large} particles, which the processor extracted.",
            warning=True,
        )
    if black:
        yield Notice(
            f"{len(black)} particles are black, {black[0]} among them: the tilt images are empty where they "
            "lie; look at the images and the coordinates.",
            warning=True,
        )
    path, optimisation_set, pixel_size = work.write_tables(options, entries, particles, plans, shape)
    yield Product("particles", path, "extracted particles")
    yield Figures({"particles": kept, "pixel size (A)": pixel_size})
    return Result(options.output, path, optimisation_set, kept, left_out, pixel_size)


def _why_none(options: Options, particles: Subtomograms, plans: list[Plan]) -> str:
    """Return what to change when too few images show any particle."""
    from cryorefine.tomo.unseen import why_none_is_seen

    most = max(plan.seen for plan in plans)
    if most == 0:
        return why_none_is_seen(
            particles, plans[0].radius, options.max_dose, apply_offsets=options.apply_offsets
        )
    dose = f" with a dose of at most {options.max_dose:g} e/A^2" if options.max_dose else ""
    higher = "a higher --max-dose or " if options.max_dose else ""
    return (
        f"No particle of {particles.file.path} is seen by {options.min_frames} tilt images{dose}, but by "
        f"{most} at most; give {higher}fewer --min-frames."
    )
