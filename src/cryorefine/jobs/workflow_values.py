"""The values for the form of a step, each with its reason: from the jobs before it, and from the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs.base import describe
from cryorefine.jobs.lineage import Lineage
from cryorefine.jobs.project import ProjectJob
from cryorefine.jobs.workflow import Feed, Step
from cryorefine.jobs.workflow_starts import Start, rescaled_name
from cryorefine.jobs.workflow_state import StepState, product_of

if TYPE_CHECKING:
    from cryorefine.tomo.suggestions import Suggestion


@dataclass(frozen=True)
class Given:
    """A value for an option, and where it is from.

    Attributes
    ----------
    option : str
        The option.
    value : object
        Its value.
    reason : str
        "from Refine3D/job003", or a sentence.
    """

    option: str
    value: Any
    reason: str


def values_for(
    step: Step, states: Sequence[StepState], lineage: Lineage, starts: Mapping[str, Start]
) -> list[Given]:
    """Return what the jobs before a step, and the tutorials, have for its options.

    Parameters
    ----------
    step : Step
        The step whose form is to be filled.
    states : sequence of StepState
        Of all steps of its workflow; the jobs that are looked at are those that are taken from.
    lineage : Lineage
        Of the project.
    starts : mapping of str to Start
        As returned by :func:`.workflow_starts.find_starts`.
    """
    given: dict[str, Given] = {}
    for feed in step.feeds:
        found = _fed(feed, states, lineage, starts)
        if found is not None:
            given[feed.option] = found
    for option, (value, reason) in step.settings.items() if given else ():
        if option != "solvent_flattened_fsc" or "reference_mask" in given:
            given[option] = Given(option, value, reason)
    _drop_mask_of_another_box(given)
    return list(given.values())


def suggestions_for(
    step: Step, values: Mapping[str, Any], states: Sequence[StepState], starts: Mapping[str, Start]
) -> Iterator[Given]:
    """Yield what follows from the files themselves, which takes a moment: boxes, filters, a threshold.

    Parameters
    ----------
    step : Step
        The step.
    values : mapping of str to object
        What stands on its form.
    states : sequence of StepState
        Of all steps of its workflow.
    starts : mapping of str to Start
        As returned by :func:`.workflow_starts.find_starts`.
    """
    try:
        found = _suggested(step, values, states, starts)
    except UserError:
        return  # what is wrong with a file is told when the job is run
    for option, suggestion in found.items():
        yield Given(option, suggestion.value, suggestion.reason)


def _fed(
    feed: Feed, states: Sequence[StepState], lineage: Lineage, starts: Mapping[str, Start]
) -> Given | None:
    start = next((starts[name] for name in feed.starts if name in starts), None)
    for job, command in _sources(feed, states, lineage):
        if start is not None and not feed.carried and start.number > job.number:
            break
        if feed.carried:
            value = option_of(job, feed.what)
            if value is not None:
                return Given(feed.option, value, f"as in {_named(job)}")
        elif (path := product_of(job, command, feed.what)) is not None:
            return Given(feed.option, path, f"from {_named(job)}")
    return None if start is None else Given(feed.option, start.value, start.reason)


def _sources(feed: Feed, states: Sequence[StepState], lineage: Lineage) -> list[tuple[ProjectJob, str]]:
    """Return the jobs that a value may come from, the newest first, and their commands."""
    by_key = {state.step.key: state for state in states}
    if feed.of:
        users = [state.source for state in states if state.step.job == feed.of and state.source]
        if users:
            newest = max(users, key=lambda job: job.number)
            kinds = {by_key[key].step.job for key in feed.steps if key in by_key}
            parents = [job for job in lineage.ancestors(newest) if lineage.kinds[job.name] in kinds]
            if parents:
                return [(job, lineage.kinds[job.name]) for job in parents]
    found = [(by_key[key].source, by_key[key].step.job) for key in feed.steps if key in by_key]
    jobs = [(job, command) for job, command in found if job is not None]
    newer = by_key[feed.unless_newer].source if feed.unless_newer else None
    if newer is not None:
        jobs = [(job, command) for job, command in jobs if job.number > newer.number]
    return sorted(jobs, key=lambda pair: pair[0].number, reverse=True)


def option_of(job: ProjectJob, option: str) -> Any:
    """Return an option of a job where it differs from the default, as its job file says; None otherwise."""
    from cryorefine.jobs.relion_job import read_job

    try:
        options = read_job(job.folder / "job.star").options
    except UserError:
        return None
    described = describe(type(options))
    value = getattr(options, option, None)
    return value if option in described and value != described[option][0].default else None


def _drop_mask_of_another_box(given: dict[str, Given]) -> None:
    from cryorefine.io.mrc import read_layout

    if {"mask", "half_map"} <= given.keys():
        try:
            boxes = {read_layout(given[name].value).shape for name in ("mask", "half_map")}
        except UserError:
            return
        if len(boxes) > 1:
            del given["mask"]


def _suggested(
    step: Step, values: Mapping[str, Any], states: Sequence[StepState], starts: Mapping[str, Start]
) -> dict[str, Suggestion]:
    from cryorefine.jobs import suggest

    if step.job == "image-handler":
        if values["input"] is None or not {"box", "pixel size"} <= starts.keys():
            return {}
        box = starts["box"].value
        target = rescaled_name(values["input"], box)
        return suggest.for_rescaling(starts["particles"].value, starts["pixel size"].value, box, target)
    if step.job == "mask-create":
        return {} if values["input"] is None else suggest.for_mask(values["input"], values["lowpass"])
    if step.job == "refine3d":
        names = ("optimisation_set", "reference", "mask_diameter", "initial_lowpass")
        entries, reference, diameter, lowpass = (values[name] for name in names)
        halves = reference is not None and "half" in reference.name
        return suggest.for_refinement(entries, reference, diameter, lowpass) if entries or halves else {}
    if step.job in ("pseudo-subtomo", "reconstruct-particle"):
        return _for_extraction(step, values, states)
    return {}


def _for_extraction(
    step: Step, values: Mapping[str, Any], states: Sequence[StepState]
) -> dict[str, Suggestion]:
    from cryorefine.jobs import suggest

    sources = {state.step.key: state.source for state in states}
    refined = sources["refine3d"]
    if refined is None or values["optimisation_set"] is None:
        return {}
    other = sources["extract" if step.key == "reconstruct" else "reconstruct"]
    if other is not None and other.number > refined.number:
        return {}  # particles and reference are to be on one grid
    diameter = option_of(refined, "mask_diameter") or 200.0
    return suggest.for_extraction(
        values["optimisation_set"], values["tomograms"], diameter, values["binning"]
    )


def _named(job: ProjectJob) -> str:
    return f"{job.name} ({job.alias})" if job.alias else job.name
