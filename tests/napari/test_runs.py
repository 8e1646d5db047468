"""Jobs in processes of their own: followed through their folder, stopped by request, never lost."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import pytest

from cryorefine.errors import UserError
from cryorefine.jobs import mask_create
from cryorefine.jobs.base import Figures, Product, Progress
from cryorefine.jobs.folder import status
from napari_cryorefine.runs import FolderRun, process_words

SECONDS = 60_000

COUNTING = textwrap.dedent("""
    import time
    from dataclasses import dataclass
    from pathlib import Path
    from cryorefine.jobs.base import Figures, Job, Progress, option
    from cryorefine.jobs.folder import in_job_folder

    JOB = Job(
        name="refine3d", title="Counting", folder="Refine3D", relion_label="relion.refine3d", summary=""
    )

    @dataclass(frozen=True, kw_only=True)
    class Options:
        output: Path = option(label="", help="", kind="folder")

    @in_job_folder(JOB)
    def run(options):
        for step in range({steps}):
            yield Progress("Counting", step, {steps})
            yield Figures({{"iteration": step}})
            time.sleep(0.05)
        yield Progress("Counting", {steps}, {steps})

    try:
        for event in run(Options(output=Path("Refine3D/job001"))):
            pass
    except Exception:
        raise SystemExit(1)
""")


class Listener:
    """Keeps what a run says."""

    def __init__(self, run):
        self.events, self.outcomes = [], []
        run.event.connect(self.events.append)
        run.ended.connect(self.outcomes.append)


def counting(steps: int) -> list[str]:
    return [sys.executable, "-c", COUNTING.format(steps=steps)]


@pytest.fixture
def folder(project, qapp) -> Path:
    return project / "Refine3D" / "job001"


def test_a_process_is_followed_to_its_result(project, map_file, qtbot):
    options = mask_create.Options(input=map_file, output=project / "MaskCreate/job001", threshold=0.3)
    run = FolderRun(options.output, process_words(mask_create.JOB, options))
    heard = Listener(run)
    run.start()
    qtbot.waitUntil(lambda: bool(heard.outcomes), timeout=SECONDS)
    (outcome,) = heard.outcomes
    assert outcome.error is None
    assert not outcome.cancelled
    assert Product("mask", options.output / "mask.mrc", "mask") in heard.events


def test_a_process_that_refuses_its_input_is_a_persons_mistake(project, map_file, qtbot):
    options = mask_create.Options(input=map_file, output=project / "MaskCreate/job001")
    options.output.mkdir(parents=True)
    (options.output / "RELION_JOB_EXIT_SUCCESS").touch()
    run = FolderRun(options.output, process_words(mask_create.JOB, options))
    heard = Listener(run)
    run.start()
    qtbot.waitUntil(lambda: bool(heard.outcomes), timeout=SECONDS)
    assert isinstance(heard.outcomes[0].error, UserError)
    assert "already holds a finished job" in str(heard.outcomes[0].error)


def test_cancel_stops_the_process_and_marks_its_folder(folder, qtbot):
    run = FolderRun(folder, counting(2000))
    heard = Listener(run)
    run.start()
    qtbot.waitUntil(lambda: bool(heard.events), timeout=SECONDS)
    run.cancel()
    qtbot.waitUntil(lambda: bool(heard.outcomes), timeout=SECONDS)
    assert heard.outcomes[0].cancelled
    assert status(folder) == "aborted"


def test_cancel_before_the_folder_is_there_is_not_lost(folder, qtbot):
    run = FolderRun(folder, counting(2000))
    heard = Listener(run)
    run.start()
    run.cancel()
    qtbot.waitUntil(lambda: bool(heard.outcomes), timeout=SECONDS)
    assert heard.outcomes[0].cancelled


def test_a_job_goes_on_when_nobody_watches_and_can_be_watched_again(folder, qtbot):
    first = FolderRun(folder, counting(60))
    heard = Listener(first)
    first.start()
    qtbot.waitUntil(lambda: bool(heard.events), timeout=SECONDS)
    first.leave()  # as when napari is closed
    assert status(folder) == "running"
    second = FolderRun(folder)
    heard = Listener(second)
    second.start()
    qtbot.waitUntil(lambda: bool(heard.outcomes), timeout=SECONDS)
    assert heard.outcomes[0].error is None
    assert heard.events[0] == Progress("Counting", 0, 60)  # it hears the whole story
    assert heard.events[-1] == Progress("Counting", 60, 60)
    assert Figures({"iteration": 59}) in heard.events


def test_a_killed_process_is_an_error_not_a_silence(folder, qtbot):
    run = FolderRun(folder, counting(2000))
    heard = Listener(run)
    run.start()
    qtbot.waitUntil(lambda: bool(heard.events), timeout=SECONDS)
    run._process.kill()
    qtbot.waitUntil(lambda: bool(heard.outcomes), timeout=SECONDS)
    assert heard.outcomes[0].error is not None
    assert "stopped without a word (killed" in str(heard.outcomes[0].error)
    assert status(folder) == "failed"


def test_the_form_watches_a_job_of_a_terminal(folder, qtbot, messages, model):
    import subprocess

    from cryorefine.jobs.registry import load
    from napari_cryorefine.forms import JobForm

    process = subprocess.Popen(counting(40))
    try:
        began = time.monotonic()
        while status(folder) != "running" and time.monotonic() - began < 30:
            time.sleep(0.05)
        form = JobForm(load("refine3d"), model)
        qtbot.addWidget(form)
        form.watch(folder)
        qtbot.waitUntil(lambda: "Iteration" in form.figures.text(), timeout=SECONDS)
        assert "Counting" in form.status.text()
        qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
        # It has counted and left no maps, which is told rather than raised.
        assert "holds no results" in messages[-1][1]
    finally:
        process.wait()


def test_the_form_says_so_where_no_job_runs(project, qtbot, messages):
    from cryorefine.jobs.registry import load
    from napari_cryorefine.forms import JobForm

    form = JobForm(load("refine3d"))
    qtbot.addWidget(form)
    form.watch(project)
    assert messages[0][0] == "error"
    assert "No job runs in" in messages[0][1]
