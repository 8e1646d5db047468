"""Every job on a GPU and on this machine's processor, one after the other, on simulated data.

One run measures all of them and needs less than eight minutes on a card beside sixteen cores:

    python benchmarks/gpu.py                                   # all jobs; --jobs maps tomograms: some of them
    python benchmarks/gpu.py --jobs refine3d --count 20000 --box 256 --pixel-size 1.2 --stages

Each row has the seconds of a job on both, how much quicker the GPU is, and by how much what both made differs
(the largest difference of a map over its largest value; for a refinement the mean FSC of both maps with the
truth). Kernels are compiled, and the disk's cache filled, by a small run before. With --stages, refinements
are run once more and timed stage by stage. Without a GPU there is nothing to compare, and it says so.
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

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import gpus
from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.particles import read_particles
from cryorefine.jobs import (
    ctf_refine,
    finish,
    local_resolution,
    mask_create,
    postprocess,
    pseudo_subtomo,
    reconstruct_particle,
    refine3d,
)
from cryorefine.maps.filters import lowpass
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine import engine, expectation, sums
from cryorefine.refine.atoms import Atoms, density, random_protein
from cryorefine.refine.gpu.insertion import GpuInsertion
from cryorefine.refine.gpu.operations import GpuOperations
from cryorefine.refine.insertion import Insertion
from cryorefine.refine.operations import ProcessorOperations
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import Simulated, simulate_particles
from cryorefine.refine.tilt_project import Acquisition, simulate_project
from cryorefine.refine.volume import ReferenceVolume

F32 = NDArray[np.float32]
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
class Refined:
    """Of one refinement."""

    seconds: float
    resolution: float
    fsc: float
    iterations: int
    folder: Path


def show(job: str, seconds: list[float], note: str) -> None:
    """Print a row; the processor's seconds come last, if it was asked for."""
    cells = "".join(f"{value:>12.2f}" for value in seconds)
    ratio = f"{seconds[-1] / seconds[0]:>9.1f}" if len(seconds) == 2 else " " * 9
    print(f"{job:<34}{cells}{ratio}  {note}", flush=True)


def timed(job: Any, **options: Any) -> tuple[float, Any]:
    """Run a job; returns its seconds and its result."""
    began = time.perf_counter()
    result = finish(job.run(job.Options(**options)))
    return time.perf_counter() - began, result


def protein(radius: float) -> Atoms:
    """Return atoms that fill a sphere as loosely whatever its size."""
    return random_protein(max(20, int(0.002 * radius**3)), radius=radius)


def difference(maps: list[F32]) -> str:
    """Say by how much two maps differ."""
    if len(maps) < 2:
        return ""
    return f"differs by {np.abs(maps[0] - maps[1]).max() / max(np.abs(maps[1]).max(), 1e-30):.1e}"


def compare(name: str, job: Any, folder: Path, devices: list[str], made: str, **options: Any) -> None:
    """Run a job on each device, and print a row; ``made`` is a map of its folder that is compared."""
    seconds, maps = [], []
    for device in devices:
        output = folder / f"{name.replace(' ', '_')}_{device.partition(':')[0]}"
        took, _ = timed(job, output=output, device=device, **options)
        seconds.append(took)
        maps.append(read_map(output / made).data)
    show(name, seconds, difference(maps))


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


def refined(made: Simulated, options: argparse.Namespace, device: str, folder: str) -> Refined:
    """Refine on a device, in a folder of that name."""
    output = made.particles.parent / folder
    seconds, result = timed(
        refine3d,
        particles=made.particles,
        reference=made.map,
        output=output,
        symmetry=options.symmetry,
        initial_lowpass=40.0,
        mask_diameter=DIAMETER * options.box * options.pixel_size,
        device=device,
    )
    fsc = fourier_shell_correlation(read_map(result.map).data, read_map(made.map).data)
    return Refined(seconds, result.resolution, float(fsc.mean()), result.iterations, output)


