"""CtfRefine beside relion_ctf_refine: processor seconds and errors on the simulated particles.

Both run on one thread, one after the other, on the same images and half maps. Prints processor time (user
and system), its ratio (RELION's over ours: above 1 we are quicker), and, for the tilt and the defocus, the
errors. ``--copies 10`` repeats every particle ten times under new micrographs, for the time alone: a copy
is compared with its copies, so its values mean nothing.

    python benchmarks/ctf_refine.py [--copies 10] [--fits tilt defocus fourth-order]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from cryorefine.io.particles import ParticleFile, read_particles, write_particles

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sim_betagal_ctf"
FITS = {
    "tilt": (["--fit_beamtilt", "--kmin_tilt", "30"], ["--fit-beamtilt"]),
    "defocus": (
        ["--fit_defocus", "--fit_mode", "fpfff", "--kmin_defocus", "30"],
        ["--fit-defocus", "per-particle"],
    ),
    "fourth-order": (["--fit_aberr"], ["--fit-fourth-order"]),
}


def prepare(folder: Path, copies: int) -> None:
    """Lay out the input of both programs; RELION 3 cannot read images of half precision."""
    for source in [*DATA.glob("relion5/*.mrc"), DATA / "relion5" / "post.star"]:
        (folder / source.name).symlink_to(source)
    with mrcfile.open(DATA / "particles.mrcs") as images, mrcfile.new(folder / "particles.mrcs") as copy:
        copy.set_data(np.asarray(images.data, np.float32))
        copy.voxel_size = 1.4
    file = read_particles(DATA / "refined.star")
    tables = []
    for k in range(copies):
        names = file.particles["rlnMicrographName"].str.replace(".mrc", f"_{k}.mrc")
        tables.append(file.particles.assign(rlnMicrographName=names))
    write_particles(folder / "refined.star", ParticleFile(file.optics, pd.concat(tables, ignore_index=True)))


def processor_seconds(command: list[str], folder: Path) -> float:
    """Run a program on one thread; return its user and system time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def errors(star: Path) -> str:
    """Return the beam tilt found and the error of the mean defocus in A (rms)."""
    found, truth = read_particles(star), read_particles(DATA / "truth.star")

    def defocus(file: ParticleFile) -> pd.Series:
        table = file.particles.set_index("rlnImageName")
        return (table["rlnDefocusU"] + table["rlnDefocusV"]) / 2

    missed = defocus(found) - defocus(truth).loc[found.particles["rlnImageName"]].to_numpy()
    row = found.optics.iloc[0]
    tilt = [float(row.get(f"rlnBeamTilt{axis}", 0)) for axis in "XY"]
    return f"tilt ({tilt[0]:.3f}, {tilt[1]:.3f}) mrad, defocus {np.sqrt(np.mean(missed**2)):.1f} A off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--fits", nargs="+", choices=FITS, default=list(FITS))
    arguments = parser.parse_args()
    relion = shutil.which("relion_ctf_refine")
    if relion is None or not DATA.is_dir():
        sys.exit("This benchmark needs relion_ctf_refine and ../shared/data/sim_betagal_ctf.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments.copies)
        for fit in arguments.fits:
            theirs, ours = FITS[fit]
            relion_job, our_job = folder / f"relion_{fit}", folder / f"CtfRefine_{fit}"
            relion_job.mkdir()
            command = [relion, "--i", "refined.star", "--f", "post.star", "--angpix_ref", "1.4", "--j", "1"]
            peer = processor_seconds([*command, "--o", f"{relion_job.name}/", *theirs], folder)
            command = [str(Path(sys.executable).with_name("cryorefine")), "ctf-refine"]
            command += ["--particles", "refined.star", "--postprocess", "post.star", "--threads", "1"]
            own = processor_seconds([*command, "--symmetry", "D2", "--output", our_job.name, *ours], folder)
            print(f"{fit}: RELION {peer:.1f} s, ours {own:.1f} s, ratio {peer / own:.2f}")
            if arguments.copies == 1:
                for program, job in (("RELION", relion_job), ("ours", our_job)):
                    print(f"    {program}: {errors(job / 'particles_ctf_refine.star')}")


if __name__ == "__main__":
    main()
