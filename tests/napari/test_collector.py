"""Old garbage is collected when nobody does anything, and not while somebody types."""

from __future__ import annotations

import gc

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit

from napari_cryorefine import collector


@pytest.fixture
def collected(qapp, monkeypatch):
    """Times at which garbage has been collected, with a collector that looks every moment."""
    times: list[int] = []
    monkeypatch.setattr(collector, "PAUSE", 200)
    monkeypatch.setattr(collector, "_REST", 100)
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, 100))
    monkeypatch.setattr(gc, "collect", lambda: times.append(1))
    one = collector._Collector()
    yield times
    monkeypatch.undo()
    one._timer.stop()
    one._end.stop()
    one.parent().removeEventFilter(one)
    one.deleteLater()


def test_garbage_is_collected_when_nobody_does_anything(collected, qtbot):
    qtbot.waitUntil(lambda: bool(collected), timeout=20_000)


def test_nobody_who_types_is_kept_waiting(collected, qtbot):
    box = QLineEdit()
    qtbot.addWidget(box)
    for _ in range(30):
        qtbot.keyClick(box, Qt.Key.Key_A)
        qtbot.wait(20)
    assert not collected


def test_python_does_not_collect_the_old_by_itself(qapp, monkeypatch):
    thresholds = [(700, 10, 10)]
    monkeypatch.setattr(gc, "get_threshold", lambda: thresholds[-1])
    monkeypatch.setattr(gc, "set_threshold", lambda *values: thresholds.append(values))
    monkeypatch.setattr(collector, "_Collector", lambda: None)
    collector.collect_when_idle()
    collector.collect_when_idle()  # once is enough
    assert thresholds == [(700, 10, 10), (700, 10, collector._OLD)]