@contextmanager
def stages(device: str) -> Iterator[dict[str, float]]:
    """Add up the seconds of each stage over all threads; on a GPU each waits for what it started."""
    spent: dict[str, float] = defaultdict(float)
    on_gpu = bool(gpus(device))

    def wait() -> None:
        if on_gpu:
            import cupy

            cupy.cuda.get_current_stream().synchronize()

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            wait()
            began = time.perf_counter()
            result = function(*arguments, **keywords)
            wait()
            spent[name] += time.perf_counter() - began
            return result

        return run

    from cryorefine.refine import work

    kind = GpuOperations if on_gpu else ProcessorOperations
    insertion = GpuInsertion if on_gpu else Insertion
    made_volume = "on_gpu" if on_gpu else "on_host"
    targets: list[tuple[Any, str, str]] = [
        (work, "read_images", "reading images"),
        (expectation, "prepare_views", "preparing images"),
        (engine, "maximise", "maximisation"),
        (engine, "estimate_accuracies", "accuracies"),
        (engine, "_write_references", "writing references"),
        (ReferenceVolume, made_volume, "transform of references"),
        (sums.HalfSums, "add", "folding sums"),
        (insertion, "add", "insert_slices"),
        (insertion, "kept", "keeping sums"),
    ]
    patches = [
        mock.patch.object(where, name, watched(title, getattr(where, name))) for where, name, title in targets
    ]
    for name in OPERATIONS:
        function = watched(name, getattr(kind, name))
        patches.append(mock.patch.object(kind, name, function if on_gpu else staticmethod(function)))
    for patch in patches:
        patch.start()
    try:
        yield spent
    finally:
        for patch in patches:
            patch.stop()


def particles_of_one_view(folder: Path, options: argparse.Namespace, devices: list[str]) -> None:
    """Refine3D, and CtfRefine of what comes out."""
    made = simulated(folder, options)
    found = [refined(made, options, device, f"refine_{device.partition(':')[0]}") for device in devices]
    notes = ", ".join(
        f"{each.resolution:.2f} A, {each.iterations} iterations, FSC {each.fsc:.3f}" for each in found
    )
    show(f"refine3d, {options.count} of {options.box} px", [each.seconds for each in found], notes)
    for device in devices if options.stages else []:
        with stages(device) as spent:
            refined(made, options, device, "stages_" + device.partition(":")[0])
        print(f"{device}: seconds of all threads")
        for name, seconds in sorted(spent.items(), key=lambda pair: -pair[1]):
            print(f"    {name:<26}{seconds:>10.2f}")
    if "ctf-refine" in options.jobs:
        refined_ctf(folder, found[0].folder, options, devices)


def refined_ctf(folder: Path, refinement: Path, options: argparse.Namespace, devices: list[str]) -> None:
    """CtfRefine of a refinement: defocus of particles, beam tilt, fourth order."""
    edge = options.box * options.pixel_size
    mask = soft_sphere((options.box,) * 3, DIAMETER / 2 * edge / options.pixel_size, 5.0)
    write_map(folder / "sphere.mrc", mask, options.pixel_size)
    half_map = refinement / "run_half1_class001_unfil.mrc"
    sharpened = finish(
        postprocess.run(
            postprocess.Options(
                half_map=half_map, mask=folder / "sphere.mrc", output=folder / "sharpened", bfactor=-50.0
            )
        )
    )
    seconds, defocus = [], []
    for device in devices:
        took, result = timed(
            ctf_refine,
            particles=refinement / "run_data.star",
            postprocess=sharpened.star,
            output=folder / f"ctf_{device.partition(':')[0]}",
            fit_defocus="per-particle",
            fit_beamtilt=True,
            fit_fourth_order=True,
            symmetry=options.symmetry,
            device=device,
        )
        seconds.append(took)
        table = read_particles(result.particles).particles
        defocus.append(table["rlnDefocusU"].to_numpy(float))
    note = (
        f"defocus differs by {np.abs(defocus[0] - defocus[-1]).max():.1f} A at most"
        if len(devices) == 2
        else ""
    )
    show(f"ctf-refine, {options.count} of {options.box} px", seconds, note)


