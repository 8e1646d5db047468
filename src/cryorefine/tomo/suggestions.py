"""Sizes and steps that follow from the particle, the microscope and the resolution, with their reasons.

Each suggestion is a value and one sentence that says where it comes from; whether it is taken is up to a
person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.ctf import electron_wavelength
from cryorefine.maps.fsc import fourier_shell_correlation, resolution

ROOM = 1.12
"""A kept box is this much wider than its particle, so that the soft mask and some solvent fit in."""
MARGIN = 10
"""But at least this many pixels wider, which shifts and soft edges need at low resolution."""
AT_NYQUIST = 1.15
"""A refinement within this factor of the Nyquist resolution is held back by its pixels."""
ABOVE = 1.1
"""A reference is filtered this much below the resolution that its halves share."""


@dataclass(frozen=True)
class Suggestion:
    """A value with its reason.

    Attributes
    ----------
    value : float or Path
        What is suggested.
    reason : str
        One sentence.
    """

    value: Any
    reason: str


def crop_size(diameter: float, pixel_size: float) -> Suggestion:
    """Suggest the box that is kept after the CTF has been applied.

    Parameters
    ----------
    diameter : float
        Diameter of the particle, or of its mask, in A.
    pixel_size : float
        A per binned pixel.
    """
    across = diameter / pixel_size
    value = _friendly(max(ROOM * across, across + MARGIN))
    return Suggestion(
        value,
        f"The particle is {across:.0f} px across ({diameter:g} A at {pixel_size:g} A/px); {value} px leave "
        "room for its mask and for shifts.",
    )


def box_size(
    diameter: float, pixel_size: float, defocus: float, voltage: float, highest: float | None = None
) -> Suggestion:
    """Suggest the box in which the CTF is applied.

    Defocus moves what a frequency 1/d carries by ``lambda * defocus / d`` to either side (e.g. Rosenthal &
    Henderson (2003), J. Mol. Biol. 333:721); a smaller box loses it.

    Parameters
    ----------
    diameter : float
        Diameter of the particle in A.
    pixel_size : float
        A per binned pixel.
    defocus : float
        Largest defocus in A.
    voltage : float
        kV.
    highest : float, optional
        Resolution d in A that is hoped for; Nyquist unless given.
    """
    finest = max(highest or 0.0, 2 * pixel_size)
    spread = float(electron_wavelength(voltage)) * abs(defocus) / finest
    kept = crop_size(diameter, pixel_size).value
    across = (diameter + 2 * spread) / pixel_size
    value = max(_friendly(across), kept)
    return Suggestion(
        value,
        f"A defocus of {defocus / 1e4:.2f} um spreads detail of {finest:.3g} A by {spread:.0f} A to each "
        f"side of a particle of {diameter:g} A, together {across:.0f} px; {value} px are transformed fast.",
    )


def next_binning(reached: float, pixel_size: float, binning: float) -> Suggestion:
    """Suggest the binning to go on with.

    Parameters
    ----------
    reached : float
        Resolution of the refinement in A.
    pixel_size : float
        A per pixel of the tilt images.
    binning : float
        Binning of the refinement.
    """
    nyquist = 2 * pixel_size * binning
    if binning <= 1:
        return Suggestion(1.0, f"{reached:.3g} A at binning 1: the images hold no finer pixels.")
    if reached > AT_NYQUIST * nyquist:
        return Suggestion(
            binning,
            f"{reached:.3g} A is not yet the Nyquist resolution of binning {binning:g}, {nyquist:.3g} A: "
            "smaller pixels would cost time and gain nothing.",
        )
    value = max(1.0, float(np.floor(binning / 2)))
    return Suggestion(
        value,
        f"{reached:.3g} A is about the Nyquist limit of binning {binning:g} ({nyquist:.3g} A): its pixels "
        f"hold it back; binning {value:g} allows {2 * pixel_size * value:.3g} A.",
    )


def angular_sampling(lowpass: float, diameter: float, steps: Sequence[float]) -> Suggestion:
    """Suggest the initial angular sampling: the coarsest step finer than ``arctan(2 d / D)``.

    That is the turn which moves the rim of a particle of diameter D by the resolution d of its reference.

    Parameters
    ----------
    lowpass : float
        Resolution d in A to which the reference is filtered.
    diameter : float
        Diameter D of the particle in A.
    steps : sequence of float
        Steps in degrees that can be chosen.
    """
    angle = float(np.rad2deg(np.arctan(2 * lowpass / diameter)))
    finer = [step for step in steps if step < angle]
    value = max(finer) if finer else min(steps)
    return Suggestion(
        value,
        f"At {lowpass:g} A the rim of a particle of {diameter:g} A is known to arctan(2 d / D) = {angle:.1f} "
        f"degrees; {value:g} is the next finer step.",
    )


def initial_lowpass(first: NDArray[np.float32], second: NDArray[np.float32], pixel_size: float) -> Suggestion:
    """Suggest the initial low-pass filter from the half maps that a refinement starts from.

    Parameters
    ----------
    first, second : ndarray, shape (z, y, x)
        Half maps.
    pixel_size : float
        A per voxel.
    """
    reached = resolution(fourier_shell_correlation(first, second), first.shape[0], pixel_size)
    if not np.isfinite(reached):
        reached = first.shape[0] * pixel_size / 2
    value = float(np.ceil(ABOVE * reached * 2) / 2)
    return Suggestion(
        value,
        f"The halves of the reference agree to {reached:.3g} A (FSC 0.143); filtered a little below that, at "
        f"{value:g} A, nothing is taken over that they do not share.",
    )


def _friendly(size: float) -> int:
    """Return the next even number that has no prime factor above 5: its transform is fast."""
    value = int(np.ceil(size / 2)) * 2
    while True:
        rest = value
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return value
        value += 2
