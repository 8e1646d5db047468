"""The folder of a job says what was asked, how far it is and how it ended, and never lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.jobs import finish, lock
from cryorefine.jobs.base import Curve, Event, Figures, JobAborted, Notice, Product, Progress, option
from cryorefine.jobs.events import PROGRESS_FILE
from cryorefine.jobs.folder import follow, in_job_folder, request_abort, status, suggest_folder
from cryorefine.jobs.refine3d import JOB


@dataclass(frozen=True, kw_only=True)
class Options:
    output: Path = option(label="Output", help="The folder.", kind="folder")
    input: Path | None = option(None, label="Input", help="A file.", kind="map", relion="fn_ref")
    continue_from: Path | None = option(
        None, label="Continue", help="A folder.", kind="folder", flag="continue"
    )
    steps: int = option(3, label="Steps", help="How many.", minimum=1)


@dataclass
class Work:
    """What the job of a test does at its steps; by default it makes one file."""

    before: Callable[[Options], None] = lambda options: None
    after: Callable[[Options], None] = lambda options: None
    ended: list[str] = field(default_factory=list)

    def __call__(self, options: Options) -> Generator[Event, None, int]:
        try:
            yield Progress("Counting", 0, options.steps)
            self.before(options)
            for step in range(options.steps):
                yield Progress("Counting", step + 1, options.steps)
            (options.output / "map.mrc").write_text("a map")
            yield Product("map", options.output / "map.mrc")
            self.after(options)
            return options.steps
        finally:
            self.ended.append("ended")

    @property
    def run(self) -> Callable[[Options], Generator[Event, None, int]]:
        return in_job_folder(JOB)(self.__call__)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(output=tmp_path / "Refine3D" / "job001")


def fail(error: BaseException) -> Callable[[Options], None]:
    def raising(options: Options) -> None:
        raise error

    return raising


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_finished_job_leaves_its_records_beside_its_results(options: Options) -> None:
    assert finish(Work().run(options)) == 3

    assert names(options.output) == {
        "job.star",
        "note.txt",
        "run.out",
        "run.err",
        "progress.jsonl",
        "map.mrc",
        "RELION_JOB_EXIT_SUCCESS",
    }
    assert status(options.output) == "succeeded"
    assert f"cryorefine refine3d --output {options.output}" in (options.output / "note.txt").read_text()
    assert "map.mrc" in (options.output / "run.out").read_text()
    assert (options.output / "run.err").read_text() == ""


def test_the_folder_of_a_finished_job_is_refused_and_left_as_it_is(options: Options) -> None:
    finish(Work().run(options))
    before = {name: (options.output / name).read_text() for name in names(options.output)}

    with pytest.raises(UserError, match=r"already holds a finished job; give another.*Refine3D/job002"):
        finish(Work().run(options))

    assert {name: (options.output / name).read_text() for name in names(options.output)} == before


def test_a_mistake_found_before_anything_was_made_leaves_no_folder(options: Options, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bad mask"):
        finish(Work(before=fail(UserError("bad mask."))).run(options))

    assert names(tmp_path) == set()


def test_a_mistake_leaves_a_folder_that_was_there_before_as_it_was(options: Options) -> None:
    options.output.mkdir(parents=True)
    (options.output / "notes of mine.txt").write_text("keep")

    with pytest.raises(UserError, match="bad mask"):
        finish(Work(before=fail(UserError("bad mask."))).run(options))

    assert names(options.output) == {"notes of mine.txt"}


def test_a_missing_input_file_is_named_before_anything_is_made(options: Options, tmp_path: Path) -> None:
    work = Work()
    with pytest.raises(UserError, match=r"--input .*nowhere\.mrc does not exist"):
        finish(work.run(replace(options, input=tmp_path / "nowhere.mrc")))

    assert names(tmp_path) == set()
    assert work.ended == []


def test_a_mistake_found_late_keeps_what_was_made_and_marks_the_failure(options: Options) -> None:
    with pytest.raises(UserError, match="image 7 is empty"):
        finish(Work(after=fail(UserError("image 7 is empty."))).run(options))

    assert status(options.output) == "failed"
    assert (options.output / "run.err").read_text() == "image 7 is empty.\n"
    assert (options.output / "map.mrc").exists()


def test_a_defect_is_recorded_with_its_traceback(options: Options) -> None:
    with pytest.raises(ZeroDivisionError):
        finish(Work(before=lambda options: 1 // 0 and None).run(options))

    assert status(options.output) == "failed"
    assert "ZeroDivisionError" in (options.output / "run.err").read_text()


def test_a_failed_job_can_be_run_again_in_its_folder(options: Options) -> None:
    with pytest.raises(ZeroDivisionError):
        finish(Work(before=lambda options: 1 // 0 and None).run(options))

    finish(Work().run(options))

    assert status(options.output) == "succeeded"
    assert follow(options.output)[0][0] == Progress("Counting", 0, 3)


def test_a_request_to_stop_stops_the_job_at_its_next_event(options: Options) -> None:
    work = Work()
    running = work.run(options)
    next(running)
    assert status(options.output) == "running"

    request_abort(options.output)
    with pytest.raises(JobAborted):
        next(running)

    assert status(options.output) == "aborted"
    assert work.ended == ["ended"]
    assert not (options.output / "RELION_JOB_ABORT_NOW").exists()


def test_an_old_request_to_stop_does_not_stop_a_new_job(options: Options) -> None:
    options.output.mkdir(parents=True)
    request_abort(options.output)

    assert finish(Work().run(options)) == 3


def test_a_job_whose_events_nobody_draws_any_more_is_marked_as_aborted(options: Options) -> None:
    running = Work().run(options)
    next(running)
    running.close()

    assert status(options.output) == "aborted"


@pytest.mark.parametrize("name", ["note.txt", "run.out", "progress.jsonl"])
def test_a_disk_without_room_for_the_records_is_a_sentence_too(options: Options, name: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    options.output.mkdir(parents=True)
    # Truncated when the job begins, which a device takes without a word.
    (options.output / name).symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"[Nn]o space"):
        finish(Work().run(options))
    assert lock.holder(options.output) is None


def test_a_full_disk_is_a_sentence_and_not_a_traceback(options: Options) -> None:
    def write(options: Options) -> None:
        with open("/dev/full", "w") as full:
            full.write("x" * 100_000)

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(UserError, match=r"cannot be written to any more .*[Nn]o space"):
        finish(Work(after=write).run(options))

    assert status(options.output) == "failed"


def test_too_little_memory_is_a_sentence_and_not_a_traceback(options: Options) -> None:
    def want(options: Options) -> None:
        np.zeros(2**60, np.float32)

    with pytest.raises(UserError, match=r"needs more memory than it can get \(Unable to allocate.*threads"):
        finish(Work(after=want).run(options))

    assert status(options.output) == "failed"


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "job001", tmp_path / "file", Path("/proc/job001")):
        with pytest.raises(UserError, match=f"{place} cannot be used for results"):
            finish(Work().run(Options(output=place)))
    assert names(tmp_path) == {"file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot be used for results \(Permission denied\)"):
        finish(Work().run(Options(output=tmp_path / "job001")))


def test_two_jobs_cannot_work_in_one_folder(options: Options) -> None:
    running = Work().run(options)
    next(running)

    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        finish(Work().run(options))

    assert status(options.output) == "running"
    assert finish(running) == 3


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(lambda mine: {**mine, "pid": dead_process()}, id="process has died"),
        pytest.param(lambda mine: {**mine, "started": "1"}, id="its number was given to another process"),
    ],
)
def test_the_lock_of_a_dead_process_does_not_hold(options: Options, owner: Callable[[dict], dict]) -> None:
    options.output.mkdir(parents=True)
    lock.take(options.output)
    path = options.output / lock.LOCK_FILE
    path.write_text(json.dumps(owner(json.loads(path.read_text()))))

    assert lock.holder(options.output) is None
    assert finish(Work().run(options)) == 3


def test_the_lock_of_another_machine_holds(options: Options) -> None:
    options.output.mkdir(parents=True)
    lock.take(options.output)
    path = options.output / lock.LOCK_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere", "pid": 1}))

    with pytest.raises(UserError, match=r"in use by process 1 on elsewhere.*delete .*lock"):
        finish(Work().run(options))


def test_a_killed_job_is_seen_as_interrupted_and_can_be_continued(options: Options) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_folder import Options, Work
from pathlib import Path
running = Work().run(Options(output=Path({str(options.output)!r})))
next(running)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert status(options.output) == "interrupted"

    finish(Work().run(replace(options, continue_from=options.output)))
    assert status(options.output) == "succeeded"


def test_a_continued_job_adds_to_the_records_of_its_folder(options: Options) -> None:
    finish(Work().run(options))
    first = (options.output / "job.star").read_text()
    events, offset = follow(options.output)

    finish(Work().run(Options(output=options.output, continue_from=options.output, steps=2)))

    assert (options.output / "job.star").read_text() == first
    assert (options.output / "continue_job.star").exists()
    more, _ = follow(options.output, offset)
    assert more[-1] == events[-1]
    assert len((options.output / "note.txt").read_text().splitlines()) >= 4


def test_continuing_needs_no_output_folder(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Free(Options):
        output: Path | None = option(None, label="Output", help="The folder.", kind="folder")

    seen: list[Path | None] = []
    folder = tmp_path / "job001"
    finish(Work().run(Free(output=folder)))
    finish(Work(before=lambda options: seen.append(options.output)).run(Free(continue_from=folder)))
    assert seen == [folder]

    with pytest.raises(UserError, match="--output Refine3D/job001"):
        finish(Work().run(Free()))


def test_paths_may_be_given_as_text(tmp_path: Path) -> None:
    finish(Work().run(Options(output=str(tmp_path / "job001"))))  # type: ignore[arg-type]
    assert status(tmp_path / "job001") == "succeeded"


EVENTS: list[Event] = [
    Notice("Low contrast", warning=True),
    Product("half_map", Path("a b/run_half1.mrc"), "half 1"),
    Curve("FSC", (0.0, 0.1), {"unmasked": [1.0, 0.5]}),
    Figures({"iteration": 3, "resolution": 7.31, "symmetry": "D2"}),
]


def test_others_read_the_events_as_they_were(options: Options) -> None:
    def run(options: Options) -> Generator[Event, None, None]:
        yield from EVENTS

    finish(in_job_folder(JOB)(run)(options))
    events, _ = follow(options.output)
    assert events == [
        replace(event, frequency=[0.0, 0.1]) if isinstance(event, Curve) else event for event in EVENTS
    ]


def test_arrays_survive_as_lists(options: Options) -> None:
    def run(options: Options) -> Generator[Event, None, None]:
        yield Curve("FSC", np.array([0.0, 0.1]), {"masked": np.array([1.0, 0.25], dtype=np.float32)})
        yield Figures({"resolution": np.float32(0.5), "n": np.int64(3)})

    finish(in_job_folder(JOB)(run)(options))
    events, _ = follow(options.output)
    assert events == [Curve("FSC", [0.0, 0.1], {"masked": [1.0, 0.25]}), Figures({"resolution": 0.5, "n": 3})]


def test_following_gives_each_event_once_and_no_half_lines(options: Options) -> None:
    assert follow(options.output) == ([], 0)
    running = Work().run(options)
    next(running)
    first, offset = follow(options.output)
    assert first == [Progress("Counting", 0, 3)]

    with (options.output / PROGRESS_FILE).open("a") as file:
        file.write('{"event": "Notice", "mess')
    assert follow(options.output, offset) == ([], offset)
    with (options.output / PROGRESS_FILE).open("a") as file:
        file.write('age": "half"}\n{"event": "FromTheFuture"}\n')
    events, offset = follow(options.output, offset)
    assert events == [Notice("half")]

    finish(running)
    events, offset = follow(options.output, offset)
    assert Product("map", options.output / "map.mrc") in events
    assert follow(options.output, offset) == ([], offset)


def test_a_new_run_in_the_folder_is_followed_from_its_start(options: Options) -> None:
    with pytest.raises(ZeroDivisionError):
        finish(Work(after=lambda options: 1 // 0 and None).run(options))
    _, offset = follow(options.output)
    running = Work().run(options)
    next(running)
    assert follow(options.output, offset)[0] == [Progress("Counting", 0, 3)]


def test_hundreds_of_steps_a_second_are_thinned_out_but_the_last_is_kept(options: Options) -> None:
    finish(Work().run(replace(options, steps=1000)))
    steps = [event.done for event in follow(options.output)[0] if isinstance(event, Progress)]
    assert len(steps) < 100
    assert steps[-1] == 1000


def test_job_folders_are_numbered_across_all_kinds_of_job(tmp_path: Path) -> None:
    assert suggest_folder(JOB, tmp_path) == tmp_path / "Refine3D" / "job001"
    (tmp_path / "Extract" / "job041").mkdir(parents=True)
    (tmp_path / "Refine3D" / "job007").mkdir(parents=True)
    assert suggest_folder(JOB, tmp_path) == tmp_path / "Refine3D" / "job042"
