"""Runs chunks of work: on threads of this process, or on the workers of a Dask scheduler.

Results come back in the order of the tasks, whoever finishes first, so that sums over them do not
depend on how many workers there are.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, TypeVar

from cryorefine.errors import UserError

ResultT = TypeVar("ResultT")


class Executor(Protocol):
    """Something that runs a function over tasks."""

    def run(self, function: Callable[..., ResultT], tasks: Sequence[tuple[Any, ...]]) -> Iterator[ResultT]:
        """Yield ``function(*task)`` for each task, in order."""

    def __enter__(self) -> Executor:
        """Take what is needed to work."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""


class LocalExecutor:
    """Threads of this process; the compiled kernels release the interpreter's lock.

    Parameters
    ----------
    threads : int
        Number of threads; 0 means as many as this process may use cores.
    """

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

    def run(self, function: Callable[..., ResultT], tasks: Sequence[tuple[Any, ...]]) -> Iterator[ResultT]:
        """Yield results in order, never more than a few ahead of the one that is waited for."""
        waiting: deque[Any] = deque()
        todo = iter(tasks)
        try:
            for task in todo:
                waiting.append(self._pool.submit(function, *task))
                if len(waiting) >= self.threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class DaskExecutor:
    """The workers of a Dask scheduler, which must see the same files under the same names.

    Parameters
    ----------
    address : str
        Address of the scheduler, e.g. ``tcp://node1:8786``.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> DaskExecutor:
        import distributed

        connect: Any = distributed.Client
        try:
            self._client = connect(self.address, timeout=10)
            if not self._client.scheduler_info()["workers"]:
                self._client.wait_for_workers(1, timeout=30)
        except (OSError, TimeoutError) as error:
            raise UserError(
                f"No Dask scheduler with workers answers at {self.address}; start one, or leave "
                "--scheduler out."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def run(self, function: Callable[..., ResultT], tasks: Sequence[tuple[Any, ...]]) -> Iterator[ResultT]:
        """Yield results in order; each is released as soon as it is handed over."""
        ahead = 2 * max(1, sum(self._client.nthreads().values()))
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                # Not pure: hashing the arrays of a task would cost more than it saves.
                waiting.append(self._client.submit(function, *task, pure=False))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def make_executor(scheduler: str, threads: int) -> Executor:
    """Return the executor that a job's options ask for."""
    return DaskExecutor(scheduler) if scheduler else LocalExecutor(threads)
