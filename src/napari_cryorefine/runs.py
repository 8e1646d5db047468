"""Running jobs from napari: short ones in a thread, long ones in a process of their own.

Both kinds of run tell of themselves by the same signals, so that a form need not know which it has:
``event`` for each event of the job, then ``ended`` once, with an :class:`Outcome`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from cryorefine.errors import UserError
from cryorefine.jobs.base import Job, JobAborted, Progress, Run
from cryorefine.jobs.command import command
from cryorefine.jobs.folder import follow, request_abort, status
from cryorefine.jobs.signs_of_life import KILLED, record_death

POLL_SECONDS = 0.5
_PROGRESS_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a result, an error, or by request (neither of them).

    Attributes
    ----------
    folder : Path or None
        The job's folder, or None for a job that has none.
    result : object
        The job's Result where it ran in this process.
    error : Exception or None
        What went wrong.
    cancelled : bool
        Whether somebody stopped it.
    """

    folder: Path | None
    result: Any = None
    error: Exception | None = None
    cancelled: bool = False


class ThreadRun(QObject):
    """A job of seconds, in a thread of this process."""

    event = Signal(object)
    ended = Signal(object)

    def __init__(self, run: Callable[[Any], Run[Any]], options: Any, folder: Path | None) -> None:
        super().__init__()
        self._run, self._options, self._folder = run, options, folder
        self._stop = False

    def start(self) -> None:
        """Start the job; returns at once."""
        from napari.qt.threading import create_worker

        self._worker = create_worker(self._drive, _start_thread=False)
        # To methods, which Qt forgets when this object is deleted.
        self._worker.yielded.connect(self._on_yielded)
        self._worker.returned.connect(self._on_returned)
        self._worker.start()

    def _on_yielded(self, event: Any) -> None:
        self.event.emit(event)

    def _on_returned(self, outcome: Outcome) -> None:
        self.ended.emit(outcome)

    def cancel(self) -> None:
        """Stop the job at its next event."""
        self._stop = True

    def _drive(self) -> Generator[Any, None, Outcome]:
        """Run the job, in the thread. Errors are returned: the worker would lose a RuntimeError."""
        running = self._run(self._options)
        shown = 0.0
        try:
            while not self._stop:
                event = next(running)
                now = time.monotonic()
                if isinstance(event, Progress) and event.done != event.total:
                    if now - shown < _PROGRESS_SECONDS:
                        continue  # a form that is told thousands of times a second stops answering
                    shown = now
                yield event
        except StopIteration as stop:
            return Outcome(self._folder, result=stop.value)
        except JobAborted:
            pass
        except Exception as error:
            return Outcome(self._folder, error=error)
        finally:
            running.close()  # the job marks its folder as aborted before anybody is told
        return Outcome(self._folder, cancelled=True)


class FolderRun(QObject):
    """A job of minutes or hours in a process of its own, followed through its folder.

    The process is nobody's child: it goes on when napari is closed, and can be watched again.
    Without ``words`` a job is watched that was started before, in a terminal or on another machine.
    """

    event = Signal(object)
    ended = Signal(object)

    def __init__(self, folder: Path, words: list[str] | None = None) -> None:
        super().__init__()
        self.folder = folder
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = False
        self._offset = 0
        self._timer = QTimer(self)
        self._timer.setInterval(int(POLL_SECONDS * 1000))
        self._timer.timeout.connect(self._poll)

    def start(self) -> None:
        """Start the process, if there is one to start, and begin to follow the folder."""
        if self._words is not None:
            # A continued job appends to progress.jsonl: what is there already was seen before.
            self._offset = follow(self.folder)[1]
            self._errors = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,  # not stopped with napari, nor by Ctrl+C in its terminal
            )
        self._timer.start()

    def cancel(self) -> None:
        """Ask the job to stop, which it does at its next event."""
        self._stop = True
        if self.folder.is_dir():
            request_abort(self.folder)

    def leave(self) -> None:
        """Stop watching; the job goes on."""
        self._timer.stop()

    def _poll(self) -> None:
        over = self._process.poll() is not None if self._process else status(self.folder) != "running"
        if self._stop and not over and self.folder.is_dir() and status(self.folder) == "running":
            request_abort(self.folder)  # again: it may have been asked before the folder was there
        events, self._offset = follow(self.folder, self._offset)
        for event in events:
            self.event.emit(event)
        if over:
            self._timer.stop()
            self.ended.emit(self._outcome())

    def _outcome(self) -> Outcome:
        state = status(self.folder)
        code = self._process.returncode if self._process else None
        if code == 0 or (code is None and state == "succeeded"):
            return Outcome(self.folder)
        if state == "aborted" or (self._stop and code != 2):
            return Outcome(self.folder, cancelled=True)
        if self._process is not None:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()
            if code == 2:
                return Outcome(
                    self.folder, error=UserError(said.splitlines()[-1] if said else "It was refused.")
                )
        if state == "interrupted":
            record_death(self.folder)
            return Outcome(self.folder, error=RuntimeError(KILLED.rstrip(".")))
        log = self.folder / "run.err"
        said = log.read_text(errors="replace").strip() if log.is_file() else said if self._process else ""
        last = said.splitlines()[-1] if said else f"the process ended ({state})"
        return Outcome(self.folder, error=RuntimeError(last))


def process_words(job: Job, options: Any) -> list[str]:
    """Return the words that run a job in a process of this Python."""
    return [sys.executable, "-m", "cryorefine.cli", *command(job, options)[1:]]