def maps(folder: Path, options: argparse.Namespace, devices: list[str], size: int) -> None:
    """Post-processing, mask and local resolution of a map of so many voxels along each edge."""
    pixel, rng = 1.2, np.random.default_rng(1)
    atoms = protein(0.25 * size * pixel)
    truth = density(atoms, size, pixel).astype(np.float32)
    for half in (1, 2):
        noise = 0.3 * truth.std() * rng.standard_normal(truth.shape, dtype=np.float32)
        write_map(folder / f"map_half{half}.mrc", truth + noise, pixel)
    write_map(folder / "map.mrc", lowpass(truth, pixel, 6.0), pixel)
    write_map(folder / "mask.mrc", soft_sphere(truth.shape, 0.3 * size, 8.0), pixel)
    half_maps = {"half_map": folder / "map_half1.mrc", "mask": folder / "mask.mrc"}
    compare(
        f"postprocess, {size} px", postprocess, folder, devices, "postprocess.mrc", bfactor=-40.0, **half_maps
    )
    compare(
        f"mask-create, {size} px",
        mask_create,
        folder,
        devices,
        "mask.mrc",
        input=folder / "map.mrc",
        threshold_from="solvent",
        extend=4.0,
        soft_edge=8.0,
        keep_largest=1,
    )
    made = "relion_locres_filtered.mrc"
    compare(
        f"local-resolution, {size} px",
        local_resolution,
        folder,
        devices,
        made,
        sampling=size * pixel / 12,
        **half_maps,
    )


def tomograms(
    folder: Path, options: argparse.Namespace, devices: list[str], size: int, particles: int
) -> None:
    """Extract simulated subtomograms, and reconstruct the particle from them."""
    acquisition = Acquisition(pixel_size=2.0, image_size=size)
    box = 128 if size >= 512 else 32
    atoms = protein(0.3 * box * 2.0)
    made = simulate_project(folder, atoms, acquisition, series=1, particles=particles, box=box)
    given = {"optimisation_set": made.truth_set, "box_size": 2 * box, "crop_size": box}
    for name, stack in (("stacks", True), ("volumes", False)):
        seconds, first = [], []
        for device in devices:
            output = folder / f"extract_{name}_{device.partition(':')[0]}"
            took, result = timed(
                pseudo_subtomo, output=output, device=device, stack_2d=stack, float16=False, **given
            )
            seconds.append(took)
            image = read_particles(result.particles).particles["rlnImageName"][0]
            first.append(read_map(Path(image)).data)
        show(f"pseudo-subtomo, {particles} {name}", seconds, difference(first))
    compare(
        f"reconstruct-particle, {particles}", reconstruct_particle, folder, devices, "merged.mrc", **given
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = ("refine3d", "ctf-refine", "maps", "tomograms")
    parser.add_argument("--jobs", nargs="+", choices=every, default=every)
    parser.add_argument("--count", type=int, default=2000, help="number of particles")
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--pixel-size", type=float, default=2.0)
    parser.add_argument("--symmetry", default="D2")
    parser.add_argument("--snr", type=float, default=0.1, help="signal-to-noise ratio inside the particle")
    parser.add_argument("--map-size", type=int, default=384, help="edge of the map for the jobs on maps")
    parser.add_argument("--subtomograms", type=int, default=100, help="number of subtomograms")
    parser.add_argument("--device", default="gpu:0")
    parser.add_argument("--stages", action="store_true", help="one more refinement each, stage by stage")
    parser.add_argument("--skip-cpu", action="store_true", help="only on the GPU")
    options = parser.parse_args()
    try:
        on_gpu = bool(gpus(options.device))
    except UserError as error:
        print(f"Nothing to measure: {error}")
        return
    devices = [options.device] if options.skip_cpu or not on_gpu else [options.device, "cpu"]
    print(f"{'job':<34}" + "".join(f"{device + ', s':>12}" for device in devices) + "    ratio")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        warm = argparse.Namespace(
            **vars(options) | {"count": 40, "box": 32, "pixel_size": 4.0, "stages": False}
        )
        for name, settings, size, tilts, number in (
            ("first", warm, 48, 256, 4),
            ("all", options, options.map_size, 1024, options.subtomograms),
        ):
            if name == "first":
                print("small ones first: kernels are compiled, files and libraries are loaded")
            here = folder / name
            here.mkdir()
            if "refine3d" in options.jobs or "ctf-refine" in options.jobs:
                particles_of_one_view(here, settings, devices)
            if "maps" in options.jobs:
                maps(here, settings, devices, size)
            if "tomograms" in options.jobs:
                tomograms(here, settings, devices, tilts, number)


if __name__ == "__main__":
    main()
