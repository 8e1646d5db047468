"""Every job on a GPU and on this machine's processor, on simulated data: tables in Markdown, as they come.

    python benchmarks/gpu.py --minutes 8 --keep gpu.md         # all parts, one after the other
    python benchmarks/gpu.py --parts refine3d --count 20000    # some of them

Parts: ``card`` (rates of the card that docs/gpu.md takes for granted), ``stages`` (a small refinement on
both, stage by stage, and how well the results agree), ``refine3d`` (one of 256 px on the GPU, iteration by
iteration, and what 100,000 particles would take by its rates), ``ctf-refine``, ``maps`` and ``tomograms``.
Each has a share of the minutes: what it has not done by then is left out, what fails is told, and the next
part begins. The GPU comes first in each. Kernels are compiled, and libraries loaded, by a small refinement.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO
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
)
from cryorefine.maps.filters import lowpass
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine import engine
from cryorefine.refine.atoms import Atoms, density, random_protein
from cryorefine.refine.gpu.insertion import GpuInsertion
from cryorefine.refine.tilt_project import Acquisition, simulate_project
from gpu_refinement import DIAMETER, agreement, refined, simulated, stages

F32 = NDArray[np.float32]
GOAL, GOAL_SECONDS = 100_000, 1500
# Shares of the minutes. What a part leaves is the next one's.
PARTS = {"card": 0.05, "stages": 0.25, "refine3d": 0.35, "ctf-refine": 0.12, "maps": 0.13, "tomograms": 0.1}


class TimeIsUp(Exception):
    """A part has had its share of the minutes."""


@dataclass
class Report:
    """Prints lines, and adds them to a file that is whole at any time."""

    file: TextIO | None = None
    failed: list[str] = field(default_factory=list)

    def __call__(self, text: str = "") -> None:
        """Print a line."""
        print(text, flush=True)
        if self.file is not None:
            print(text, file=self.file, flush=True)

    def heading(self, *cells: str) -> None:
        """Begin a table."""
        self()
        self.row(*cells)
        self("|" + "-|" * len(cells))

    def row(self, *cells: Any) -> None:
        """Print a row of a table."""
        self("| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |")


@dataclass
class Bench:
    """What the parts share."""

    options: argparse.Namespace
    devices: list[str]  # the GPU comes first
    folder: Path
    report: Report


def on_time(seconds: float, work: Callable[[], None]) -> None:
    """Do some work until the time is up, which ends it with an exception wherever it is."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    other = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, *other)
        signal.signal(signal.SIGALRM, before)


def attempt(report: Report, name: str, seconds: float, work: Callable[[], None]) -> None:
    """Do a part within its time; what goes wrong is told, and remembered."""
    try:
        on_time(seconds, work)
    except TimeIsUp:
        report(f"\n{name}: stopped after its {seconds:.0f} s.")
    except Exception as error:  # the next part may do better
        report.failed.append(name)
        report(f"\n{name} failed: {type(error).__name__}: {error}\n")
        report("```\n" + "".join(traceback.format_exc().splitlines(keepends=True)[-12:]) + "```")


# The parts.


def card(bench: Bench) -> None:
    """Name the card, and measure the rates that docs/gpu.md takes for granted."""
    import cupy

    report, number = bench.report, gpus(bench.devices[0])[0]
    with cupy.cuda.Device(number):
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        free, total = cupy.cuda.runtime.memGetInfo()
        name = properties["name"]
        report(
            f"{name.decode() if isinstance(name, bytes) else name}, {total / 2**30:.0f} GiB "
            f"({free / 2**30:.0f} free), driver for CUDA {cupy.cuda.runtime.driverGetVersion()}; CuPy "
            f"{cupy.__version__}, NumPy {np.__version__}, Python {sys.version.split()[0]}; "
            f"{len(os.sched_getaffinity(0))} cores"
        )
        report.heading("rate", "measured", "docs/gpu.md takes for granted")

        def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
            function()
            cupy.cuda.get_current_stream().synchronize()
            began = time.perf_counter()
            for _ in range(repeats):
                function()
            cupy.cuda.get_current_stream().synchronize()
            return (time.perf_counter() - began) / repeats

        roomy = free > 2**33
        large = cupy.zeros(2**28 if roomy else 2**20, np.float32)
        report.row("copies, TB/s read and written", 2 * large.nbytes / seconds(large.copy) / 1e12, 3)
        edge = 8192 if roomy else 256
        square = cupy.ones((edge, edge), np.float32)
        product = seconds(lambda: square @ square)
        report.row("products in single precision, TFLOP/s", 2 * edge**3 / product / 1e12, 40)
        images = np.ones((1024 if roomy else 8, 256, 256), np.float32)
        report.row("to the card, GB/s", images.nbytes / seconds(lambda: cupy.asarray(images)) / 1e9, 10)
        there = cupy.asarray(images)
        report.row("from the card, GB/s", images.nbytes / seconds(lambda: cupy.asnumpy(there)) / 1e9, 10)
        slices, pixels, limit = (1024, 128 * 256, 260) if roomy else (8, 32 * 64, 60)
        rng = np.random.default_rng(1)
        kx, ky = (rng.uniform(low, 0.34 * limit, pixels) for low in (0, -0.34 * limit))
        parts = [cupy.ones((slices, pixels), np.float32) for _ in range(3)]
        turned = np.linalg.qr(rng.normal(size=(slices, 3, 3)))[0].astype(np.float32)
        shape = 2 * limit + 1, 2 * limit + 1, limit + 2
        volume = GpuInsertion(cupy, shape, [(parts[0], parts[1], parts[2])])
        how = (turned, kx.astype(np.float32), ky.astype(np.float32), np.zeros(0, np.float32), 2.0, *parts)
        atomic = seconds(lambda: volume.add(*how), 2)
        report.row("64-bit atomic additions, 1e11/s", 24 * slices * pixels / atomic / 1e11, 1.5)


