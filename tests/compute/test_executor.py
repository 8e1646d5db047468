"""Sums come to the same bits on threads and on workers, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from importlib.util import find_spec

import numpy as np
import psutil
import pytest
from tests.compute.outside import outside_scheduler
from tests.compute.processes import children_called

from cryorefine.compute import dask_executor
from cryorefine.compute.cluster import LocalCluster, gpu_names, make_cluster, parse_cluster
from cryorefine.compute.dask_executor import DaskExecutor
from cryorefine.compute.dealer import Dealer
from cryorefine.compute.executor import DASHBOARD_NOTICE, NO_DASHBOARD, Done, LocalExecutor, News
from cryorefine.compute.fold import FAN_IN, Fold, blocks
from cryorefine.errors import UserError

# Two trees: one of several blocks, the last one short, and one of a single group.
TREES = [[[(0, 3 * g + c) for c in range(3)] for g in range(2 * FAN_IN + 3)], [[(1, 0), (1, 1)]]]
CHUNKS = [chunk for tree in TREES for group in tree for chunk in group]


def make_work(pause: float = 0.0):
    """A chunk's sum and another value; classes in here travel to workers by value."""

    class Total:
        def __init__(self, values):
            self.values = values

        def add(self, other):
            self.values += other.values

        def copy(self):
            return Total(self.values.copy())

    def work(chunk):
        time.sleep(pause)
        rng = np.random.default_rng(chunk)
        # Numbers of all sizes: in another order they come to other sums.
        return Total((rng.normal(size=500) * 10.0 ** rng.integers(-4, 5, 500)).astype(np.float32)), chunk

    return work


def reduce(executor, pause=0.0, during=lambda done: None):
    """Sums of both trees, and everything that was said."""
    with executor:
        running = executor.reduce(make_work(pause), lambda tree, chunk: (chunk,), TREES)
        events = []
        while True:
            try:
                events.append(next(running))
            except StopIteration as stop:
                sums = [total.values.tobytes() for total in stop.value]
                break
            during(sum(isinstance(event, Done) for event in events))
    done = [event for event in events if isinstance(event, Done)]
    assert Counter((e.tree, e.chunk) for e in done) == Counter((c[0], c) for c in CHUNKS)
    assert all(event.value == event.chunk for event in done)
    return sums, [event.sentence for event in events if isinstance(event, News) and event.sentence]


@pytest.fixture(scope="module")
def truth():
    return reduce(LocalExecutor(1))[0]


def test_the_order_matters_to_the_bits(truth):
    """Or else the other tests would prove nothing."""
    work = make_work()
    total, _ = work(CHUNKS[0])
    for chunk in [c for c in CHUNKS[1:] if c[0] == 0]:
        total.add(work(chunk)[0])
    assert total.values.tobytes() != truth[0]


def test_threads_come_to_the_same_bits(truth):
    assert reduce(LocalExecutor(4), pause=0.001)[0] == truth


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_worker_processes_come_to_the_same_bits(truth, tmp_path, workers):
    executor = DaskExecutor("", LocalCluster(workers, 1, [], tmp_path))
    assert reduce(executor)[0] == truth
    (notice,) = executor.notices
    there = find_spec("bokeh") is not None
    assert notice.startswith(f"{DASHBOARD_NOTICE}{'http://' if there else NO_DASHBOARD}")


def test_a_killed_worker_costs_nothing_but_time(truth, tmp_path):
    cluster = LocalCluster(2, 1, [], tmp_path)
    killed: list[psutil.Process] = []

    def kill(done):
        # Some of what it did has been folded by then, some is on its way.
        if done >= len(CHUNKS) // 2 and not killed:
            nanny = psutil.Process(cluster.processes[0].pid)
            for child in children_called("spawn_main", nanny):  # not Python's own helper
                killed.append(child)
                child.kill()

    sums, said = reduce(DaskExecutor("", cluster), 0.05, kill)
    assert killed
    assert sums == truth
    assert any("is gone" in sentence for sentence in said)
    assert not any("No worker is left" in sentence for sentence in said)


