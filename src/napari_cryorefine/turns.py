"""Things done one after the other in the thread of the window, which answers and draws in between."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from qtpy.QtCore import QObject, QThread, QTimer

REST = 15
"""Milliseconds after each thing, in which the window draws what has come of it."""
_SHORT = 0.005
"""Seconds of a turn in which more is done: what takes no time need not wait."""
_LONG = 0.03
"""Seconds that a turn of the loop takes only where something has been drawn in it."""
_TRIES = 5  # turns without a long drawing that are waited for: an animation may draw in all of them


class Turns(QObject):
    """Does things one at a time, each that takes any time in a turn of Qt's event loop of its own.

    A layer of napari takes about as long to make as a window may stand still, and so do some plots.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], Any]] = deque()
        self._asked, self._tries = 0.0, 0
        self._rest, self._free = QTimer(self), QTimer(self)
        for timer, pause, then in ((self._rest, REST, self._go_on), (self._free, 0, self._do_next)):
            timer.setSingleShot(True)
            timer.setInterval(pause)
            timer.timeout.connect(then)

    @property
    def busy(self) -> bool:
        """Whether something is still to be done."""
        return bool(self._waiting)

    def add(self, *things: Callable[[], Any], first: bool = False) -> None:
        """Have these done in their order, after what waits already or before it."""
        if first:
            self._waiting.extendleft(reversed(things))
        else:
            self._waiting.extend(things)
        if not self._rest.isActive() and not self._free.isActive():
            self._go_on()

    def follow(self, steps: Iterator[Any], *, first: bool = False) -> None:
        """Take the steps of an iterator, one in each turn."""

        def step() -> None:
            for _ in steps:
                self.add(step, first=True)
                return

        self.add(step, first=first)

    def forget(self) -> None:
        """Leave out what is still to be done."""
        self._waiting.clear()

    def _go_on(self) -> None:
        if self._waiting:
            self._tries = _TRIES
            self._ask_for_a_turn()

    def _ask_for_a_turn(self) -> None:
        self._asked = time.monotonic()
        self._free.start()

    def _do_next(self) -> None:
        if time.monotonic() - self._asked > _LONG and self._tries:
            self._tries -= 1
            self._ask_for_a_turn()  # what has come in during the drawing goes first
            return
        self._rest.start()
        began = time.monotonic()
        while self._waiting and time.monotonic() - began < _SHORT:
            self._waiting.popleft()()


def is_by_hand() -> bool:
    """Tell whether a person has brought this about: Qt's loop has called, and nobody waits for what comes.

    Cells of a notebook and lines of napari's console are called by that loop too.
    """
    return QThread.currentThread().loopLevel() > 0 and not _is_in_a_cell()


def _is_in_a_cell() -> bool:
    frame = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "run_code" and "IPython" in code.co_filename:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
