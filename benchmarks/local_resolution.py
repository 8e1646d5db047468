"""Local resolution of a 256^3 map against Debian's RELION, side by side.

RELION takes the better part of an hour, so it measures a few places only, twice: the difference is
its time for a place, and that times the number of places, plus its start, is the time for the whole
map. Ours is timed on the whole map. Prints seconds and the ratio, after checking on the few places
that both agree. Run it on an idle machine:

    python benchmarks/local_resolution.py [--size 256] [--threads 2]
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from cryorefine.io.mrc import read_map
from cryorefine.io.star import read_star
from maps import seconds, write_halves

SPHERE = 12.5, 25.0  # radius and edge in A, as for RELION's default sampling of 25 A
FEW, FEWER = 60 / 256, 100 / 256  # sampling in boxes: 29 and 7 places


def relion_curves(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    """Read RELION's curves (masked, random) of each place; its file ends in lines that are no STAR."""
    curves = {}
    for block in path.read_text().split("data_fsc_")[1:]:
        name, *lines = block.split("\n")
        rows = [[float(word) for word in line.split()] for line in lines if re.match(r"\s+\d+\s", line)]
        curves[tuple(int(c) for c in re.findall(r"-?\d+", name))] = np.array(rows)[:, [5, 6]].T
    return curves


def our_curves(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    blocks = read_star(path)
    labels = [
        "rlnFourierShellCorrelationMaskedMaps",
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    ]
    return {
        tuple(int(c) for c in name.split("_")[1:]): table[labels].to_numpy().T
        for name, table in blocks.items()
        if name.startswith("fsc_")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("relion_postprocess") is None:
        sys.exit("RELION is not installed: sudo apt-get install relion")
    ours = str(Path(sys.executable).with_name("cryorefine"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        half = write_halves(folder, options.size).name
        pixel = read_map(folder / half).pixel_size
        box = pixel * options.size

        def theirs(sampling: float, output: str) -> tuple[int, np.ndarray]:
            words = ["--i", half, "--o", output, "--angpix", str(pixel), "--locres", "--adhoc_bfac", "-50"]
            words += ["--locres_sampling", str(sampling), "--locres_maskrad", str(SPHERE[0])]
            times = seconds(["relion_postprocess", *words, "--locres_edgwidth", str(SPHERE[1])], folder)
            return len(relion_curves(folder / f"{output}_locres_fscs.star")), np.array(times)

        def measure(sampling: float, output: str) -> np.ndarray:
            words = ["--half-map", half, "--output", output, "--bfactor", "-50", "--sampling", str(sampling)]
            words += ["--sphere-radius", str(SPHERE[0]), "--sphere-edge", str(SPHERE[1])]
            words += ["--threads", str(options.threads)]
            return np.array(seconds([ours, "local-resolution", *words], folder))

        measure(FEWER * box, "warm")
        few, few_s = theirs(FEW * box, "few")
        fewer, fewer_s = theirs(FEWER * box, "fewer")
        place = (few_s - fewer_s) / (few - fewer)
        measure(FEW * box, "ours_few")
        ours_s = measure(25.0, "ours")

        mine, relions = (
            our_curves(folder / "ours_few/relion_locres_fscs.star"),
            relion_curves(folder / "few_locres_fscs.star"),
        )
        masked = max(np.abs(mine[c][0] - relions[c][0, : mine[c].shape[1]]).max() for c in relions)
        found = read_map(folder / "ours_few/relion_locres.mrc").data, read_map(folder / "few_locres.mrc").data
        seen = (found[0] > 0) & (found[1] > 0)
        apart = np.abs(found[0] - found[1])[seen]
        count = len(our_curves(folder / "ours/relion_locres_fscs.star"))
        whole = few_s + place * (count - few)

        print(f"{options.size}^3 map of {pixel:g} A/px, {count} places, {options.threads} threads for ours")
        print(f"{'':<26}{'wall':>9}{'processor':>12}")
        print(f"{'RELION, a place':<26}{place[0]:>8.2f}s{place[1]:>11.2f}s")
        print(f"{'RELION, all (from ' + str(few) + ')':<26}{whole[0]:>8.0f}s{whole[1]:>11.0f}s")
        print(f"{'ours, all':<26}{ours_s[0]:>8.1f}s{ours_s[1]:>11.1f}s")
        print(f"{'ratio':<26}{whole[0] / ours_s[0]:>8.1f}x{whole[1] / ours_s[1]:>11.1f}x")
        print(
            f"masked FSC of {few} places within {masked:.1g}, though RELION draws random phases once: ",
            end="",
        )
        print(
            f"resolution apart by {np.median(apart):.2f} A (median), {np.percentile(apart, 95):.2f} A (95 %)"
        )


if __name__ == "__main__":
    main()