def small_refinement(bench: Bench) -> None:
    """Refine a small set on both devices, stage by stage."""
    report, count, box = bench.report, bench.options.small, bench.options.small_box
    particles = simulated(bench.folder / "small", box, 256 / box, "D2", count)
    spent: dict[str, dict[str, float]] = {}
    whole = "**from start to end**"
    try:
        for device in bench.devices:
            began = time.perf_counter()
            with stages(device) as spent[device]:
                ended = list(refined(particles, device, f"refined_{device[:3]}", "D2"))[-1]
            spent[device][whole] = time.perf_counter() - began
            report(f"\n{device}: {spent[device][whole]:.1f} s, {ended.values}")
    finally:
        # Also where the time is up before the processor has done it.
        report.heading(f"stage, {count} particles of {box} px", *(f"{d}, s" for d in bench.devices))
        for stage in sorted(spent[bench.devices[0]], key=spent[bench.devices[0]].__getitem__, reverse=True):
            report.row(stage, *(spent.get(device, {}).get(stage, "") for device in bench.devices))
    if len(bench.devices) == 2:
        made = (f"refined_{device[:3]}" for device in bench.devices)
        report("\nAgreement: " + agreement(particles.parent, *made, "D2") + ".")


def large_refinement(bench: Bench) -> None:
    """Refine a larger set on the GPU, and work out what the goal's number of particles would take."""
    report, options = bench.report, bench.options
    began = time.perf_counter()
    particles = simulated(
        bench.folder / "large", options.box, options.pixel_size, options.symmetry, options.count
    )
    report(
        f"\n{options.count} particles of {options.box} px simulated in {time.perf_counter() - began:.0f} s."
    )
    begun: list[float] = []
    compared: list[float] = []
    compare = engine._compare

    def watched(*arguments: Any, **keywords: Any) -> Any:
        begun.append(time.perf_counter())
        result = yield from compare(*arguments, **keywords)
        compared.append(time.perf_counter() - begun[-1])
        return result

    total = last = 0.0
    done = 0
    columns = "iteration|search|resolution, A|angular step, °|image, px|seconds|ms a particle|seconds besides"
    report.heading(*columns.split("|"), f"{GOAL} particles, s")
    with mock.patch.object(engine, "_compare", watched):
        before = first = time.perf_counter()
        try:
            for figures in refined(particles, bench.devices[0], "refined", options.symmetry):
                # Until the files of the iteration are written; the first one without what comes before it.
                now = time.perf_counter()
                seconds = now - (begun[0] if done == 0 else before)
                before = now
                values, details = figures.values, figures.details
                rate = compared[-1] / options.count
                last = seconds - compared[-1] + rate * GOAL
                total, done = total + last, int(values["iteration"])
                report.row(
                    done,
                    "local" if details["local search"] else "global",
                    float(values["resolution (A)"]),
                    float(values["angular step (degrees)"]),
                    details["image size (px)"],
                    seconds,
                    1000 * rate,
                    seconds - compared[-1],
                    last,
                )
        except TimeIsUp:
            report(
                f"\nNot converged: {done} iterations are {total:.0f} s for {GOAL} particles by these rates, "
                f"and each one more {last:.0f} s."
            )
            raise
    report(
        f"\n{done} iterations to convergence: {total:.0f} s for {GOAL} particles by these rates (aim: "
        f"{GOAL_SECONDS}), besides the start: {begun[0] - first:.1f} s for these {options.count}, whose "
        "images are all looked at. They were in the system's cache."
    )


