"""What a CTF refinement reports while it runs, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Index = NDArray[np.int64]
Kind = Literal["odd aberrations", "even aberrations", "magnification"]


@dataclass(frozen=True)
class Stage:
    """How far a stage has come: particles or micrographs done, and their number."""

    name: str
    round: int
    done: int
    total: int


@dataclass(frozen=True)
class Finding:
    """One sentence about a fit: a value with its uncertainty, or what was left alone and why.

    Attributes
    ----------
    subject : str
        What was fitted, e.g. "beam tilt".
    message : str
        One sentence in plain words.
    supported : bool
        False if the data could not support the fit and the values were left as they came.
    warning : bool
        Whether something is probably wrong with the input.
    """

    subject: str
    message: str
    supported: bool = True
    warning: bool = False


@dataclass(frozen=True, eq=False)
class ParticleValues:
    """CTF values of every particle, each of shape (particles,).

    Attributes
    ----------
    defocus_u, defocus_v, defocus_angle : ndarray
        A, A and degrees; U is the larger.
    phase_shift : ndarray
        Degrees.
    b_factor, scale : ndarray
        A^2 and a factor, relative to the mean particle in the reference.
    sigma_defocus : ndarray
        Standard uncertainty of the mean defocus in A; NaN where it was not fitted.
    sigma_astigmatism : ndarray
        Standard uncertainty of either component of the astigmatism vector (U - V) (cos 2a, sin 2a) in A.
    sigma_phase_shift, sigma_b_factor, sigma_scale : ndarray
        Standard uncertainties in degrees, A^2 and 1.
    signal : ndarray
        Share of the predicted signal that was found in the image; about 1, and 0 for an image without
        the particle.
    noise : ndarray
        Variance of the image's noise relative to its optics group's.
    """

    defocus_u: F64
    defocus_v: F64
    defocus_angle: F64
    phase_shift: F64
    b_factor: F64
    scale: F64
    sigma_defocus: F64
    sigma_astigmatism: F64
    sigma_phase_shift: F64
    sigma_b_factor: F64
    sigma_scale: F64
    signal: F64
    noise: F64


@dataclass(frozen=True, eq=False)
class OpticsValues:
    """Values of one optics group; each sigma has the shape of its value, NaN where it was not fitted.

    Attributes
    ----------
    name : str
        Name of the group.
    particles : int
        Number of its particles.
    beam_tilt, sigma_beam_tilt : ndarray, shape (2,)
        mrad.
    odd_aberrations, sigma_odd_aberrations : ndarray, shape (6,) or (0,)
        Zernike coefficients without the beam tilt; empty where none are fitted or given.
    even_aberrations, sigma_even_aberrations : ndarray, shape (9,) or (0,)
        Zernike coefficients.
    magnification, sigma_magnification : ndarray, shape (4,)
        Matrix 00, 01, 10, 11.
    """

    name: str
    particles: int
    beam_tilt: F64
    sigma_beam_tilt: F64
    odd_aberrations: F64
    sigma_odd_aberrations: F64
    even_aberrations: F64
    sigma_even_aberrations: F64
    magnification: F64
    sigma_magnification: F64


@dataclass(frozen=True, eq=False)
class AberrationImages:
    """What was seen in each Fourier pixel of an optics group, and what was fitted to it.

    Attributes
    ----------
    optics : int
        Index of the optics group.
    kind : str
        "odd aberrations", "even aberrations" (phases in radians) or "magnification" (displacements in
        Fourier pixels).
    observed, fitted, weight : ndarray, shape (components, box, box)
        Images about the origin at box // 2 over both axes, x last; one component for phases, two (x, y)
        for displacements. ``observed`` is 0 where ``weight`` is. ``weight`` is the inverse variance of
        the observed value.
    """

    optics: int
    kind: Kind
    observed: F64
    fitted: F64
    weight: F64


@dataclass(frozen=True, eq=False)
class MicrographValues:
    """Values so far of one micrograph's particles.

    Attributes
    ----------
    micrograph : int
        Index of the micrograph.
    particles : ndarray of int, shape (n,)
        Its particles.
    values : ParticleValues
        Of these particles, shape (n,) each.
    """

    micrograph: int
    particles: Index
    values: ParticleValues


@dataclass(frozen=True, eq=False)
class OpticsSoFar:
    """Values of all optics groups at the end of a stage."""

    round: int
    values: tuple[OpticsValues, ...]


CtfEvent = Stage | Finding | AberrationImages | MicrographValues | OpticsSoFar


@dataclass(frozen=True, eq=False)
class CtfResult:
    """Outcome of a CTF refinement.

    Attributes
    ----------
    particles : ParticleValues
        Values of every particle.
    optics : tuple of OpticsValues
        Values of every optics group.
    images : tuple of AberrationImages
        Observed and fitted aberrations of the last round.
    findings : tuple of Finding
        Sentences to be shown with the result.
    rounds : int
        Rounds made.
    reference : str
        "rebuilt" or "supplied": which maps the particles were compared with.
    resolution : float
        Resolution in A at which the FSC of the rebuilt half maps falls below 0.143; NaN for supplied maps.
    """

    particles: ParticleValues
    optics: tuple[OpticsValues, ...]
    images: tuple[AberrationImages, ...]
    findings: tuple[Finding, ...]
    rounds: int
    reference: str
    resolution: float
