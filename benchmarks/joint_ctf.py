"""What ``refine3d --refine-ctf`` gains: local searches of simulated particles with and without it.

The particles of ``shared/data/sim_betagal_ctf`` start from their true poses, with the defocus of their
micrographs (264.5 A off, rms) and no beam tilt, and from half maps filtered to 8 A. Both runs are left after
the second iteration with steps of 0.9 degrees. Prints the table of docs/ctf_refine.md:

    python benchmarks/joint_ctf.py [--threads 2] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryorefine.geometry import angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import Figures
from cryorefine.maps.fsc import fourier_shell_correlation, resolution

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sim_betagal_ctf"
STEP, TIMES = 0.9375, 2


@dataclass(frozen=True)
class Outcome:
    """Resolution and rms errors of the defocus after each iteration in A, tilt in mrad, angle in degrees."""

    resolution: float
    defocus: tuple[float, ...]
    tilt: tuple[float, ...]
    angle: float


def refine(folder: Path, threads: int, refine_ctf: bool) -> Outcome:
    """Refine in a folder as far as the second iteration with the last step."""
    options = refine3d.Options(
        particles=DATA / "refined.star",
        reference=DATA / "relion5" / "half1_unfil.mrc",
        output=folder,
        initial_lowpass=8.0,
        symmetry="D2",
        mask_diameter=190.0,
        initial_angular_sampling=1.8,
        local_search_from=1.8,
        initial_offset_range=2.0,
        absolute_greyscale=True,
        refine_ctf=refine_ctf,
        random_seed=1,
        threads=threads,
    )
    done: list[Path] = []
    running = refine3d.run(options)
    for event in running:
        if isinstance(event, Figures) and event.values.get("angular step (degrees)") == STEP:
            done.append(folder / f"run_it{int(event.values['iteration']):03d}")
            if len(done) == TIMES:
                break
    running.close()
    return compare(done)


def compare(done: list[Path]) -> Outcome:
    """Compare iterations, by the start of their files' names, with the truth."""
    truth = read_particles(DATA / "truth.star")
    defocus, poses = [], []
    for start in done:
        file = read_particles(f"{start}_data.star")
        assert file.particles["rlnImageName"].tolist() == truth.particles["rlnImageName"].tolist()
        off = [column(file, f"rlnDefocus{axis}") - column(truth, f"rlnDefocus{axis}") for axis in "UV"]
        defocus.append(float(np.sqrt(np.mean(np.mean(off, axis=0) ** 2))))
        poses = [
            matrices(*(column(f, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi"))) for f in (file, truth)
        ]
    mask = read_map(DATA / "relion5" / "mask.mrc").data
    halves = [read_map(Path(f"{done[-1]}_half{half}_class001.mrc")) for half in (1, 2)]
    fsc = fourier_shell_correlation(*(half.data * mask for half in halves))
    tilt = tuple(float(file.optics.get(f"rlnBeamTilt{axis}", [0.0])[0]) for axis in "XY")
    reached = resolution(fsc, len(mask), halves[0].pixel_size)
    angle = float(np.median(angular_distance(*poses, point_group("D2"))))
    return Outcome(reached, tuple(defocus), tilt, angle)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is absent.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        columns = [
            refine(folder / f"refine_ctf_{with_it}", options.threads, with_it) for with_it in (False, True)
        ]
    print("| | without | with `--refine-ctf` |\n|-|-|-|")
    rows = {
        "resolution behind the mask, Å": lambda outcome: f"{outcome.resolution:.2f}",
        "defocus error after each iteration, Å rms": lambda outcome: ", ".join(
            f"{error:.1f}" for error in outcome.defocus
        ),
        "beam tilt, mrad": lambda outcome: ", ".join(f"{tilt:.3f}" for tilt in outcome.tilt),
        "median angular error, degrees": lambda outcome: f"{outcome.angle:.2f}",
    }
    for name, words in rows.items():
        print(f"| {name} | " + " | ".join(words(outcome) for outcome in columns) + " |")


if __name__ == "__main__":
    main()
