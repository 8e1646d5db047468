"""A project shows its jobs, and RELION's interface shows those of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_map
from cryorefine.io.pipeline import Pipeline, Process, read_pipeline
from cryorefine.jobs import directional_fsc, finish, mask_create, pipeline_lock, pipeline_record
from cryorefine.jobs.alias import give_alias
from cryorefine.jobs.base import Notice
from cryorefine.jobs.folder import suggest_folder
from cryorefine.jobs.pipeline_lock import changed_pipeline
from cryorefine.jobs.pipeline_record import node_name, project_and_name, record_alias
from cryorefine.jobs.project import read_project, start_pipeline
from cryorefine.jobs.registry import JOBS, load
from cryorefine.jobs.relion_job import read_job

NUMBERS = "star_files/20_starfile_tests/default_pipeline.star"
WORDS = "hiv_sta_relion5_metadata/pipelines/default_pipeline.star"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder: a project of RELION 5 whose jobs are RELION's first refinement, with its alias."""
    monkeypatch.chdir(tmp_path)
    start_pipeline(tmp_path)
    make_refinement(tmp_path, "Refine3D/job001")
    (tmp_path / "Refine3D" / "first").symlink_to("../Refine3D/job001")
    with changed_pipeline(tmp_path) as pipeline:
        pipeline.put_process(Process("Refine3D/job001", "first", "relion.refine3d", "Succeeded"))
        for name, label in (
            ("run_class001.mrc", "refine3d"),
            ("run_half1_class001_unfil.mrc", "halfmap.refine3d"),
        ):
            pipeline.add_output(
                "Refine3D/job001", f"Refine3D/job001/{name}", f"DensityMap.mrc.relion.{label}"
            )
    return tmp_path


def make_refinement(project: Path, name: str) -> None:
    z, y, x = np.indices((24, 24, 24)) - 12.0
    blob = np.exp(-(x**2 + y**2 + z**2) / 32).astype(np.float32)
    (project / name).mkdir(parents=True)
    for file in ("run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"):
        write_map(project / name / file, blob, 2.5)


def mask_options(**changes: Any) -> mask_create.Options:
    given: dict[str, Any] = {
        "input": Path("Refine3D/job001/run_class001.mrc"),
        "output": Path("MaskCreate/job002"),
        "threshold": 0.5,
        "extend": 1.0,
        "soft_edge": 2.0,
    }
    return mask_create.Options(**given | changes)


def notices(running: Any) -> list[str]:
    return [event.message for event in running if isinstance(event, Notice) and event.warning]


def test_a_job_is_running_in_the_pipeline_and_then_succeeded(project: Path) -> None:
    running = mask_create.run(mask_options())
    next(running)
    during = read_pipeline(project / "default_pipeline.star")
    assert during.processes()[1] == Process("MaskCreate/job002", "", "relion.maskcreate", "Running")
    assert during.inputs("MaskCreate/job002") == ["Refine3D/job001/run_class001.mrc"]
    assert during.outputs("MaskCreate/job002") == []
    finish(running)
    after = read_pipeline(project / "default_pipeline.star")
    assert after.processes()[1].status == "Succeeded"
    assert after.outputs("MaskCreate/job002") == ["MaskCreate/job002/mask.mrc"]
    assert after.nodes()["MaskCreate/job002/mask.mrc"] == "Mask3D.mrc.relion"
    assert after.job_counter == 3
    assert not (project / ".relion_lock").exists()
    assert (project / ".pipeline_has_changed").exists()


def test_a_job_that_was_stopped_is_aborted_in_the_pipeline(project: Path) -> None:
    running = mask_create.run(mask_options())
    next(running)
    running.close()
    (job, _) = read_project(project).jobs
    assert (job.name, job.status, job.recorded) == ("MaskCreate/job002", "aborted", True)


