"""Rates on larger sets: one iteration on 5,000 simulated particles of 128 px, ours beside Debian's RELION.

Searches of the whole sphere at HEALPix order 3 (D2, C1), local ones at orders 4 and 5, all on one thread:
an iteration of refine3d from its start to its files, and RELION's relion_refine for one iteration with the
same grids, shifts, low-pass and width of the search, on two small parts of the set. Prints processor
milliseconds per particle, which is the slope between two numbers of particles, and the seconds that do not
depend on their number (start, reading, reconstruction). The particle is as in RELION 5's measured rates: 2 A
per pixel, 200 A wide. Poses start from the true ones, the reference is the true map.

    python benchmarks/larger.py [--count 5000] [--alone] [--cases D2-3 C1-3 D2-4 D2-5] [--keep FOLDER]

Estimated for an idle core: twelve minutes, with --count 2000 five; --keep spares simulating anew.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryorefine.io.particles import ParticleFile, read_particles, write_particles
from cryorefine.io.star import read_star
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import Figures
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import simulate_particles
from timing import cost, line, machine, relion

BOX, PIXEL, DIAMETER = 128, 2.0, 200.0
SAMPLINGS = {3: 3.7, 4: 1.8, 5: 0.9}  # names of the fine steps in degrees
FEWER = 10  # times fewer particles than the whole set make the other end of the slope


@dataclass(frozen=True)
class Case:
    """One search: point group, HEALPix order, low-pass in A, range and coarse step of shifts in pixels.

    RELION's numbers of particles are over 99 where it is quick: it measures accuracies with 100 at most.
    """

    symmetry: str
    order: int
    lowpass: float
    offset_range: float
    offset_step: float
    relion_counts: tuple[int, int]

    @property
    def is_local(self) -> bool:
        """Whether poses are searched near the true ones only."""
        return self.order >= 4

    @property
    def fine_step(self) -> float:
        """Angular step of the fine pass in degrees."""
        return 30 / 2**self.order


CASES = {
    # 37 shifts and images of 58 px, as where RELION 5 was measured.
    "D2-3": Case("D2", 3, 13.5, 7, 2, (6, 36)),
    "C1-3": Case("C1", 3, 13.5, 7, 2, (3, 15)),
    "D2-4": Case("D2", 4, 8, 3, 1, (100, 300)),
    "C1-4": Case("C1", 4, 8, 3, 1, (100, 300)),
    "D2-5": Case("D2", 5, 6, 2, 1, (100, 300)),
    "C1-5": Case("C1", 5, 6, 2, 1, (100, 300)),
}


def simulate(folder: Path, symmetry: str, count: int) -> None:
    """Simulate particles with their true poses."""
    optics = OpticsGroup("simulated", PIXEL, BOX, 300.0, 2.7, 0.1)
    atoms = random_protein(400, radius=DIAMETER / 2.2, symmetry=symmetry)
    simulate_particles(folder, atoms, [optics], count, snr=0.1, micrographs=10, correlated=8.0, b_factor=50.0)


def first_rows(folder: Path, count: int) -> Path:
    """Write a file of the first particles."""
    file = read_particles(folder / "truth.star")
    path = folder / f"first{count}.star"
    write_particles(path, ParticleFile(file.optics, file.particles.iloc[:count]))
    return path


def one_iteration(particles: Path, case: Case) -> None:
    """Make one iteration of ours, and print its processor seconds, image size and the mean largest weight."""
    output = particles.parent / f"ours_{particles.stem}_{case.order}"
    shutil.rmtree(output, ignore_errors=True)
    options = refine3d.Options(
        particles=particles,
        reference=particles.parent / "truth.mrc",
        output=output,
        symmetry=case.symmetry,
        absolute_greyscale=True,
        initial_lowpass=case.lowpass,
        mask_diameter=DIAMETER,
        initial_angular_sampling=SAMPLINGS[case.order],
        local_search_from=1.8,
        initial_offset_range=case.offset_range,
        initial_offset_step=case.offset_step / 2,
        threads=1,
    )
    job = refine3d.run(options)
    figures = next(event for event in job if isinstance(event, Figures))
    job.close()
    print(time.process_time(), figures.details["image size (px)"], figures.details["largest weight"])


def ours(folder: Path, name: str, count: int) -> tuple[float, str]:
    """Return processor seconds of an iteration on so many particles, and what it was like."""
    words = [sys.executable, __file__, "--one", str(first_rows(folder, count)), name]
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(said[0]), f"{said[1]} px, mean largest weight {float(said[2]):.2f}"


def theirs(folder: Path, case: Case, count: int) -> tuple[float, str]:
    """Return processor seconds of one iteration of RELION on so many particles, and what it was like."""
    particles, output = first_rows(folder, count), folder / f"relion{count}_{case.order}"
    output.mkdir(exist_ok=True)
    words = [relion("refine"), "--i", particles.name, "--ref", "truth.mrc", "--o", f"{output.name}/run"]
    words += ["--iter", "1", "--sym", case.symmetry, "--ini_high", str(case.lowpass)]
    words += ["--particle_diameter", str(DIAMETER), "--healpix_order", str(case.order), "--oversampling", "1"]
    words += ["--offset_range", str(case.offset_range), "--offset_step", str(case.offset_step)]
    words += "--ctf --norm --scale --flatten_solvent --zero_mask --pad 2 --j 1 --random_seed 1".split()
    if case.is_local:
        words += ["--sigma_ang", str(2 * case.fine_step)]
    spent = cost(words, folder, threads=1)
    general = read_star(output / "run_it001_model.star")["model_general"]
    return spent.processor, (
        f"{general['rlnCurrentImageSize']} px, mean largest weight {general['rlnAveragePmax']:.2f}"
    )


def rate(run: Callable[[int], tuple[float, str]], least: int, most: int) -> tuple[float, float, str]:
    """Return ms per particle, the seconds besides, and what the iteration on the larger set was like."""
    fewer, _ = run(least)
    more, was = run(most)
    slope = (more - fewer) / (most - least)
    return 1000 * slope, fewer - slope * least, was


def compare(folder: Path, name: str, count: int, with_relion: bool) -> str:
    """Measure one search in a folder that has, or gets, the particles; return its row."""
    case = CASES[name]
    if not (folder / "truth.mrc").exists():
        simulate(folder, case.symmetry, count)
    ours(folder, name, 20)  # compiles what is not compiled yet
    mine, besides, was = rate(lambda n: ours(folder, name, n), count // FEWER, count)
    search = f"{case.symmetry}, order {case.order}, {'local' if case.is_local else 'global'}"
    cells = [search, f"{mine:.1f}", f"{besides:.1f}"]
    if with_relion:
        peer, peer_besides, peer_was = rate(lambda n: theirs(folder, case, n), *case.relion_counts)
        cells += [f"{peer:.0f}", f"{peer_besides:.1f}", f"{peer / mine:.1f}", was, peer_was]
    else:
        cells += ["", "", "", was, ""]
    return line(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--alone", action="store_true", help="without RELION")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["D2-3", "C1-3", "D2-4", "D2-5"])
    parser.add_argument("--keep", type=Path, help="folder of the particles, kept and used again")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_iteration(Path(options.one[0]), CASES[options.one[1]])
        return
    headings = [
        "search",
        "ours, ms",
        "besides, s",
        "RELION, ms",
        "besides, s",
        "ratio of ms",
        "ours",
        "RELION",
    ]
    print(f"{machine(1)}\n\n{line(headings)}\n|" + "-|" * len(headings), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.cases:
            folder = (options.keep or Path(temporary)) / f"{name[:2]}_{options.count}"
            print(compare(folder, name, options.count, not options.alone), flush=True)


if __name__ == "__main__":
    main()
