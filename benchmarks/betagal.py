"""Refine3D of 997 real beta-galactosidase particles (EMPIAR-10204) beside what RELION 5.0.1 made of them.

Prints wall time, peak memory, resolution and agreement with the atomic model. RELION's maps, its
reference and its mask are read from ../shared; its time (479 s, AVX-512 build, 3 MPI ranks on 2 cores) was
measured when they were made. Run it on an idle machine:

    python benchmarks/betagal.py [--data FOLDER] [--threads 2] [--keep FOLDER] [-- more options of refine3d]
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

from cryorefine.io.mrc import read_map
from cryorefine.io.star import read_star
from cryorefine.maps.fsc import fourier_shell_correlation

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "betagal_empiar10204"
RELION_SECONDS = 479


def agreement(path: Path, reference: np.ndarray, mask: np.ndarray) -> float:
    """Mean over all shells of the FSC with the atomic model's map, both times the mask."""
    return float(np.mean(fourier_shell_correlation(read_map(path).data * mask, reference * mask)))


def resolution(model: Path) -> float:
    """Read the final resolution in A without a mask."""
    return float(read_star(model)["model_classes"]["rlnEstimatedResolution"].iloc[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=SHARED, help="folder with the particles and RELION's maps"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the job, kept; a temporary one otherwise")
    parser.add_argument("more", nargs="*", help="more options of refine3d, after --")
    options = parser.parse_args()
    data = options.data.resolve()
    reference = data / "reference_5a1a_64_3.54A.mrc"
    if not reference.exists():
        sys.exit(f"{reference} is missing; give the folder of the particles with --data.")
    with tempfile.TemporaryDirectory() as temporary:
        output = options.keep or Path(temporary) / "job001"
        words = [str(Path(sys.executable).with_name("cryorefine")), "refine3d"]
        words += ["--particles", str(data / "particles_good997.star"), "--reference", str(reference)]
        words += ["--output", str(output), "--initial-lowpass", "50", "--symmetry", "D2"]
        words += ["--mask-diameter", "200", "--threads", str(options.threads), *options.more]
        began = time.perf_counter()
        subprocess.run(words, check=True)
        wall = time.perf_counter() - began
        # One process with threads does everything, so that its peak is that of all processes.
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
        model = read_map(reference).data
        mask = read_map(data / "relion5_refine3d" / "mask.mrc").data
        theirs = data / "relion5_refine3d"
        rows = [
            ("wall time, s", f"{wall:.0f}", f"{RELION_SECONDS}"),
            ("peak memory, GB", f"{memory:.2f}", ""),
            ("resolution, A", *(f"{resolution(d / 'run_model.star'):.2f}" for d in (output, theirs))),
            (
                "mean FSC with the model",
                *(f"{agreement(d / 'run_class001.mrc', model, mask):.4f}" for d in (output, theirs)),
            ),
        ]
        print(f"{'':<26}{'ours':>10}{'RELION 5':>10}")
        for name, ours, relion in rows:
            print(f"{name:<26}{ours:>10}{relion:>10}")
        print(f"RELION / ours: {RELION_SECONDS / wall:.2f} times the wall time")


if __name__ == "__main__":
    main()
