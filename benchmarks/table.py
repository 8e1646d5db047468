"""The table of ratios against Debian's RELION on this machine, with the quality beside every time.

Both programs do each job by turns on the same files; a ratio is RELION's time over ours. Subtomogram jobs are
not in Debian's RELION 3.1.3: their peers are the files and the wall times of RELION 5.0.1 that came with the
data. Parts whose data is not in ../shared are left out.

    python benchmarks/table.py [--quick] [--parts simulated maps ...] [--threads 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import averaging
import betagal
import ctf_refine
import image_handler
import local_resolution
import maps
import simulated_vs_relion
import subtomograms
from timing import Row, cells, heading, line, machine


@dataclass(frozen=True)
class Part:
    """A few rows.

    Attributes
    ----------
    minutes, quick_minutes : float
        On two idle cores of an EPYC (AVX-512), most of it RELION's, and with --quick.
    rows : callable
        Makes them in a folder, with so many threads, quickly or not.
    needs : pathlib.Path, optional
        Data that is no part of the project.
    """

    minutes: float
    quick_minutes: float
    rows: Callable[[Path, int, bool], Iterable[Row]]
    needs: Path = Path(__file__)


def simulated(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield simulated_vs_relion.compare(folder, 100 if quick else 400, threads, local_from="3.7")


def real(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    for with_relion in (False,) if quick else (False, True):
        at = folder / f"relion_{with_relion}"
        at.mkdir()
        local_from = "3.7" if with_relion else "1.8"
        yield betagal.compare(at, betagal.SHARED, threads, with_relion=with_relion, local_from=local_from)


def real_whole(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield betagal.compare(folder, betagal.SHARED, threads, with_relion=True)


def map_jobs(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield from maps.compare(folder, 128 if quick else 256, threads, 2 if quick else 3)


def local(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield local_resolution.compare(folder, 128 if quick else 256, threads)


def images(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield from image_handler.compare(folder, 128 if quick else 256, 1000 if quick else 5000, threads, 3)


def ctf(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    for copies in (1,) if quick else (1, 10):
        at = folder / f"copies_{copies}"
        at.mkdir()
        yield from ctf_refine.compare(at, ctf_refine.FITS, copies, threads, 2)


def tilts(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield from subtomograms.compare(folder, threads, 3)


def averaged(folder: Path, threads: int, quick: bool) -> Iterator[Row]:
    yield averaging.compare(folder, threads)


PARTS = {
    "maps": Part(1.5, 0.3, map_jobs),
    "images": Part(1, 0.3, images),
    "ctf": Part(2.5, 0.7, ctf, ctf_refine.DATA),
    "tilts": Part(0.3, 0.3, tilts, subtomograms.DATA),
    "averaged": Part(1.5, 1.5, averaged, subtomograms.DATA),
    "local": Part(4, 0.5, local),
    "simulated": Part(3, 1, simulated, simulated_vs_relion.MODEL),
    "real": Part(8, 0.7, real, betagal.SHARED),
    "real-whole": Part(20, 20, real_whole, betagal.SHARED),
}
DEFAULT = [name for name in PARTS if name != "real-whole"]


def main() -> None:
    times = ", ".join(f"{name} {part.minutes:g} ({part.quick_minutes:g})" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Minutes on two idle cores of an EPYC, and with --quick: {times}.",
    )
    parser.add_argument("--quick", action="store_true", help="smaller sets and maps")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=DEFAULT, help="all but real-whole unless named"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"{machine(options.threads)}\n\n{heading()}", flush=True)
    began = time.perf_counter()
    spent = {}
    for name in options.parts:
        part = PARTS[name]
        start = time.perf_counter()
        if part.needs.exists():
            with tempfile.TemporaryDirectory() as folder:
                for row in part.rows(Path(folder), options.threads, options.quick):
                    print(line(cells(row)), flush=True)
        spent[name] = time.perf_counter() - start
    print("\nSeconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()), end="")
    print(f"; all {time.perf_counter() - began:.0f}.")


if __name__ == "__main__":
    main()
