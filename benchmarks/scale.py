"""How the cost of a refinement grows, and what tables of a million particles take.

Prints processor milliseconds per particle of one expectation step, on one core, against the box, the sampling
order, the symmetry, the resolution that images reach and the number of shifts: particles are simulated at
their true poses, their noise is measured, and one chunk is compared with the true map, once to warm up and
then timed. docs/scaling.md makes a model of the numbers. ``once`` measures what is done once in an iteration,
and the reading of images. On one idle core: cost four minutes, tilts one, once one, star half a minute.

    python benchmarks/scale.py cost [--count 128] [--snr 0.1]
    python benchmarks/scale.py tilts [--snr 0.1]
    python benchmarks/scale.py once
    python benchmarks/scale.py star [--rows 1000000]
    xvfb-run -a python benchmarks/scale.py window [--rows 1000000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cryorefine.geometry.healpix import angular_step
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import point_group
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map, write_stack
from cryorefine.io.particles import read_particles
from cryorefine.io.star import Columns, read_star, write_star
from cryorefine.jobs import finish, pseudo_subtomo
from cryorefine.refine import schedule as rules
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.engine import FRACTION, Settings, make_sampling
from cryorefine.refine.initial import initial_noise
from cryorefine.refine.loading import load_particles
from cryorefine.refine.parameters import ExpectationParameters, ImageModel
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet
from cryorefine.refine.reconstruct import prior_from_fsc, reconstruct
from cryorefine.refine.simulation import simulate_particles
from cryorefine.refine.subtomogram_loading import load_subtomograms
from cryorefine.refine.tilt_project import Acquisition, simulate_project
from cryorefine.refine.volume import (
    empty_volume,
    enforce_friedel,
    fourier_volume,
    half_volume_correlation,
    symmetrise,
)
from cryorefine.refine.work import run_chunk

FINEST = 3.0  # A: twice the pixel size of a box of 128, whose particle has 0.6 of its width
TILT_BOX = 64
REPEATS = 3  # of which the least counts: what else runs on the machine only lengthens them
PARTICLES_PER_MICROGRAPH = 300


@dataclass(frozen=True)
class Condition:
    """One expectation step: box in px, HEALPix order, point group, images' reach, shifts' reach in px."""

    box: int = 128
    order: int = 2
    symmetry: str = "C1"
    reach: float = 0.5  # of Nyquist
    shifts: float = 5.0

    @property
    def is_local(self) -> bool:
        """Whether poses are searched near the true ones only."""
        return self.order >= 4


CONDITIONS = (
    *(Condition(order=order) for order in (1, 2, 3, 4, 5, 6)),
    *(Condition(order=order, symmetry="D2") for order in (2, 3, 4)),
    Condition(order=3, symmetry="O"),
    *(Condition(box=box) for box in (64, 192, 256)),
    *(Condition(box=box, order=4, shifts=3.0) for box in (64, 128, 192, 256)),
    *(Condition(reach=reach) for reach in (0.25, 0.75, 1.0)),
    *(Condition(order=5, shifts=2.0, reach=reach) for reach in (0.25, 0.5, 1.0)),
    *(Condition(shifts=shifts) for shifts in (2.0, 8.0)),
)


def simulated(folder: Path, box: int, count: int, snr: float) -> ParticleSet:
    """Simulate particles of a width of 0.6 boxes, at their true poses."""
    pixel = FINEST / 2 * 128 / box
    optics = OpticsGroup("first", pixel, box, 300.0, 2.7, 0.1)
    width = 0.6 * box * pixel
    made = simulate_particles(folder, random_protein(400, radius=width / 2.2), [optics], count, snr=snr)
    return load_particles(read_particles(made.truth), made.truth, seed=1, ctf_correction=True)[1]


def simulated_tilts(folder: Path, tilts: int, count: int, snr: float) -> ParticleSet:
    """Simulate a tilt series at their true poses, and cut out the stacks of its particles."""
    pixel = FINEST / 2 * 128 / TILT_BOX
    width = 0.6 * TILT_BOX * pixel
    taken = Acquisition(pixel_size=pixel, image_size=480, tilts=tilts, tilt_step=120 / (tilts - 1), dose=3.0)
    atoms = random_protein(400, radius=width / 2.2)
    made = simulate_project(folder, atoms, taken, series=1, particles=count, box=TILT_BOX, snr=snr)
    options = pseudo_subtomo.Options(
        optimisation_set=made.truth_set, output=folder / "Extract", box_size=TILT_BOX, threads=1
    )
    stacks = finish(pseudo_subtomo.run(options)).particles
    return load_subtomograms(stacks, folder / "tomograms.star", None, seed=1, tilt_prior=False)[1]


def cost(folder: Path, particles: ParticleSet, condition: Condition) -> tuple[float, int, int]:
    """Return processor ms per particle of one step, and the sizes of the fine and the coarse images."""
    box, pixel = condition.box, FINEST / 2 * 128 / condition.box
    width = 0.7 * box * pixel
    reader = ImageReader(particles.root)
    images = ImageModel(mask_diameter=width)
    reference = folder / f"reference{box}.npy"
    density = read_map(folder / "truth.mrc").data
    np.save(reference, density)
    noise = initial_noise(particles, reader, images, box=box, pixel_size=pixel)
    plan = rules.Schedule(
        condition.order, 4, condition.shifts * pixel, (1.0 if condition.is_local else 2.0) * pixel, 0.3
    )
    settings = Settings(
        images=images,
        symmetry=condition.symmetry,
        relax_symmetry="",
        padding=2.0,
        mask=None,
        solvent_fsc=False,
        first_by_correlation=False,
        initial_lowpass=0.0,
        finer_faster=False,
        seed=1,
        correct_norm=True,
        device="cpu",
        scratch=folder,
    )
    sampling = make_sampling(plan, settings, pixel, particles.offsets.shape[1])
    size = 2 * round(condition.reach * box / 2)
    coarse = rules.coarse_size(angular_step(plan.order), width, box, pixel, size)
    directions = SamplingGrid(plan.order, "C1" if condition.is_local else condition.symmetry).n_directions
    parameters = ExpectationParameters(
        reference=reference,
        pixel_size=pixel,
        padding=2.0,
        current_size=size,
        coarse_size=coarse,
        screening_size=rules.screening_size(plan, width, box, pixel, size),
        images=images,
        sampling=sampling,
        sigma2_noise=noise,
        direction_prior=np.full(directions, 1 / directions),
        sigma_offset=10.0,
        scale=np.ones(int(particles.group.max()) + 1),
        mean_norm=1.0,
        cross_correlation=False,
        fraction=FRACTION,
        seed=1,
    )
    run_chunk(particles.take(np.arange(4)), reader, parameters)
    spent = []
    for _ in range(REPEATS):
        began = time.thread_time()
        run_chunk(particles, reader, parameters)
        spent.append(time.thread_time() - began)
    return 1000 * min(spent) / len(particles), size, coarse


def costs(count: int, snr: float) -> None:
    """Print the cost of every condition."""
    print("box order symmetry reach shifts   search   fine  coarse size   ms per particle", flush=True)
    for box in sorted({condition.box for condition in CONDITIONS}):
        with tempfile.TemporaryDirectory() as name:
            particles = simulated(Path(name), box, count, snr)
            for each in (condition for condition in CONDITIONS if condition.box == box):
                spent, size, coarse = cost(Path(name), particles, each)
                search = "local" if each.is_local else "global"
                print(
                    f"{box:3d} {each.order:5d} {each.symmetry:>8} {each.reach:5.2f} {each.shifts:6.1f}"
                    f"   {search:>6} {size:6d} {coarse:6d} {spent:17.2f}",
                    flush=True,
                )


def costs_of_tilts(snr: float) -> None:
    """Print the cost of subtomograms against the number of their tilts."""
    print("tilts order   search   ms per particle", flush=True)
    for tilts in (11, 21, 41):
        with tempfile.TemporaryDirectory() as name:
            particles = simulated_tilts(Path(name), tilts, 32, snr)
            for order in (2, 4):
                condition = Condition(TILT_BOX, order, shifts=3.0)
                spent, *_ = cost(Path(name), particles, condition)
                search = "local" if condition.is_local else "global"
                print(f"{tilts:5d} {order:5d}   {search:>6} {spent:17.2f}", flush=True)


def once() -> None:
    """Print what does not depend on the number of particles, for images of whole boxes, and reading."""
    print("box   sums MB   add ms   both maps s   read GB/s, 32 bit   16 bit", flush=True)
    rng = np.random.default_rng(1)
    for box in (64, 128, 256):
        sums = [empty_volume(box, 2.0) for _ in range(2)]
        for numerator, weight in sums:
            numerator.real = rng.standard_normal(numerator.shape, dtype=np.float32)
            weight += 1
        size = sum(array.nbytes for array in sums[0])
        adding = 1000 * least_time(partial(added, *sums))
        solving = least_time(partial(next_references, sums, box), 2)
        single, half = (reading(box, kind, rng) for kind in (np.float32, np.float16))
        print(
            f"{box:3d} {size / 1e6:9.1f} {adding:8.1f} {solving:13.2f} {single:19.2f} {half:8.2f}", flush=True
        )


def added(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [a + b for a, b in zip(first, second, strict=True)]


def least_time(work: Callable[[], object], repeat: int = REPEATS) -> float:
    """Return the least processor seconds of several runs, all threads together."""
    spent = []
    for _ in range(repeat):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def next_references(sums: list[tuple[np.ndarray, np.ndarray]], box: int) -> None:
    """Solve for two half maps as the maximisation does, and transform them for the next iteration."""
    volumes = []
    for numerator, weight in sums:
        enforce_friedel(numerator, weight)
        volumes.append(symmetrise(numerator, weight, point_group("C1").operators, box, 2.0))
    fsc = half_volume_correlation(*volumes, box, box // 2 + 1, 2.0)
    for numerator, weight in volumes:
        prior = prior_from_fsc(fsc, weight, size=box, padding=2.0, joined=False)
        density = reconstruct(numerator, weight, box=box, size=box, padding=2.0, prior=prior)
        fourier_volume(density, box, 2.0)


def reading(box: int, kind: type, rng: np.random.Generator) -> float:
    """Return GB that are read in a processor second, of files that the system has in memory."""
    count = 2**27 // box**2 // 4
    with tempfile.TemporaryDirectory() as name:
        images = rng.standard_normal((count, box, box), dtype=np.float32).astype(kind)
        write_stack(Path(name, "images.mrcs"), images, 1.0)
        reader = ImageReader(Path(name))
        names = [f"{k + 1:06d}@images.mrcs" for k in range(count)]
        return images.nbytes / 1e9 / least_time(partial(reader.read, names))


def large_table(rows: int) -> Columns:
    """Return particles as Refine3D writes them: 30 columns, six decimals."""
    rng = np.random.default_rng(1)
    micrograph = np.arange(rows) // PARTICLES_PER_MICROGRAPH
    names = [f"Movies/20170629_{number:05d}_frameImage" for number in range(micrograph[-1] + 1)]
    table = Columns()
    for axis in "XY":
        table[f"rlnCoordinate{axis}"] = np.round(rng.uniform(0, 4000, rows), 6)
    table["rlnImageName"] = [
        f"{i % PARTICLES_PER_MICROGRAPH + 1:06d}@Extract/job012/{names[m]}.mrcs"
        for i, m in enumerate(micrograph)
    ]
    table["rlnMicrographName"] = [f"MotionCorr/job002/{names[m]}.mrc" for m in micrograph]
    table["rlnOpticsGroup"] = np.ones(rows, np.int64)
    mean = 15000 + 300 * (micrograph % 30)
    for label in ("rlnDefocusU", "rlnDefocusV"):
        table[label] = np.round(rng.normal(mean, 80.0), 6)
    floats = (
        "DefocusAngle CtfMaxResolution CtfFigureOfMerit AutopickFigureOfMerit AngleRot AngleTilt AnglePsi"
    )
    floats += " AngleTiltPrior AnglePsiPrior OriginXAngst OriginYAngst NormCorrection LogLikeliContribution"
    floats += " MaxValueProbDistribution CtfBfactor CtfScalefactor PhaseShift BeamTiltX BeamTiltY"
    for name in floats.split():
        table[f"rln{name}"] = np.round(rng.normal(size=rows) * 100, 6)
    for name in ("ClassNumber", "GroupNumber", "RandomSubset", "NrOfSignificantSamples"):
        table[f"rln{name}"] = rng.integers(1, 100, rows)
    return table


def write_large(path: Path, rows: int) -> None:
    """Write such a file."""
    optics = Columns(rlnOpticsGroup=np.array([1]), rlnVoltage=np.array([300.0]))
    write_star(path, {"optics": optics, "particles": large_table(rows)})


def star(rows: int) -> None:
    """Print what such a file takes to be read and written."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "particles.star")
        # Each in a process of its own, which begins with the peak of the one that starts it.
        words = [sys.executable, __file__, "star", "--rows", str(rows)]
        subprocess.run([*words, "--make", str(path)], check=True)
        print(f"{rows} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        subprocess.run([*words, "--one", name], check=True)
        same = path.read_bytes() == Path(name, "copy.star").read_bytes()
        print("the copy is " + ("the same, byte for byte" if same else "DIFFERENT"))


def star_once(folder: Path) -> None:
    """Read and write the file in a process of its own, and print its times and its peak of memory."""
    began = time.process_time()
    blocks = read_star(folder / "particles.star")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"read:  {time.process_time() - began:5.1f} processor seconds, peak {peak:.0f} MB", flush=True)
    began = time.process_time()
    write_star(folder / "copy.star", blocks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"write: {time.process_time() - began:5.1f} processor seconds, peak {peak:.0f} MB")


