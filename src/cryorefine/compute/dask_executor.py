"""Runs groups of chunks on the workers of a Dask scheduler, and sums them there.

A task is a group of chunks: its sum stays on the worker, only the particles' new values come back. Groups
that are finished are folded on the workers, where most of them lie, in the same brackets as on one machine
(:mod:`cryorefine.compute.fold`); the sum of each tree comes back at the end. What a lost worker had
computed is computed again by others: each task is a function of its arguments alone.
"""

from __future__ import annotations

import functools
import logging
import queue
import sys
import time
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from cryorefine import __version__
from cryorefine.compute.dealer import Dealer
from cryorefine.compute.executor import DASHBOARD_NOTICE, NO_DASHBOARD, Done, News, Reduction, Tree, added
from cryorefine.compute.fold import Chain, Fold, Sum, blocks
from cryorefine.errors import UserError

if TYPE_CHECKING:
    from cryorefine.compute.cluster import Cluster

# Seconds for a scheduler to answer, and for its first worker to come.
CONNECT, PATIENCE = 10.0, 30.0
_ROLL_CALL = 1.0  # seconds between looks at who is there
_ATTEMPTS = 3  # of a group whose workers died, each time as often as the scheduler puts up with
# Groups of a worker beyond its threads, so that none waits for the client.
_AHEAD = 1


@dataclass(frozen=True, eq=False)
class _GroupResult:
    """Sum of a group, and what its chunks made besides."""

    total: Any
    values: list[Any]

    def __sizeof__(self) -> int:
        # Dask sends work to where most bytes are, and looks after memory, by this.
        return sys.getsizeof(self.total)


@functools.cache
def _calm_blas() -> Any:
    """Keep a worker's matrix products on one thread; workers that Dask did not start have not been told."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _run_group(function: Callable[..., tuple[Sum, Any]], tasks: Sequence[tuple[Any, ...]]) -> _GroupResult:
    _calm_blas()
    total: Chain[Any] = Chain(added)
    values = []
    for task in tasks:
        part, value = function(*task)
        total.push(part)
        del part
        values.append(value)
    result: Any = total.total
    if hasattr(result, "settle"):
        result.settle()
    return _GroupResult(result, values)


def _values(result: _GroupResult) -> list[Any]:
    return result.values


def _merged(total: Any, term: Any) -> Any:
    """Sum of two; what they are stays as it is, since Dask may need it again."""
    first, second = (part.total if isinstance(part, _GroupResult) else part for part in (total, term))
    return added(first.copy(), second)


def _total(result: Any) -> Any:
    return result.total if isinstance(result, _GroupResult) else result


def _version() -> str:
    return __version__


@dataclass
class _Group:
    """A group that is on its way: who has it, and Dask's futures of its result and of the values in it."""

    block: int
    index: int
    worker: str
    result: Any
    values: Any
    attempts: int = 1


@dataclass
class _Block:
    """Groups that are folded on one worker, if all goes well."""

    tree: int
    groups: Sequence[Any]
    chain: Chain[Any]
    finished: dict[int, Any] = field(default_factory=dict)

    def push(self, index: int, result: Any) -> bool:
        """Fold a finished group in its turn; returns whether it was the last one."""
        self.finished[index] = result
        while self.chain.count in self.finished:
            self.chain.push(self.finished.pop(self.chain.count))
        return self.chain.count == len(self.groups)


