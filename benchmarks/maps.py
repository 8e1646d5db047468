"""MaskCreate and PostProcess of a 256^3 map against Debian's RELION, side by side.

Prints seconds and the ratio for each, after checking that both agree. Run it on an idle machine:

    python benchmarks/maps.py [--size 256] [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.star import read_star
from cryorefine.maps import filters, masks
from cryorefine.maps.shells import radius_table
from cryorefine.sample import sample_folder

PIXEL = 1.4


def write_halves(folder: Path, size: int) -> Path:
    """Write two half maps of a particle-like blob of noise whose spectrum falls as that of protein does."""
    rng = np.random.default_rng(1)
    shape = (size,) * 3
    structure = rng.standard_normal(shape, dtype=np.float32) * masks.soft_sphere(shape, size / 4, size / 20)
    structure = filters.apply_filter(structure, filters.bfactor_gain(radius_table(size), size, PIXEL, 400.0))
    structure *= 1.5 / structure.std()
    for half in (1, 2):
        noise = rng.standard_normal(shape, dtype=np.float32)
        write_map(folder / f"half{half}_unfil.mrc", structure + noise, PIXEL)
    return folder / "half1_unfil.mrc"


def seconds(words: list[str], folder: Path) -> tuple[float, float]:
    """Run a command and return how long it took, and how much processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=folder, capture_output=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best_of(times: int, words: list[str], folder: Path, output: str) -> tuple[float, float]:
    """Run a command of ours several times, each into a fresh folder, and return the shortest times."""
    runs = []
    for _ in range(times):
        shutil.rmtree(folder / output, ignore_errors=True)
        runs.append(seconds(words, folder))
    return min(runs)


def report(name: str, ours: tuple[float, float], theirs: tuple[float, float], note: str) -> None:
    """Print one line of the table."""
    wall, processor = (f"{a:7.2f} s{b:8.2f} s{b / a:6.1f} x" for a, b in zip(ours, theirs, strict=True))
    print(f"{name:<18}{wall}  {processor}   {note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("relion_mask_create") is None:
        sys.exit("RELION is not installed: sudo apt-get install relion")
    ours = str(Path(sys.executable).with_name("cryorefine"))
    threads = str(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        half = write_halves(folder, options.size).name
        print(f"{options.size}^3 map, {threads} threads; whole commands, from start to exit")
        print(f"{'':<18}{'ours':>9}{'RELION':>10}{'wall':>8}  {'ours':>9}{'RELION':>10}{'cpu':>8}")

        words = ["--lowpass", "15", "--angpix", str(PIXEL), "--ini_threshold", "0.3"]
        words += ["--extend_inimask", "3", "--width_soft_edge", "6", "--j", threads]
        theirs_s = seconds(["relion_mask_create", "--i", half, "--o", "relion_mask.mrc", *words], folder)
        words = ["--lowpass", "15", "--pixel-size", str(PIXEL), "--threshold", "0.3", "--extend", "3"]
        words += ["--soft-edge", "6", "--threads", threads, "--input", half, "--output", "mask"]
        ours_s = best_of(options.repeat, [ours, "mask-create", *words], folder, "mask")
        mask, relion_mask = read_map(folder / "mask/mask.mrc").data, read_map(folder / "relion_mask.mrc").data
        difference = float(np.abs(mask - relion_mask).max())
        report(
            "mask-create", ours_s, theirs_s, f"largest difference {difference:.1g}, mean {mask.mean():.3f}"
        )

        shutil.copy(sample_folder("betagal") / "mtf_k2_200kV.star", folder / "mtf.star")
        sphere = masks.soft_sphere((options.size,) * 3, 0.3 * options.size, 6)
        write_map(folder / "particle_mask.mrc", sphere, PIXEL)
        for mask_name, title in (
            ("particle_mask.mrc", "postprocess"),
            ("relion_mask.mrc", "  mask of specks"),
        ):
            theirs = ["relion_postprocess", "--i", half, "--mask", mask_name, "--angpix", str(PIXEL)]
            theirs += ["--auto_bfac", "--mtf", "mtf.star", "--mtf_angpix", str(PIXEL), "--o", "relion_post"]
            mine = [ours, "postprocess", "--half-map", half, "--mask", mask_name, "--output", "post"]
            mine += ["--pixel-size", str(PIXEL), "--mtf", "mtf.star", "--mtf-pixel-size", str(PIXEL)]
            mine += ["--threads", threads]
            # By turns, so that what else the machine does is shared.
            runs = [
                (best_of(1, mine, folder, "post"), seconds(theirs, folder)) for _ in range(options.repeat)
            ]
            ours_s, theirs_s = (
                tuple(map(min, zip(*times, strict=True))) for times in zip(*runs, strict=True)
            )
            report(title, ours_s, theirs_s, agreement(folder))


def agreement(folder: Path) -> str:
    """Say what both found, and how far their masked FSC curves are apart."""
    star, relion_star = read_star(folder / "post/postprocess.star"), read_star(folder / "relion_post.star")
    label = "rlnFourierShellCorrelationMaskedMaps"
    difference = float(np.abs(star["fsc"][label] - relion_star["fsc"][label]).max())
    figures = []
    for table in (star["general"], relion_star["general"]):
        b_factor = table["rlnBfactorUsedForSharpening"]
        figures.append(f"{table['rlnFinalResolution']:.3f} A, B {b_factor:.1f}")
    return f"{' and '.join(figures)}; masked FSC within {difference:.1g}"


if __name__ == "__main__":
    main()