@pytest.mark.slow
def test_a_worker_that_ends_for_good_is_replaced(truth, tmp_path):
    cluster = LocalCluster(1, 2, [], tmp_path)
    killed = []

    def kill(done):
        if done >= 9 and not killed:
            killed.append(cluster.processes[0].pid)
            os.killpg(killed[0], signal.SIGKILL)

    sums, said = reduce(DaskExecutor("", cluster), 0.01, kill)
    assert sums == truth
    assert any("No worker is left" in sentence for sentence in said)
    assert cluster.processes == {}


def test_a_mistake_that_a_worker_finds_and_a_lost_scheduler_are_said_in_words():
    def work(chunk):
        raise UserError(f"{chunk} is missing")

    with outside_scheduler() as (scheduler, address):
        with DaskExecutor(address) as executor, pytest.raises(UserError, match="this is missing"):
            list(executor.reduce(work, lambda tree, chunk: (chunk,), [[["this"]]]))

        def kill(done):
            if done == 6:
                scheduler.kill()

        with pytest.raises(UserError, match=f"scheduler at {address} is gone; .* --continue"):
            reduce(DaskExecutor(address), 0.02, kill)


def test_a_scheduler_that_is_not_there_is_said_in_words(monkeypatch):
    monkeypatch.setattr(dask_executor, "CONNECT", 0.5)
    with pytest.raises(UserError, match=r"No Dask scheduler .* tcp://127.0.0.1:9"):
        DaskExecutor("tcp://127.0.0.1:9").__enter__()


@pytest.mark.parametrize("count", [0, 1, FAN_IN, FAN_IN + 1, FAN_IN**2 + FAN_IN + 1])
def test_few_totals_are_alive_at_a_time(count):
    """Sums are as large as maps: a fold holds one for each level."""
    fold = Fold(lambda a, b: [*a, *b])
    for k in range(count):
        fold.push([k])
        assert sum(level.total is not None for level in fold.levels) <= 3
    assert fold.total() == (list(range(count)) or None)


def test_groups_are_dealt_in_order_and_neighbours_together():
    dealer = Dealer([4, 4, 4])
    assert [dealer.next(w) for w in "ababab"] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    dealer.forget("a")  # it died: others finish what it began, when all is begun
    assert [dealer.next("b") for _ in range(6)] == [(1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (0, 3)]
    assert dealer.next("b") is None


def test_few_groups_are_shared_by_all():
    dealer = Dealer([4])
    assert [dealer.next(w) for w in "abcd"] == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_blocks_cover_everything():
    assert [list(b) for b in blocks(range(FAN_IN + 2))] == [list(range(FAN_IN)), [FAN_IN, FAN_IN + 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local", "how many processes"),
        ("local:0", "how many processes"),
        ("pbs:jobs=2", "is not a cluster"),
        ("slurm:nodes=2", "nodes=2 is none of jobs=, cores="),
        ("slurm:memory=many", "many is no value of memory"),
        ("slurm:gpus=2", "2 is no value of gpus"),
    ],
)
def test_what_is_no_cluster_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_cluster(text)


def test_a_slurm_job_asks_for_what_was_given(tmp_path):
    pytest.importorskip("dask_jobqueue")
    from dask_jobqueue.slurm import SLURMCluster

    text = "slurm:jobs=3,cores=8,memory=32GiB,queue=gpu,walltime=12:00:00,gpus=1"
    cluster = make_cluster(text, 0, "gpu", tmp_path)
    with SLURMCluster(**cluster.options()) as queue:
        script = queue.job_script()
    for line in ("--cpus-per-task=8", "--mem=32G", "-p gpu", "-t 12:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "-m cryorefine.compute.worker tcp://" in script
    assert "--nthreads 1 " in script


def test_each_worker_on_this_machine_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_names([0, 1, 2], 3) == ["0", "1", "2"]
    assert gpu_names([1, 3], 4) == ["1", "3", "1", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert gpu_names([0, 1], 2) == ["4", "6"]
    assert gpu_names([], 2) == []


def test_a_queue_that_refuses_is_quoted(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    cluster = make_cluster("slurm:jobs=1,cores=1,memory=1GB", 0, "cpu", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here"):
        cluster.start()
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho sbatch: error: invalid partition specified: many >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UserError, match=r"refuses .*job\.sh: sbatch: error: invalid partition"):
        cluster.start()
    cluster.stop()
