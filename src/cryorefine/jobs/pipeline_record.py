"""A job written into RELION's pipeline, so that RELION's own interface shows it and goes on from it.

A job that cannot be written there runs all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryorefine.errors import UserError
from cryorefine.io.pipeline import PIPELINE_FILE, Pipeline, Process, node_folder, read_pipeline
from cryorefine.io.pipeline_words import process_number
from cryorefine.jobs.alias import alias_of
from cryorefine.jobs.base import Job, describe
from cryorefine.jobs.pipeline_lock import changed_pipeline
from cryorefine.jobs.relion_job import write_job

STATUSES = {"succeeded": "Succeeded", "failed": "Failed", "aborted": "Aborted"}

_INPUT_KINDS = {
    "map": "DensityMap.mrc",
    "half_map": "DensityMap.mrc.relion.halfmap",
    "mask": "Mask3D.mrc",
    "particles": "ParticleGroupMetadata.star.relion",
}
_INPUT_NAMES = {
    "optimisation_set": "TomoOptimisationSet.star.relion",
    "tomograms": "TomogramGroupMetadata.star.relion",
    "trajectories": "TomoTrajectoryData.star.relion",
    "postprocess": "ProcessData.star.relion.postprocess",
}
_OUTPUTS: dict[str, dict[str, str]] = {
    "refine3d": {
        "run_data.star": "ParticleGroupMetadata.star.relion.refine3d",
        "run_optimiser.star": "OptimiserData.star.relion.refine3d",
        "run_half1_class001_unfil.mrc": "DensityMap.mrc.relion.halfmap.refine3d",
        "run_class001.mrc": "DensityMap.mrc.relion.refine3d",
        "run_optimisation_set.star": "TomoOptimisationSet.star.relion.refine3d",
    },
    "mask-create": {"mask.mrc": "Mask3D.mrc.relion"},
    "postprocess": {
        "postprocess.mrc": "DensityMap.mrc.relion.postprocess",
        "postprocess_masked.mrc": "DensityMap.mrc.relion.postprocess.masked",
        "postprocess.star": "ProcessData.star.relion.postprocess",
        "logfile.pdf": "LogFile.pdf.relion.postprocess",
    },
    "ctf-refine": {
        "particles_ctf_refine.star": "ParticleGroupMetadata.star.relion.ctfrefine",
        "logfile.pdf": "LogFile.pdf.relion.ctfrefine",
    },
    "local-resolution": {
        "relion_locres_filtered.mrc": "DensityMap.mrc.relion.localresfiltered",
        "relion_locres.mrc": "Image3D.mrc.relion.localresmap",
        "histogram.pdf": "LogFile.pdf.relion.localres",
    },
    "pseudo-subtomo": {
        "optimisation_set.star": "TomoOptimisationSet.star.relion.tomo.extract",
        "particles.star": "ParticleGroupMetadata.star.relion.tomo.extract",
    },
    "reconstruct-particle": {
        "merged.mrc": "DensityMap.mrc.relion.tomo.map.reconstruct",
        "half1.mrc": "DensityMap.mrc.relion.tomo.halfmap.reconstruct",
        "optimisation_set.star": "TomoOptimisationSet.star.relion.tomo.reconstruct",
    },
    "confidence": {
        "confidence.mrc": "DensityMap.mrc.cryorefine.confidence",
        "significant.mrc": "DensityMap.mrc.cryorefine.significant",
    },
}
"""Command name of a job -> file -> RELION's label of it (of RELION 5)."""


def project_and_name(folder: Path) -> tuple[Path, str] | None:
    """Return the project of a job's folder and the job's name in it, e.g. "Refine3D/job012".

    A link that is the alias of a job stands for the job. None for a folder that is not numbered as
    RELION's jobs are, or not below a ``default_pipeline.star``.
    """
    path = _without_alias(Path(os.path.abspath(folder)))
    project = path.parent.parent
    if not re.fullmatch(r"job\d+", path.name) or not (project / PIPELINE_FILE).is_file():
        return None
    return project, f"{path.parent.name}/{path.name}"


def next_number(project: Path) -> int:
    """Return the number of the next job: higher than any folder's, and not below RELION's own count."""
    numbers = [0]
    for folder in project.glob("*/job[0-9]*"):
        if match := re.fullmatch(r"job(\d+)", folder.name):
            numbers.append(int(match[1]))
    counted = 1
    if (project / PIPELINE_FILE).is_file():
        with contextlib.suppress(UserError):  # damaged: what is there still counts
            counted = read_pipeline(project / PIPELINE_FILE).job_counter
    return max(max(numbers) + 1, counted)