def window(rows: int) -> None:
    """Print the longest pauses of a window that shows such a file, as benchmarks/window.py does."""
    import napari
    from qtpy.QtCore import Qt

    from window import Heartbeat, say, settle

    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "particles.star")
        write_large(path, rows)
        viewer = napari.Viewer()
        viewer.window.resize(1500, 1050)
        heart = Heartbeat(0.0)
        settle(lambda: False, 2.0)

        def step(what: str, least: float = 0.5) -> None:
            settle(lambda: False, least)
            say(what, heart, 0.0)
            heart.start()

        print(f"{'step':44s} {'pause/s':>8s} {'work/s':>8s}", flush=True)
        heart.start()
        viewer.open(str(path), plugin="napari-cryorefine")
        settle(lambda: "Particles" not in viewer.window.dock_widgets)
        step(f"{rows} particles are read and shown")
        panel = viewer.window.dock_widgets["Particles"]
        for number in range(1, 30):
            panel.slider.setValue(number)
            settle(lambda: panel.busy, 0.05)
        step("next micrograph, 29 times")
        for column in panel.view.fits.columns:
            panel.colouring.setCurrentText(column)
            settle(lambda: False, 0.05)
        step("coloured by every column")
        panel.colouring.setCurrentIndex(0)
        step("coloured by defocus")
        panel.select_outliers()
        step("outliers of 4 deviations")
        panel.sigmas.setValue(1.0)
        panel.select_outliers()
        step("outliers of 1 deviation")
        panel.listed.setCurrentIndex(2)
        step("table of all")
        panel.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
        step("table sorted")
        panel.table.scrollToBottom()
        step("table scrolled")
        panel.table.selectRow(rows // 2)
        step("a row, and its micrograph")
        viewer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "what", choices=("cost", "tilts", "once", "star", "window"), nargs="?", default="star"
    )
    parser.add_argument("--count", type=int, default=128, help="particles of the chunk")
    parser.add_argument("--snr", type=float, default=0.1, help="signal-to-noise ratio inside the particle")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "cost":
        costs(options.count, options.snr)
    elif options.what == "tilts":
        costs_of_tilts(options.snr)
    elif options.what == "once":
        once()
    elif options.what == "window":
        window(options.rows)
    elif options.make:
        write_large(options.make, options.rows)
    elif options.one:
        star_once(options.one)
    else:
        star(options.rows)


if __name__ == "__main__":
    main()