def ctf_refinement(bench: Bench) -> None:
    """CtfRefine of particles whose poses are known: each fit, on both devices."""
    options = bench.options
    box, pixel_size = options.box, options.pixel_size
    folder = bench.folder / "ctf"
    simulated(folder, box, pixel_size, "D2", options.ctf_count)
    truth, rng = read_map(folder / "truth.mrc").data, np.random.default_rng(1)
    for half in (1, 2):
        noise = lowpass(rng.standard_normal(truth.shape, np.float32), pixel_size, 3.5)
        write_map(
            folder / f"run_half{half}_class001_unfil.mrc", truth + 0.1 * truth.std() * noise, pixel_size
        )
    write_map(folder / "sphere.mrc", soft_sphere(truth.shape, DIAMETER / 2 * box, 5.0), pixel_size)
    sharpened = done(
        postprocess,
        half_map=folder / "run_half1_class001_unfil.mrc",
        mask=folder / "sphere.mrc",
        output=folder / "sharpened",
        bfactor=-50.0,
    )
    fits: dict[str, dict[str, Any]] = {
        "defocus of particles": {"fit_defocus": "per-particle"},
        "beam tilt, fourth order": {"fit_beamtilt": True, "fit_fourth_order": True},
        "magnification": {"fit_anisotropic_magnification": True},
        "astigmatism, B-factor of micrographs": {
            "fit_astigmatism": "per-micrograph",
            "fit_bfactor": "per-micrograph",
        },
    }
    head(bench)
    for number, (name, fit) in enumerate(fits.items()):

        def run(device: str, number: int = number, fit: dict[str, Any] = fit) -> NDArray[np.float64]:
            result = done(
                ctf_refine,
                particles=folder / "truth.star",
                postprocess=sharpened.star,
                output=folder / f"fit{number}_{device[:3]}",
                symmetry="D2",
                device=device,
                **fit,
            )
            return read_particles(result.particles).particles["rlnDefocusU"].to_numpy(float)

        def apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
            return f"defocus: {np.abs(first - second).max():.2g} A at most"

        by_turns(bench, f"ctf-refine, {name}, {options.ctf_count} of {box} px", run, apart)


