"""Options that the jobs of subtomogram averaging share: what goes in, and how large the boxes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs.base import option

if TYPE_CHECKING:
    from cryorefine.io.optimisation_set import OptimisationSet


def optimisation_set(group: str = "I/O") -> Any:
    """Make the option that names an optimisation set."""
    return option(
        None,
        label="Input optimisation set",
        help="The STAR file that names particles, tomograms and what else belongs to them. What is given "
        "besides takes the place of its entries.",
        kind="star",
        group=group,
        relion="in_optimisation",
    )


def particles() -> Any:
    """Make the option that names particles of tomograms."""
    return option(
        None,
        label="OR: input particle set",
        help="Particles, in place of those of the optimisation set.",
        kind="particles",
        relion="in_particles",
    )


def tomograms(group: str = "I/O") -> Any:
    """Make the option that names tomograms."""
    return option(
        None,
        label="Input tomogram set",
        help="The tomograms.star of the particles, in place of that of the optimisation set.",
        kind="star",
        group=group,
        relion="in_tomograms",
    )


def trajectories(group: str = "I/O") -> Any:
    """Make the option that names trajectories."""
    return option(
        None,
        label="Input trajectory set",
        help="The motion.star with the particles' movements, in place of that of the optimisation set.",
        kind="star",
        group=group,
        relion="in_trajectories",
    )


def binning() -> Any:
    """Make the option of how many pixels are binned."""
    return option(
        1.0,
        label="Binning factor",
        help="Pixels of the tilt images in one pixel of the result; need not be a whole number.",
        group="Reconstruct",
        minimum=1.0,
        maximum=64.0,
        step=0.5,
        relion="binning",
    )


def box_size() -> Any:
    """Make the option of the box in which the CTF is applied."""
    return option(
        128,
        label="Box size",
        help="Edge, in binned pixels, of the box in which the CTF is applied. It has to be large enough for "
        "what the CTF spreads: several times the particle at high resolution.",
        unit="binned px",
        group="Reconstruct",
        minimum=8,
        maximum=8192,
        step=2,
        relion="box_size",
    )


def crop_size() -> Any:
    """Make the option of the box that is kept."""
    return option(
        None,
        label="Cropped box size",
        help="Edge, in binned pixels, of what is kept of the box after the CTF has been applied; all of it "
        "unless given.",
        unit="binned px",
        group="Reconstruct",
        minimum=8,
        maximum=8192,
        step=2,
        relion="crop_size",
    )


def max_dose(relion: str = "") -> Any:
    """Make the option of the dose after which images are left out."""
    return option(
        None,
        label="Maximum dose",
        help="Tilt images that began with a larger dose than this are left out; none unless given.",
        unit="e/A^2",
        group="Reconstruct",
        minimum=0.001,
        step=10.0,
        relion=relion,
    )


def check_boxes(box: int, crop: int | None) -> None:
    """Refuse boxes that are odd or do not lie in each other.

    Raises
    ------
    UserError
        Naming the box.
    """
    for flag, size in (("--box-size", box), ("--crop-size", crop)):
        if size is not None and size % 2:
            raise UserError(f"{flag} {size} is odd; give an even number of pixels, e.g. {size + 1}.")
    if crop is not None and crop > box:
        raise UserError(f"--crop-size {crop} is larger than --box-size {box}; give a smaller one.")


def check_input(options: Any) -> None:
    """Refuse options that name no particles or no tomograms.

    Raises
    ------
    UserError
        If something is missing.
    """
    if options.optimisation_set is None and (options.particles is None or options.tomograms is None):
        raise UserError(
            "Particles and tomograms are needed; give --optimisation-set, or both --particles and "
            "--tomograms."
        )


def entries_of(options: Any) -> OptimisationSet:
    """Return what goes into a job: its optimisation set with the entries that were given one by one.

    Raises
    ------
    UserError
        When a file that is needed is in neither.
    """
    from cryorefine.io.optimisation_set import OptimisationSet, read_optimisation_set

    path = options.optimisation_set
    base = read_optimisation_set(path) if path is not None else OptimisationSet()
    entries = base.with_entries(
        particles=options.particles, tomograms=options.tomograms, trajectories=options.trajectories
    )
    for name in ("particles", "tomograms"):
        if getattr(entries, name) is None:
            raise UserError(f"{path} names no {name}; give them with --{name}.")
    return entries
