"""How far a project has come: which of its jobs stand at which step of a workflow, and what they say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryorefine.jobs.base import Figures, Progress
from cryorefine.jobs.events import PROGRESS_FILE, from_line
from cryorefine.jobs.project import Project, ProjectJob
from cryorefine.jobs.registry import JOBS, load
from cryorefine.jobs.workflow import PRODUCTS, SINGLE_PARTICLES, SUBTOMOGRAMS, Step, Workflow

NOT_RUN, NOT_NEEDED = "not run", "not needed"
_TAIL = 1 << 18  # bytes of progress.jsonl in which the last figures are looked for
_HEAD = 1 << 14
_TOMO_JOBS = ("pseudo-subtomo", "reconstruct-particle")
_OTHER_ROUND = ("ctf-refine", "relion.polish")
_FIGURES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "refine3d": (("resolution (A)", "", " Å"),),
    "mask-create": (("protein of that volume (kDa)", "room for ", " kDa of protein"),),
    "postprocess": (("resolution (A)", "", " Å"), ("B-factor (A^2)", "B ", " Å²")),
    "ctf-refine": (("beam tilt x of", "tilt ", ""), ("beam tilt y of", "", " mrad")),
    "pseudo-subtomo": (("particles", "", " particles"), ("pixel size (A)", "", " Å/px")),
    "reconstruct-particle": (("pixel size (A)", "", " Å/px"),),
    "local-resolution": (("median (A)", "median ", " Å"), ("best 1 % (A)", "best ", " Å")),
}
"""Job -> how the names of its headline figures begin, what stands before each and behind it."""


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


def job_of(job: ProjectJob) -> str:
    """Return the command name of a job of a project, "" for one of another kind."""
    for name in JOBS:
        known = load(name).JOB
        if not known.folder:
            continue
        if job.label in ("", "relion.external"):
            if job.kind == known.folder:
                return name
        elif any(
            one == other or one.startswith(f"{other}.")
            for one, other in ((job.label, known.relion_label), (known.relion_label, job.label))
        ):
            return name
    return ""


class Lineage:
    """Which job of a project was run on which others, as their job files say.

    Parameters
    ----------
    project : Project
        The project.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.kinds = {job.name: job_of(job) for job in project.jobs}
        self._jobs = {job.name: job for job in project.jobs}
        self._names = {job.name: job.name for job in project.jobs}
        self._names |= {f"{job.kind}/{job.alias}": job.name for job in project.jobs if job.alias}

    def parents(self, job: ProjectJob) -> list[ProjectJob]:
        """Return the jobs whose files went into a job, in the order in which its job file names them."""
        found = {self._names[name]: None for name in _folders_in(job) if name in self._names}
        return [self._jobs[name] for name in found if name != job.name]

    def ancestors(self, job: ProjectJob) -> Iterable[ProjectJob]:
        """Yield a job, its parents, and theirs, each once."""
        waiting, seen = [job], set()
        while waiting:
            one = waiting.pop(0)
            if one.name not in seen:
                seen.add(one.name)
                yield one
                waiting += self.parents(one)

    def family(self, job: ProjectJob) -> str:
        """Return the name of the workflow that a job belongs to, "" where it may be of either."""
        for one in self.ancestors(job):
            kind = self.kinds[one.name]
            if kind in _TOMO_JOBS or one.label.endswith(".tomo"):
                return SUBTOMOGRAMS.name
            if kind == "ctf-refine":
                return SINGLE_PARTICLES.name
            if kind == "refine3d":
                return SUBTOMOGRAMS.name if _is_tomo(job=one) else SINGLE_PARTICLES.name
        return ""

    def round(self, job: ProjectJob) -> int:
        """Return 2 for a refinement after CtfRefine or polishing and what was made of it, otherwise 1."""
        for one in self.ancestors(job):
            if self.kinds[one.name] == "refine3d":
                inputs = self.parents(one)
                return 1 + any(self.kinds[i.name] == "ctf-refine" or i.label in _OTHER_ROUND for i in inputs)
        return 1


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
            headline, percent = _told(job, step.job)
            states.append(StepState(step, jobs, job, job.status, headline, percent))
    return states


def next_step(states: list[StepState]) -> Step | None:
    """Return the step to do next: the one after the newest finished job; None at the end or during a job.

    Subtomograms whose refinement is held back by its pixels are extracted anew, at the next binning. The
    local resolution, which nothing builds upon, may be measured at any time.
    """
    if any(state.status == "running" for state in states):
        return None
    finished = [state for state in states if state.source is not None and state.step.key != "local"]
    if not finished:
        return next((state.step for state in states if not state.done), None)
    last = max(finished, key=lambda state: state.source.number if state.source else 0)
    extracted = next((state for state in states if state.step.key == "extract"), None)
    if extracted is not None and last.step.key == "refine3d" and last.source is not None:
        source = extracted.source
        binned = source is None or _binning(source.folder, source.time) != 1.0
        if binned and at_nyquist(last.source.folder):
            return extracted.step
    later = [state for state in states[states.index(last) + 1 :] if state.status != NOT_NEEDED]
    if later and not (later[0].step.key == "local" and later[0].source is not None):
        return later[0].step
    return None


