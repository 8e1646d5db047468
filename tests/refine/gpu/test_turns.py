"""Threads share GPUs fairly, and arrays are copied to each GPU once."""

from contextlib import ExitStack
from threading import Thread

import numpy as np

from cryorefine.compute.gpu_turns import TURNS, turns


def test_every_gpu_has_its_turns_and_no_more(two_gpus):
    gpus = turns("gpu:0,1")
    with ExitStack() as stack:
        copies = [stack.enter_context(gpus.turn()) for _ in range(2 * TURNS)]
        assert [copies.count(each) for each in set(copies)] == [TURNS, TURNS]
        waiting = []

        def wait():
            with gpus.turn() as mine:
                waiting.append(mine)

        thread = Thread(target=wait)
        thread.start()
        thread.join(0.1)
        assert waiting == []
    thread.join(10)
    assert waiting[0] in copies


def test_threads_of_a_device_share_its_turns(two_gpus):
    assert turns("gpu:0,1") is turns("gpu:0,1")
    assert turns("cpu") is None


def test_a_failed_turn_is_given_back(two_gpus):
    gpus = turns("gpu:0")
    for _ in range(3 * TURNS):
        try:
            with gpus.turn():
                raise MemoryError
        except MemoryError:
            pass
    with gpus.turn():
        pass


def test_arrays_are_copied_once_and_the_oldest_are_dropped(two_gpus):
    arrays = [np.full(3, value) for value in (1.0, 2.0, 3.0)]
    with turns("gpu:0").turn() as copies:
        first = copies.of(arrays[0])
        np.testing.assert_array_equal(first.get(), arrays[0])
        assert copies.of(arrays[0]) is first
        copies.of(arrays[1])
        copies.of(arrays[2])
        assert copies.of(arrays[0]) is not first
        second = copies.of(arrays[0])
        copies.clear()
        assert copies.of(arrays[0]) is not second


def test_a_turn_waits_for_memory_while_another_works(two_gpus):
    gpus = turns("gpu:0")
    order = []

    def work():
        with gpus.turn(memory=2**40):
            order.append("second")

    with gpus.turn(memory=2**40):  # alone on the GPU it may try
        thread = Thread(target=work)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
