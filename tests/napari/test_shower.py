"""Results are read in a thread and shown in the window's, in the order in which they were asked for."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_map
from napari_cryorefine import shower
from napari_cryorefine.steps import at_once

SECONDS = 20_000


@pytest.fixture
def maps(project):
    """Three maps, filled with 1, 2 and 3."""
    paths = [project / f"{number}.mrc" for number in (1, 2, 3)]
    for number, path in enumerate(paths, start=1):
        write_map(path, np.full((4, 4, 4), number, np.float32), 2.0)
    return paths


def steps_of(shown, *paths):
    """Steps that ask for maps and note what they get and in which thread."""
    for path in paths:
        loaded = yield path
        shown.append((float(loaded.data[0, 0, 0]), threading.current_thread()))
    return len(shown)


def test_maps_are_read_apart_from_the_window_and_shown_in_it(qtbot, maps, monkeypatch):
    readers, read_map = [], shower.read_for_display

    def reading(path):
        readers.append(threading.current_thread())
        return read_map(path)

    monkeypatch.setattr(shower, "read_for_display", reading)
    shown, one = [], shower.Shower()
    one.show(steps_of(shown, maps[0], maps[1]))
    one.show(steps_of(shown, maps[2]))
    assert one.busy
    assert not shown
    qtbot.waitUntil(lambda: not one.busy, timeout=SECONDS)
    assert [value for value, _ in shown] == [1, 2, 3]
    assert {thread for _, thread in shown} == {threading.main_thread()}
    assert threading.main_thread() not in readers


def test_what_fails_is_told_and_the_rest_is_shown(qtbot, maps):
    shown, told, one = [], [], shower.Shower()
    one.failed.connect(told.append)
    one.show(steps_of(shown, maps[0], Path("nowhere.mrc"), maps[1]))
    one.show(steps_of(shown, maps[2]))
    qtbot.waitUntil(lambda: not one.busy, timeout=SECONDS)
    assert [value for value, _ in shown] == [1, 3]
    (error,) = told
    assert isinstance(error, UserError)
    assert "nowhere.mrc" in str(error)


def test_steps_without_maps_are_done_on_the_spot(qapp):
    shown, one = [], shower.Shower()
    one.show(steps_of(shown))
    assert not one.busy


def test_a_script_reads_as_it_goes(maps):
    shown = []
    assert at_once(steps_of(shown, *maps)) == 3
    assert [value for value, _ in shown] == [1, 2, 3]