def at_nyquist(folder: Path) -> bool:
    """Tell whether a Refine3D job has come so near to its Nyquist limit that its pixels hold it back."""
    from cryorefine.tomo.suggestions import AT_NYQUIST

    head = _head(folder / "run_model.star")
    reached, pixel_size = (_number(head, label) for label in ("rlnCurrentResolution", "rlnPixelSize"))
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


def _told(job: ProjectJob, command: str) -> tuple[str, int | None]:
    """Return what a job says in a line, and how far it is."""
    if job.status == "running":
        return _running(job.folder, command)
    if job.status == "failed":
        lines = _tail(job.folder / "run.err").strip().splitlines()
        return (lines[-1] if lines else "It left no reason."), None
    if job.status == "succeeded":
        return _headline(job.folder, command, job.time), None
    return "", None


def _running(folder: Path, command: str) -> tuple[str, int | None]:
    progress, figures = None, ""
    for line in reversed(_tail(folder / PROGRESS_FILE).splitlines()):
        try:
            event = from_line(line)
        except ValueError:
            continue  # cut off at the beginning of the tail, or still being written
        if isinstance(event, Progress) and progress is None:
            progress = event
        elif isinstance(event, Figures) and not figures:
            figures = _figures_text(event, command)
        if progress is not None and figures:
            break
    if progress is None:
        return figures, None
    percent = 100 * progress.done // progress.total if progress.total else None
    return ", ".join(filter(None, (progress.stage, figures))), percent


@lru_cache(maxsize=512)
def _headline(folder: Path, command: str, written: float | None) -> str:
    """Return the figures of a finished job; ``written`` makes it be read again when it has changed."""
    for line in reversed(_tail(folder / PROGRESS_FILE).splitlines()):
        if '"Figures"' in line:
            try:
                event = from_line(line)
            except ValueError:
                continue
            if isinstance(event, Figures) and (text := _figures_text(event, command)):
                return text
    return _relion_headline(folder, command, written)


def _figures_text(event: Figures, command: str) -> str:
    texts = []
    for begins, before, after in _FIGURES.get(command, ()):
        value = next((value for name, value in event.values.items() if name.startswith(begins)), None)
        if value is not None:
            texts.append(f"{before}{_short(value)}{after}")
    return ", ".join(texts)


def _short(value: float | int | str) -> str:
    if not isinstance(value, float):
        return str(value).partition(" ±")[0]
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _relion_headline(folder: Path, command: str, written: float | None) -> str:
    """Return the figures that stand in RELION's files."""
    if command == "refine3d":
        reached = _number(_head(folder / "run_model.star"), "rlnCurrentResolution")
        return f"{reached:.3g} Å" if reached else ""
    if command == "postprocess":
        head = _head(folder / "postprocess.star")
        reached = _number(head, "rlnFinalResolution")
        bfactor = _number(head, "rlnBfactorUsedForSharpening")
        texts = [f"{reached:.3g} Å" if reached else "", f"B {bfactor:.0f} Å²" if bfactor else ""]
        return ", ".join(filter(None, texts))
    if command in _TOMO_JOBS:
        binning = _binning(folder, written)
        return f"binning {binning:g}" if binning else ""
    return ""


def _is_tomo(job: ProjectJob) -> bool:
    text = _job_file(job.folder / "job.star", job.time)
    return bool(re.search(r"(?m)^_rlnJobIsTomo\s+1", text))


def _binning(folder: Path, written: float | None) -> float | None:
    match = re.search(r"(?m)^\s*binning\s+(\S+)", _job_file(folder / "job.star", written))
    return float(match[1]) if match else None


def _folders_in(job: ProjectJob) -> list[str]:
    """Return every two parts of the paths in a job file that may be the folder of a job."""
    names = []
    for word in _job_file(job.folder / "job.star", job.time).split():
        parts = word.strip('"').split("/")
        names += [f"{first}/{second}" for first, second in itertools.pairwise(parts)]
    return names


@lru_cache(maxsize=2048)
def _job_file(path: Path, written: float | None) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str, label: str) -> float | None:
    match = re.search(rf"(?m)^_{label}\s+(\S+)\s*$", text)
    try:
        return float(match[1]) if match else None
    except ValueError:
        return None


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).decode(errors="replace")
    except OSError:
        return ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
