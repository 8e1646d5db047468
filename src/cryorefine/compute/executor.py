"""Runs chunks of work on threads of this process, and says how their sums are bracketed.

Work comes as *trees*, one for each sum that is wanted (the two half sets). A tree is a sequence of groups, a
group a sequence of chunks. A group is summed chunk by chunk, and groups are folded as
:mod:`cryorefine.compute.fold` says. So the sums do not depend on who works, or how many of them there are:
:class:`~cryorefine.compute.dask_executor.DaskExecutor` comes to the same bits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from cryorefine.compute.array_module import gpus
from cryorefine.compute.fold import Chain, Fold, Sum, SumT, blocks
from cryorefine.compute.gpu_turns import TURNS

ResultT = TypeVar("ResultT")
Tree = Sequence[Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Done:
    """A chunk is done; ``value`` is what it made besides its part of the sum."""

    tree: int
    chunk: Any
    value: Any


@dataclass(frozen=True)
class News:
    """One sentence about the workers; empty for a sign of life while nothing is finished."""

    sentence: str = ""
    warning: bool = True


DASHBOARD_NOTICE = "Dask dashboard: "
"""What the notice begins with that tells the address of the page on which Dask shows its workers."""
NO_DASHBOARD = 'none, for bokeh is not installed; pip install "napari-cryorefine[cluster]" brings it.'
"""What it tells instead where the scheduler has no such page."""

Reduction = Generator[Done | News, None, list[Any]]


class Executor(Protocol):
    """Something that runs a function over chunks and sums what it returns.

    Attributes
    ----------
    notices : tuple of str
        What a person should know about where the work is done, each one sentence.
    """

    notices: tuple[str, ...]

    def reduce(
        self,
        function: Callable[..., tuple[Sum, Any]],
        arguments: Callable[[int, Any], tuple[Any, ...]],
        trees: Sequence[Tree],
    ) -> Reduction:
        """Sum ``function(*arguments(tree, chunk))`` over the chunks of each tree.

        Parameters
        ----------
        function : callable
            Returns (a sum that belongs to nobody else, anything).
        arguments : callable
            Returns the function's arguments for the number of a tree and a chunk; called in this process
            when it is the chunk's turn.
        trees : sequence of sequences of sequences
            Chunks of each group of each tree.

        Yields
        ------
        Done or News
            Chunks in any order.

        Returns
        -------
        list
            The sum of each tree; None for one without chunks.
        """

    def __enter__(self) -> Executor:
        """Take what is needed to work."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""


def added(total: SumT, term: SumT) -> SumT:
    """Add a term to a total in place, and return the total."""
    total.add(term)  # type: ignore[attr-defined]
    return total


class LocalExecutor:
    """Threads of this process; the compiled kernels release the interpreter's lock.

    Parameters
    ----------
    threads : int
        Number of threads; 0 means as many as this process may use cores.
    """

    notices: tuple[str, ...] = ()

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))

    def __enter__(self) -> LocalExecutor:
        from threadpoolctl import threadpool_limits

        # Each thread multiplies its own matrices: a BLAS with threads of its own would only get in the way.
        self._limits = threadpool_limits(1)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="cryorefine")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._limits.restore_original_limits()

    def run(
        self, function: Callable[..., ResultT], tasks: Sequence[tuple[Any, ...]] | Iterator[tuple[Any, ...]]
    ) -> Iterator[ResultT]:
        """Yield ``function(*task)`` in order, never more than a few ahead of the one that is waited for."""
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, *task))
                if len(waiting) >= self.threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def reduce(
        self,
        function: Callable[..., tuple[Sum, Any]],
        arguments: Callable[[int, Any], tuple[Any, ...]],
        trees: Sequence[Tree],
    ) -> Reduction:
        """Sum over the chunks of each tree; see :class:`Executor`."""
        tasks = (arguments(t, c) for t, tree in enumerate(trees) for group in tree for c in group)
        results = self.run(function, tasks)
        totals: list[Any] = []
        for t, tree in enumerate(trees):
            fold: Fold[Any] = Fold(added)
            for block in blocks(tree):
                groups: Chain[Any] = Chain(added)
                for group in block:
                    chunks: Chain[Any] = Chain(added)
                    for chunk in group:
                        part, value = next(results)
                        chunks.push(part)
                        del part
                        yield Done(t, chunk, value)
                    groups.push(chunks.total)
                fold.push(groups.total)
            totals.append(fold.total())
        return totals


def make_executor(
    threads: int, scheduler: str = "", cluster: str = "", *, device: str, folder: Path
) -> Executor:
    """Return the executor that a job's options ask for.

    Parameters
    ----------
    threads : int
        Threads of this machine; 0 means as many as there are cores.
    scheduler : str
        Address of a Dask scheduler; empty for none.
    cluster : str
        A cluster to start, e.g. ``local:4``; empty for none.
    device : str
        Where the chunks are computed: workers on this machine get a GPU each, if on GPUs.
    folder : Path
        Where workers that are started leave their logs.
    """
    if not scheduler and not cluster:
        numbers = gpus(device)
        # Those that wait for a GPU's turn only hold memory, but for one that reads ahead.
        return LocalExecutor(min(threads or 999, TURNS * len(numbers) + 1) if numbers else threads)
    from cryorefine.compute.dask_executor import DaskExecutor

    if scheduler:
        return DaskExecutor(scheduler)
    from cryorefine.compute.cluster import make_cluster

    return DaskExecutor("", make_cluster(cluster, threads, device, folder))
