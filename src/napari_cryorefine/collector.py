"""Garbage collected while nobody looks.

napari holds about a million objects. Python looks through all of them every now and then, in whichever thread
happens to make the next object, and keeps the window from answering for a fifth of a second. Here the
young objects are looked through as ever, the old ones in the thread of the window, when nobody moves
the mouse or types.
"""

from __future__ import annotations

import gc

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QApplication

PAUSE = 15_000
"""Milliseconds between two looks whether anybody is there."""
_REST = 1_000
"""Milliseconds in which nobody must move the mouse or press a key."""
_OLD = 10_000  # generations of middle-aged objects after which Python looks through the old ones by itself
_ENOUGH = 5  # after which it is worth looking
_INPUT = (
    QEvent.Type.MouseMove,
    QEvent.Type.MouseButtonPress,
    QEvent.Type.MouseButtonRelease,
    QEvent.Type.Wheel,
    QEvent.Type.KeyPress,
)


class _Collector(QObject):
    """Collects old garbage when nobody has done anything for a moment."""

    def __init__(self) -> None:
        super().__init__(QApplication.instance())
        self._seen = False
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._begin)
        self._timer.start(PAUSE)
        self._end = QTimer(self)
        self._end.setSingleShot(True)
        self._end.setInterval(_REST)
        self._end.timeout.connect(self._collect)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Notice that somebody is there."""
        self._seen = self._seen or event.type() in _INPUT
        return False

    def _begin(self) -> None:
        if gc.get_count()[2] >= _ENOUGH:
            # Not for longer than needed: every event of the program comes through here.
            self._seen = QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton
            self.parent().installEventFilter(self)
            self._end.start()

    def _collect(self) -> None:
        self.parent().removeEventFilter(self)
        if not self._seen:
            gc.collect()


def collect_when_idle() -> None:
    """Leave the collection of old garbage to moments in which nobody does anything, from now on."""
    young, middle, old = gc.get_threshold()
    if young and old < _OLD and QApplication.instance() is not None:
        gc.set_threshold(young, middle, _OLD)
        _Collector()
