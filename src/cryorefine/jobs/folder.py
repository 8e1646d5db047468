"""The folder of a job: what stands in it besides the job's results, and how it ends.

A job's ``run`` is decorated with :func:`in_job_folder`. Its folder then holds, as RELION's jobs do,
``job.star`` (the options), ``note.txt`` (when and with which command), ``run.out`` and ``run.err``,
and at the end an empty file ``RELION_JOB_EXIT_SUCCESS``, ``_FAILURE`` or ``_ABORTED``; and
``progress.jsonl``, by which others follow it. A file ``RELION_JOB_ABORT_NOW`` put there stops it,
``CRYOREFINE_STOP_AFTER_ITERATION`` a refinement once its iteration is whole. In a project of RELION, the
job is entered into its pipeline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import shlex
import socket
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from cryorefine.errors import UserError
from cryorefine.jobs import lock
from cryorefine.jobs.base import Event, Job, JobAborted, Notice, Progress, ResultT, Run
from cryorefine.jobs.check import checked
from cryorefine.jobs.command import command
from cryorefine.jobs.continuing import CONTINUE_FILE, continued_options
from cryorefine.jobs.events import PROGRESS_FILE, follow, to_line, to_text
from cryorefine.jobs.pipeline_record import PipelineRecord, next_number

__all__ = ["follow", "in_job_folder", "request_abort", "request_stop", "status", "suggest_folder"]

ABORT_FILE = "RELION_JOB_ABORT_NOW"
STOP_FILE = "CRYOREFINE_STOP_AFTER_ITERATION"
EXIT_FILES = {
    "succeeded": "RELION_JOB_EXIT_SUCCESS",
    "failed": "RELION_JOB_EXIT_FAILURE",
    "aborted": "RELION_JOB_EXIT_ABORTED",
}
_RECORDS = {"job.star", CONTINUE_FILE, "note.txt", "run.out", "run.err", PROGRESS_FILE, lock.LOCK_FILE}
_PROGRESS_PAUSE = 0.3
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

OptionsT = TypeVar("OptionsT")


def in_job_folder(
    job: Job, may_change: Collection[str] | None = None
) -> Callable[[Callable[[OptionsT], Run[ResultT]]], Callable[[OptionsT], Run[ResultT]]]:
    """Make a job's ``run(options)`` work in the folder ``options.output``.

    The decorated generator checks the options, makes the folder, keeps its records, forwards the
    events and writes how the job ended. Options whose ``continue_from`` is given go on in that
    folder unless ``output`` names another; ``run`` sees options whose ``output`` is always set.

    Parameters
    ----------
    job : Job
        The kind of job.
    may_change : collection of str, optional
        For a job that goes on with the options that it began with: those that may be given anew.

    Raises
    ------
    UserError
        From the generator's first step: bad options, a folder that holds a finished job or is in use,
        no permission. A mistake found before the job has made anything leaves no new folder behind.
    JobAborted
        When ``RELION_JOB_ABORT_NOW`` appears in the folder.
    """

    def decorate(run: Callable[[OptionsT], Run[ResultT]]) -> Callable[[OptionsT], Run[ResultT]]:
        @functools.wraps(run)
        def inside(options: OptionsT) -> Run[ResultT]:
            options = _with_output(job, checked(options))
            words = shlex.join(command(job, options))
            if may_change is not None and getattr(options, "continue_from", None) is not None:
                options = continued_options(job, options, may_change)
            with _JobFolder(job, options, words) as folder:
                if folder.unrecorded:
                    notice = Notice(folder.unrecorded, warning=True)
                    folder.record(notice)
                    yield notice
                running = run(options)
                try:
                    while True:
                        folder.stop_if_asked()
                        try:
                            event = next(running)
                        except StopIteration as stop:
                            result: ResultT = stop.value
                            return result
                        folder.record(event)
                        yield event
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    raise folder.full(error) from error
                except MemoryError as error:
                    raise UserError(
                        f"{job.title} needs more memory than it can get ({error or 'out of memory'}); give "
                        "it smaller boxes or fewer --threads, or run it where there is more."
                    ) from error
                finally:
                    running.close()

        return inside

    return decorate


def status(folder: Path) -> str:
    """Return "running", "succeeded", "failed", "aborted", "interrupted" or "empty" for a job folder.

    An interrupted job was killed: it began, nobody works on it and it has not said how it ended.
    """
    if lock.holder(folder) is not None:
        return "running"
    for outcome, name in EXIT_FILES.items():
        if (folder / name).exists():
            return outcome
    return "interrupted" if (folder / "job.star").exists() else "empty"


def request_abort(folder: Path) -> None:
    """Ask the job that runs in a folder to stop; it does so at its next event."""
    (folder / ABORT_FILE).touch()


def request_stop(folder: Path) -> None:
    """Ask the refinement that runs in a folder to stop once its iteration is whole; nothing is lost then."""
    (folder / STOP_FILE).touch()


def stop_after_iteration(folder: Path) -> None:
    """Stop here if that has been asked for; to be called when all of an iteration is on the disk.

    Raises
    ------
    JobAborted
        If ``CRYOREFINE_STOP_AFTER_ITERATION`` stands in the folder.
    """
    if (folder / STOP_FILE).exists():
        raise JobAborted(f"{folder} was stopped by request after a whole iteration")


def suggest_folder(job: Job, project: Path) -> Path:
    """Return the next free job folder of a project, numbered across all kinds of job as in RELION."""
    return project / job.folder / f"job{next_number(project):03d}"


def _with_output(job: Job, options: OptionsT) -> OptionsT:
    output = getattr(options, "output", None) or getattr(options, "continue_from", None)
    if output is None:
        raise UserError(
            f"{job.title} needs a folder for its results; give one like --output {job.folder}/job001."
        )
    settled: OptionsT = dataclasses.replace(options, output=output)  # type: ignore[type-var]
    return settled


class _JobFolder:
    """The records of one run in one folder, from its first to its last moment."""

    def __init__(self, job: Job, options: Any, words: str) -> None:
        self.job = job
        self.options = options
        self.words = words
        self.path: Path = options.output
        source = getattr(options, "continue_from", None)
        self.goes_on = source is not None and source.resolve() == self.path.resolve()
        self.made: list[Path] = []
        self.held: set[str] = set()
        self.files: dict[str, IO[str]] = {}
        self.pipeline = PipelineRecord(job, options)
        self.unrecorded: str | None = None
        self.stage = ""
        self.stage_began = self.last_progress = 0.0

    def __enter__(self) -> _JobFolder:
        try:
            self._make()
            self._refuse_finished()
            self.lock = lock.take(self.path)
        except OSError as error:
            self._unmake()
            raise self._unusable(error) from error
        try:
            self._begin()
        except BaseException as error:
            cause = self._unusable(error) if isinstance(error, OSError) else error
            self.__exit__(type(cause), cause, error.__traceback__)
            raise cause from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        withdraw = isinstance(error, UserError) and self._nothing_made()
        try:
            if withdraw:
                return
            if isinstance(error, UserError):
                self._write("run.err", str(error))
                # There was nothing to go on with: the results of a finished job are as they were.
                finished = self.goes_on and EXIT_FILES["succeeded"] in self.held
                outcome = "succeeded" if finished else "failed"
            elif error is None:
                outcome = "succeeded"
            elif isinstance(error, Exception) and not isinstance(error, JobAborted):
                self._write("run.err", "".join(traceback.format_exception(error)))
                outcome = "failed"
            else:  # asked to stop, interrupted from the keyboard, or dropped by whoever drew the events
                self._write("run.out", "Stopped by request")
                outcome = "aborted"
            for name in (ABORT_FILE, STOP_FILE):
                (self.path / name).unlink(missing_ok=True)
            if unrecorded := self.pipeline.end(outcome):
                self._write("run.out", unrecorded)
            (self.path / EXIT_FILES[outcome]).touch()
        except OSError:
            # The disk is full or gone: the error that is on its way says more than this one.
            if error is None:
                raise
        finally:
            for file in self.files.values():
                # What a full disk did not take is tried once more, and its error is on its way already.
                with contextlib.suppress(OSError):
                    file.close()
            self.lock.release()
            if withdraw:
                self._withdraw()
                self.pipeline.withdraw()

    def stop_if_asked(self) -> None:
        """Raise JobAborted if somebody has asked for it, or has taken the folder for another job."""
        if self.lock.lost:
            raise JobAborted(f"{self.path} was taken from this job: its lock is gone")
        if (self.path / ABORT_FILE).exists():
            raise JobAborted(f"{self.path} was stopped by request")

    def record(self, event: Event) -> None:
        """Append an event to progress.jsonl and, if it says something to people, to run.out."""
        now = time.monotonic()
        if isinstance(event, Progress):
            fresh, whole = event.stage != self.stage, event.total > 0 and event.done >= event.total
            if fresh:
                self.stage, self.stage_began = event.stage, now
            elif not whole and now - self.last_progress < _PROGRESS_PAUSE:
                return  # hundreds of steps a second help nobody who reads along
            self.last_progress = now
            text = f"{event.stage}: {now - self.stage_began:.1f} s" if whole else ""
        else:
            text = to_text(event)
        try:
            self._write(PROGRESS_FILE, to_line(event))
            if text:
                self._write("run.out", f"{time.strftime('%H:%M:%S')} {text}")
        except OSError as error:
            raise self.full(error) from error

    def full(self, error: OSError) -> UserError:
        """Return what to say when the folder takes no more."""
        return UserError(
            f"{self.path} cannot be written to any more ({error.strerror}); make room there and run the "
            "job again."
        )

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"{self.path} cannot be used for results ({error.strerror}); give another folder with --output."
        )

    def _make(self) -> None:
        missing = self.path
        while not missing.exists():
            self.made.append(missing)
            missing = missing.parent
        self.path.mkdir(parents=True, exist_ok=True)
        self.held = {entry.name for entry in self.path.iterdir()}

    def _unmake(self) -> None:
        for folder in self.made:
            try:
                folder.rmdir()
            except OSError:
                return

    def _refuse_finished(self) -> None:
        if not self.goes_on and EXIT_FILES["succeeded"] in self.held:
            raise UserError(
                f"{self.path} already holds a finished job; give another folder with --output, e.g. "
                f"{suggest_folder(self.job, self.path.parent.parent)}."
            )

    def _begin(self) -> None:
        from cryorefine.io.star import write_star

        for name in (ABORT_FILE, STOP_FILE, *EXIT_FILES.values()):
            (self.path / name).unlink(missing_ok=True)
        name = CONTINUE_FILE if self.goes_on else "job.star"
        write_star(self.path / name, self.pipeline.job_tables())
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        self._write("note.txt", f"{when} on {socket.gethostname()}, in {Path.cwd()}:\n{self.words}\n")
        if not self.goes_on:
            (self.path / PROGRESS_FILE).write_text("")
            (self.path / CONTINUE_FILE).unlink(missing_ok=True)  # of an earlier run
        self._write("run.out", f"{when} {self.words}")
        (self.path / "run.err").touch()
        self.unrecorded = self.pipeline.begin()

    def _write(self, name: str, text: str) -> None:
        if name not in self.files:
            # A line at a time, so that whoever follows the job never waits for a buffer to fill.
            self.files[name] = (self.path / name).open("a", buffering=1, encoding="utf-8")
        self.files[name].write(text.rstrip("\n") + "\n")

    def _nothing_made(self) -> bool:
        now = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        return not (now - self.held - _RECORDS) and not (self.held & _RECORDS)

    def _withdraw(self) -> None:
        for name in _RECORDS - self.held:
            (self.path / name).unlink(missing_ok=True)
        self._unmake()