def test_a_job_that_was_no_job_leaves_the_pipeline_as_it_was(project: Path) -> None:
    (project / "no_map.mrc").write_text("text")
    before = (project / "default_pipeline.star").read_text()
    with pytest.raises(UserError, match=r"no_map.mrc"):
        finish(mask_create.run(mask_options(input=Path("no_map.mrc"))))
    assert (project / "default_pipeline.star").read_text() == before
    assert not (project / "MaskCreate").exists()


def test_a_file_that_is_named_by_an_alias_is_the_jobs_own(project: Path) -> None:
    finish(mask_create.run(mask_options(input=Path("Refine3D/first/run_class001.mrc"))))
    pipeline = read_pipeline(project / "default_pipeline.star")
    assert pipeline.inputs("MaskCreate/job002") == ["Refine3D/job001/run_class001.mrc"]
    assert project_and_name(Path("Refine3D/first")) == (project, "Refine3D/job001")
    assert node_name(project, Path("/elsewhere/map.mrc")) is None


def test_a_file_in_the_jobs_own_folder_comes_from_no_job(project: Path) -> None:
    (project / "MaskCreate/job002").mkdir(parents=True)
    layer = Path("MaskCreate/job002/layer.mrc")
    shutil.copy(project / "Refine3D/job001/run_class001.mrc", layer)
    finish(mask_create.run(mask_options(input=layer)))
    pipeline = read_pipeline(project / "default_pipeline.star")
    assert pipeline.inputs("MaskCreate/job002") == []
    assert pipeline.outputs("MaskCreate/job002") == ["MaskCreate/job002/mask.mrc"]


def test_the_second_half_map_stands_for_the_first(project: Path) -> None:
    from cryorefine.jobs import postprocess

    half = Path("Refine3D/job001/run_half2_class001_unfil.mrc")
    running = postprocess.run(postprocess.Options(half_map=half, output=Path("PostProcess/job002")))
    next(running)
    running.close()
    pipeline = read_pipeline(project / "default_pipeline.star")
    assert pipeline.inputs("PostProcess/job002") == ["Refine3D/job001/run_half1_class001_unfil.mrc"]


def test_the_alias_of_a_job_is_in_the_pipeline(project: Path) -> None:
    running = mask_create.run(mask_options())
    next(running)
    give_alias(Path("MaskCreate/job002"), "tight")
    finish(running)
    assert read_pipeline(project / "default_pipeline.star").processes()[1].alias == "tight"


def test_an_alias_that_comes_late_is_in_the_pipeline_too(project: Path) -> None:
    finish(mask_create.run(mask_options()))
    give_alias(Path("MaskCreate/job002"), "tight")
    record_alias(Path("MaskCreate/job002"))
    job = read_pipeline(project / "default_pipeline.star").processes()[1]
    assert job == Process("MaskCreate/job002", "tight", "relion.maskcreate", "Succeeded")
    (project / ".relion_lock").mkdir()
    record_alias(Path("MaskCreate/job002"))  # waits for nobody: a window calls it


def test_jobs_that_begin_and_end_at_once_are_all_entered(project: Path) -> None:
    names = [f"MaskCreate/job{number:03d}" for number in range(2, 10)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: finish(mask_create.run(mask_options(output=Path(name)))), names))
    pipeline = read_pipeline(project / "default_pipeline.star")
    assert sorted(job.name for job in pipeline.processes())[:8] == names
    assert {job.status for job in pipeline.processes()} == {"Succeeded"}
    assert all(pipeline.outputs(name) == [f"{name}/mask.mrc"] for name in names)
    assert pipeline.job_counter == 10


def test_a_job_that_relion_does_not_have_is_an_external_one(project: Path) -> None:
    half = Path("Refine3D/job001/run_half1_class001_unfil.mrc")
    running = directional_fsc.run(
        directional_fsc.Options(half_map=half, output=Path("DirectionalFsc/job002"))
    )
    next(running)
    running.close()
    job = read_pipeline(project / "default_pipeline.star").processes()[1]
    assert job.label == "relion.external.cryorefine.directionalfsc"
    assert read_job(project / job.name / "job.star").name == "directional-fsc"
    for name in JOBS:
        if label := load(name).JOB.relion_label:
            assert label.startswith("relion.")


