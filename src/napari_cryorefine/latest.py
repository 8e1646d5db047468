"""Work that follows what a person moves: in a thread, and only ever for the newest values."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, QThreadPool, Signal

from napari_cryorefine.turns import Turns

_THREADS = 8
"""Qt gives as many as there are cores. On two of them a job in one thread, and another in the next, would
keep a form from being filled and a slider from being followed."""


class Latest(QObject):
    """Does the newest of many requests in a thread of this process.

    While one is worked on, requests that come in replace one another. What is made for a request is
    shown piece by piece, in turns, and its last pieces are left out if a newer request waits.

    Parameters
    ----------
    work : callable
        Takes a request and yields the pieces; runs in the thread, never twice at a time.

    Attributes
    ----------
    made : Signal
        A piece, in the thread of the window.
    failed : Signal
        The exception that ended a request.
    idle : Signal
        Nothing is left to do.
    """

    made = Signal(object)
    failed = Signal(object)
    idle = Signal()

    def __init__(self, work: Callable[[Any], Iterator[Any]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._work = work
        self._waiting: list[Any] = []
        self._worker: Any = None
        self._over = False
        self._turns = Turns(self)
        pool = QThreadPool.globalInstance()  # that of napari's workers
        pool.setMaxThreadCount(max(pool.maxThreadCount(), _THREADS))

    @property
    def busy(self) -> bool:
        """Whether a request is being worked on."""
        return self._worker is not None

    def ask(self, request: Any) -> None:
        """Have a request done as soon as the one in hand is, in place of any that waits."""
        self._waiting = [request]
        if not self.busy:
            self._next()

    def forget(self) -> None:
        """Drop what waits, and what is still to come of the request in hand."""
        self._waiting = []
        self._turns.forget()
        if self._over:
            self._turns.add(self._end)
        elif self._worker is not None:
            self._worker.yielded.disconnect()
            self._worker.quit()

    def _next(self) -> None:
        from napari.qt.threading import create_worker

        def drive(request: Any) -> Generator[Any, None, list[Exception]]:
            return (yield from self._drive(request))  # napari describes what it runs, perhaps after our end

        self._over = False
        self._worker = create_worker(drive, self._waiting.pop(), _start_thread=False)
        self._worker.yielded.connect(self._on_yielded)
        self._worker.returned.connect(self._on_returned)
        self._worker.finished.connect(self._on_finished)
        self._worker.start()

    def _drive(self, request: Any) -> Generator[Any, None, list[Exception]]:
        """Work in the thread. Errors are returned, in a list: the worker would raise them here."""
        try:
            for piece in self._work(request):
                yield piece
                if self._waiting:
                    break
        except Exception as error:
            return [error]
        return []

    def _on_yielded(self, piece: Any) -> None:
        # Connected as a method, which Qt forgets when this object is deleted; a signal's own emit it keeps.
        self._turns.add(partial(self.made.emit, piece))

    def _on_returned(self, errors: list[Exception]) -> None:
        self._turns.add(partial(self._tell, errors))

    def _on_finished(self) -> None:
        self._over = True
        self._turns.add(self._end)

    def _tell(self, errors: list[Exception]) -> None:
        for error in errors if not self._waiting else ():
            self.failed.emit(error)

    def _end(self) -> None:
        self._worker, self._over = None, False
        if self._waiting:
            self._next()
        else:
            self.idle.emit()
