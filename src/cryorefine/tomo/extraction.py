"""Particles cut out of tilt images, CTF-premultiplied and centred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import even_phase, odd_phase
from cryorefine.errors import UserError
from cryorefine.io.particles import vector_of
from cryorefine.io.tomograms import TiltSeries
from cryorefine.maps import fft
from cryorefine.tomo.geometry import dose_weights, image_ctf
from cryorefine.tomo.operations import PROCESSOR, Circle, Operations
from cryorefine.tomo.tilt_images import TiltImages

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]
Index = NDArray[np.int64]
EDGE = 5.0
"""Width in px of the soft edge of the circle that particles are cut out with."""


@dataclass(frozen=True)
class Window:
    """How large the boxes are that are cut out.

    Attributes
    ----------
    box, crop : int
        Edge in binned px of the box in which the CTF is applied, and of what is kept of it.
    unbinned : int
        Edge of the box in px of the tilt images.
    """

    box: int
    crop: int
    unbinned: int

    @property
    def binning(self) -> float:
        """Pixels of the tilt images in one binned pixel."""
        return self.unbinned / self.box

    @property
    def radius(self) -> float:
        """Half the kept box in px of the tilt images: how far from an edge a particle has to be."""
        return self.binning * self.crop / 2


def window(box: int, crop: int | None, binning: float) -> Window:
    """Return the boxes for a binning, which need not be a whole number.

    The box in the tilt images is a whole number of pixels, so the true binning may differ a little from
    the one asked for; it is the true one that decides the pixel size of what is written.
    """
    return Window(box, crop or box, int(binning * box + 0.5))


class Transfer:
    """What the microscope and the dose do to the particles of one tilt series and optics group.

    Parameters
    ----------
    series : TiltSeries
        The tilt series.
    optics : mapping or None
        Row of the optics table, for aberrations.
    box : int
        Edge of the images in px.
    pixel_size : float
        A per pixel of the images.
    """

    def __init__(
        self, series: TiltSeries, optics: Mapping[str, Any] | None, box: int, pixel_size: float
    ) -> None:
        self.series = series
        self.box = box
        index = np.fft.fftfreq(box, pixel_size)
        y, x = np.meshgrid(index, np.arange(box // 2 + 1) / (box * pixel_size), indexing="ij")
        self.x, self.y = x.ravel(), y.ravel()
        self.dose = dose_weights(series, np.hypot(self.x, self.y)).astype(np.float32)
        self.even = _even(optics, self.x, self.y)
        self.odd = _odd(series, optics, self.x, self.y)

    def __call__(self, depths: F64, tilts: Index, where: Operations = PROCESSOR) -> F32:
        """Return CTF times dose weight of some images, shape (n, box * (box // 2 + 1)).

        Parameters
        ----------
        depths : ndarray, shape (tilts,)
            Depth of a particle in px of the tilt images, from :func:`cryorefine.tomo.geometry.project`.
        tilts : ndarray of int, shape (n,)
            The images wanted.
        where : Operations
            Where they are worked out.
        """
        parameters = image_ctf(self.series, depths[None]).take(tilts)
        values: F32 = where.ctf(parameters, self.x, self.y, even=self.even)
        # The dose weights are shared by all particles.
        values *= where.array(self.dose[tilts])
        return values


def extract(
    images: TiltImages,
    shape: Window,
    transfer: Transfer,
    centres: F64,
    depths: F64,
    tilts: Index,
    *,
    premultiply: bool = True,
    level: Circle | None = None,
    where: Operations = PROCESSOR,
) -> tuple[C64, F32 | None]:
    """Cut one particle out of tilt images, centre it and multiply it by its CTF.

    The transforms are those of images whose origin, at ``box // 2``, is the particle's exact centre. They
    are scaled as RELION's: the inverse transform is the grey value of the tilt image, inverted, divided by
    the binning, so that it does not depend on the binning how a projection relates to its volume.

    Parameters
    ----------
    images : TiltImages
        Where to cut.
    shape : Window
        How large.
    transfer : Transfer
        CTF, dose and aberrations of these particles.
    centres : ndarray, shape (tilts, 2)
        The particle's projected centres in px of the tilt images.
    depths : ndarray, shape (tilts,)
        Its depths in px.
    tilts : ndarray of int, shape (n,)
        The images wanted.
    premultiply : bool
        Whether images are multiplied by CTF and dose weights; contrast is inverted in any case, so that
        protein is white.
    level : tuple of ndarray, optional
        A soft circle about the squares in the tilt images (:func:`soft_circle`): they are levelled in it
        before they are transformed.
    where : Operations
        Where the pixels are worked on, and the results live.

    Returns
    -------
    spectra : ndarray of complex64, shape (n, box, box // 2 + 1)
    gain : ndarray of float32, shape (n, box * (box // 2 + 1)), or None
        CTF times dose weight; None when the images have not been multiplied by it.

    Raises
    ------
    UserError
        When a tilt image holds NaN or infinite values here.
    """
    large, box = shape.unbinned, shape.box
    corners = np.floor(centres[tilts] + 0.5).astype(np.int64) - large // 2
    squares = where.array(images.squares(tilts, corners, large))
    if level is not None:
        squares = where.level_and_crop(squares, level, large)
    spectra = fft.real_forward(squares, (1, 2))
    finite = np.isfinite(where.host(spectra[:, 0, 0]))
    if not finite.all():
        bad = images.series.image_names[tilts[np.flatnonzero(~finite)[0]]]
        raise UserError(f"{bad} holds NaN or infinite values; remove it from its tilt series.")
    gain = transfer(depths, tilts, where) if premultiply else None
    shifts = box // 2 - (centres[tilts] - corners) / shape.binning
    result = where.crop_shift_multiply(spectra, shifts, gain, -(large**2) / shape.binning**3, box)
    if transfer.odd is not None:
        result *= where.array(transfer.odd)
    return result, gain


def stack_of(spectra: C64, shape: Window, circle: Circle | None, where: Operations = PROCESSOR) -> F32:
    """Return images, levelled within a soft circle, on the processor; shape (n, crop, crop)."""
    images = fft.real_backward(spectra, (1, 2), shape.box)
    scale = np.float32(1 / shape.box**2)
    first = (shape.box - shape.crop) // 2
    if circle is None:
        inside = slice(first, first + shape.crop)
        whole: F32 = where.host(images[:, inside, inside] * scale)
        return whole
    weight, outside = circle
    result: F32 = where.host(where.level_and_crop(images, (weight * scale, outside), shape.crop))
    return result


def soft_circle(box: int, diameter: float, edge: float = EDGE) -> Circle:
    """Return a soft disc about ``box // 2`` and what lies outside of it, each of shape (box, box).

    The edge, a cosine, lies within the diameter.
    """
    axis = np.arange(box) - box // 2
    radius = np.hypot(axis[:, None], axis)
    inside = np.clip((diameter / 2 - radius) / edge, 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * inside)).astype(np.float32), radius > diameter / 2


def _even(optics: Mapping[str, Any] | None, x: F64, y: F64) -> F64 | None:
    label = "rlnEvenZernike"
    if optics is None or label not in optics:
        return None
    return even_phase(vector_of(None, label, optics[label]), x, y)


def _odd(series: TiltSeries, optics: Mapping[str, Any] | None, x: F64, y: F64) -> C64 | None:
    """Return the factors that undo beam tilt and odd aberrations, shape (box, box // 2 + 1)."""
    if optics is None:
        return None
    label = "rlnOddZernike"
    values = vector_of(None, label, optics[label]) if label in optics else np.zeros(0)
    tilt_x, tilt_y = (float(optics.get(f"rlnBeamTilt{axis}", 0.0)) for axis in "XY")
    if not np.any(values) and tilt_x == 0 and tilt_y == 0:
        return None
    phase = odd_phase(values, tilt_x, tilt_y, series.voltage, series.spherical_aberration, x, y)
    box = 2 * (int(np.sqrt(2 * len(x) + 0.25)) // 2)
    return np.exp(-1j * phase).astype(np.complex64).reshape(box, -1)
