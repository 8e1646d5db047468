"""Results shown in a window that goes on answering."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from cryorefine.io.mrc import Map
from napari_cryorefine.large_maps import read_for_display
from napari_cryorefine.latest import Latest

if TYPE_CHECKING:
    from napari_cryorefine.steps import Steps


class Shower(QObject):
    """Does steps one after the other in the thread of the window, and reads their maps in another.

    Attributes
    ----------
    failed : Signal
        The exception that ended some steps; the next ones are done all the same.
    """

    failed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Steps[Any]] = deque()
        self._current: Steps[Any] | None = None
        self._reader = Latest(_read, self)
        self._reader.made.connect(lambda loaded: self._go_on(loaded))
        self._reader.failed.connect(self._throw)

    @property
    def busy(self) -> bool:
        """Whether something is still to be shown."""
        return self._current is not None or bool(self._waiting)

    def show(self, steps: Steps[Any]) -> None:
        """Do these steps after those that were asked for before."""
        self._waiting.append(steps)
        if self._current is None:
            self._begin()

    def forget(self) -> None:
        """Leave out what is still to be shown."""
        self._waiting.clear()
        self._current = None
        self._reader.forget()

    def _begin(self) -> None:
        while self._current is None and self._waiting:
            self._current = self._waiting.popleft()
            self._go_on(None)

    def _go_on(self, loaded: Map | None) -> None:
        steps = self._current
        if steps is None:
            return
        try:
            path = next(steps) if loaded is None else steps.send(loaded)
        except StopIteration:
            self._end()
        except Exception as error:
            self._end(error)
        else:
            self._reader.ask(path)

    def _throw(self, error: Exception) -> None:
        if self._current is not None:
            self._current.close()
            self._end(error)

    def _end(self, error: Exception | None = None) -> None:
        self._current = None
        if error is not None:
            self.failed.emit(error)
        self._begin()


def _read(path: Path) -> Iterator[Map]:
    yield read_for_display(path)
