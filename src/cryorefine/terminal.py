"""Events of a running job in a terminal: bars where there is one, plain lines where there is not."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cryorefine.jobs.base import RESULT_UNITS, Event, Product, Progress, ResultT, Run
from cryorefine.jobs.events import to_text

if TYPE_CHECKING:
    from cryorefine.jobs.project import Project


def watch(run: Run[ResultT]) -> ResultT:
    """Run a job to its end, draw its progress in the terminal and return its result.

    Parameters
    ----------
    run : generator
        What a job's ``run(options)`` returned.
    """
    with Terminal() as terminal:
        try:
            while True:
                terminal.show(next(run))
        except StopIteration as stop:
            return stop.value
        finally:
            # Wherever an interruption struck, the job gets to say in its folder that it was stopped.
            run.close()


def summary(result: Any) -> list[str]:
    """Return the files and figures of a job's result as aligned lines; curves are in the files."""
    rows = []
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, (Path, str, int, float)):
                text = f"{one:.4g}" if isinstance(one, float) else str(one)
                rows.append(
                    (field.name.replace("_", " "), f"{text} {RESULT_UNITS.get(field.name, '')}".rstrip())
                )
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def project_table(project: Project) -> list[str]:
    """Return the jobs of a project as aligned lines: name, alias, status and when it was written last."""
    rows = [
        (
            job.name,
            job.alias or "-",
            job.status,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(job.time)) if job.time else "-",
        )
        for job in project.jobs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)) for row in rows]
    lines = [line.rstrip() for line in lines] or [f"No job has run in {project.folder.resolve()}."]
    return [*lines, f"Warning: {project.warning}"] if project.warning else lines


class Terminal:
    """Draws one bar for each stage of a job on standard error and prints the rest as lines.

    Bars need a terminal; without one, a stage is one line when it ends.
    """

    def __init__(self) -> None:
        self.bars = sys.stderr.isatty()
        self.stage = ""
        self.began = 0.0
        self.bar: Any = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.bar is None:
            self.stage = ""  # the stage did not come to its end: do not say that it did
        self._end_stage()

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            self._show_progress(event)
        elif not isinstance(event, Product) and (text := to_text(event)):
            self._print(text)  # files are listed when the job is done

    def _show_progress(self, event: Progress) -> None:
        if event.stage != self.stage or (self.bar is not None and event.done < self.bar.n):
            self._end_stage()
            self.stage, self.began = event.stage, time.monotonic()
            if self.bars:
                self.bar = _bar(event)
        if self.bar is not None:
            self.bar.set_postfix_str(event.message, refresh=False)
            self.bar.update(event.done - self.bar.n)
        if event.total and event.done >= event.total:
            self._end_stage()

    def _end_stage(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.stage and not self.bars:
            self._print(f"{self.stage}: {time.monotonic() - self.began:.1f} s")
        self.bar = None
        self.stage = ""

    def _print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        print(text, flush=True)
        if self.bar is not None:
            self.bar.refresh()


def _bar(event: Progress) -> Any:
    from tqdm import tqdm

    # A terminal that does not know its size would get bars of no width.
    known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    return tqdm(
        total=event.total or None,
        desc=event.stage,
        file=sys.stderr,
        ncols=None if known else 80,
        nrows=None if known else 24,
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        if event.total
        else None,
    )
