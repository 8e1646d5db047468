"""Extraction and reconstruction of simulated subtomograms beside the files and times of RELION 5.0.1.

RELION 5 is no Debian package, so its side are the files that come with the data and the times that it
took on the two cores that made them (extraction 1.0 s, reconstruction 1.6 s, two threads).

    python benchmarks/subtomograms.py [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map
from cryorefine.maps.fsc import fourier_shell_correlation

DATA = Path(__file__).resolve().parents[2] / "shared/data/sim_hiv_sta"
THEIRS = {"pseudo-subtomo": 1.0, "reconstruct-particle": 1.6}


def run(job: str, poses: str, output: Path, threads: int, *words: str) -> None:
    """Run a job twice, the second time with its kernels compiled, and print its times."""
    entries = DATA / f"{poses}_optimisation_set.star"
    command = [sys.executable, "-m", "cryorefine.cli", job, "--optimisation-set", str(entries)]
    command += ["--box-size", "96", "--crop-size", "64", "--threads", str(threads), *words]
    for number in (1, 2):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*command, "--output", f"{output}{number}"], check=True, capture_output=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ratio = wall / THEIRS[job]
    print(f"{job}: {wall:.2f} s ({cpu:.2f} processor seconds), {ratio:.2f} times RELION's {THEIRS[job]} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not here.")
    with tempfile.TemporaryDirectory() as folder:
        run("pseudo-subtomo", "particles", Path(folder, "e"), threads)
        ours, theirs = ImageReader(Path(folder, "e2/Subtomograms")), ImageReader(DATA / "relion5/stacks")
        for path in sorted(theirs.root.glob("*/*.mrcs")):
            name = str(path.relative_to(theirs.root))
            one, two = ours.read_stack(name), theirs.read_stack(name)
            difference = np.sqrt(np.mean((one - two) ** 2)) / two.std()
            print(f"  {name}: rms difference {difference:.1e} of the deviation")
        for poses in ("particles", "truth"):
            run("reconstruct-particle", poses, Path(folder, poses), threads, "--symmetry", "C6")
            for name in ("merged", "half1", "half2"):
                one = read_map(Path(folder, f"{poses}2/{name}.mrc")).data
                two = read_map(DATA / f"relion5/reconstruct_{poses}/{name}.mrc").data
                lowest = fourier_shell_correlation(one, two)[: int(0.9 * 32) + 1].min()
                print(f"  {poses}, {name}: FSC with RELION's at least {lowest:.5f} up to 0.9 Nyquist")


if __name__ == "__main__":
    main()
