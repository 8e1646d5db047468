"""MaskCreate and PostProcess of a 256^3 map against Debian's RELION, side by side.

Prints costs and ratios, and how far both agree. RELION's postprocess has one thread. Run it on an idle
machine (256^3: one minute and a half):

    python benchmarks/maps.py [--size 256] [--threads 2] [--repeat 3]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.star import read_star
from cryorefine.maps import filters, masks
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.maps.shells import radius_table
from cryorefine.sample import sample_folder
from timing import OURS, Row, by_turns, cost, relion, show

PIXEL = 1.4
PARTICLE_MASK, TRUTH = "particle_mask.mrc", "truth.mrc"


def write_halves(folder: Path, size: int) -> Path:
    """Write a particle-like blob whose spectrum falls as that of protein does, and two half maps of it."""
    rng = np.random.default_rng(1)
    shape = (size,) * 3
    structure = rng.standard_normal(shape, dtype=np.float32) * masks.soft_sphere(shape, size / 4, size / 20)
    structure = filters.apply_filter(structure, filters.bfactor_gain(radius_table(size), size, PIXEL, 400.0))
    structure *= 1.5 / structure.std()
    write_map(folder / TRUTH, structure, PIXEL)
    for half in (1, 2):
        noise = rng.standard_normal(shape, dtype=np.float32)
        write_map(folder / f"half{half}_unfil.mrc", structure + noise, PIXEL)
    return folder / "half1_unfil.mrc"


def write_particle_mask(folder: Path, size: int) -> Path:
    """Write a soft mask around the blob."""
    path = folder / PARTICLE_MASK
    write_map(path, masks.soft_sphere((size,) * 3, 0.3 * size, 6), PIXEL)
    return path


def mask_create(folder: Path, half: str, threads: int, repeat: int) -> Row:
    """Make a mask of a half map with both programs: mask/mask.mrc and relion_mask.mrc."""
    mine = [OURS, "mask-create", "--lowpass", "15", "--pixel-size", str(PIXEL), "--threshold", "0.3"]
    mine += ["--extend", "3", "--soft-edge", "6", "--threads", str(threads), "--input", half]
    mine += ["--output", "mask"]
    theirs = [relion("mask_create"), "--i", half, "--o", "relion_mask.mrc", "--lowpass", "15"]
    theirs += ["--angpix", str(PIXEL), "--ini_threshold", "0.3", "--extend_inimask", "3"]
    theirs += ["--width_soft_edge", "6", "--j", str(threads)]
    costs = by_turns(lambda: cost(mine, folder, replace="mask"), lambda: cost(theirs, folder), repeat)
    mask, peer = (read_map(folder / name).data for name in ("mask/mask.mrc", "relion_mask.mrc"))
    difference = f"largest difference {np.abs(mask - peer).max():.1g}"
    return Row(
        f"mask-create, {len(mask)}³",
        *costs,
        f"mean {mask.mean():.4f}",
        f"mean {peer.mean():.4f}; {difference}",
    )


def postprocess(folder: Path, half: str, mask: str, threads: int, repeat: int) -> Row:
    """Sharpen with both programs: post/postprocess.star and relion_post/postprocess.star."""
    shutil.copy(sample_folder("betagal") / "mtf_k2_200kV.star", folder / "mtf.star")
    mine = [OURS, "postprocess", "--half-map", half, "--mask", mask, "--output", "post"]
    mine += ["--pixel-size", str(PIXEL), "--mtf", "mtf.star", "--mtf-pixel-size", str(PIXEL)]
    mine += ["--threads", str(threads)]
    theirs = [relion("postprocess"), "--i", half, "--mask", mask, "--angpix", str(PIXEL), "--auto_bfac"]
    theirs += ["--mtf", "mtf.star", "--mtf_angpix", str(PIXEL), "--o", "relion_post/postprocess"]
    (folder / "relion_post").mkdir(exist_ok=True)
    costs = by_turns(lambda: cost(mine, folder, replace="post"), lambda: cost(theirs, folder), repeat, repeat)
    stars = [read_star(folder / name / "postprocess.star") for name in ("post", "relion_post")]
    curves = [star["fsc"]["rlnFourierShellCorrelationMaskedMaps"] for star in stars]
    where = "around the particle" if mask == PARTICLE_MASK else "of specks all over the box"
    return Row(
        f"postprocess, {2 * (len(curves[0]) - 1)}³, mask {where}",
        *costs,
        sharpened(folder, "post"),
        f"{sharpened(folder, 'relion_post')}; masked FSC within {np.abs(curves[0] - curves[1]).max():.1g}",
    )


def sharpened(folder: Path, job: str) -> str:
    """Say what a post-processing has found, and how its map agrees with the truth."""
    general = read_star(folder / job / "postprocess.star")["general"]
    maps = (read_map(path).data for path in (folder / job / "postprocess_masked.mrc", folder / TRUTH))
    fsc = float(np.mean(fourier_shell_correlation(*maps)))
    found = f"{general['rlnFinalResolution']:.2f} Å, B {general['rlnBfactorUsedForSharpening']:.1f} Å²"
    return f"{found}, mean FSC with the truth {fsc:.4f}"


def compare(folder: Path, size: int, threads: int, repeat: int) -> Iterator[Row]:
    """Mask and sharpen half maps that this makes, for the tables of this and of all benchmarks."""
    half = write_halves(folder, size).name
    particle = write_particle_mask(folder, size).name
    yield mask_create(folder, half, threads, repeat)
    for mask in (particle, "mask/mask.mrc"):
        yield postprocess(folder, half, mask, threads, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        show(compare(Path(name), options.size, options.threads, options.repeat))


if __name__ == "__main__":
    main()
