"""Cut the first axis of an array into slabs and work on them with a few threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cryorefine.compute.array_module import is_on_gpu

ResultT = TypeVar("ResultT")

# More slabs than cores so that they balance, and always the same number of them, so that a sum
# over slabs is added up in the same order however many threads there are.
_SLABS = 16


def thread_count(threads: int = 0) -> int:
    """Return how many threads to use; 0 means every core this process may run on."""
    if threads > 0:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_for(array: Any, threads: int) -> int:
    """Return how many threads should work on an array: one on a GPU, which each thread has to choose."""
    return 1 if is_on_gpu(array) else threads


def over_slabs(work: Callable[[slice], ResultT], length: int, threads: int = 0) -> list[ResultT]:
    """Call ``work`` on consecutive slices that cover ``range(length)``.

    Parameters
    ----------
    work : callable
        Takes a slice of the first axis. It should release the GIL (NumPy does for large arrays,
        Numba with ``nogil=True``), otherwise threads gain nothing.
    length : int
        Length of the first axis.
    threads : int
        0 for every core.

    Returns
    -------
    list
        The results in the order of the slabs, whichever thread made them.
    """
    count = max(1, min(_SLABS, length))
    edges = [length * i // count for i in range(count + 1)]
    slabs = [slice(a, b) for a, b in itertools.pairwise(edges)]
    workers = min(thread_count(threads), count)
    if workers == 1:
        return [work(slab) for slab in slabs]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, slabs))
