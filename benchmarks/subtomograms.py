"""Extraction and reconstruction of simulated subtomograms beside the files and times of RELION 5.0.1.

Debian's RELION 3.1.3 has no programs for tilt series, so RELION's side are the files that come with the
data and the wall times that it took on the two cores that made them (an EPYC with AVX-512, two threads).
Ten seconds on an idle machine:

    python benchmarks/subtomograms.py [--threads 2] [--repeat 3]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map
from cryorefine.maps.fsc import fourier_shell_correlation
from timing import OURS, Cost, Row, cost, least, show

DATA = Path(__file__).resolve().parents[2] / "shared/data/sim_hiv_sta"
THEIRS = {"pseudo-subtomo": 1.0, "reconstruct-particle": 1.6}
NOTE = "RELION 5.0.1's files and wall time, another EPYC"


def run(job: str, poses: str, folder: Path, threads: int, repeat: int, *words: str) -> tuple[Path, Cost]:
    """Run a job several times; return its folder and the least cost."""
    output = folder / f"{job}_{poses}"
    command = [OURS, job, "--optimisation-set", str(DATA / f"{poses}_optimisation_set.star")]
    command += ["--box-size", "96", "--crop-size", "64", "--threads", str(threads), *words]
    command += ["--output", str(output)]
    return output, least(cost(command, folder, replace=output.name) for _ in range(repeat))


def compare(folder: Path, threads: int, repeat: int) -> Iterator[Row]:
    """Extract and reconstruct."""
    output, spent = run("pseudo-subtomo", "particles", folder, threads, repeat)
    ours, theirs = ImageReader(output / "Subtomograms"), ImageReader(DATA / "relion5/stacks")
    differences = []
    for path in sorted(theirs.root.glob("*/*.mrcs")):
        one, two = (reader.read_stack(str(path.relative_to(theirs.root))) for reader in (ours, theirs))
        differences.append(float(np.sqrt(np.mean((one - two) ** 2)) / two.std()))
    yield Row(
        "pseudo-subtomo, 120 particles of 41 tilts",
        spent,
        Cost(THEIRS["pseudo-subtomo"]),
        f"rms difference from RELION's at most {max(differences):.1g} of the deviation",
        NOTE,
    )
    truth = read_map(DATA / "truth_map_64.mrc").data
    for poses in ("particles", "truth"):
        output, spent = run("reconstruct-particle", poses, folder, threads, repeat, "--symmetry", "C6")
        maps = [read_map(at / "merged.mrc").data for at in (output, DATA / f"relion5/reconstruct_{poses}")]
        same = fourier_shell_correlation(*maps)[: int(0.9 * 32) + 1].min()
        fsc = [float(np.mean(fourier_shell_correlation(density, truth))) for density in maps]
        yield Row(
            f"reconstruct-particle, C6, {'wrong' if poses == 'particles' else 'true'} poses",
            spent,
            Cost(THEIRS["reconstruct-particle"]),
            f"mean FSC with the truth {fsc[0]:.4f}; with RELION's at least {same:.5f} up to 0.9 Nyquist",
            f"mean FSC with the truth {fsc[1]:.4f}; {NOTE}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not here.")
    with tempfile.TemporaryDirectory() as name:
        show(compare(Path(name), options.threads, options.repeat))


if __name__ == "__main__":
    main()