def test_a_job_file_names_files_as_from_the_project(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELION looks for them from there, wherever the job was started."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(project / "Refine3D/job001/run_class001.mrc", elsewhere / "other.mrc")
    monkeypatch.chdir(elsewhere)
    near = mask_options(
        input=project / "Refine3D/job001/run_class001.mrc", output=project / "MaskCreate/job002"
    )
    far = mask_options(input=Path("other.mrc"), output=project / "MaskCreate/job003")
    for options in (near, far):
        finish(mask_create.run(options))
    monkeypatch.chdir(project)
    assert "fn_in Refine3D/job001/run_class001.mrc" in (near.output / "job.star").read_text()
    assert f"fn_in {elsewhere / 'other.mrc'}" in (far.output / "job.star").read_text()
    assert read_job(Path("MaskCreate/job002/job.star")).options.input.is_file()


def test_relion_never_sees_a_job_that_has_ended_and_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take such a job for one that it has to look after, and miss its files."""
    ended = pipeline_record.PipelineRecord.end
    seen: list[bool] = []

    def end(record: pipeline_record.PipelineRecord, outcome: str) -> str | None:
        seen.append((project / "MaskCreate/job002/RELION_JOB_EXIT_SUCCESS").exists())
        return ended(record, outcome)

    monkeypatch.setattr(pipeline_record.PipelineRecord, "end", end)
    finish(mask_create.run(mask_options()))
    assert seen == [False]


def test_files_are_offered_where_relions_dialogues_look(project: Path) -> None:
    (project / ".Nodes").mkdir()
    finish(mask_create.run(mask_options()))
    assert (project / ".Nodes/Mask3D.mrc.relion/MaskCreate/job002/mask.mrc").exists()


def test_a_damaged_pipeline_stops_no_job_and_is_not_touched(project: Path) -> None:
    file = project / "default_pipeline.star"
    damaged = file.read_text().replace("relion.refine3d  ", "")
    file.write_text(damaged)
    (told,) = [text for text in notices(mask_create.run(mask_options())) if "pipeline" in text]
    assert "damaged" in told
    assert (project / "MaskCreate/job002/RELION_JOB_EXIT_SUCCESS").exists()
    assert file.read_text() == damaged
    listed = read_project(project)
    assert "damaged" in listed.warning
    assert [job.name for job in listed.jobs] == ["MaskCreate/job002"]


def test_a_lock_that_is_never_given_back_stops_no_job(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_lock, "LOCK_SECONDS", 0.2)
    (project / ".relion_lock").mkdir()
    before = (project / "default_pipeline.star").read_text()
    (told,) = [text for text in notices(mask_create.run(mask_options())) if ".relion_lock" in text]
    assert "delete that folder" in told
    assert (project / "default_pipeline.star").read_text() == before
    assert (project / ".relion_lock").is_dir()


def test_nothing_is_made_in_a_folder_that_is_no_project_of_relion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_refinement(tmp_path, "Refine3D/job001")
    finish(mask_create.run(mask_options()))
    assert {entry.name for entry in tmp_path.iterdir()} == {"Refine3D", "MaskCreate"}
    listed = read_project(tmp_path)
    assert not listed.of_relion
    assert [(job.name, job.status, job.label) for job in listed.jobs] == [
        ("MaskCreate/job002", "succeeded", "relion.maskcreate")
    ]
    start_pipeline(tmp_path)
    assert read_pipeline(tmp_path / "default_pipeline.star").job_counter == 3
    with pytest.raises(UserError, match="there already"):
        start_pipeline(tmp_path)


def test_the_next_job_has_the_number_that_relion_would_give_it(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "data" / WORDS, tmp_path / "default_pipeline.star")
    assert suggest_folder(mask_create.JOB, tmp_path) == tmp_path / "MaskCreate/job084"
    (tmp_path / "Extract/job090").mkdir(parents=True)
    assert suggest_folder(mask_create.JOB, tmp_path) == tmp_path / "MaskCreate/job091"


def test_a_real_project_is_listed_newest_first(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "data" / WORDS, tmp_path / "default_pipeline.star")
    (tmp_path / "Refine3D/job074").mkdir(parents=True)
    (tmp_path / "Refine3D/job074/run.out").touch()
    os.utime(tmp_path / "Refine3D/job074/run.out", (1e9, 1e9))
    listed = read_project(tmp_path / "default_pipeline.star")
    assert listed.folder == tmp_path
    assert [job.number for job in listed.jobs] == list(range(80, 0, -1))
    refined = next(job for job in listed.jobs if job.number == 74)
    assert (refined.kind, refined.alias, refined.status, refined.time) == (
        "Refine3D",
        "cycle4",
        "succeeded",
        1e9,
    )
    assert listed.jobs[0].status == "missing"


def test_a_job_that_was_killed_does_not_run_for_ever(project: Path) -> None:
    finish(mask_create.run(mask_options()))
    (project / "MaskCreate/job002/RELION_JOB_EXIT_SUCCESS").unlink()
    file = project / "default_pipeline.star"
    pipeline = read_pipeline(file)
    pipeline.put_process(Process("MaskCreate/job002", "", "relion.maskcreate", "Running"))
    pipeline.write()
    assert read_project(project).jobs[0].status == "interrupted"


def test_relion_reads_the_pipeline_after_us_and_agrees(
    shared: Path, project: Path, relion: Callable[[str], str]
) -> None:
    """RELION 3.1 writes what it has read: it must be what we have written, job for job and file for file."""
    file = project / "default_pipeline.star"
    shutil.copy(shared / "data" / NUMBERS, file)
    output = Path("MaskCreate/job032")
    finish(mask_create.run(mask_options(output=output)))
    ours = file.read_text()
    lines = ours.replace(
        "MaskCreate/job032/       None           12            2", "MaskCreate/job032/ None 12 0"
    )
    assert lines != ours
    file.write_text(lines)  # as if we had been killed before the last moment
    subprocess.run([relion("pipeliner"), "--check_job_completion"], check=True, capture_output=True)
    theirs = read_pipeline(file)
    known = Pipeline(ours)
    assert theirs.processes() == known.processes()
    assert theirs.nodes() == known.nodes()
    assert theirs.job_counter == known.job_counter == 33
    assert theirs.inputs("MaskCreate/job032") == ["Refine3D/job001/run_class001.mrc"]
    assert theirs.outputs("MaskCreate/job032") == ["MaskCreate/job032/mask.mrc"]


def test_relion_3_can_run_our_job_once_more(
    shared: Path, project: Path, relion: Callable[[str], str]
) -> None:
    """It reads kind and options from our job.star: the form of the job in its interface does the same."""
    shutil.copy(shared / "data" / NUMBERS, project / "default_pipeline.star")
    finish(mask_create.run(mask_options(output=Path("MaskCreate/job032"))))
    job = "MaskCreate/job032/job.star"
    subprocess.run([relion("pipeliner"), "--addJobFromStar", job], check=True, capture_output=True)
    pipeline = read_pipeline(project / "default_pipeline.star")
    assert pipeline.processes()[-1] == Process("MaskCreate/job033", "", "relion.maskcreate", "Scheduled")
    assert pipeline.inputs("MaskCreate/job033") == ["Refine3D/job001/run_class001.mrc"]
    assert read_job(project / job).options.threshold == 0.5
    (scheduled, *_) = read_project(project).jobs
    assert (scheduled.name, scheduled.status) == ("MaskCreate/job033", "scheduled")


def test_relion_waits_for_our_lock(shared: Path, project: Path, relion: Callable[[str], str]) -> None:
    shutil.copy(shared / "data" / NUMBERS, project / "default_pipeline.star")
    with changed_pipeline(project):
        waiting = subprocess.Popen(
            [relion("pipeliner"), "--check_job_completion"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        time.sleep(1.0)
        assert waiting.poll() is None
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
