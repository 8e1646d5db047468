"""Files opened by hand: read in a thread, then shown layer by layer in a window that goes on answering."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication

from cryorefine.errors import UserError
from napari_cryorefine.layer_data import LayerData
from napari_cryorefine.turns import Turns
from napari_cryorefine.warm import SWITCH, load_for_layers, take_what_is_loaded

T = TypeVar("T")
_LARGE = 1 << 24
"""Bytes of a file for which there is a progress bar, which takes as long to make as a small file to read."""


class _Opener(QObject):
    """Reads one file after the other, so that their layers come in the order in which they were chosen."""

    def __init__(self) -> None:
        super().__init__(QApplication.instance())
        self._waiting: deque[tuple[Path, Callable[[], Any], Callable[[Any], Iterator[Any]]]] = deque()
        self._reading = False
        self._turns = Turns(self)
        sys.setswitchinterval(SWITCH)

    def add(self, path: Path, read: Callable[[], T], show: Callable[[T], Iterator[Any]]) -> None:
        self._waiting.append((path, read, show))
        self._next()

    def _next(self) -> None:
        if self._reading or not self._waiting:
            return
        path, read, show = self._waiting.popleft()
        self._reading = True

        def work() -> tuple[Any, UserError | None]:
            load_for_layers()
            try:
                return read(), None
            except UserError as error:
                return None, error

        takes_long = path.is_file() and path.stat().st_size > _LARGE
        create_worker(
            work,
            _connect={"returned": partial(self._show, show), "finished": self._on_finished},
            _progress={"desc": f"Reading {path.name}", "total": 0} if takes_long else False,
        )

    def _show(self, show: Callable[[Any], Iterator[Any]], result: tuple[Any, UserError | None]) -> None:
        found, error = result
        take_what_is_loaded()
        if error is not None:
            show_error(str(error))
        else:
            self._turns.follow(show(found))

    def _on_finished(self) -> None:
        self._reading = False
        self._next()


_openers: list[_Opener] = []


def open_later(path: Path, read: Callable[[], T], show: Callable[[T], Iterator[Any]]) -> None:
    """Read a file in a thread, and show it when it is there, or say what is wrong with it.

    Parameters
    ----------
    path : Path
        What is read, which the progress bar of napari names.
    read : callable
        Returns what was read; runs in the thread.
    show : callable
        Takes that and returns an iterator, each step of which shows a part, in a turn of its own.
    """
    if not _openers:
        _openers.append(_Opener())
    _openers[0].add(path, read, show)


def add_layers(viewer: Any, layers: list[LayerData]) -> Iterator[None]:
    """Add layers to a viewer, one at each step."""
    for data, keywords, kind in layers:
        getattr(viewer, f"add_{kind}")(data, **keywords)
        yield
