"""Sums over chunks of particles, for the maximisation step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.expectation import ChunkSums
from cryorefine.refine.insertion import Insertion

F64 = NDArray[np.float64]
_OTHERS = "noise", "noise_count", "scale_cross", "scale_power", "directions", "offset_square", "mass"


class HalfSums:
    """Sums over some chunks of one half set.

    The sums of scalars and spectra are in double precision; the volumes are those of the chunks, and stay on
    a GPU as long as they can.

    Parameters
    ----------
    sums : ChunkSums
        Of the first chunk, whose volumes are taken over and changed.
    """

    def __init__(self, sums: ChunkSums) -> None:
        self.volume = sums.volume
        self.others = {name: np.array(getattr(sums, name), np.float64) for name in _OTHERS}

    def add(self, other: HalfSums) -> None:
        """Add those of other chunks in place."""
        self.volume = self.volume.plus(other.volume)
        for name, values in other.others.items():
            self.others[name] += values

    def copy(self) -> HalfSums:
        """Return sums that share nothing with these."""
        new = object.__new__(HalfSums)
        new.volume = self.volume.copy()
        new.others = {name: values.copy() for name, values in self.others.items()}
        return new

    def __sizeof__(self) -> int:
        """Bytes of all sums, for whoever has to find room for them."""
        return self.volume.nbytes + sum(v.nbytes for v in self.others.values())

    def settle(self) -> None:
        """Leave the GPU: whoever keeps these sums counts the memory of the processor alone."""
        self.volume = Insertion(*self.volume.volumes())

    def __getitem__(self, name: str) -> F64:
        return self.others[name]
