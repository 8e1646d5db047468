"""Events of a running job as lines of a file, so that somebody else can follow it.

``progress.jsonl`` in the job's folder holds one JSON object a line: the time in seconds since 1970,
the kind of event and its fields. The napari monitor reads it while the job runs elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from cryorefine.jobs.base import Curve, Event, Figures, Notice, Product, Progress

PROGRESS_FILE = "progress.jsonl"

_KINDS: dict[str, type[Progress | Notice | Product | Curve | Figures]] = {
    kind.__name__: kind for kind in (Progress, Notice, Product, Curve, Figures)
}


def to_line(event: Event) -> str:
    """Return an event as one line of JSON, without the line break."""
    record: dict[str, Any] = {"time": round(time.time(), 3), "event": type(event).__name__}
    for field in dataclasses.fields(event):
        record[field.name] = getattr(event, field.name)
    return json.dumps(record, default=_plain)


def from_line(line: str) -> Event | None:
    """Return the event of a line, or None where a later version wrote what is unknown here."""
    record = json.loads(line)
    kind = _KINDS.get(record.pop("event", ""))
    if kind is None:
        return None
    names = {field.name for field in dataclasses.fields(kind)}
    values = {name: value for name, value in record.items() if name in names}
    if kind is Product:
        values["path"] = Path(values["path"])
    return kind(**values)


def follow(folder: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Read the events that a job has written since the last call.

    Parameters
    ----------
    folder : Path
        The job's folder. One that does not exist yet has no events.
    offset : int
        Where the last call stopped; 0 at first.

    Returns
    -------
    events : list of Event
        The new events, oldest first. A line that is still being written is left for the next call.
    offset : int
        What to give to the next call.
    """
    try:
        with (folder / PROGRESS_FILE).open("rb") as file:
            # A job that began anew has emptied the file: read that from its start.
            size = file.seek(0, 2)
            file.seek(offset if offset <= size else 0)
            start = file.tell()
            content = file.read()
    except FileNotFoundError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    events = [from_line(line) for line in whole.decode().splitlines()]
    return [event for event in events if event is not None], start + len(whole)


def _plain(value: Any) -> Any:
    """Return what JSON knows for what it does not: paths, mappings, arrays and their numbers."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "items"):
        return dict(value)
    return list(value)


def to_text(event: Event) -> str:
    """Return what an event says to a person, as one line; "" for curves."""
    if isinstance(event, Notice):
        return f"Warning: {event.message}" if event.warning else event.message
    if isinstance(event, Product):
        return f"Made {event.path}"
    if isinstance(event, Figures):
        return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in event.values.items())
    if isinstance(event, Progress):
        steps = f" {event.done}/{event.total}" if event.total else ""
        return f"{event.stage}{steps} {event.message}".rstrip()
    return ""


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
