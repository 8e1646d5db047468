"""Showing things map by map: a generator asks for the files it needs, and whoever drives it reads them.

A script reads them on the spot (:func:`at_once`); a window has them read in a thread
(:class:`.shower.Shower`), so that it goes on answering.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TypeAlias, TypeVar

from cryorefine.io.mrc import Map
from napari_cryorefine.large_maps import read_for_display

T = TypeVar("T")
Steps: TypeAlias = Generator[Path, Map, T]
"""Yields the path of each map that is needed, is sent the map, and returns what came of it."""


def at_once(steps: Steps[T]) -> T:
    """Read the maps as they are asked for, and return what the steps return."""
    try:
        path = next(steps)
        while True:
            path = steps.send(read_for_display(path))
    except StopIteration as stop:
        return stop.value
