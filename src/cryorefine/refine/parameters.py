"""What one expectation step is told: everything a chunk's sums depend on besides its particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.sampling import SamplingGrid

F64 = NDArray[np.float64]
Expected = tuple[int, float, float]
"""How many images sums will be added up of, and what the data and the weights of one of them hold at most."""
# More than any image should hold: pixels over the lowest noise, and the squared CTF of a sum of tilt images.
LARGEST_PIXEL, LARGEST_SQUARED_CTF = 2.0**14, 2.0**10


@dataclass(frozen=True)
class ImageModel:
    """How images are prepared and compared; the same in every iteration but for the first.

    Attributes
    ----------
    mask_diameter : float
        Diameter of the circular mask in A.
    mask_edge : float
        Soft edge of that mask in pixels.
    zero_mask : bool
        Fill the outside with the background's mean; otherwise with noise of the estimated spectrum.
    ctf_correction, intact_first_peak, phase_flipped : bool
        CTF in the model, ignored until its first peak, and its absolute value.
    reference_ctf_corrected : bool
        Whether the reference is free of CTF effects; otherwise the model has no CTF.
    """

    mask_diameter: float
    mask_edge: float = 5.0
    zero_mask: bool = True
    ctf_correction: bool = True
    intact_first_peak: bool = False
    phase_flipped: bool = False
    reference_ctf_corrected: bool = True


@dataclass(frozen=True, eq=False)
class Sampling:
    """Trial orientations and shifts.

    Attributes
    ----------
    grid : SamplingGrid
        Coarse orientations; each has eight fine ones.
    local_sigma : float
        Width in degrees of the search around the previous pose; 0 searches everywhere.
    relax_group : str
        Point group whose mates of the previous pose are searched too; empty for none.
    shifts : ndarray, shape (shifts, dimensions)
        Coarse trial shifts in A, perturbation included.
    fine_shifts : ndarray, shape (shifts, 4 or 8, dimensions)
        Fine ones in A.
    """

    grid: SamplingGrid
    local_sigma: float
    relax_group: str
    shifts: F64
    fine_shifts: F64


@dataclass(frozen=True, eq=False)
class ExpectationParameters:
    """All that is fixed while one half set is compared with its reference.

    Attributes
    ----------
    reference : Path
        The half's reference, an array file of shape (box, box, box).
    pixel_size : float
        A per voxel of the reference.
    padding : float
        Padding factor of its Fourier transform.
    current_size, coarse_size, screening_size : int
        Image sizes in pixels of the fine and the coarse pass, and of the screening before the latter.
    images : ImageModel
        Preparation of the images.
    sampling : Sampling
        Trial poses.
    sigma2_noise : ndarray, shape (optics groups, shells)
        Noise power of a real or imaginary part.
    direction_prior : ndarray, shape (directions,)
        Probability of each direction in a global search.
    sigma_offset : float
        Width in A of the prior on shifts.
    scale : ndarray, shape (groups,)
        Intensity scale of each group.
    mean_norm : float
        Mean norm correction; 0 leaves intensities as they are.
    cross_correlation : bool
        Compare by correlation and give all weight to the best pose.
    fraction : float
        Share of the probability that significant samples hold.
    seed : int
        Seed of noise.
    sigma_tilt : float
        Width in degrees of the prior on tilt angles; 0 for none.
    device : str
        Where dense scores are computed: "cpu", "auto" or "gpu:N".
    image_count : int
        Images of the half set; 0 where that is not known.
    """

    reference: Path
    pixel_size: float
    padding: float
    current_size: int
    coarse_size: int
    screening_size: int
    images: ImageModel
    sampling: Sampling
    sigma2_noise: F64
    direction_prior: F64
    sigma_offset: float
    scale: F64
    mean_norm: float
    cross_correlation: bool
    fraction: float
    seed: int
    sigma_tilt: float = 0.0
    device: str = "cpu"
    image_count: int = 0

    @property
    def expected_sums(self) -> Expected | None:
        """How many images there are, and what they should hold at most; None where that is not known.

        Data of an image are its pixels over the noise power, their weights the squared CTF over it.
        """
        sigma2 = self.sigma2_noise[:, : self.current_size // 2 + 1]
        if self.image_count == 0 or not (sigma2 > 0).any():
            return None
        lowest = float(sigma2[sigma2 > 0].min())
        return self.image_count, LARGEST_PIXEL / lowest**0.5, LARGEST_SQUARED_CTF / lowest

    @property
    def shells(self) -> int:
        """Number of shells of the reference."""
        return self.sigma2_noise.shape[1]

    @property
    def box(self) -> int:
        """Edge of the reference in voxels."""
        return 2 * (self.shells - 1)
