"""Work that follows the hand: the newest request is done, older ones are left out, errors are told."""

from __future__ import annotations

import threading

import pytest
from napari.qt.threading import create_worker
from qtpy.QtCore import QThreadPool

from napari_cryorefine.latest import Latest

SECONDS = 10_000


@pytest.fixture
def gate():
    """Event that lets the second piece of a request be made."""
    return threading.Event()


@pytest.fixture
def latest(qtbot, gate):
    """Worker that makes two pieces of each request, and what it has made."""

    def work(request):
        yield f"{request} first"
        assert gate.wait(10)
        if request == "bad":
            raise RuntimeError("no good")
        yield f"{request} second"
        yield f"{request} third"

    latest = Latest(work)
    latest.pieces, latest.errors = [], []
    latest.made.connect(latest.pieces.append)
    latest.failed.connect(latest.errors.append)
    return latest


def test_all_pieces_of_a_single_request_are_made(latest, gate, qtbot):
    gate.set()
    with qtbot.waitSignal(latest.idle, timeout=SECONDS):
        latest.ask("a")
    assert latest.pieces == ["a first", "a second", "a third"]
    assert not latest.busy


def test_while_one_is_made_only_the_newest_waits_and_last_pieces_are_left_out(latest, gate, qtbot):
    latest.ask("a")
    qtbot.waitUntil(lambda: latest.pieces == ["a first"], timeout=SECONDS)
    for request in "bcd":
        latest.ask(request)
    with qtbot.waitSignal(latest.idle, timeout=SECONDS):
        gate.set()
    assert latest.pieces == ["a first", "a second", "d first", "d second", "d third"]


def test_an_error_is_told_and_work_goes_on(latest, gate, qtbot):
    gate.set()
    with qtbot.waitSignal(latest.idle, timeout=SECONDS):
        latest.ask("bad")
    assert [str(error) for error in latest.errors] == ["no good"]
    with qtbot.waitSignal(latest.idle, timeout=SECONDS):
        latest.ask("a")
    assert latest.pieces[-1] == "a third"


def test_what_is_forgotten_is_neither_made_nor_shown(latest, gate, qtbot):
    latest.ask("a")
    qtbot.waitUntil(lambda: latest.pieces == ["a first"], timeout=SECONDS)
    latest.ask("b")
    latest.forget()
    with qtbot.waitSignal(latest.idle, timeout=SECONDS):
        gate.set()
    assert latest.pieces == ["a first"]


def test_a_request_need_not_wait_for_the_jobs_that_run(qtbot):
    pool = QThreadPool.globalInstance()
    cores = pool.maxThreadCount()
    pool.setMaxThreadCount(1)
    over = threading.Event()
    latest, made = Latest(lambda request: iter([request])), []
    latest.made.connect(made.append)
    try:
        job = create_worker(over.wait, 10, _start_thread=True)
        latest.ask("a form")
        qtbot.waitUntil(lambda: made == ["a form"] and not latest.busy, timeout=SECONDS)
        with qtbot.waitSignal(job.finished, timeout=SECONDS):  # it was there all the time
            over.set()
    finally:
        over.set()
        pool.setMaxThreadCount(cores)
