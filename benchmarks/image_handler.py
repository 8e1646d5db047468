"""Image handler against Debian's RELION, side by side: a map filtered and rescaled, a stack rescaled.

Prints costs and ratios, and how far both agree. RELION's image handler has one thread. Run it on an idle
machine (one minute):

    python benchmarks/image_handler.py [--size 256] [--images 5000] [--threads 2]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np

from cryorefine.io.mrc import write_stack
from maps import PIXEL, write_halves
from timing import OURS, Row, by_turns, cost, relion, show

IMAGE = 128  # pixels


def write_images(folder: Path, count: int) -> Path:
    """Write a stack of noise: what the images show changes nothing."""
    path = folder / "images.mrcs"
    rng = np.random.default_rng(2)
    write_stack(path, rng.standard_normal((count, IMAGE, IMAGE), dtype=np.float32), PIXEL)
    return path


def handle(folder: Path, source: Path, job: str, words: dict[str, str], threads: int, repeat: int) -> Row:
    """Do the same to one file with both programs; ``words`` has our options and RELION's."""
    ending = source.suffix
    mine = [OURS, "image-handler", "--input", source.name, "--output", f"ours{ending}"]
    mine += [*words["ours"].split(), "--pixel-size", str(PIXEL), "--threads", str(threads)]
    theirs = [relion("image_handler"), "--i", source.name, "--o", f"relion{ending}", "--angpix", str(PIXEL)]
    theirs += words["relion"].split()
    costs = by_turns(lambda: cost(mine, folder), lambda: cost(theirs, folder), repeat, repeat)
    made, peer = (
        np.array(mrcfile.read(folder / f"{name}{ending}"), np.float32) for name in ("ours", "relion")
    )
    difference = float(np.sqrt(np.mean((made - peer) ** 2)) / peer.std())
    agreement = f"rms difference {difference:.1g} of the deviation"
    return Row(job, *costs, f"{made.shape[-1]} px", f"{peer.shape[-1]} px; {agreement}")


def compare(folder: Path, size: int, images: int, threads: int, repeat: int) -> Iterator[Row]:
    """Filter a map to 8 A and rescale it from 1.4 to 2.1 A, and rescale images from 1.4 to 2.8 A."""
    words = {"ours": "--lowpass 8 --rescale-pixel-size 2.1", "relion": "--lowpass 8 --rescale_angpix 2.1"}
    job = f"image-handler, {size}³ filtered and rescaled"
    yield handle(folder, write_halves(folder, size), job, words, threads, repeat)
    words = {"ours": "--rescale-pixel-size 2.8", "relion": "--rescale_angpix 2.8"}
    job = f"image-handler, {images} images of {IMAGE} px rescaled"
    yield handle(folder, write_images(folder, images), job, words, threads, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        show(compare(Path(name), options.size, options.images, options.threads, options.repeat))


if __name__ == "__main__":
    main()
