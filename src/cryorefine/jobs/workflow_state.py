"""How far a project has come: which of its jobs stand at which step of a workflow, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryorefine.jobs.headlines import headline, number_in
from cryorefine.jobs.lineage import Lineage, binning_of
from cryorefine.jobs.project import Project, ProjectJob
from cryorefine.jobs.workflow import PRODUCTS, Step, Workflow

NOT_RUN, NOT_NEEDED = "not run", "not needed"


@dataclass(frozen=True)
class StepState:
    """One step of a workflow in a project.

    Attributes
    ----------
    step : Step
        The step.
    jobs : tuple of ProjectJob
        Its jobs, the newest first.
    job : ProjectJob or None
        The one that is looked at: the newest unless another was chosen.
    status : str
        That of the job, as in :class:`.project.ProjectJob`; "not run" or "not needed" without one.
    headline : str
        What came of it or how far it is ("4.8 Å"), or why it failed, in a sentence.
    percent : int or None
        How far the stage of a running job has come.
    product : Path or None
        What a step without a job folder has made.
    """

    step: Step
    jobs: tuple[ProjectJob, ...] = ()
    job: ProjectJob | None = None
    status: str = NOT_RUN
    headline: str = ""
    percent: int | None = None
    product: Path | None = None

    @property
    def done(self) -> bool:
        """Whether it has something for the steps after it."""
        return self.status in ("succeeded", NOT_NEEDED)

    @property
    def source(self) -> ProjectJob | None:
        """The job whose files feed other steps: the one looked at, or the newest that has finished."""
        if self.job is not None and self.job.status == "succeeded":
            return self.job
        return next((job for job in self.jobs if job.status == "succeeded"), None)


def read_states(
    workflow: Workflow,
    project: Project,
    chosen: Mapping[str, str] | None = None,
    lineage: Lineage | None = None,
) -> list[StepState]:
    """Return the state of every step of a workflow in a project.

    Parameters
    ----------
    workflow : Workflow
        Single particles or subtomograms.
    project : Project
        As read by :func:`.project.read_project`.
    chosen : mapping of str to str, optional
        Key of a step -> name of the job that is to be looked at instead of the newest one.
    lineage : Lineage, optional
        Of this project, if it is there already.
    """
    lineage = lineage or Lineage(project)
    states = []
    for step in workflow.steps:
        jobs = tuple(job for job in project.jobs if _stands_at(step, workflow, job, lineage))
        wanted = (chosen or {}).get(step.key)
        job = next((job for job in jobs if job.name == wanted), jobs[0] if jobs else None)
        if job is None:
            states.append(StepState(step))
        else:
            text, percent = headline(job, step.job)
            states.append(StepState(step, jobs, job, job.status, text, percent))
    return states


def next_step(states: list[StepState]) -> Step | None:
    """Return the step to do next: the one after the newest finished job; None at the end or during a job.

    Subtomograms whose refinement is held back by its pixels are extracted anew, at the next binning;
    particles and reference of a binning may be made in either order. The local resolution, which nothing
    builds upon, may be measured at any time.
    """
    if any(state.status == "running" for state in states):
        return None
    finished = [state for state in states if state.source is not None and state.step.key != "local"]
    if not finished:
        return next((state.step for state in states if not state.done), None)
    last = max(finished, key=lambda state: state.source.number if state.source else 0)
    extracted = next((state for state in states if state.step.key == "extract"), None)
    if extracted is not None and last.step.key == "refine3d" and last.source is not None:
        binned = extracted.source is None or binning_of(extracted.source) != 1.0
        if binned and at_nyquist(last.source.folder):
            return extracted.step
    if last.step.key in ("extract", "reconstruct"):
        return _of_round(states, last)
    later = [state for state in states[states.index(last) + 1 :] if state.status != NOT_NEEDED]
    if later and not (later[0].step.key == "local" and later[0].source is not None):
        return later[0].step
    return None


def _of_round(states: list[StepState], last: StepState) -> Step:
    """Return what a round of subtomograms lacks: its particles, its reference, or else the refinement."""
    by_key = {state.step.key: state for state in states}
    other = by_key["reconstruct" if last.step.key == "extract" else "extract"]
    one, two, refined = last.source, other.source, by_key["refine3d"].source
    assert one is not None
    if two is None or binning_of(one) != binning_of(two):
        return other.step
    # Particles of an earlier round have their images still; a reference is to be of the new poses.
    old = refined is not None and two.number < refined.number
    return other.step if old and other.step.key == "reconstruct" else by_key["refine3d"].step


def at_nyquist(folder: Path) -> bool:
    """Tell whether a Refine3D job has come so near to its Nyquist limit that its pixels hold it back."""
    from cryorefine.tomo.suggestions import AT_NYQUIST

    model = folder / "run_model.star"
    reached, pixel_size = (number_in(model, label) for label in ("rlnCurrentResolution", "rlnPixelSize"))
    return reached is not None and pixel_size is not None and reached <= AT_NYQUIST * 2 * pixel_size


def product_of(job: ProjectJob, command: str, what: str) -> Path | None:
    """Return the file of a job that holds what is asked for, None if it is not there."""
    name = PRODUCTS.get(command, {}).get(what)
    path = job.folder / name if name else None
    return path if path is not None and path.is_file() else None


def _stands_at(step: Step, workflow: Workflow, job: ProjectJob, lineage: Lineage) -> bool:
    if lineage.kinds[job.name] != step.job or job.status == "missing":
        return False
    if lineage.family(job) not in ("", workflow.name):
        return False
    return step.round in (0, lineage.round(job))
