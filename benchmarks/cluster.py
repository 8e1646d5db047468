"""What workers cost: the same refinement on threads and on worker processes, and reductions of nothing.

Prints processor seconds, waiting left out, so that a busy machine matters less:

- a reduction of groups that compute nothing, whose sums are as large as those of a map: processor time of a
  group in this process (client and scheduler) and in the workers, and bytes that workers sent each other and
  this process;
- a whole small refinement on threads and on worker processes, after checking that the maps are the same:

    python benchmarks/cluster.py [--workers 1 2 4] [--only-refinements] [--groups 64] [--box 128]
        [--particles 600]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryorefine.compute.cluster import LocalCluster
from cryorefine.compute.dask_executor import DaskExecutor
from cryorefine.compute.executor import Done
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import finish
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import simulate_particles
from cryorefine.refine.volume import empty_volume


def make_work(size: int) -> Any:
    """Return a chunk's function that sums nothing; what is in here travels to workers by value."""

    class Total:
        def __init__(self, arrays: Any) -> None:
            self.arrays = arrays

        def add(self, other: Any) -> None:
            for mine, theirs in zip(self.arrays, other.arrays, strict=True):
                mine += theirs

        def __sizeof__(self) -> int:
            return sum(array.nbytes for array in self.arrays)

        def copy(self) -> Any:
            return Total([array.copy() for array in self.arrays])

    def work(chunk: Any) -> Any:
        return Total(empty_volume(size, 2)), chunk

    return work


def sent(dask_worker: Any) -> tuple[int, int]:
    """Bytes that a worker has sent to other workers, and to anybody."""
    received = sum(entry["total"] for entry in dask_worker.transfer_incoming_log)
    return received, sum(entry["total"] for entry in dask_worker.transfer_outgoing_log)


def processor(dask_worker: Any = None) -> float:
    return time.process_time()


def reductions(folder: Path, workers: int, groups: int, size: int) -> None:
    """Print what a group costs when it computes nothing."""
    print(f"{workers} workers, {groups} groups of one chunk; edge of the image, bytes of a sum:")
    print("   edge       MB   here ms   workers ms   between workers MB   to here MB   elapsed s")
    trees = [[[g] for g in range(h, groups, 2)] for h in range(2)]
    for edge in (2, size):
        work = make_work(edge)
        volume = sum(array.nbytes for array in empty_volume(edge, 2)) / 1e6
        with DaskExecutor("", LocalCluster(workers, 1, [], folder)) as executor:
            client = executor._client
            client.wait_for_workers(workers)
            began = time.monotonic()
            here, there = processor(), sum(client.run(processor).values())
            running = executor.reduce(work, lambda tree, chunk: (chunk,), trees)
            assert sum(isinstance(event, Done) for event in running) == groups
            elapsed = time.monotonic() - began
            here, there = processor() - here, sum(client.run(processor).values()) - there
            totals = np.array(list(client.run(sent).values())).sum(axis=0) / 1e6
        print(
            f"{edge:7d}   {volume:6.2f}   {1000 * here / groups:7.2f}   {1000 * there / groups:10.2f}   "
            f"{totals[0]:18.1f}   {totals[1] - totals[0]:10.1f}   {elapsed:9.1f}"
        )


def spent() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def refinements(folder: Path, workers: Sequence[int], particles: int) -> None:
    """Print what a whole refinement costs on two threads, here and in workers; four have a thread each."""
    optics = OpticsGroup("first", 3.0, 64, 300.0, 2.7, 0.1)
    atoms = random_protein(120, radius=60.0, symmetry="D2")
    made = simulate_particles(folder, atoms, [optics], particles, snr=0.5, micrographs=10)
    maps = []
    for name, where in (("threads", {}), *((f"local:{n}", {"cluster": f"local:{n}"}) for n in workers)):
        options = refine3d.Options(
            particles=made.particles,
            reference=made.map,
            output=folder / name.replace(":", ""),
            symmetry="D2",
            initial_lowpass=25.0,
            mask_diameter=140.0,
            threads=2,
            **where,
        )
        before, began = spent(), time.monotonic()
        result = finish(refine3d.run(options))
        print(
            f"{name:>8}: {spent() - before:6.1f} processor s, {time.monotonic() - began:6.1f} s elapsed, "
            f"{result.iterations} iterations"
        )
        maps.append(result.map.read_bytes())
    assert all(other == maps[0] for other in maps[1:]), "the maps differ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--particles", type=int, default=600)
    parser.add_argument("--only-refinements", action="store_true", help="leave the reductions out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if not options.only_refinements:
            reductions(Path(name), max(options.workers), options.groups, options.box)
        refinements(Path(name), options.workers, options.particles)


if __name__ == "__main__":
    main()
