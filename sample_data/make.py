"""Make sample_data/betagal out of the particles of EMPIAR-10204 extracted by RELION.

Usage: python sample_data/make.py FOLDER

FOLDER holds particles_good997.star, the stacks it names, the map of PDB 5A1A on the particles' grid
and the detector's MTF. Only the images that the STAR file names are kept, renumbered, in
half-precision stacks of one micrograph each, as they were; no poses, no classes.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import write_stack
from cryorefine.io.particles import project_root, read_particles, write_particles

DROPPED = ["rlnAutopickFigureOfMerit", "rlnClassNumber"]


def main(source: Path) -> None:
    """Write the data set beside this script."""
    target = Path(__file__).parent / "betagal"
    file = read_particles(source / "particles_good997.star")
    table = file.particles.drop(columns=DROPPED)
    names = table["rlnImageName"]
    images = ImageReader(project_root(file.path, names.iloc[0]))
    stacks = names.str.split("@").str[1]
    (target / "Particles").mkdir(parents=True, exist_ok=True)
    for stack in stacks.unique():
        here = stacks == stack
        kept = target / "Particles" / Path(stack).name
        write_stack(
            kept, images.read(list(names[here])), images.pixel_size(names[here].iloc[0]), half_precision=True
        )
        table.loc[here, "rlnImageName"] = [
            f"{number:06d}@{kept.relative_to(target)}" for number in range(1, here.sum() + 1)
        ]
    write_particles(target / "particles.star", replace(file, particles=table))
    shutil.copyfile(source / "reference_5a1a_64_3.54A.mrc", target / "reference_5a1a.mrc")
    shutil.copyfile(source / "mtf_k2_200kV.star", target / "mtf_k2_200kV.star")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
