"""Peak memory of a refinement's first iteration against the number of particles.

Images of a small simulated set are named again and again, so that any number of particles needs no room on
the disk; poses differ from one to the next by chance alone. Each count runs in a process of its own, from
the STAR file to the files of the iteration. Prints the peak of its resident memory, which maps of the image
stack are part of, and the growth a particle:

    python benchmarks/memory.py [--counts 2000 20000 100000] [--box 32] [--threads 2]

With --maps, the private memory of jobs on maps of that box instead, in units of one map: what is mapped from
files does not count, since the system may let go of it. A box over 512 is worked on as large maps are:

    python benchmarks/memory.py --maps 540

On two idle cores one minute, with --maps 540 two.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cryorefine.io.particles import ParticleFile, read_particles, write_particles
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import Figures
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import simulate_particles
from maps import write_halves, write_particle_mask
from timing import OURS

IMAGES = 500


def write_set(folder: Path, box: int) -> Path:
    """Simulate the images that all sets share; returns their map."""
    optics = OpticsGroup("first", 4.0, box, 300.0, 2.7, 0.1)
    atoms = random_protein(60, radius=1.3 * box, symmetry="D2")
    return simulate_particles(folder, atoms, [optics], IMAGES, snr=1.0, micrographs=20).map


def repeated(folder: Path, count: int) -> Path:
    """Write a particle file of so many rows."""
    file = read_particles(folder / "particles.star")
    rows = file.particles.iloc[np.arange(count) % len(file.particles)].reset_index(drop=True)
    if "rlnRandomSubset" in rows:
        rows["rlnRandomSubset"] = np.arange(count) % 2 + 1
    path = folder / f"particles_{count}.star"
    write_particles(path, ParticleFile(file.optics, rows))
    return path


def one_iteration(folder: Path, count: int, box: int, threads: int) -> None:
    """Run the first iteration and print "peak MB, processor seconds"."""
    options = refine3d.Options(
        particles=folder / f"particles_{count}.star",
        reference=folder / "reference.mrc",
        output=folder / f"job{count}",
        symmetry="D2",
        initial_lowpass=30.0,
        mask_diameter=3.2 * box,
        initial_angular_sampling=30.0,
        initial_offset_range=1.0,
        threads=threads,
    )
    job = refine3d.run(options)
    for event in job:
        if isinstance(event, Figures):
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    job.close()
    print(peak, time.process_time())


def private_peak(words: list[str], folder: Path) -> float:
    """Run a command and return the most private memory that it had in GiB, asked ten times a second."""
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return peak / 2**20


def large_maps(size: int, threads: int) -> None:
    """Print what jobs on maps take."""
    unit = 4 * size**3 / 2**30
    print(f"box {size}, a map of {unit:.2f} GiB\njob            GiB   maps")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own, whose memory is gone before others are watched.
        subprocess.run([sys.executable, __file__, "--halves", name, str(size)], check=True)
        half = ["--half-map", "half1_unfil.mrc", "--mask", "particle_mask.mrc"]
        jobs = {
            "mask-create": ["--input", "half1_unfil.mrc", "--threshold", "0.3", "--lowpass", "15"],
            "postprocess": half,
        }
        for job, words in jobs.items():
            command = [OURS, job, *words, "--output", job, "--threads", str(threads)]
            peak = private_peak(command, folder)
            print(f"{job:12} {peak:5.2f} {peak / unit:6.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20000, 100000])
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--maps", type=int, help="box of maps; no refinement then")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--halves", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.halves:
        write_halves(Path(options.halves[0]), int(options.halves[1]))
        write_particle_mask(Path(options.halves[0]), int(options.halves[1]))
        return
    if options.maps:
        large_maps(options.maps, options.threads)
        return
    if options.one:
        one_iteration(Path(options.one[0]), int(options.one[1]), options.box, options.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(folder, options.box).rename(folder / "reference.mrc")
        print("particles   peak MB   kB a particle more   processor s")
        before: tuple[int, float] | None = None
        for count in options.counts:
            repeated(folder, count)
            words = [sys.executable, __file__, "--one", name, str(count), "--box", str(options.box)]
            words += ["--threads", str(options.threads)]
            run = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
            peak, spent = map(float, run.stdout.split())
            growth = f"{1024 * (peak - before[1]) / (count - before[0]):.2f}" if before else ""
            print(f"{count:9d}   {peak:7.0f}   {growth:>18}   {spent:11.1f}")
            before = count, peak


if __name__ == "__main__":
    main()