class DaskExecutor:
    """The workers of a Dask scheduler, which must see the same files under the same names.

    Parameters
    ----------
    address : str
        Address of the scheduler, e.g. ``tcp://node1:8786``; empty for a cluster of its own.
    cluster : Cluster, optional
        Started and stopped with this.
    """

    notices: tuple[str, ...] = ()

    def __init__(self, address: str, cluster: Cluster | None = None) -> None:
        self.address = address
        self.cluster = cluster

    def __enter__(self) -> DaskExecutor:
        import dask
        import distributed

        connect: Any = distributed.Client
        # What Dask has to say about lost workers is said by this class, in words.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            if self.cluster is not None:
                self.address = self.cluster.start()
            try:
                self._client = connect(self.address, timeout=CONNECT, set_as_default=False)
            except (OSError, TimeoutError) as error:
                self._unreachable(error)
            # A group's particles and their images' names may be megabytes, and are meant to.
            self._settings = dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})
            self._meet()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if self.cluster is not None and not self.cluster.dashboard:
            link = NO_DASHBOARD
        else:
            link = self._client.dashboard_link
        self.notices = (f"{DASHBOARD_NOTICE}{link}",) if link else ()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_client"):
            self._client.close(timeout=2)
        if self.cluster is not None:
            self.cluster.stop()

    def _meet(self) -> None:
        """Refuse a scheduler without workers or of another installation; one's own may still be queueing."""
        try:
            versions = {self._client.run_on_scheduler(_version)}
            if self.cluster is None:
                if not self._client.nthreads():
                    self._client.wait_for_workers(1, timeout=PATIENCE)
                versions |= set(self._client.run(_version).values())
        except (OSError, TimeoutError) as error:
            self._unreachable(error)
        except ImportError as error:
            raise UserError(
                f"The Dask scheduler or a worker at {self.address} has no cryorefine; start both in "
                "the Python environment of this job."
            ) from error
        if versions != {__version__}:
            raise UserError(
                f"The Dask scheduler or a worker at {self.address} has cryorefine {', '.join(versions)}, but "
                f"this is {__version__}; start all of them in one Python environment."
            )

    def _unreachable(self, error: BaseException) -> NoReturn:
        raise UserError(
            f"No Dask scheduler with workers answers at {self.address}; start one, or leave --scheduler out."
        ) from error

    def reduce(
        self,
        function: Callable[..., tuple[Sum, Any]],
        arguments: Callable[[int, Any], tuple[Any, ...]],
        trees: Sequence[Tree],
    ) -> Reduction:
        """Sum over the chunks of each tree; see :class:`~cryorefine.compute.executor.Executor`."""
        from distributed.comm.core import CommClosedError

        reduction = _Reduction(self._client, self.cluster, function, arguments, trees)
        try:
            return (yield from reduction.run())
        except (Exception, CancelledError) as error:
            # The client may not know it yet.
            lost = isinstance(error, CommClosedError | CancelledError)
            if self._client.status == "running" and not lost:
                raise
            raise UserError(
                f"The Dask scheduler at {self.address} is gone; start it again and go on with --continue: "
                "all whole iterations are kept."
            ) from error
        finally:
            reduction.cancel()


class _NobodyLeft(Exception):
    """No worker has outlived the last second."""


