"""CtfRefine beside relion_ctf_refine: costs and errors on the simulated particles.

Both run one after the other, with as many threads, on the same images and half maps. Prints costs, their
ratio (RELION's over ours: above 1 we are quicker) and errors against the truth. ``--copies 10`` repeats
every particle ten times under new micrographs, for the time alone: a copy is compared with its copies, so
its values mean nothing. Run it on an idle machine (700 images: half a minute; 7000: one minute and a half):

    python benchmarks/ctf_refine.py [--copies 10] [--fits tilt defocus fourth-order] [--threads 1]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from cryorefine.ctf.aberrations import even_phase
from cryorefine.io.particles import ParticleFile, parse_vector, read_particles, write_particles
from timing import OURS, Row, by_turns, cost, relion, show

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sim_betagal_ctf"
FITS = {
    "tilt": (["--fit_beamtilt", "--kmin_tilt", "30"], ["--fit-beamtilt"]),
    "defocus": (
        ["--fit_defocus", "--fit_mode", "fpfff", "--kmin_defocus", "30"],
        ["--fit-defocus", "per-particle"],
    ),
    "fourth-order": (["--fit_aberr"], ["--fit-fourth-order"]),
}
TITLES = {"tilt": "beam tilt", "defocus": "defocus of particles", "fourth-order": "fourth order"}


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


def defocus_error(star: Path) -> float:
    """Return the root mean square of the errors of the mean defocus in A."""
    found, truth = (read_particles(path) for path in (star, DATA / "truth.star"))

    def defocus(file: ParticleFile) -> pd.Series:
        table = file.particles.set_index("rlnImageName")
        return (table["rlnDefocusU"] + table["rlnDefocusV"]) / 2

    missed = defocus(found) - defocus(truth).loc[found.particles["rlnImageName"]].to_numpy()
    return float(np.sqrt(np.mean(missed**2)))


def tilt_error(star: Path) -> float:
    """Return how far the beam tilt is from the true one in mrad."""
    found, truth = (read_particles(path).optics.iloc[0] for path in (star, DATA / "truth.star"))
    return float(np.hypot(*(float(found[f"rlnBeamTilt{a}"]) - float(truth[f"rlnBeamTilt{a}"]) for a in "XY")))


def phase(star: Path) -> str:
    """Say how large the even phase is up to 4 A, where there is none in truth."""
    found = read_particles(star).optics.iloc[0]
    if "rlnEvenZernike" not in found:
        return "left alone, as is right"
    x, y = np.meshgrid(*[np.linspace(-0.25, 0.25, 101)] * 2)
    values = even_phase(parse_vector(str(found["rlnEvenZernike"])), x, y)
    return f"phase {np.sqrt(np.mean(values[np.hypot(x, y) <= 0.25] ** 2)):.3f} rad off (rms to 4 Å)"


def quality(fit: str, star: Path) -> str:
    """Say how far off a fit is."""
    if fit == "tilt":
        return f"{tilt_error(star):.2f} mrad off"
    if fit == "defocus":
        return f"{defocus_error(star):.1f} Å off (rms)"
    return phase(star)


def fit_both(folder: Path, fit: str, copies: int, threads: int, repeat: int) -> Row:
    """Make one fit of what ``prepare`` has laid out with both programs."""
    theirs, ours = FITS[fit]
    peer = [relion("ctf_refine"), "--i", "refined.star", "--f", "post.star", "--angpix_ref", "1.4"]
    peer += ["--j", str(threads), "--o", f"relion_{fit}/", *theirs]
    mine = [OURS, "ctf-refine", "--particles", "refined.star", "--postprocess", "post.star"]
    mine += ["--threads", str(threads), "--symmetry", "D2", "--output", f"CtfRefine_{fit}", *ours]
    (folder / f"relion_{fit}").mkdir(exist_ok=True)
    costs = by_turns(
        lambda: cost(mine, folder, replace=f"CtfRefine_{fit}", threads=threads),
        lambda: cost(peer, folder, threads=threads),
        repeat,
    )
    job = f"ctf-refine, {TITLES[fit]}, {700 * copies} images"
    if copies > 1:
        return Row(job, *costs)
    results = [folder / f"{name}_{fit}" / "particles_ctf_refine.star" for name in ("CtfRefine", "relion")]
    return Row(job, *costs, *(quality(fit, star) for star in results))


def compare(folder: Path, fits: Iterable[str], copies: int, threads: int, repeat: int) -> Iterator[Row]:
    """Make fits with both programs."""
    prepare(folder, copies)
    for fit in fits:
        yield fit_both(folder, fit, copies, threads, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--fits", nargs="+", choices=FITS, default=list(FITS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=2, help="of ours; RELION runs once")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("This benchmark needs ../shared/data/sim_betagal_ctf.")
    with tempfile.TemporaryDirectory() as name:
        show(compare(Path(name), options.fits, options.copies, options.threads, options.repeat))


if __name__ == "__main__":
    main()