class PipelineRecord:
    """What the pipeline of a project says of one run of a job.

    Every method returns None, or a sentence that says why nothing could be written. Outside of a
    project nothing is written.

    Parameters
    ----------
    job : Job
        The job.
    options : dataclass instance
        Its options, with ``output`` set.
    """

    def __init__(self, job: Job, options: Any) -> None:
        self._job, self._options = job, options
        self._place = project_and_name(options.output)
        self._began = False
        self._counter: int | None = None

    def job_tables(self) -> dict[str, Any]:
        """Return the tables of job.star, which in a project of RELION's are such that RELION can open it.

        Files are named as from the project, wherever the job was started, and RELION 3 finds its number
        of the job, without which it would stop when somebody looks at the job.
        """
        if self._place is None:
            return write_job(self._job, self._options)
        project = self._place[0]
        tables = write_job(self._job, _as_from(project, self._options))
        with contextlib.suppress(UserError):
            if read_pipeline(project / PIPELINE_FILE).in_numbers:
                number = int(process_number(tables["job"]["rlnJobTypeLabel"]))
                tables["job"] = {**tables["job"], "rlnJobType": number}
        return tables

    def begin(self) -> str | None:
        """Enter the job as running, with the files that go into it."""
        if self._place is None:
            return None
        project, name = self._place
        try:
            with changed_pipeline(project) as pipeline:
                if name not in {process.name for process in pipeline.processes()}:
                    self._counter = pipeline.job_counter
                self._put(pipeline, "Running")
                for node, label in self._inputs():
                    pipeline.add_input(name, node, label)
        except (UserError, OSError) as error:
            return f"{name} is not entered into RELION's pipeline: {error}"
        self._began = True
        return None

    def end(self, outcome: str) -> str | None:
        """Enter how the job ended ("succeeded", "failed" or "aborted") and what it has made.

        To be told before the job's exit file is there: RELION takes a job that has both an exit file and
        the state "Running" for one that it has to look after itself.
        """
        if self._place is None or not self._began:
            return None
        project, name = self._place
        try:
            with changed_pipeline(project) as pipeline:
                self._put(pipeline, STATUSES[outcome])
                for file, label in _OUTPUTS.get(self._job.name, {}).items():
                    if (project / name / file).is_file():
                        pipeline.add_output(name, f"{name}/{file}", label)
                        self._offer(pipeline, file, label)
        except (UserError, OSError) as error:
            return f"RELION's pipeline does not say that {name} has {outcome}: {error}"
        return None

    def withdraw(self) -> str | None:
        """Take out a job that has turned out to be none; its number is free again."""
        if self._place is None or not self._began or self._counter is None:
            return None
        project, name = self._place
        try:
            with changed_pipeline(project) as pipeline:
                pipeline.remove_process(name)
                if pipeline.job_counter == _number(name) + 1:
                    pipeline.job_counter = self._counter
        except (UserError, OSError) as error:
            return f"{name} is still in RELION's pipeline: {error}"
        return None

    def _put(self, pipeline: Pipeline, status: str) -> None:
        assert self._place is not None
        project, name = self._place
        label = str(write_job(self._job, self._options)["job"]["rlnJobTypeLabel"])
        pipeline.put_process(Process(name, alias_of(project / name), label, status))

    def _inputs(self) -> Iterator[tuple[str, str]]:
        """Yield name and kind of the files that go into the job."""
        assert self._place is not None
        for field, (_, description) in describe(type(self._options)).items():
            label = _INPUT_NAMES.get(field) or _INPUT_KINDS.get(description.kind)
            file = getattr(self._options, field)
            if label is None or not isinstance(file, Path):
                continue
            first = file.with_name(file.name.replace("half2", "half1"))
            if description.kind == "half_map" and first.is_file():
                file = first  # the one of the two that stands for both
            node = node_name(self._place[0], file)
            if node and not node.startswith(f"{self._place[1]}/"):  # a layer of napari's, saved for the job
                yield node, label

    def _offer(self, pipeline: Pipeline, file: str, label: str) -> None:
        """Let RELION's file dialogues find a file: they look into folders of empty files of its name."""
        assert self._place is not None
        project, name = self._place
        offered, kind = project / ".Nodes", node_folder(pipeline, label)
        if offered.is_dir() and kind:
            alias = alias_of(project / name)
            entry = offered / kind / name / file
            if alias:
                entry = offered / kind / name.partition("/")[0] / alias / file
            entry.parent.mkdir(parents=True, exist_ok=True)
            entry.touch()


def record_alias(folder: Path) -> None:
    """Enter the alias of a job that has got it after it had ended, unless somebody holds the lock now."""
    place = project_and_name(folder)
    if place is None:
        return
    project, name = place
    with contextlib.suppress(UserError, OSError), changed_pipeline(project, wait=0) as pipeline:
        for process in pipeline.processes():
            if process.name == name:
                pipeline.put_process(dataclasses.replace(process, alias=alias_of(project / name)))


def record_failure(folder: Path) -> None:
    """Enter a job that was killed as failed, if the pipeline has it as running and its lock is free."""
    place = project_and_name(folder)
    if place is None:
        return
    project, name = place
    with contextlib.suppress(UserError, OSError), changed_pipeline(project, wait=0.5) as pipeline:
        for process in pipeline.processes():
            if process.name == name and process.status == "Running":
                pipeline.put_process(dataclasses.replace(process, status=STATUSES["failed"]))


def node_name(project: Path, file: Path) -> str | None:
    """Return what a file is called in the pipeline of a project: its path from there, without aliases.

    None for a file outside of the project, or with a name that a pipeline cannot hold.
    """
    path, root = Path(os.path.abspath(file)), Path(os.path.abspath(project))
    if not path.is_relative_to(root):
        path, root = path.resolve(), root.resolve()
    if not path.is_relative_to(root):
        return None
    kind, *rest = path.relative_to(root).parts
    if len(rest) > 1:
        rest[0] = _without_alias(root / kind / rest[0]).name
    name = "/".join([kind, *rest])
    return None if re.search(r"[\s#\"']", name) else name


def _as_from(project: Path, options: Any) -> Any:
    """Return options whose files are named as from the project, or by their whole path outside of it."""
    changes = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        # The folder to go on from is looked into when job.star is written.
        if isinstance(value, Path) and field.name not in ("output", "continue_from"):
            path = Path(os.path.abspath(value))
            changes[field.name] = path.relative_to(project) if path.is_relative_to(project) else path
    return dataclasses.replace(options, **changes)


def _without_alias(path: Path) -> Path:
    return path.parent / Path(os.readlink(path)).name if path.is_symlink() else path


def _number(name: str) -> int:
    return int(name.rpartition("job")[2])
