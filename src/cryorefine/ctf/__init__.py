"""Contrast transfer and aberrations of electron micrographs."""

from cryorefine.ctf.aberrations import even_phase, magnify, odd_phase
from cryorefine.ctf.ctf import CtfParameters, ctf, dose_weight, electron_wavelength, phase

__all__ = [
    "CtfParameters",
    "ctf",
    "dose_weight",
    "electron_wavelength",
    "even_phase",
    "magnify",
    "odd_phase",
    "phase",
]
