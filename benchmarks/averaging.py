"""Refine3D of simulated subtomograms, from wrong poses to convergence, beside RELION 5.0.1.

RELION 5 is no Debian package: its side are the 403 s of its first five iterations, three processes on two
cores of an EPYC, and the half maps and poses that they left. C6 leaves a turn about the axis and a shift
along it free; both are taken out of poses and maps before these are compared with the truth. Two to three
minutes on an idle machine:

    python benchmarks/averaging.py [--threads 2] [--keep FOLDER] [-- more options of refine3d]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from cryorefine.geometry import angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.maps.filters import lowpass
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.maps.masks import add_soft_edge, extend_binary
from subtomograms import DATA
from timing import OURS, Cost, Row, cost, show

F64 = NDArray[np.float64]
RELION_5 = Cost(403.0)
OPTIONS = "--symmetry C6 --initial-lowpass 16 --mask-diameter 130 --initial-angular-sampling 3.7"
OPTIONS += " --local-search-from 3.7 --initial-offset-range 3 --initial-offset-step 2"


def poses_and_places(star: Path) -> tuple[list[str], F64, F64]:
    """Return names, orientation matrices (particle, 3, 3) and places in A (particle, xyz)."""
    file = read_particles(star)
    poses = matrices(*(column(file, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")))
    places = [
        column(file, f"rlnCenteredCoordinate{a}Angst") - column(file, f"rlnOrigin{a}Angst") for a in "XYZ"
    ]
    return list(file.particles["rlnTomoParticleName"]), poses, np.stack(places, axis=1)


def turned_and_moved(density: NDArray[np.float32], turn: float, shift: float) -> NDArray[np.float32]:
    """Turn a map about z by an angle in radians and move it along z by voxels."""
    c, s = np.cos(turn), np.sin(turn)
    matrix = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])  # of (z, y, x)
    centre = np.full(3, density.shape[0] // 2)
    return affine_transform(density, matrix, centre - matrix @ centre - [shift, 0, 0], order=5)


def quality(star: Path, halves: Sequence[Path]) -> str:
    """Compare poses, places and the average of the half maps with the truth."""
    names, poses, places = poses_and_places(star)
    order, true_poses, true_places = poses_and_places(DATA / "truth.star")
    row = {name: i for i, name in enumerate(order)}
    own = [row[name] for name in names]
    true_poses, true_places = true_poses[own], true_places[own]
    relative = np.swapaxes(poses, 1, 2) @ true_poses
    angle = np.arctan2(relative[:, 1, 0] - relative[:, 0, 1], relative[:, 0, 0] + relative[:, 1, 1])
    turn = float(np.angle(np.mean(np.exp(6j * angle))) / 6)
    c, s = np.cos(turn), np.sin(turn)
    angles = angular_distance(
        poses @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), true_poses, point_group("C6")
    )
    missed = np.einsum("nji,nj->ni", true_poses, places - true_places)
    along = float(np.median(missed[:, 2]))
    missed[:, 2] -= along

    truth = read_map(DATA / "truth_map_64.mrc")
    blurred = lowpass(truth.data, truth.pixel_size, 15)
    core = extend_binary(blurred > 0.1 * blurred.max(), 4 / truth.pixel_size)
    mask = add_soft_edge(core, 6 / truth.pixel_size)
    average = np.mean([read_map(path).data for path in halves], axis=0)
    average = turned_and_moved(average, turn, along / truth.pixel_size)
    fsc = float(np.mean(fourier_shell_correlation(average * mask, truth.data * mask)))
    return (
        f"mean FSC with the truth {fsc:.3f}; poses {np.median(angles):.2f}° and "
        f"{np.median(np.linalg.norm(missed, axis=1)):.2f} Å off (median); "
        f"{abs(np.rad2deg(turn)):.1f}° and {abs(along):.1f} Å taken out"
    )


def compare(folder: Path, threads: int, more: Sequence[str] = ()) -> Row:
    """Extract, reconstruct from the wrong poses, and refine; the time is that of the refinement."""
    boxes = ["--box-size", "96", "--crop-size", "64", "--threads", str(threads)]
    entries = str(DATA / "particles_optimisation_set.star")
    cost([OURS, "pseudo-subtomo", "--optimisation-set", entries, *boxes, "--output", "extract"], folder)
    entries = "extract/optimisation_set.star"
    words = [OURS, "reconstruct-particle", "--optimisation-set", entries, *boxes, "--symmetry", "C6"]
    cost([*words, "--output", "reconstruct"], folder)
    words = [OURS, "refine3d", "--optimisation-set", "reconstruct/optimisation_set.star"]
    words += ["--output", "refine", *OPTIONS.split(), "--threads", str(threads), *more]
    spent = cost(words, folder)
    ours, theirs = folder / "refine", DATA / "relion5/refine_it005"
    return Row(
        "refine3d, 120 particles of 41 tilts, C6, wrong poses",
        spent,
        RELION_5,
        quality(ours / "run_data.star", sorted(ours.glob("run_half?_class001_unfil.mrc"))),
        f"{quality(next(theirs.glob('*data.star')), sorted(theirs.glob('*half?_class001.mrc')))} "
        "(five iterations of RELION 5.0.1, another EPYC)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the jobs, kept; a temporary one otherwise")
    parser.add_argument("more", nargs="*", help="more options of refine3d, after --")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not here.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        show([compare(folder, options.threads, options.more)])


if __name__ == "__main__":
    main()
