"""The jobs of a project: of one of RELION's, or of a folder in which only this program has worked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.io.pipeline import PIPELINE_FILE, Process, new_pipeline, read_pipeline
from cryorefine.jobs.alias import alias_of
from cryorefine.jobs.events import PROGRESS_FILE
from cryorefine.jobs.folder import EXIT_FILES, status
from cryorefine.jobs.pipeline_record import next_number

_SIGNS_OF_LIFE = (*EXIT_FILES.values(), PROGRESS_FILE, "run.out", "job.star")


@dataclass(frozen=True)
class ProjectJob:
    """One job of a project.

    Attributes
    ----------
    name : str
        Its folder within the project, e.g. "Refine3D/job012".
    folder : Path
        Its folder.
    alias : str
        The name a person gave it; empty if none.
    label : str
        RELION's label of its kind, e.g. "relion.refine3d"; empty where nothing says it.
    status : str
        "running", "scheduled", "succeeded", "failed", "aborted", "interrupted" (killed, without a word)
        or "missing" (the folder is gone).
    time : float or None
        When its log or its exit file was written last, in seconds as of ``time.time()``.
    recorded : bool
        Whether RELION's pipeline has it.
    """

    name: str
    folder: Path
    alias: str
    label: str
    status: str
    time: float | None
    recorded: bool

    @property
    def kind(self) -> str:
        """The folder of jobs of its kind, e.g. "Refine3D"."""
        return self.name.partition("/")[0]

    @property
    def number(self) -> int:
        """Its number, which counts across all kinds; 0 for a folder without one."""
        match = re.search(r"job(\d+)$", self.name)
        return int(match[1]) if match else 0


@dataclass(frozen=True)
class Project:
    """The jobs of a project folder, the newest first.

    Attributes
    ----------
    folder : Path
        The folder.
    jobs : tuple of ProjectJob
        Its jobs.
    of_relion : bool
        Whether it has a pipeline of RELION's.
    warning : str
        What is wrong with that; mostly empty.
    """

    folder: Path
    jobs: tuple[ProjectJob, ...]
    of_relion: bool
    warning: str = ""


def read_project(folder: Path | str) -> Project:
    """List the jobs of a project.

    Those of RELION's pipeline, if there is one, and every numbered folder in which a job has run. Reading
    changes nothing, and waits for nobody.

    Parameters
    ----------
    folder : path
        The folder in which Refine3D/, MaskCreate/ and so on stand, or its ``default_pipeline.star``.

    Raises
    ------
    UserError
        If there is no such folder.
    """
    project = Path(folder)
    if project.name == PIPELINE_FILE:
        project = project.parent
    if not project.is_dir():
        raise UserError(f"{project} is not a folder; give the folder of a project.")
    file = project / PIPELINE_FILE
    processes: list[Process] = []
    warning = ""
    if file.is_file():
        try:
            processes = read_pipeline(file).processes()
        except UserError as error:
            warning = str(error)
    jobs = [_recorded_job(project, process) for process in processes]
    known = {job.name for job in jobs}
    jobs += [job for job in _job_folders(project) if job.name not in known]
    jobs.sort(key=lambda job: (job.number, job.time or 0.0), reverse=True)
    return Project(project, tuple(jobs), file.is_file(), warning)


def start_pipeline(folder: Path) -> Path:
    """Make a project of RELION 5 out of a folder: jobs that begin from now on are entered into its pipeline.

    Returns
    -------
    Path
        The new ``default_pipeline.star``, whose counter stands behind the jobs that are there already.

    Raises
    ------
    UserError
        If it is one already, or cannot be written to.
    """
    file = folder / PIPELINE_FILE
    if file.exists():
        raise UserError(f"{file} is there already; nothing needs to be made.")
    pipeline = new_pipeline(file)
    pipeline.job_counter = next_number(folder)
    pipeline.write()
    return file


def _recorded_job(project: Path, process: Process) -> ProjectJob:
    folder = project / process.name
    told = process.status.lower()
    if not folder.is_dir():
        state = "scheduled" if told == "scheduled" else "missing"
    elif told != "running":
        state = told
    elif (folder / PROGRESS_FILE).is_file():
        state = status(folder)  # ours, which may have been killed
    else:
        state = next((outcome for outcome, name in EXIT_FILES.items() if (folder / name).exists()), told)
    return ProjectJob(
        process.name, folder, process.alias, process.label, state, _last_written(folder), recorded=True
    )


def _job_folders(project: Path) -> Iterator[ProjectJob]:
    for folder in project.glob("*/job[0-9]*"):
        state = status(folder) if re.fullmatch(r"job\d+", folder.name) and folder.is_dir() else "empty"
        if state != "empty" and not folder.is_symlink():
            name = f"{folder.parent.name}/{folder.name}"
            yield ProjectJob(
                name, folder, alias_of(folder), _label(folder), state, _last_written(folder), recorded=False
            )


def _label(folder: Path) -> str:
    try:
        text = (folder / "job.star").read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"(?m)^_rlnJobTypeLabel\s+(\S+)", text)
    return match[1] if match else ""


def _last_written(folder: Path) -> float | None:
    times = []
    for name in _SIGNS_OF_LIFE:
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)
