"""Refine3D of 997 real beta-galactosidase particles (EMPIAR-10204) beside RELION.

Prints costs, resolution without a mask, and the mean FSC with the atomic model behind RELION's mask. Alone,
the peer are the maps and the wall time that came with the data: RELION 5.0.1, 479 s on another machine (an
AVX-512 build, 3 MPI ranks on 2 cores of an EPYC). With --relion, Debian's RELION 3.1.3 refines as well,
which takes some 20 minutes, or 8 with --local-from 3.7, where searches are local before they cost it most.
Run it on an idle machine:

    python benchmarks/betagal.py [--relion] [--local-from 3.7] [--threads 2] [--keep FOLDER]
        [-- more options of refine3d]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np

from cryorefine.io.mrc import read_map, write_stack
from cryorefine.io.particles import read_particles
from cryorefine.maps.fsc import fourier_shell_correlation
from refinement import LOCAL_ORDERS, Refinement, refine_ours, refine_relion, resolution
from timing import Cost, Row, by_turns, show

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "betagal_empiar10204"
RELION_5 = Cost(479.0)
PARTICLES, REFERENCE, PIXEL = "particles_good997.star", "reference_5a1a_64_3.54A.mrc", 3.54


def prepare(folder: Path, data: Path) -> None:
    """Lay out the input of both programs; RELION 3 cannot read images of half precision."""
    for name in (PARTICLES, REFERENCE):
        (folder / name).symlink_to(data / name)
    names = read_particles(data / PARTICLES).particles["rlnImageName"]
    for stack in sorted({name.partition("@")[2] for name in names}):
        (folder / stack).parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.open(data / stack) as images:
            write_stack(folder / stack, np.asarray(images.data, np.float32), PIXEL)


def quality(job: Path, data: Path) -> str:
    """Say how good a map is: its resolution, and its mean FSC over all shells, both maps behind the mask."""
    mask = read_map(data / "relion5_refine3d" / "mask.mrc").data
    maps = (read_map(path).data * mask for path in (job / "run_class001.mrc", data / REFERENCE))
    fsc = float(np.mean(fourier_shell_correlation(*maps)))
    return f"{resolution(job):.2f} Å, mean FSC with the model {fsc:.4f}"


def compare(
    folder: Path,
    data: Path,
    threads: int,
    *,
    with_relion: bool,
    local_from: str = "1.8",
    more: Sequence[str] = (),
) -> Row:
    """Refine in a folder, with both programs or with ours alone."""
    prepare(folder, data)
    job = Refinement(Path(PARTICLES), Path(REFERENCE), 50, 200, local_from)
    title = f"refine3d, 997 real particles of 64 px, D2, local from {local_from}°"
    if with_relion:
        costs = by_turns(
            lambda: refine_ours(folder, job, threads, more), lambda: refine_relion(folder, job), repeat=2
        )
        theirs = quality(folder / "relion", data)
    else:
        costs = refine_ours(folder, job, threads, more), RELION_5
        theirs = f"{quality(data / 'relion5_refine3d', data)} (RELION 5.0.1, another EPYC)"
    return Row(title, *costs, f"{quality(folder / 'ours', data)}; {costs[0].memory:.2f} GB", theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=SHARED, help="folder with the particles and RELION's maps"
    )
    parser.add_argument("--relion", action="store_true", help="refine with RELION as well")
    parser.add_argument("--local-from", default="1.8", choices=LOCAL_ORDERS, help="step in degrees")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the jobs, kept; a temporary one otherwise")
    parser.add_argument("more", nargs="*", help="more options of refine3d, after --")
    options = parser.parse_args()
    data = options.data.resolve()
    if not (data / REFERENCE).exists():
        sys.exit(f"{data / REFERENCE} is missing; give the folder of the particles with --data.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = {"with_relion": options.relion, "local_from": options.local_from, "more": options.more}
        show([compare(folder, data, options.threads, **chosen)])


if __name__ == "__main__":
    main()
