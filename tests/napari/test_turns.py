"""Things done in turns: in their order, with the window answering in between."""

from __future__ import annotations

import time

import pytest
from qtpy.QtCore import QTimer

from napari_cryorefine.turns import Turns, is_by_hand

SECONDS = 10_000


@pytest.fixture
def turns(qapp):
    """Turns, and what has been done."""
    turns = Turns()
    turns.done = []
    return turns


def settle(qtbot, turns):
    qtbot.waitUntil(lambda: not turns.busy, timeout=SECONDS)


def test_things_are_done_in_order_and_the_window_answers_in_between(turns, qtbot):
    def do(name):
        time.sleep(0.01)
        turns.done.append(name)
        QTimer.singleShot(0, lambda: turns.done.append("answer"))

    turns.add(lambda: do("a"), lambda: do("b"))
    turns.add(lambda: do("c"))
    assert turns.done == []
    qtbot.waitUntil(lambda: not turns.busy and turns.done[-1] == "answer", timeout=SECONDS)
    assert turns.done == ["a", "answer", "b", "answer", "c", "answer"]


def test_some_things_go_first(turns, qtbot):
    turns.add(lambda: turns.done.append("last"))
    turns.follow((turns.done.append(name) for name in "ab"), first=True)
    settle(qtbot, turns)
    assert turns.done == ["a", "b", "last"]


def test_a_mistake_does_not_keep_the_others_from_being_done(turns, qtbot):
    def fail():
        raise RuntimeError("no good")

    with qtbot.captureExceptions() as caught:
        turns.add(fail, lambda: turns.done.append("a"))
        settle(qtbot, turns)
    assert [str(each[1]) for each in caught] == ["no good"]
    assert turns.done == ["a"]


def test_what_takes_no_time_need_not_wait(turns, qtbot, monkeypatch):
    monkeypatch.setattr("napari_cryorefine.turns._SHORT", 10.0)

    def ask():
        turns.done.append("a")
        QTimer.singleShot(0, lambda: turns.done.append("answer"))

    turns.add(ask, lambda: turns.done.append("b"))
    qtbot.waitUntil(lambda: len(turns.done) == 3, timeout=SECONDS)
    assert turns.done == ["a", "b", "answer"]


def test_what_is_forgotten_is_not_done(turns, qtbot):
    turns.add(lambda: turns.done.append("a"), turns.forget, lambda: turns.done.append("b"))
    qtbot.waitUntil(lambda: turns.done == ["a"], timeout=SECONDS)
    assert not turns.busy
    turns.add(lambda: turns.done.append("c"))
    settle(qtbot, turns)
    assert turns.done == ["a", "c"]


def test_a_script_is_told_from_a_hand(qapp, qtbot):
    told = []
    assert not is_by_hand()
    QTimer.singleShot(0, lambda: told.append(is_by_hand()))
    qtbot.waitUntil(lambda: told == [True], timeout=SECONDS)


def test_lines_of_a_console_are_scripts_though_they_are_called_by_the_window(qapp, qtbot):
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    shell.user_ns |= {"told": [], "is_by_hand": is_by_hand}
    QTimer.singleShot(0, lambda: shell.run_cell("told.append(is_by_hand())"))
    qtbot.waitUntil(lambda: shell.user_ns["told"] == [False], timeout=SECONDS)
