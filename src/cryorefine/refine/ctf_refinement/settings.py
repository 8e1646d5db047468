"""What a CTF refinement is asked to fit, and the maps that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

Level = Literal["no", "per-micrograph", "per-particle"]


@dataclass(frozen=True)
class CtfFit:
    """What is fitted, and how.

    Attributes
    ----------
    defocus, astigmatism, phase_shift, b_factor : str
        "no", "per-micrograph" or "per-particle". The scale factor is fitted together with the B-factor.
    beam_tilt, trefoil, fourth_order, magnification : bool
        Whether to fit these for every optics group; trefoil needs the beam tilt and fits it as well.
    minimum_resolution : float
        Frequencies lower than 1 / this (A) are left out.
    defocus_range : float
        Defocus values are searched this far (A) to either side of those given.
    symmetry : str
        Point group of the particle.
    rounds : int
        Largest number of rounds of fitting and rebuilding the reference.
    seed : int
        Seed of the random parts.
    """

    defocus: Level = "no"
    astigmatism: Level = "no"
    phase_shift: Level = "no"
    b_factor: Level = "no"
    beam_tilt: bool = False
    trefoil: bool = False
    fourth_order: bool = False
    magnification: bool = False
    minimum_resolution: float = 30.0
    defocus_range: float = 2000.0
    symmetry: str = "C1"
    rounds: int = 4
    seed: int = 0

    @property
    def transfer(self) -> bool:
        """Whether anything is fitted that belongs to particles or micrographs."""
        return any(
            level != "no" for level in (self.defocus, self.astigmatism, self.phase_shift, self.b_factor)
        )

    @property
    def odd(self) -> bool:
        """Whether odd aberrations are fitted."""
        return self.beam_tilt or self.trefoil

    @property
    def optics(self) -> bool:
        """Whether anything is fitted that belongs to optics groups."""
        return self.odd or self.fourth_order or self.magnification


@dataclass(frozen=True, eq=False)
class SuppliedMaps:
    """Half maps, mask and resolution as post-processing names them.

    Attributes
    ----------
    half_maps : tuple of ndarray, shape (z, y, x)
        Unfiltered half maps of half sets 1 and 2, cubic.
    mask : ndarray, shape (z, y, x)
        Solvent mask of the same shape, 0 to 1.
    fsc : ndarray, shape (shells,)
        Corrected FSC of the masked half maps; shells = edge // 2 + 1.
    pixel_size : float
        A per voxel.
    """

    half_maps: tuple[F32, F32]
    mask: F32
    fsc: F64
    pixel_size: float

    @property
    def box(self) -> int:
        """Edge of the maps in voxels."""
        return self.mask.shape[0]
