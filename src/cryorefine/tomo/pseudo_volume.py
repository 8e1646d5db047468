"""3D pseudo-subtomograms: the tilt images of one particle as a Fourier volume with its weights.

Premultiplied images are laid into the volume as they are, without division, so that the volume is a
sum, and two more say what it is a sum of: CTF^2 with the dose weights squared, and how many images
saw each place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps import fft
from cryorefine.maps.fourier import inverse
from cryorefine.tomo.extraction import Window
from cryorefine.tomo.operations import PROCESSOR, Circle, Operations

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]
LEAST_DOSE_WEIGHT = 0.01
"""Frequencies at which the dose has left less of the signal than this are left out."""


@dataclass(frozen=True, eq=False)
class PseudoVolume:
    """A pseudo-subtomogram.

    Attributes
    ----------
    data : ndarray of float32, shape (crop, crop, crop)
        Sum of the premultiplied images, the particle's centre at ``crop // 2``.
    weights : ndarray of float32, shape (2 * crop, crop, crop // 2 + 1)
        CTF^2, and below it the multiplicity, in the order of a half transform.
    """

    data: F32
    weights: F32


def pseudo_volume(
    spectra: C64,
    gain: F32 | None,
    dose: F32,
    rotations: F64,
    shape: Window,
    where: Operations = PROCESSOR,
) -> PseudoVolume:
    """Lay the images of a particle into a volume.

    Parameters
    ----------
    spectra : ndarray of complex64, shape (n, box, box // 2 + 1)
        Transforms of the images, from :func:`levelled_spectra`.
    gain : ndarray of float32, shape (n, box * (box // 2 + 1)), or None
        What they have been multiplied by; None stands for 1.
    dose : ndarray of float32, shape (n, box * (box // 2 + 1))
        Dose weights.
    rotations : ndarray, shape (n, 3, 3)
        From the particle's frame to each image.
    shape : Window
        Boxes.
    where : Operations
        Where transforms and gains live.
    """
    crop, box = shape.crop, shape.box
    use = dose - np.float32(LEAST_DOSE_WEIGHT)
    gains = where.array(np.ones_like(use)) if gain is None else gain
    data, *counts = where.insert_tilts(spectra, gains, where.array(use), rotations, crop)
    volume = inverse(data, crop, threads=1, overwrite=True)
    volume *= np.float32(box / (crop**2.5 * np.sqrt(shape.binning)))
    shifted = np.fft.fftshift(where.host(volume))
    return PseudoVolume(shifted, np.concatenate([where.host(count) for count in counts]))


def levelled_spectra(
    spectra: C64, shape: Window, circle: Circle | None, where: Operations = PROCESSOR
) -> C64:
    """Return transforms of images levelled within a soft circle, whose origin is their particle's centre.

    Parameters
    ----------
    spectra : ndarray of complex64, shape (n, box, box // 2 + 1)
        From :func:`cryorefine.tomo.extraction.extract`.
    shape : Window
        Boxes.
    circle : tuple of ndarray, or None
        From :func:`cryorefine.tomo.extraction.soft_circle`; None leaves the images as they are.
    where : Operations
        Where the transforms live.
    """
    if circle is not None:
        images = where.level_and_crop(fft.real_backward(spectra, (1, 2), shape.box), circle, shape.box)
        spectra = fft.real_forward(images, (1, 2))
    # A stack is divided by the binning once more than a volume; norm: RELION's halves of 1 / box.
    result = spectra * np.float32(shape.binning / shape.box)
    signs = 1 - 2 * (np.arange(shape.box) % 2)
    result *= where.array((signs[:, None] * signs[: shape.box // 2 + 1]).astype(np.float32))
    return result