class _Reduction:
    """One reduction under way."""

    def __init__(
        self,
        client: Any,
        cluster: Cluster | None,
        function: Callable[..., tuple[Sum, Any]],
        arguments: Callable[[int, Any], tuple[Any, ...]],
        trees: Sequence[Tree],
    ) -> None:
        self.client, self.cluster, self.function, self.arguments = client, cluster, function, arguments
        self.trees = trees
        self.told: set[tuple[int, int]] = set()  # groups whose values have been handed on
        self.workers: dict[str, int] = {}
        self.called = -_ROLL_CALL
        self.patient_until = time.monotonic() + PATIENCE
        self._begin()

    def _begin(self) -> None:
        """Forget what was done, if anything was."""
        self.blocks = [
            _Block(t, block, Chain(self._plus)) for t, tree in enumerate(self.trees) for block in blocks(tree)
        ]
        self.folds: list[Fold[Any]] = [Fold(self._plus) for _ in self.trees]
        self.dealer = Dealer([len(block.groups) for block in self.blocks])
        self.whole: set[int] = set()  # blocks to be folded when those before them are
        self.folded = 0
        self.on_the_way: dict[str, _Group] = {}
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> Reduction:
        """Deal groups, take in what is finished, and return the sums."""
        while True:
            try:
                return (yield from self._attempt())
            except _NobodyLeft:
                # All sums went with the workers. Dask would keep what is still to do for those that it
                # was meant for.
                self.cancel()
                self._begin()

    def _attempt(self) -> Reduction:
        while self.folded < len(self.blocks):
            yield from self._call_roll()
            self._deal()
            yield from self._take_in()
        totals = [fold.total() for fold in self.folds]
        # A tree of one group is still that group's result.
        roots = [None if t is None else self.client.submit(_total, t, pure=False, priority=1) for t in totals]
        for root in filter(None, roots):
            root.add_done_callback(self.events.put)
        for root in roots:
            while root is not None and not root.done():
                yield from self._call_roll()
                yield News()
                self._wait(_ROLL_CALL)
        # Whoever went in the last second is told of as well.
        self.called = -_ROLL_CALL
        yield from self._call_roll()
        try:
            # Straight from the workers: through the scheduler each sum would be sent twice.
            return [None if root is None else self.client.gather(root, direct=True) for root in roots]
        except Exception as error:
            self._refuse_killed(error)
            raise

    def cancel(self) -> None:
        """Let the workers drop what nobody waits for any more."""
        groups = [group.result for group in self.on_the_way.values()]
        if groups and self.client.status == "running":
            self.client.cancel(groups)
        self.on_the_way.clear()

    def _plus(self, total: Any, term: Any) -> Any:
        # Before the next group, so that sums do not pile up.
        return self.client.submit(_merged, total, term, pure=False, priority=1)

    def _call_roll(self) -> Generator[News, None, None]:
        """See who is there, at most once a second."""
        if time.monotonic() - self.called < _ROLL_CALL:
            return
        self.called = time.monotonic()
        present = dict(self.client.nthreads())
        if self.cluster is not None:
            self.cluster.tend()
        if not present and self.cluster is not None and (problem := self.cluster.problem()):
            raise UserError(problem)
        if not present and not self.workers and time.monotonic() > self.patient_until:
            self.patient_until = float("inf")
            where = f"; what workers say stands in {self.cluster.folder}" if self.cluster else ""
            yield News(f"No worker has come yet, the work begins with the first{where}.", warning=False)
        before, self.workers = self.workers, present
        for name in before.keys() - present.keys():
            self.dealer.forget(name)
            yield News(f"The worker {name} is gone; what it has computed in this iteration is done again.")
        if before and not before.keys() & present.keys():
            if not present:
                yield News("No worker is left; the work goes on when one comes.")
            raise _NobodyLeft

    def _deal(self) -> None:
        busy = Counter(group.worker for group in self.on_the_way.values())
        free = {name: threads + _AHEAD - busy[name] for name, threads in self.workers.items()}
        while any(slots > 0 for slots in free.values()):
            # One group each in turn, so that few groups are shared by all.
            for name in [name for name, slots in free.items() if slots > 0]:
                dealt = self.dealer.next(name)
                if dealt is None:
                    return
                free[name] -= 1
                self._send(_Group(*dealt, name, None, None))

    def _send(self, group: _Group) -> None:
        block = self.blocks[group.block]
        tasks = [self.arguments(block.tree, chunk) for chunk in block.groups[group.index]]
        # Neighbours on one worker; when it is gone, or idle others ask for work, elsewhere.
        group.result = self.client.submit(
            _run_group,
            self.function,
            tasks,
            pure=False,
            workers=[group.worker],
            allow_other_workers=True,
        )
        group.values = self.client.submit(_values, group.result, pure=False, priority=1)
        self.on_the_way[group.values.key] = group
        group.values.add_done_callback(self.events.put)

    def _take_in(self) -> Generator[Done | News, None, None]:
        """Wait a little for a group, and fold it."""
        future = self._wait(_ROLL_CALL)
        if future is None:
            yield News()
            return
        group = self.on_the_way.pop(future.key, None)
        if group is None:
            return  # of those that were cancelled
        block = self.blocks[group.block]
        try:
            values = self.client.gather(future)
        except Exception as error:
            if type(error).__name__ != "KilledWorker":
                raise
            if group.attempts >= _ATTEMPTS:
                self._refuse_killed(error)
            group.attempts += 1
            self._send(group)
            return
        if (place := (group.block, group.index)) not in self.told:
            self.told.add(place)
            for chunk, value in zip(block.groups[group.index], values, strict=True):
                yield Done(block.tree, chunk, value)
        if block.push(group.index, group.result):
            self.whole.add(group.block)
        while self.folded in self.whole:
            self.whole.remove(self.folded)
            block = self.blocks[self.folded]
            self.folds[block.tree].push(block.chain.total)
            block.chain.total = None
            self.folded += 1

    def _refuse_killed(self, error: Exception) -> None:
        if type(error).__name__ == "KilledWorker":
            raise UserError(
                "Worker after worker died over the same particles, most likely for want of memory; give each "
                "more memory or fewer threads, and go on with --continue."
            ) from error

    def _wait(self, seconds: float) -> Any:
        """Next future that has come to its end, or None when none has for so long."""
        try:
            return self.events.get(timeout=seconds)
        except queue.Empty:
            return None
