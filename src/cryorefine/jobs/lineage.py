"""Which job of a project was run on which others, and what kind of job each of them is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from cryorefine.jobs.project import Project, ProjectJob
from cryorefine.jobs.registry import JOBS, load
from cryorefine.jobs.workflow import SINGLE_PARTICLES, SUBTOMOGRAMS

_TOMO_JOBS = ("pseudo-subtomo", "reconstruct-particle")
_POLISH = "relion.polish"


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
                return 1 + any(
                    self.kinds[i.name] == "ctf-refine" or i.label.startswith(_POLISH) for i in inputs
                )
        return 1


def binning_of(job: ProjectJob) -> float | None:
    """Return the binning that a job file names, None where it has none."""
    match = re.search(r"(?m)^\s*binning\s+(\S+)", _job_file(job.folder / "job.star", job.time))
    return float(match[1]) if match else None


def _is_tomo(job: ProjectJob) -> bool:
    text = _job_file(job.folder / "job.star", job.time)
    return bool(re.search(r"(?m)^_rlnJobIsTomo\s+1", text))


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
