"""Local resolution of a 256^3 map against Debian's RELION, side by side.

RELION takes the better part of an hour, so it measures a few places only, twice: the difference is
its time for a place, and that times the number of places, plus its start, is the time for the whole
map; it has one process for each thread of ours. Ours is timed on the whole map. Prints costs and ratios,
and how far both agree at the fewest places, though RELION draws random phases once. Run it on an idle
machine (256^3: four minutes):

    python benchmarks/local_resolution.py [--size 256] [--threads 2]
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np

from cryorefine.io.mrc import read_map
from cryorefine.io.star import read_star
from maps import PIXEL, write_halves
from timing import MPI, OURS, Cost, Row, cost, relion, show

SPHERE = 12.5, 25.0  # radius and edge in A, as for RELION's default sampling of 25 A
SAMPLING = 25.0  # A
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


def relion_words(half: str, sampling: float, output: str, processes: int) -> list[str]:
    """Return RELION's command; its processes share the places out."""
    words = [relion("postprocess")]
    if processes > 1:
        words = [*MPI, str(processes), relion("postprocess_mpi")]
    words += ["--i", half, "--o", output, "--angpix", str(PIXEL), "--locres", "--adhoc_bfac", "-50"]
    words += ["--locres_sampling", str(sampling), "--locres_maskrad", str(SPHERE[0])]
    return [*words, "--locres_edgwidth", str(SPHERE[1])]


def our_words(half: str, sampling: float, output: str, threads: int) -> list[str]:
    words = [OURS, "local-resolution", "--half-map", half, "--output", output, "--bfactor", "-50"]
    words += ["--sampling", str(sampling), "--sphere-radius", str(SPHERE[0])]
    return [*words, "--sphere-edge", str(SPHERE[1]), "--threads", str(threads)]


def compare(folder: Path, size: int, threads: int) -> Row:
    """Measure half maps that this makes with both programs, RELION at some of the places alone."""
    half = write_halves(folder, size).name
    few, fewer = (sampling * PIXEL * size for sampling in (FEW, FEWER))
    mine = {}
    for name, sampling in (("ours_fewer", fewer), ("ours_few", few), ("ours", SAMPLING)):
        spent = cost(our_words(half, sampling, name, threads), folder, replace=name)
        mine[name] = our_curves(folder / name / "relion_locres_fscs.star")
    counts = [len(mine[name]) for name in ("ours", "ours_few", "ours_fewer")]
    # Several processes write over each other's curves: what is compared comes from one, and is not timed.
    cost(relion_words(half, fewer, "fewer", 1), folder)
    curves = relion_curves(folder / "fewer_locres_fscs.star")
    found = [read_map(folder / name).data for name in ("ours_fewer/relion_locres.mrc", "fewer_locres.mrc")]
    seen = (found[0] > 0) & (found[1] > 0)
    apart = np.median(np.abs(found[0] - found[1])[seen])
    places = mine["ours_fewer"]
    masked = max(np.abs(places[c][0] - curves[c][0, : places[c].shape[1]]).max() for c in curves)
    quality = [f"median {np.median(density[seen]):.2f} Å at {counts[2]} places" for density in found]
    times = [
        cost(relion_words(half, sampling, name, threads), folder)
        for sampling, name in ((few, "few"), (fewer, "fewer"))
    ]
    slopes = ((a - b) / (counts[1] - counts[2]) for a, b in zip(*times, strict=True))
    whole = (a + slope * (counts[0] - counts[1]) for a, slope in zip(times[0], slopes, strict=True))
    return Row(
        f"local-resolution, {size}³, {counts[0]} places (RELION's from {counts[1]} and {counts[2]})",
        spent,
        Cost(*whole),
        quality[0],
        f"{quality[1]}; masked FSC within {masked:.1g}, resolution apart by {apart:.2f} Å (median)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        show([compare(Path(name), options.size, options.threads)])


if __name__ == "__main__":
    main()