def maps(bench: Bench) -> None:
    """Post-processing, masks and local resolution."""
    folder, size, pixel = bench.folder / "maps", bench.options.map_size, 1.2
    folder.mkdir()
    rng = np.random.default_rng(1)
    truth = density(protein(0.25 * size * pixel), size, pixel).astype(np.float32)
    for half in (1, 2):
        noise = 0.3 * truth.std() * rng.standard_normal(truth.shape, dtype=np.float32)
        write_map(folder / f"map_half{half}.mrc", truth + noise, pixel)
    filtered = lowpass(truth, pixel, 6.0)
    write_map(folder / "map.mrc", filtered, pixel)
    write_map(folder / "mask.mrc", soft_sphere(truth.shape, 0.3 * size, 8.0), pixel)
    large = bench.options.large_map_size
    wide = np.zeros((large,) * 3, np.float32)
    inner = slice((large - size) // 2, (large - size) // 2 + size)
    wide[inner, inner, inner] = filtered
    write_map(folder / "large.mrc", wide, pixel)
    halves = {"half_map": folder / "map_half1.mrc", "mask": folder / "mask.mrc"}
    shape = {"threshold_from": "solvent", "extend": 4.0, "soft_edge": 8.0}
    head(bench)
    compare(bench, f"postprocess, {size} px", postprocess, folder, "postprocess.mrc", bfactor=-40.0, **halves)
    made, far = "relion_locres_filtered.mrc", {"sampling": size * pixel / 12}
    compare(bench, f"local-resolution, {size} px", local_resolution, folder, made, **far, **halves)
    for name, edge, more in (("map", size, {"keep_largest": 1}), ("large", large, {})):
        given = {"input": folder / f"{name}.mrc", **shape, **more}
        compare(bench, f"mask-create, {edge} px", mask_create, folder, "mask.mrc", **given)


def tomograms(bench: Bench) -> None:
    """Extract simulated subtomograms, and reconstruct the particle from them."""
    folder, size, particles = bench.folder / "tilts", bench.options.tilt_size, bench.options.subtomograms
    acquisition = Acquisition(pixel_size=2.0, image_size=size)
    box = 128 if size >= 512 else 32
    made = simulate_project(folder, protein(0.6 * box), acquisition, series=1, particles=particles, box=box)
    given = {"optimisation_set": made.truth_set, "box_size": 2 * box, "crop_size": box}
    head(bench)
    for name, stack in (("stacks", True), ("volumes", False)):

        def run(device: str, name: str = name, stack: bool = stack) -> F32:
            output = folder / f"extract_{name}_{device[:3]}"
            how = {"output": output, "device": device, "stack_2d": stack, "float16": False}
            table = read_particles(done(pseudo_subtomo, **how, **given).particles).particles
            return read_map(Path(table["rlnImageName"][0])).data

        by_turns(bench, f"pseudo-subtomo, {particles} {name}", run, difference)
    compare(bench, f"reconstruct-particle, {particles}", reconstruct_particle, folder, "merged.mrc", **given)


def head(bench: Bench) -> None:
    """Begin a table of jobs."""
    bench.report.heading("job", *(f"{d}, s" for d in bench.devices), "ratio", "difference")


def by_turns(bench: Bench, name: str, run: Callable[[str], Any], apart: Callable[[Any, Any], str]) -> None:
    """Run something on each device, and print a row, also where the time is up before the processor is."""
    seconds: list[float] = []
    results = []
    try:
        for device in bench.devices:
            began = time.perf_counter()
            results.append(run(device))
            seconds.append(time.perf_counter() - began)
    finally:
        if seconds:
            missing = [""] * (len(bench.devices) - len(seconds))
            both = len(seconds) == 2
            ratio, said = (seconds[1] / seconds[0], apart(*results)) if both else ("", "")
            bench.report.row(name, *seconds, *missing, ratio, said)


def done(job: Any, **options: Any) -> Any:
    """Run a job; returns its result."""
    return finish(job.run(job.Options(**options)))


def protein(radius: float) -> Atoms:
    """Return atoms that fill a sphere as loosely whatever its size."""
    return random_protein(max(20, int(0.002 * radius**3)), radius=radius)


def difference(first: F32, second: F32) -> str:
    """Say by how much two maps differ: the largest difference over the largest value."""
    return f"{np.abs(first - second).max() / max(np.abs(second).max(), 1e-30):.1e}"


def compare(bench: Bench, name: str, job: Any, folder: Path, made: str, **options: Any) -> None:
    """Run a job on each device, and print a row; ``made`` is a map of its folder that is compared."""

    def run(device: str) -> F32:
        output = folder / f"{name.replace(' ', '_')}_{device[:3]}"
        done(job, output=output, device=device, **options)
        return read_map(output / made).data

    by_turns(bench, name, run, difference)


RUN = {
    "card": card,
    "stages": small_refinement,
    "refine3d": large_refinement,
    "ctf-refine": ctf_refinement,
    "maps": maps,
    "tomograms": tomograms,
}


def warmed(bench: Bench) -> None:
    """Refine a few particles, so that kernels are compiled and the disk's cache is filled."""
    began = time.perf_counter()
    particles = simulated(bench.folder / "first", 32, 4.0, "D2", 40)
    for device in bench.devices:
        list(refined(particles, device, f"refined_{device[:3]}", "D2"))
        bench.report(f"First refinement, {device}: {time.perf_counter() - began:.0f} s, compilation and all.")
        began = time.perf_counter()


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=RUN, default=list(RUN))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--keep", type=Path, help="file for what is printed, as it comes")
    parser.add_argument("--device", default="gpu:0")
    parser.add_argument("--skip-cpu", action="store_true", help="only on the GPU")
    parser.add_argument("--count", type=int, default=4096, help="particles of the large refinement")
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("--pixel-size", type=float, default=1.2)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--small", type=int, default=600, help="particles of the small refinement")
    parser.add_argument("--small-box", type=int, default=128)
    parser.add_argument("--ctf-count", type=int, default=1000, help="particles of ctf-refine")
    parser.add_argument("--map-size", type=int, default=384, help="edge of the map for the jobs on maps")
    parser.add_argument("--large-map-size", type=int, default=640, help="edge of the map for a large mask")
    parser.add_argument("--tilt-size", type=int, default=1024, help="edge of the tilt images")
    parser.add_argument("--subtomograms", type=int, default=100)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Do the parts; returns how many failed."""
    options = parsed(arguments)
    try:
        on_gpu = bool(gpus(options.device))
    except UserError as error:
        print(f"Nothing to measure: {error}")
        return 0
    devices = [options.device] if options.skip_cpu or not on_gpu else [options.device, "cpu"]
    ends = time.monotonic() + 60 * options.minutes
    shares = {name: PARTS[name] for name in options.parts}
    with tempfile.TemporaryDirectory() as temporary:
        file = options.keep.open("w", encoding="utf-8") if options.keep else None
        bench = Bench(options, devices, Path(temporary), Report(file))
        attempt(bench.report, "warming up", 60 * options.minutes / 4, lambda: warmed(bench))
        for number, name in enumerate(shares):
            left = ends - time.monotonic()
            seconds = left * shares[name] / sum(list(shares.values())[number:])
            bench.report(f"\n### {name}\n")
            attempt(bench.report, name, seconds, lambda name=name: RUN[name](bench))  # type: ignore[misc]
        bench.report(f"\nFailed: {', '.join(bench.report.failed) or 'nothing'}.")
        if file is not None:
            file.close()
    return len(bench.report.failed)


if __name__ == "__main__":
    sys.exit(main())
