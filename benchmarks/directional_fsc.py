"""Directional FSC of a 256^3 map against the same in plain NumPy, cone after cone, side by side.

RELION has nothing of the kind. The peer is what the definition says (Tan et al., Nature Methods 14,
2017): for each direction, mark the components within the cone and sum over their shells. It is timed
on a few of the 384 cones (768 directions, each with its opposite), which are checked to be the same,
and its time for a cone times the number of cones is its time for all. Ours is the whole command.

    python benchmarks/directional_fsc.py [--size 256] [--cones 4] [--threads 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from cryorefine.io.mrc import read_map
from cryorefine.maps import conical_fsc
from cryorefine.maps.fourier import forward
from cryorefine.maps.shells import logical_indices, shell_index
from maps import write_halves
from timing import OURS, cost, least

ANGLE, ORDER = 20.0, 3


class Peer:
    """FSC of one cone at a time, by NumPy alone."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        size = first.shape[0]
        self.shells, self.count = shell_index((size,) * 3).ravel(), size // 2 + 1
        index = logical_indices(size).astype(np.float32)
        z, y, x = np.meshgrid(index, index, np.arange(size // 2 + 1, dtype=np.float32), indexing="ij")
        radius = np.maximum(np.sqrt(x * x + y * y + z * z), 1)
        self.direction = [a / radius for a in (x, y, z)]
        # The mates of all others are not stored.
        weight = np.where((x == 0) | (x == size // 2), np.float32(1), np.float32(2))
        self.terms = [
            (weight * term).ravel()
            for term in ((first.conj() * second).real, np.abs(first) ** 2, np.abs(second) ** 2)
        ]

    def curve(self, axis: np.ndarray) -> np.ndarray:
        """Return the FSC within the cone about one axis (x, y, z)."""
        along = sum(float(a) * d for a, d in zip(axis, self.direction, strict=True))
        inside = (np.abs(along) >= np.cos(np.deg2rad(ANGLE)) - 1e-7).ravel()
        bins = np.minimum(self.shells[inside], self.count)
        product, first, second = (
            np.bincount(bins, term[inside], self.count + 1)[: self.count] for term in self.terms
        )
        return product / np.sqrt(np.maximum(first * second, 1e-300))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--cones", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        half = write_halves(folder, options.size)
        words = ["--half-map", half.name, "--output", "out", "--threads", str(options.threads)]
        ours_s = least(cost([OURS, "directional-fsc", *words], folder, replace="out") for _ in range(3))

        maps = [read_map(folder / f"half{i}_unfil.mrc").data for i in (1, 2)]
        start, busy = time.perf_counter(), time.process_time()
        spectra = [forward(volume, options.threads) for volume in maps]
        peer = Peer(*spectra)
        before = np.array([time.perf_counter() - start, time.process_time() - busy])
        around = conical_fsc.cones(ORDER, ANGLE)
        count = len(around.axes)
        chosen = range(0, count, max(1, count // options.cones))
        start, busy = time.perf_counter(), time.process_time()
        curves = np.array([peer.curve(around.axes[i, 0]) for i in chosen])
        cone = np.array([time.perf_counter() - start, time.process_time() - busy]) / len(chosen)

        measured = conical_fsc.conical_fsc(spectra[0], spectra[1], around, options.threads).curves[chosen]
        high = slice(8, None)  # low shells are put together by ours
        difference = float(np.abs(measured - curves)[:, high].max())
        whole = before + count * cone
        print(f"{options.size}^3 map, {count} cones of {ANGLE:g} degrees, {options.threads} threads for ours")
        print(f"{'':<28}{'wall':>9}{'processor':>12}")
        print(f"{'NumPy, a cone':<28}{cone[0]:>8.2f}s{cone[1]:>11.2f}s")
        print(f"{'NumPy, all (from ' + str(len(chosen)) + ')':<28}{whole[0]:>8.0f}s{whole[1]:>11.0f}s")
        print(f"{'ours, the whole command':<28}{ours_s[0]:>8.1f}s{ours_s[1]:>11.1f}s")
        print(f"{'ratio':<28}{whole[0] / ours_s[0]:>8.1f}x{whole[1] / ours_s[1]:>11.1f}x")
        print(f"curves of {len(chosen)} cones within {difference:.1g}")


if __name__ == "__main__":
    main()
