"""A job that was killed does not stay "running"; one of another machine is not declared dead from here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.jobs.test_folder import Options, Work

from cryorefine.errors import UserError
from cryorefine.io.pipeline import Process, read_pipeline
from cryorefine.jobs import finish, lock
from cryorefine.jobs.folder import request_stop, status
from cryorefine.jobs.pipeline_lock import LOCK_FOLDER, changed_pipeline
from cryorefine.jobs.project import start_pipeline
from cryorefine.jobs.signs_of_life import KILLED, record_death, release, signs_of_life, span_text

NAME = "Refine3D/job001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a job of this program in a project of RELION's, entered as running."""
    start_pipeline(tmp_path)
    path = tmp_path / NAME
    path.mkdir(parents=True)
    (path / "job.star").write_text("\ndata_job\n\n_rlnJobTypeLabel relion.refine3d\n")
    (path / "progress.jsonl").touch()
    with changed_pipeline(tmp_path) as pipeline:
        pipeline.put_process(Process(NAME, "", "relion.refine3d", "Running"))
    return path


def locked_by(folder: Path, **owner: object) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    held = lock.take(folder)
    mine = json.loads((folder / lock.LOCK_FILE).read_text())
    held.release()
    (folder / lock.LOCK_FILE).write_text(json.dumps(mine | {"pid": process.pid} | owner))


def told(folder: Path) -> str:
    (process,) = read_pipeline(folder.parents[1] / "default_pipeline.star").processes()
    return process.status


def test_a_job_whose_process_is_gone_is_entered_as_failed(folder: Path) -> None:
    locked_by(folder)
    assert signs_of_life(folder).state == "interrupted"
    assert signs_of_life(folder).sentence == KILLED
    assert record_death(folder)
    assert told(folder) == "Failed"
    assert (folder / "RELION_JOB_EXIT_FAILURE").exists()
    assert not (folder / lock.LOCK_FILE).exists()
    assert signs_of_life(folder).sentence == KILLED  # still the reason, tomorrow
    assert not record_death(folder)
    assert not (folder.parents[1] / LOCK_FOLDER).exists()


def test_a_job_of_another_machine_is_left_alone_and_its_silence_is_told(folder: Path) -> None:
    locked_by(folder, host="node7")
    assert signs_of_life(folder).sentence.startswith("Running (process ")
    long_ago = time.time() - 720
    os.utime(folder / lock.LOCK_FILE, (long_ago, long_ago))
    life = signs_of_life(folder)
    assert (life.state, life.here) == ("running", False)
    assert "No sign of life for 12 min" in life.sentence
    assert "node7" in life.sentence
    assert not record_death(folder)
    assert told(folder) == "Running"
    release(folder)  # a person knows better
    assert record_death(folder)
    assert told(folder) == "Failed"


def test_a_living_job_is_never_declared_dead(folder: Path) -> None:
    held = lock.take(folder)
    assert not record_death(folder)
    assert (status(folder), told(folder)) == ("running", "Running")
    held.release()


def test_while_relion_holds_its_lock_the_folder_alone_says_it(folder: Path) -> None:
    (folder.parents[1] / LOCK_FOLDER).mkdir()
    assert record_death(folder)
    assert told(folder) == "Running"  # RELION finds the exit file and enters it by itself
    assert (folder / "RELION_JOB_EXIT_FAILURE").exists()


def test_the_lock_is_touched_while_the_job_lives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    held = lock.take(folder)
    path = folder / lock.LOCK_FILE
    os.utime(path, (0, 0))
    until = time.monotonic() + 10
    while (lock.silence(folder) or 0) > 60 and time.monotonic() < until:
        time.sleep(0.01)
    assert lock.silence(folder) < 60
    held.release()
    assert not path.exists()


def test_a_job_whose_lock_was_taken_away_stops_and_leaves_the_new_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    options = Options(output=tmp_path / NAME, steps=100_000)
    running = Work().run(options)
    next(running)
    (options.output / lock.LOCK_FILE).write_text('{"pid": 1, "host": "node7", "started": "1"}')
    with pytest.raises(Exception, match="its lock is gone"):
        finish(running)
    assert signs_of_life(options.output).state == "running"  # that of node7


def test_a_request_to_stop_after_the_iteration_is_told(folder: Path) -> None:
    held = lock.take(folder)
    request_stop(folder)
    assert signs_of_life(folder).stopping
    assert "stops after this iteration" in signs_of_life(folder).sentence
    held.release()


def test_a_folder_of_relion_that_does_not_say_how_it_ended_is_not_called_killed(tmp_path: Path) -> None:
    (tmp_path / "job.star").touch()
    (tmp_path / "run_it003_optimiser.star").touch()
    life = signs_of_life(tmp_path)
    assert life.state == "unknown"
    assert "newest file" in life.sentence
    assert not record_death(tmp_path)
    for name in ("run_model.star", "run_class001.mrc"):
        (tmp_path / name).touch()
    assert signs_of_life(tmp_path).state == "succeeded"


def test_two_writers_are_refused(folder: Path) -> None:
    held = lock.take(folder)
    with pytest.raises(UserError, match="in use by process"):
        lock.take(folder)
    held.release()
    lock.take(folder).release()


def test_spans_are_short() -> None:
    assert [span_text(s) for s in (0, 60, 720, 7200, 200_000)] == ["1 s", "60 s", "12 min", "2 h", "2 days"]
