"""Who computes on which GPU: threads take turns, and each goes where there is room."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cryorefine.compute.array_module import gpus

# While one thread prepares its lists on the processor, another one's kernels run.
TURNS = 2
# What is free is shared out between the turns, and between what each of them holds at a time: images,
# volumes, slices, scores and their masks. More than this is of no use.
SHARES = 8
LARGEST_SHARE = 2**31
# Threads keep their plans of transforms, and may not have another turn for long: plans with more working
# memory than this are dropped at the end of one.
LARGEST_PLANS = 2**29
_making = threading.Lock()


class Copies:
    """Copies of a few of the processor's volumes on one GPU, for all of its turns: the last two used."""

    KEPT = 2

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[int, tuple[Any, Any]] = OrderedDict()

    def of(self, values: Any, kept: int = KEPT) -> Any:
        """Return the copy of an array, or of what has a method ``on_gpu``, which must not change any more.

        Parameters
        ----------
        values : ndarray or ReferenceVolume
            The original.
        kept : int
            How many copies there may be at a time.
        """
        import cupy

        with self._lock:
            if id(values) not in self._pairs:
                while len(self._pairs) >= kept:
                    self._pairs.popitem(last=False)
                # The original is kept as well, so that its id stays its own.
                made = values.on_gpu(cupy) if hasattr(values, "on_gpu") else cupy.asarray(values)
                self._pairs[id(values)] = values, made
                # Other turns' streams may read it from now on.
                cupy.cuda.get_current_stream().synchronize()
            self._pairs.move_to_end(id(values))
            return self._pairs[id(values)][1]

    def clear(self) -> None:
        """Drop all copies."""
        with self._lock:
            self._pairs.clear()


class GpuTurns:
    """Turns on some GPUs, for the threads of this process.

    Parameters
    ----------
    numbers : sequence of int
        The GPUs.
    each : int
        Turns on each of them.
    """

    def __init__(self, numbers: tuple[int, ...], each: int = TURNS) -> None:
        import cupy

        self._free: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._copies = {number: Copies() for number in numbers}
        self._busy = dict.fromkeys(numbers, 0)
        self._changed = threading.Condition()
        for number in numbers * each:
            with cupy.cuda.Device(number):
                # A stream for each turn, since CuPy keeps memory for later by stream.
                self._free.put((number, cupy.cuda.Stream(non_blocking=True)))

    @contextmanager
    def turn(self, memory: int = 0) -> Iterator[Copies]:
        """Wait for a turn; inside, CuPy works on its GPU. Gives what the GPU's turns share.

        Parameters
        ----------
        memory : int
            Bytes without which the turn is of no use: it waits for them until nobody else works on the GPU.
        """
        import cupy

        number, stream = self._free.get()
        try:
            with cupy.cuda.Device(number), stream:
                with self._changed:
                    self._changed.wait_for(lambda: self._busy[number] == 0 or free_bytes() >= memory)
                    self._busy[number] += 1
                plans = cupy.fft.config.get_plan_cache()
                # One that is dropped while it works gives its memory to whoever asks first.
                plans.set_size(-1)
                try:
                    yield self._copies[number]
                    stream.synchronize()
                    if plans.get_curr_memsize() > LARGEST_PLANS:
                        plans.clear()
                finally:
                    with self._changed:
                        self._busy[number] -= 1
                        self._changed.notify_all()
        finally:
            self._free.put((number, stream))


def turns(device: str, each: int = TURNS) -> GpuTurns | None:
    """Return so many turns on each of a device's GPUs, the same for all threads; None for the processor."""
    # Threads that ask at once, before there are any, would each get turns of their own.
    with _making:
        return _turns(device, each)


@cache
def _turns(device: str, each: int) -> GpuTurns | None:
    numbers = tuple(gpus(device))
    return GpuTurns(numbers, each) if numbers else None


def share_of_memory() -> int:
    """Return how many bytes an array of a turn on the current GPU may take."""
    return min(LARGEST_SHARE, free_bytes() // (TURNS * SHARES))


def free_bytes() -> int:
    """Return how many bytes the current GPU has for new arrays."""
    import cupy

    pool = cupy.get_default_memory_pool()
    return int(cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())


def free_memory() -> None:
    """Give back what CuPy keeps of the GPU's memory for later, and this thread's plans of transforms."""
    import cupy

    # A plan has working memory as large as what it transforms, and may still be at work.
    cupy.cuda.get_current_stream().synchronize()
    cupy.fft.config.get_plan_cache().clear()
    pool: Any = cupy.get_default_memory_pool()
    pool.free_all_blocks()
