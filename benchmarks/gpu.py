"""Refine3D of simulated particles on a GPU, and on this machine's processor beside it.

Prints the wall time of the whole refinement, its resolution, and the mean FSC of its map with the truth,
and with --stages where the time goes. Without a GPU there is nothing to compare, and it says so.

    python benchmarks/gpu.py [--count 2000] [--box 128] [--symmetry D2] [--device gpu:0] [--stages]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

from cryorefine.compute.array_module import gpus
from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map
from cryorefine.jobs import finish, refine3d
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine import engine, expectation
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.gpu.insertion import GpuInsertion
from cryorefine.refine.gpu.operations import GpuOperations
from cryorefine.refine.operations import Insertion, ProcessorOperations
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import Simulated, simulate_particles

DIAMETER = 0.65  # of the box
OPERATIONS = (
    "slice_volume",
    "score_entries",
    "add_priors",
    "select_dense",
    "select_sparse",
    "normalise",
    "sum_entries",
)


@dataclass(frozen=True)
class Outcome:
    """Of one refinement."""

    seconds: float
    resolution: float
    fsc: float
    iterations: int


def simulated(folder: Path, options: argparse.Namespace) -> Simulated:
    """Write particles of a random protein that fills the mask."""
    edge = options.box * options.pixel_size
    atoms = random_protein(2000, radius=0.45 * DIAMETER * edge, symmetry=options.symmetry)
    optics = OpticsGroup("simulated", options.pixel_size, options.box, 300.0, 2.7, 0.1)
    return simulate_particles(
        folder,
        atoms,
        [optics],
        options.count,
        snr=options.snr,
        micrographs=10,
        offset_sigma=4.0,
        b_factor=50.0,
    )


def refined(made: Simulated, options: argparse.Namespace, device: str, folder: str) -> Outcome:
    """Refine on a device, in a folder of that name."""
    choices = refine3d.Options(
        particles=made.particles,
        reference=made.map,
        output=made.particles.parent / folder,
        symmetry=options.symmetry,
        initial_lowpass=40.0,
        mask_diameter=DIAMETER * options.box * options.pixel_size,
        device=device,
    )
    began = time.perf_counter()
    result = finish(refine3d.run(choices))
    seconds = time.perf_counter() - began
    fsc = fourier_shell_correlation(read_map(result.map).data, read_map(made.map).data)
    return Outcome(seconds, result.resolution, float(fsc.mean()), result.iterations)


@contextmanager
def stages(device: str) -> Iterator[dict[str, float]]:
    """Add up the seconds of each stage over all threads; on a GPU each waits for what it started."""
    spent: dict[str, float] = defaultdict(float)
    on_gpu = bool(gpus(device))

    def wait() -> None:
        if on_gpu:
            import cupy

            cupy.cuda.get_current_stream().synchronize()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            wait()
            began = time.perf_counter()
            result = function(*arguments, **keywords)
            wait()
            spent[name] += time.perf_counter() - began
            return result

        return run

    kind = GpuOperations if on_gpu else ProcessorOperations
    patches = [mock.patch.object(expectation, "prepare_views", timed("images", expectation.prepare_views))]
    patches.append(mock.patch.object(engine, "maximise", timed("maximisation", engine.maximise)))
    insertion = GpuInsertion if on_gpu else Insertion
    patches.append(mock.patch.object(insertion, "add", timed("insert_slices", insertion.add)))
    for name in OPERATIONS:
        function = timed(name, getattr(kind, name))
        patches.append(mock.patch.object(kind, name, function if on_gpu else staticmethod(function)))
    for patch in patches:
        patch.start()
    try:
        yield spent
    finally:
        for patch in patches:
            patch.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="number of particles")
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--pixel-size", type=float, default=2.0)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--snr", type=float, default=0.1, help="signal-to-noise ratio inside the particle")
    parser.add_argument("--device", default="gpu:0")
    parser.add_argument(
        "--stages", action="store_true", help="one more refinement each, timed stage by stage"
    )
    parser.add_argument("--skip-cpu", action="store_true", help="only on the GPU")
    options = parser.parse_args()
    try:
        gpus(options.device)
    except UserError as error:
        print(f"Nothing to measure: {error}")
        return
    devices = [options.device] if options.skip_cpu else [options.device, "cpu"]
    with tempfile.TemporaryDirectory() as temporary:
        made = simulated(Path(temporary), options)
        print(f"{options.count} particles of {options.box} px, {options.symmetry}")
        print(f"{'':<10}{'wall, s':>10}{'iterations':>12}{'resolution, A':>15}{'mean FSC with truth':>21}")
        for device in devices:
            found = refined(made, options, device, device.partition(":")[0])
            print(
                f"{device:<10}{found.seconds:>10.1f}{found.iterations:>12}{found.resolution:>15.2f}"
                f"{found.fsc:>21.3f}"
            )
        for device in devices if options.stages else []:
            with stages(device) as spent:
                refined(made, options, device, "stages_" + device.partition(":")[0])
            print(f"{device}: seconds of all threads")
            for name, seconds in sorted(spent.items(), key=lambda pair: -pair[1]):
                print(f"    {name:<20}{seconds:>10.2f}")


if __name__ == "__main__":
    main()
