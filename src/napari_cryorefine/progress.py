"""Progress and results in words: what a form says beside its bar."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.jobs.base import RESULT_UNITS, Figures, Progress

if TYPE_CHECKING:
    from cryorefine.maps.density import Volume


class Stopwatch:
    """Tells from the pace of a stage how long the rest of it will take."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._stage, self._began, self._first = "", 0.0, 0

    def seconds_left(self, event: Progress) -> float | None:
        """Return the seconds left of a stage, or None while that cannot be known."""
        if event.stage != self._stage or event.done < self._first:
            self._stage, self._began, self._first = event.stage, self._now(), event.done
        done, elapsed = event.done - self._first, self._now() - self._began
        if done <= 0 or elapsed < 1 or event.total <= event.done:
            return None
        return elapsed / done * (event.total - event.done)


def duration_text(seconds: float) -> str:
    """Return "40 s", "3 min" or "2 h 05 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def volume_text(volume: Volume) -> str:
    """Return e.g. "940 294 Å³, as 762 kDa of protein", with narrow spaces between thousands."""
    cubic, mass = (f"{n:,.0f}".replace(",", "\u202f") for n in (volume.cubic_angstrom, volume.kilodalton))
    return f"{cubic} Å³, as {mass} kDa of protein"


def figures_text(values: Figures | Any) -> str:
    """Return the figures of a running job, or those of its Result, as lines of name and value."""
    pairs = values.values if isinstance(values, Figures) else _numbers(values)
    return "\n".join(f"{_words(name)}: {_number(name, value)}" for name, value in pairs.items())


def _numbers(result: Any) -> dict[str, Any]:
    fields = [field.name for field in dataclasses.fields(result)]
    return {
        f"{name} ({RESULT_UNITS[name]})" if name in RESULT_UNITS else name: value
        for name in fields
        if isinstance(value := getattr(result, name), str | int | float) and not isinstance(value, Path)
    }


def _words(name: str) -> str:
    text = name.partition(" (")[0].replace("_", " ").replace("b factor", "B-factor")
    return text[:1].upper() + text[1:]


def _number(name: str, value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, float) and 1e4 <= abs(value) < 1e12:
        text = f"{float(text):,.0f}".replace(",", "\u202f")
    unit = name.partition(" (")[2].removesuffix(")")
    unit = unit.replace("degrees", "°").replace("A", "Å").replace("^2", "²").replace("^3", "³")
    return f"{text}{unit}" if unit in ("", "°") else f"{text} {unit}"
