"""Refinements of simulated particles for benchmarks/gpu.py: the particles, the stages, and the agreement."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from cryorefine.compute.array_module import gpus
from cryorefine.geometry.euler import matrices
from cryorefine.geometry.symmetry import angular_distance, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import ParticleFile, read_particles, write_particles
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import Figures, Notice
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine import engine, expectation, sums, work
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.gpu.insertion import GpuInsertion
from cryorefine.refine.gpu.operations import GpuOperations
from cryorefine.refine.insertion import Insertion
from cryorefine.refine.operations import ProcessorOperations
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import simulate_particles
from cryorefine.refine.volume import ReferenceVolume

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


def simulated_part(folder: Path, box: int, pixel_size: float, symmetry: str, count: int, seed: int) -> None:
    """Write some of the particles of a random protein that fills the mask; runs in a process of its own."""
    atoms = random_protein(400, radius=0.45 * DIAMETER * box * pixel_size, symmetry=symmetry, seed=1)
    optics = OpticsGroup("simulated", pixel_size, box, 300.0, 2.7, 0.1)
    folder.mkdir()
    simulate_particles(
        folder, atoms, [optics], count, snr=0.1, micrographs=2, offset_sigma=4.0, b_factor=50.0, seed=seed
    )


def simulated(folder: Path, box: int, pixel_size: float, symmetry: str, count: int) -> Path:
    """Simulate particles by all cores; returns the file without poses, beside truth.star and truth.mrc."""
    folder.mkdir(parents=True)
    cores = min(len(os.sched_getaffinity(0)), -(-count // 20))
    parts = [f"part{k:02d}" for k in range(cores)]
    shares = [count // cores + (k < count % cores) for k in range(cores)]
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        running = [
            pool.submit(simulated_part, folder / part, box, pixel_size, symmetry, share, k + 1)
            for k, (part, share) in enumerate(zip(parts, shares, strict=True))
        ]
        for each in running:
            each.result()
    for name in ("truth.star", "particles.star"):
        files = [read_particles(folder / part / name) for part in parts]
        tables = []
        for part, file in zip(parts, files, strict=True):
            table = file.particles.copy()
            table["rlnImageName"] = table["rlnImageName"].str.replace("@", f"@{part}/")
            table["rlnMicrographName"] = f"{part}/" + table["rlnMicrographName"].astype(str)
            if name == "truth.star":
                table["rlnRandomSubset"] = 1 + np.arange(len(table)) % 2
            tables.append(table)
        write_particles(folder / name, ParticleFile(files[0].optics, pd.concat(tables, ignore_index=True)))
    (folder / parts[0] / "truth.mrc").rename(folder / "truth.mrc")
    return folder / "particles.star"


def refined(particles: Path, device: str, output: str, symmetry: str, threads: int = 0) -> Iterator[Figures]:
    """Refine on a device; yields the figures of each iteration."""
    truth = read_map(particles.parent / "truth.mrc")
    job = refine3d.run(
        refine3d.Options(
            particles=particles,
            reference=particles.parent / "truth.mrc",
            output=particles.parent / output,
            symmetry=symmetry,
            initial_lowpass=40.0,
            mask_diameter=DIAMETER * len(truth.data) * truth.pixel_size,
            device=device,
            threads=threads,
        )
    )
    for event in job:
        if isinstance(event, Figures):
            yield event
        if isinstance(event, Notice) and event.warning:
            print(f"({event.message})", flush=True)


def agreement(folder: Path, first: str, second: str, symmetry: str) -> str:
    """Say how well two refinements of the same particles agree with each other and with the truth."""
    truth = read_map(folder / "truth.mrc").data
    maps = [read_map(folder / each / "run_class001.mrc").data for each in (first, second)]
    curves = [fourier_shell_correlation(each, truth).mean() for each in maps]
    poses = []
    for each in (first, second):
        table = read_particles(folder / each / "run_data.star").particles
        angles = (table[f"rlnAngle{name}"].to_numpy(float) for name in ("Rot", "Tilt", "Psi"))
        poses.append(matrices(*angles))
    apart = angular_distance(*poses, point_group(symmetry))
    return (
        f"poses apart by {np.median(apart):.3f}° (median; {100 * np.mean(apart < 1):.0f} % by less than 1°); "
        f"mean FSC with the truth {curves[0]:.4f} and {curves[1]:.4f}, with each other "
        f"{fourier_shell_correlation(*maps).mean():.4f}"
    )


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

    kind = GpuOperations if on_gpu else ProcessorOperations
    insertion = GpuInsertion if on_gpu else Insertion
    targets: list[tuple[Any, str, str]] = [
        (work, "read_images", "reading images"),
        (work, "expectation", "whole chunks"),
        (expectation, "prepare_views", "preparing images"),
        (engine, "maximise", "maximisation"),
        (engine, "estimate_accuracies", "accuracies"),
        (engine, "_write_references", "writing references"),
        (ReferenceVolume, "on_gpu" if on_gpu else "on_host", "transform of references"),
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
