"""Refine3D of simulated beta-galactosidase particles, ours and Debian's RELION side by side.

Particles are projected straight from the residues of PDB 5A1A, so that every pose is known. Prints the
errors of both programs' poses, the agreement of their maps with the truth, and the ratio of their times.
RELION takes many minutes; run it on an idle machine with two cores:

    python benchmarks/simulated_vs_relion.py [--count 600] [--snr 0.2] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cryorefine.geometry import angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.atoms import Atoms
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import Simulated, simulate_particles

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "models" / "5a1a.cif"
LOWPASS, DIAMETER, OFFSET_RANGE = 40, 190, 5
LOCAL_ORDERS = {"3.7": "3", "1.8": "4"}


def read_residues(path: Path) -> dict[str, np.ndarray]:
    """Return the residues of each protein chain of an mmCIF file: x, y, z in A and atoms, shape (n, 4)."""
    names: list[str] = []
    residues: dict[str, dict[str, list[list[float]]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("_atom_site."):
            names.append(line.split(".")[1].strip())
        elif line.startswith("ATOM "):
            row = dict(zip(names, line.split(), strict=True))
            place = [float(row[f"Cartn_{axis}"]) for axis in "xyz"]
            residues.setdefault(row["label_asym_id"], {}).setdefault(row["label_seq_id"], []).append(place)
    return {
        chain: np.array([[*np.mean(atoms, axis=0), len(atoms)] for atoms in table.values()])
        for chain, table in residues.items()
    }


def tetramer(path: Path) -> Atoms:
    """Return the four subunits of beta-galactosidase with their two-folds on x, y and z."""
    chains = list(read_residues(path).values())[:4]
    centre = np.mean([c[:, :3].mean(axis=0) for c in chains], axis=0)
    places = [c[:, :3] - centre for c in chains]
    axes = []
    for other in places[1:3]:
        # The rotation that takes one subunit to another turns by half a circle: R = 2 a a^T - 1.
        u, _, vt = np.linalg.svd(other.T @ places[0])
        half_turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        axes.append(np.linalg.eigh(half_turn + half_turn.T)[1][:, -1])
    x, y = axes[0], axes[1] - axes[0] * (axes[0] @ axes[1])
    y /= np.linalg.norm(y)
    unit = places[0] @ np.stack([x, y, np.cross(x, y)]).T
    positions = np.concatenate([unit @ operator.T for operator in point_group("D2").operators])
    return Atoms(positions, np.tile(chains[0][:, 3], 4), 2.0)


def refine_ours(folder: Path, threads: int, local_from: str) -> None:
    """Refine with this program."""
    words = [str(Path(sys.executable).with_name("cryorefine")), "refine3d", "--particles", "particles.star"]
    words += ["--reference", "truth.mrc", "--output", "ours", "--symmetry", "D2"]
    words += ["--initial-lowpass", str(LOWPASS), "--mask-diameter", str(DIAMETER)]
    words += ["--initial-offset-range", str(OFFSET_RANGE), "--threads", str(threads)]
    words += ["--local-search-from", local_from]
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def refine_relion(folder: Path, local_from: str) -> None:
    """Refine with RELION: one leader and one process for each half set."""
    (folder / "relion").mkdir()
    words = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi"]
    words += ["--i", "particles.star", "--ref", "truth.mrc", "--o", "relion/run", "--sym", "D2"]
    words += ["--ini_high", str(LOWPASS), "--particle_diameter", str(DIAMETER), "--firstiter_cc", "--ctf"]
    words += [
        "--auto_refine",
        "--split_random_halves",
        "--flatten_solvent",
        "--zero_mask",
        "--norm",
        "--scale",
    ]
    words += [
        "--oversampling",
        "1",
        "--healpix_order",
        "2",
        "--auto_local_healpix_order",
        LOCAL_ORDERS[local_from],
    ]
    words += ["--offset_range", str(OFFSET_RANGE), "--offset_step", "2", "--low_resol_join_halves", "40"]
    words += ["--pad", "2", "--pool", "3", "--j", "1", "--random_seed", "1", "--preread_images"]
    words += ["--dont_combine_weights_via_disc", "--no_parallel_disc_io"]
    with (folder / "relion" / "log.txt").open("w") as log:
        subprocess.run(words, cwd=folder, check=True, stdout=log, stderr=subprocess.STDOUT)


def errors(folder: Path, star: str, density: str, made: Simulated) -> dict[str, float]:
    """Compare poses and map with the truth."""
    truth, found = (read_particles(path).particles for path in (made.truth, folder / star))
    row = {name: i for i, name in enumerate(truth["rlnImageName"])}
    order = np.array([row[name] for name in found["rlnImageName"]])
    file = read_particles(folder / star)
    poses = matrices(*(column(file, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")))
    offsets = np.stack([column(file, f"rlnOrigin{a}Angst") for a in "XY"], axis=1)
    angle = angular_distance(poses, made.poses[order], point_group("D2"))
    shift = np.linalg.norm(offsets - made.offsets[order], axis=1)
    maps = (read_map(folder / density).data, read_map(made.map).data)
    return {
        "median angular error, degrees": float(np.median(angle)),
        "90 % of angular errors below": float(np.percentile(angle, 90)),
        "median shift error, A": float(np.median(shift)),
        "90 % of shift errors below": float(np.percentile(shift, 90)),
        "mean FSC with the truth": float(np.mean(fourier_shell_correlation(*maps))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=600, help="number of particles")
    parser.add_argument("--snr", type=float, default=0.2, help="signal-to-noise ratio inside the particle")
    parser.add_argument(
        "--local-from",
        default="1.8",
        choices=LOCAL_ORDERS,
        help="step in degrees from which searches are local; 3.7 spares RELION its slowest iterations",
    )
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size", type=float, default=3.54)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for everything, kept; a temporary one otherwise")
    options = parser.parse_args()
    if not MODEL.exists():
        sys.exit(f"{MODEL} is missing: it is not part of the project.")
    if shutil.which("relion_refine_mpi") is None:
        sys.exit("RELION is not installed: sudo apt-get install relion")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        optics = OpticsGroup("simulated", options.pixel_size, options.box, 300.0, 2.7, 0.1)
        made = simulate_particles(
            folder,
            tetramer(MODEL),
            [optics],
            options.count,
            snr=options.snr,
            micrographs=5,
            offset_sigma=4.0,
            correlated=8.0,
            b_factor=50.0,
            seed=options.seed,
        )
        seconds, tables = [], []
        for star, density, run in (
            (
                "ours/run_data.star",
                "ours/run_class001.mrc",
                lambda: refine_ours(folder, options.threads, options.local_from),
            ),
            (
                "relion/run_data.star",
                "relion/run_class001.mrc",
                lambda: refine_relion(folder, options.local_from),
            ),
        ):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
            tables.append(errors(folder, star, density, made))
        print(f"{options.count} particles of {options.box} px, signal-to-noise ratio {options.snr}")
        print(f"{'':<32}{'ours':>10}{'RELION':>10}")
        for name in tables[0]:
            print(f"{name:<32}{tables[0][name]:>10.3f}{tables[1][name]:>10.3f}")
        print(f"{'wall time, s':<32}{seconds[0]:>10.0f}{seconds[1]:>10.0f}")
        print(f"RELION / ours: {seconds[1] / seconds[0]:.1f} times the wall time")


if __name__ == "__main__":
    main()
