"""Refine3D of simulated beta-galactosidase particles, ours and Debian's RELION side by side.

Particles are projected straight from the residues of PDB 5A1A, so that every pose is known. Prints costs,
the errors of both programs' poses and the agreement of their maps with the truth. RELION takes many minutes
(400 particles with searches local from 3.7 degrees: three); run it on an idle machine with two cores:

    python benchmarks/simulated_vs_relion.py [--count 600] [--local-from 3.7] [--snr 0.2] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from cryorefine.geometry import angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.atoms import Atoms
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import Simulated, simulate_particles
from refinement import LOCAL_ORDERS, Refinement, refine_ours, refine_relion, resolution
from timing import Row, by_turns, show

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "models" / "5a1a.cif"
LOWPASS, DIAMETER, OFFSET_RANGE = 40, 190, 5


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


def quality(folder: Path, job: str, made: Simulated) -> str:
    """Say how far off a program's poses are, and how its map agrees with the truth."""
    off = errors(folder, f"{job}/run_data.star", f"{job}/run_class001.mrc", made)
    angle, angle_90, shift, shift_90, fsc = off.values()
    return (
        f"{resolution(folder / job):.2f} Å, mean FSC with the truth {fsc:.4f}; poses {angle:.2f}° "
        f"(90 %: {angle_90:.2f}°) and {shift:.2f} Å ({shift_90:.2f} Å) off"
    )


def simulate(
    folder: Path, count: int, *, snr: float, box: int, pixel_size: float, seed: int = 1
) -> Simulated:
    """Project particles of the tetramer, with coloured noise and offsets."""
    optics = OpticsGroup("simulated", pixel_size, box, 300.0, 2.7, 0.1)
    return simulate_particles(
        folder,
        tetramer(MODEL),
        [optics],
        count,
        snr=snr,
        micrographs=5,
        offset_sigma=4.0,
        correlated=8.0,
        b_factor=50.0,
        seed=seed,
    )


def compare(
    folder: Path,
    count: int,
    threads: int,
    *,
    local_from: str = "1.8",
    snr: float = 0.2,
    box: int = 64,
    pixel_size: float = 3.54,
    seed: int = 1,
) -> Row:
    """Simulate particles in a folder and refine them with both programs."""
    made = simulate(folder, count, snr=snr, box=box, pixel_size=pixel_size, seed=seed)
    job = Refinement(Path("particles.star"), Path("truth.mrc"), LOWPASS, DIAMETER, local_from)
    costs = by_turns(lambda: refine_ours(folder, job, threads), lambda: refine_relion(folder, job), repeat=2)
    return Row(
        f"refine3d, {count} simulated particles of {box} px, D2, local from {local_from}°",
        *costs,
        *(quality(folder, name, made) for name in ("ours", "relion")),
    )


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
    chosen = {"local_from": options.local_from, "snr": options.snr, "box": options.box}
    chosen |= {"pixel_size": options.pixel_size, "seed": options.seed}
    with tempfile.TemporaryDirectory() as temporary:
        show([compare(options.keep or Path(temporary), options.count, options.threads, **chosen)])


if __name__ == "__main__":
    main()
