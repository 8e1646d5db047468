"""The order of the jobs, and which output of one feeds which option of the next: two tables.

Everything that follows from a table is elsewhere: which jobs of a project stand at a step in
:mod:`.workflow_state`, the values for the next job in :mod:`.workflow_values`. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRODUCTS: dict[str, dict[str, str]] = {
    "refine3d": {
        "map": "run_class001.mrc",
        "half map": "run_half1_class001_unfil.mrc",
        "particles": "run_data.star",
        "optimisation set": "run_optimisation_set.star",
    },
    "mask-create": {"mask": "mask.mrc"},
    "postprocess": {"curves": "postprocess.star"},
    "ctf-refine": {"particles": "particles_ctf_refine.star"},
    "pseudo-subtomo": {"optimisation set": "optimisation_set.star"},
    "reconstruct-particle": {
        "map": "merged.mrc",
        "half map": "half1.mrc",
        "optimisation set": "optimisation_set.star",
    },
}
"""Job -> what it makes -> the file in its folder, as RELION names it."""

STARTS: dict[str, tuple[str, ...]] = {
    "particles": ("particles.star",),
    "polished particles": ("shiny.star",),
    "reference": ("initial_model.mrc",),
    "optimisation set": ("optimisation_set.star",),
}
"""What jobs of other kinds (Extract, Select, Polish, InitialModel...) make, and the names of its files."""


@dataclass(frozen=True)
class Feed:
    """Where the value of an option comes from.

    Attributes
    ----------
    option : str
        The option that is fed.
    what : str
        What is taken: a product in :data:`PRODUCTS` or :data:`STARTS`, or, of a carried feed, the option.
    steps : tuple of str
        The steps that it may come from; that of the newest job which has it is taken.
    starts : tuple of str
        What to start from, as :func:`.workflow_starts.find_starts` names it; the first that there is
        serves where no such step has been done, or where a newer job made it.
    carried : bool
        Whether it is the option ``what`` of that job rather than one of its files.
    of : str
        A job that decides: the source is what the newest one of that kind was run on.
    unless_newer : str
        A step whose job must not be newer than the one that is taken from.
    """

    option: str
    what: str
    steps: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    carried: bool = False
    of: str = ""
    unless_newer: str = ""


@dataclass(frozen=True)
class Step:
    """One step of a workflow.

    Attributes
    ----------
    key : str
        Its name within the workflow.
    job : str
        Command name of the job that does it.
    title : str
        Its name in RELION's tutorials.
    purpose : str
        One sentence on what it is for.
    feeds : tuple of Feed
        Where the values of its form come from.
    settings : mapping of str to (value, reason)
        What the tutorials set at this step, and why.
    round : int
        1 or 2 where the same job is done before and after CtfRefine; 0 where that makes no difference.
    """

    key: str
    job: str
    title: str
    purpose: str
    feeds: tuple[Feed, ...] = ()
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    round: int = 0


@dataclass(frozen=True)
class Workflow:
    """The steps from particles to a sharpened map, in order.

    Attributes
    ----------
    name : str
        "single-particles" or "subtomograms".
    title : str
        For people.
    steps : tuple of Step
        The steps.
    """

    name: str
    title: str
    steps: tuple[Step, ...]

    def step(self, key: str) -> Step:
        """Return the step of that key."""
        return next(step for step in self.steps if step.key == key)


def _file(option: str, what: str, *steps: str, **others: Any) -> Feed:
    return Feed(option, what, steps, **others)


def _same(option: str, *steps: str, **others: Any) -> Feed:
    """Return the feed of an option that keeps the value that it had in an earlier job."""
    return Feed(option, option, steps, carried=True, **others)


_REFINED = ("refine3d", "refine3d-again")
_SHARPENED = ("postprocess", "postprocess-again")
_GREYSCALE = (True, "A map that was refined here is on the scale of its particles.")
_FLATTENED = (True, "With a mask, resolution and alignment are not held back by the noise of the solvent.")
_DETECTOR = (
    _same("mtf", *_SHARPENED, starts=("mtf",)),
    _same("mtf_pixel_size", *_SHARPENED, starts=("detector pixel size",)),
    _same("pixel_size", *_SHARPENED),
)

SINGLE_PARTICLES = Workflow(
    "single-particles",
    "Single particles",
    (
        Step(
            "rescale",
            "image-handler",
            "Rescale map",
            "Bring the reference to the pixel size and the box of the particles.",
            (_file("input", "reference", starts=("reference",)),),
        ),
        Step(
            "refine3d",
            "refine3d",
            "Refine3D",
            "Refine the map and the poses of the particles, two halves of them independently.",
            (
                _file("particles", "particles", starts=("particles",)),
                _file("reference", "reference", starts=("rescaled", "reference")),
                _same("symmetry", "refine3d"),
                _same("mask_diameter", "refine3d"),
            ),
            round=1,
        ),
        Step(
            "mask",
            "mask-create",
            "MaskCreate",
            "Make a soft mask that tells the particle from the solvent.",
            (_file("input", "map", *_REFINED),),
        ),
        Step(
            "postprocess",
            "postprocess",
            "PostProcess",
            "Sharpen the map and measure its resolution behind the mask.",
            (_file("half_map", "half map", "refine3d"), _file("mask", "mask", "mask"), *_DETECTOR),
            round=1,
        ),
        Step(
            "ctf",
            "ctf-refine",
            "CtfRefine",
            "Measure the defocus of each particle and the beam tilt against the sharpened map.",
            (
                _file("postprocess", "curves", *_SHARPENED),
                _file("particles", "particles", *_REFINED, of="postprocess"),
                _same("symmetry", *_REFINED, of="postprocess"),
            ),
            {
                "fit_defocus": ("per-particle", "As in the tutorial; particles lie at different heights."),
                "fit_beamtilt": (True, "As in the tutorial; beam tilt limits what is finer than some 4 Å."),
            },
        ),
        Step(
            "refine3d-again",
            "refine3d",
            "Refine3D again",
            "Refine once more, with the new defocus and beam tilt.",
            (
                _file("particles", "particles", "ctf", starts=("polished particles",)),
                _file("reference", "half map", *_REFINED),
                _file("reference_mask", "mask", "mask"),
                _same("symmetry", *_REFINED),
                _same("mask_diameter", *_REFINED),
            ),
            {"absolute_greyscale": _GREYSCALE, "solvent_flattened_fsc": _FLATTENED},
            round=2,
        ),
        Step(
            "postprocess-again",
            "postprocess",
            "PostProcess again",
            "See how far the map has come.",
            (_file("half_map", "half map", "refine3d-again"), _file("mask", "mask", "mask"), *_DETECTOR),
            round=2,
        ),
        Step(
            "local",
            "local-resolution",
            "LocalRes",
            "Measure the resolution place by place, and filter the map to it.",
            (_file("half_map", "half map", *_REFINED), _file("mask", "mask", "mask"), *_DETECTOR),
        ),
    ),
)

_SETS = ("extract", "reconstruct", "refine3d")
_MAPS = ("reconstruct", "refine3d")

SUBTOMOGRAMS = Workflow(
    "subtomograms",
    "Subtomograms",
    (
        Step(
            "extract",
            "pseudo-subtomo",
            "Extract subtomos",
            "Cut the particles out of the tilt series, at a finer binning in each round.",
            (
                _file("optimisation_set", "optimisation set", *_SETS, starts=("optimisation set",)),
                _same("binning", "reconstruct", unless_newer="refine3d"),
                _same("box_size", "reconstruct", unless_newer="refine3d"),
                _same("crop_size", "reconstruct", unless_newer="refine3d"),
            ),
        ),
        Step(
            "reconstruct",
            "reconstruct-particle",
            "Reconstruct particle",
            "Make the reference of the new binning from the particles as they are aligned.",
            (
                _file("optimisation_set", "optimisation set", *_SETS, starts=("optimisation set",)),
                _same("binning", "extract", unless_newer="refine3d"),
                _same("box_size", "extract", unless_newer="refine3d"),
                _same("crop_size", "extract", unless_newer="refine3d"),
                _same("symmetry", "refine3d", "reconstruct"),
            ),
        ),
        Step(
            "refine3d",
            "refine3d",
            "Refine3D",
            "Refine map and poses; at the Nyquist limit, go on with the next binning.",
            (
                _file("optimisation_set", "optimisation set", "extract", "reconstruct"),
                _file("reference_mask", "mask", "mask"),
                _same("symmetry", "reconstruct", "refine3d"),
                _same("mask_diameter", "refine3d"),
            ),
            {"absolute_greyscale": _GREYSCALE, "solvent_flattened_fsc": _FLATTENED},
        ),
        Step(
            "mask",
            "mask-create",
            "MaskCreate",
            "Make a soft mask that tells the particle from the solvent.",
            (_file("input", "map", *_MAPS),),
        ),
        Step(
            "postprocess",
            "postprocess",
            "PostProcess",
            "Sharpen the map and measure its resolution behind the mask.",
            (_file("half_map", "half map", *_MAPS), _file("mask", "mask", "mask"), *_DETECTOR),
        ),
        Step(
            "local",
            "local-resolution",
            "LocalRes",
            "Measure the resolution place by place, and filter the map to it.",
            (_file("half_map", "half map", *_MAPS), _file("mask", "mask", "mask"), *_DETECTOR),
        ),
    ),
)

WORKFLOWS = {workflow.name: workflow for workflow in (SINGLE_PARTICLES, SUBTOMOGRAMS)}
"""Name -> workflow."""
