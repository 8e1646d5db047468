"""Particle images made ready for comparison: normalised, centred, masked, transformed, with their CTF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import even_phase, magnify, odd_phase
from cryorefine.ctf.ctf import CtfParameters
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine.half_plane import HalfPlane, half_plane, pixels_per_shell
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.particle_set import OpticsGroup

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """Images of one view on a Fourier half plane.

    ``masked`` serves comparison and ``unmasked`` reconstruction, shape (n, pixels); ``power`` is the
    masked images' whole power by shell of the reference, shape (n, shells).
    """

    plane: HalfPlane
    masked: C64
    unmasked: C64
    power: F64


def remap(optics: OpticsGroup, box: int, pixel_size: float) -> float:
    """Shells of the reference per shell of an image: the ratio of the boxes in A."""
    return (box * pixel_size) / (optics.box * optics.pixel_size)


def image_size(optics: OpticsGroup, size: int, box: int, pixel_size: float) -> int:
    """Fourier window of a group's images that reaches as far as ``size`` does in the reference."""
    own = 2 * int(np.ceil(0.5 * size / remap(optics, box, pixel_size) - 1e-6))
    return min(own, optics.box)


def coloured_noise(sigma2: F64, box: int, scale: float, seeds: NDArray[np.int64], dimensions: int = 2) -> F32:
    """Gaussian noise with a given spectrum, one image or volume for each seed, shape (n, [z,] y, x)."""
    import scipy.fft

    shape = (box,) * dimensions
    *others, last = np.meshgrid(
        *[np.fft.fftfreq(box, 1 / box)] * (dimensions - 1), np.arange(box // 2 + 1), indexing="ij"
    )
    radius = np.sqrt(last**2 + sum(axis**2 for axis in others))
    shell = np.floor(scale * radius + 0.5).astype(int)
    spectrum = sigma2[np.minimum(shell, len(sigma2) - 1)]
    # White noise of variance 1 has box^dimensions / 2 in each part of a component, here divided by box^4.
    gain = np.sqrt(2 * spectrum * box ** (4.0 - dimensions))
    white = np.stack([np.random.default_rng(int(s)).standard_normal(shape) for s in seeds])
    axes = tuple(range(1, dimensions + 1))
    return scipy.fft.irfftn(scipy.fft.rfftn(white, axes=axes) * gain, s=shape, axes=axes).astype(np.float32)


def mask_images(images: F32, diameter: float, edge: float, fill: F32 | None, xp: Any = np) -> F32:
    """Keep a soft disc or ball of each image, and fill the rest with noise or its weighted mean.

    Parameters
    ----------
    images : ndarray, shape (n, box, box) or (n, box, box, box)
        Images.
    diameter, edge : float
        Diameter and soft edge of the disc in pixels.
    fill : ndarray of the same shape, or None
        What goes outside; None stands for the mean of the background.
    xp : module
        Of the images' arrays.
    """
    mask = soft_sphere(images.shape[1:], diameter / 2, edge)
    total = float((1 - mask).sum())
    mask = xp.asarray(mask)
    outside = 1 - mask
    if fill is None:
        if total == 0:
            return images
        mean = xp.tensordot(images, outside, axes=mask.ndim) / total
        level = mean.astype(np.float32).reshape(-1, *[1] * mask.ndim)
        return images * mask + level * outside
    return images * mask + xp.asarray(fill) * outside


def prepare_images(
    images: F32,
    *,
    optics: OpticsGroup,
    box: int,
    pixel_size: float,
    size: int,
    model: ImageModel,
    gain: F64,
    shifts: NDArray[np.int64],
    sigma2: F64,
    seeds: NDArray[np.int64],
    squared_ctf: Sequence[F32] | None = None,
    reach: Callable[[HalfPlane], HalfPlane] = lambda plane: plane,
    operations: Operations = PROCESSOR,
) -> PreparedImages:
    """Normalise, centre to whole pixels, mask and transform the images of one optics group.

    Parameters
    ----------
    images : ndarray of float32, shape (n, box, box) or (n, box, box, box)
        As read.
    optics : OpticsGroup
        Their optics group.
    box, pixel_size, size : int, float, int
        Edge and pixel size (A) of the reference, and the current size, in its pixels.
    model : ImageModel
        Mask and CTF choices.
    gain : ndarray, shape (n,)
        Factor on the intensities.
    shifts : ndarray of int, shape (n, 2)
        Whole-pixel shifts (x, y) to apply; volumes stay where they are.
    sigma2 : ndarray, shape (shells,)
        Noise spectrum of the group, for a noise mask.
    seeds : ndarray of int, shape (n,)
        Seeds of that noise.
    squared_ctf : sequence of ndarray, each of shape (box, box, box/2 + 1), or None
        What volumes hold of the CTF; their components that hold nothing become 0.
    reach : callable
        Drops the pixels that no slice of the reference reaches.
    operations : Operations
        Where the work is done, and what is returned lives.
    """
    xp = operations.xp
    scale = remap(optics, box, pixel_size)
    dimensions = optics.dimensions
    plane = reach(half_plane(optics.box, image_size(optics, size, box, pixel_size), scale, dimensions))
    whole = half_plane(optics.box, optics.box, scale, dimensions)
    centred = xp.asarray(images) * xp.asarray(gain.astype(np.float32).reshape(-1, *[1] * dimensions))
    if dimensions == 2:
        centred = operations.shift_whole_pixels(centred, shifts)
    fill = None if model.zero_mask else coloured_noise(sigma2, optics.box, scale, seeds, dimensions)
    pixels = optics.pixel_size
    masked = mask_images(centred, model.mask_diameter / pixels, model.mask_edge, fill, xp)
    spectra = [_transform(each, operations.fft) for each in (masked, centred)]
    if squared_ctf is not None:
        # Where no tilt image reached there is nothing but what the mask has carried there.
        for k, each in enumerate(squared_ctf):
            for spectrum in spectra:
                spectrum[k, xp.asarray(np.flatnonzero(each.reshape(-1) == 0))] = 0
    power = operations.sum_by_shell(whole, xp.abs(spectra[0][:, xp.asarray(whole.source)]) ** 2, len(sigma2))
    source = xp.asarray(plane.source)
    unmasked, comparable = spectra[1][:, source], spectra[0][:, source]
    if any(optics.beam_tilt) or any(optics.odd_aberrations):
        phase = odd_phase(
            optics.odd_aberrations,
            *optics.beam_tilt,
            optics.voltage,
            optics.spherical_aberration,
            *frequencies(plane, optics),
        )
        correction = xp.asarray(np.exp(-1j * phase).astype(np.complex64))
        unmasked, comparable = unmasked * correction, comparable * correction
    return PreparedImages(plane, comparable, unmasked, power)


def _transform(images: F32, fft: Any) -> C64:
    """FFT / box^2 about the centre of each image or volume, shape (n, independent components).

    With the same divisor in both cases a volume is to a turned reference what an image is to its slice.
    """
    box = images.shape[-1]
    axes = tuple(range(1, images.ndim))
    spectrum = fft.rfftn(fft.ifftshift(images, axes=axes), axes=axes, overwrite_x=True)
    spectrum *= np.float32(1 / box**2)
    return spectrum.reshape(len(images), -1)


def frequencies(plane: HalfPlane, optics: OpticsGroup) -> tuple[F64, F64]:
    """Spatial frequencies (x, y) in 1/A of a plane's pixels, after the magnification matrix."""
    edge = optics.box * optics.pixel_size
    matrix = np.reshape(optics.magnification, (2, 2))
    return magnify(matrix, plane.kx.astype(np.float64) / edge, plane.ky.astype(np.float64) / edge)


def contrast_transfer(
    plane: HalfPlane,
    optics: OpticsGroup,
    parameters: CtfParameters,
    model: ImageModel,
    squared: Sequence[F32] | None = None,
    operations: Operations = PROCESSOR,
) -> F32:
    """CTF of each image on a plane's pixels, shape (n, pixels); ones without CTF correction.

    Volumes come with the ``squared`` CTF that they hold, each of shape (box, box, box/2 + 1).
    """
    if not model.ctf_correction:
        return operations.array(np.ones((len(parameters), plane.pixels), np.float32))
    if squared is not None:
        return operations.array(np.stack([np.sqrt(each.reshape(-1)[plane.source]) for each in squared]))
    x, y = frequencies(plane, optics)
    even = even_phase(optics.even_aberrations, x, y) if any(optics.even_aberrations) else None
    return operations.ctf(
        parameters,
        x,
        y,
        intact_first_peak=model.intact_first_peak,
        absolute=model.phase_flipped,
        even=even,
    )


def independent_power(
    optics: OpticsGroup,
    parameters: CtfParameters,
    model: ImageModel,
    squared: Sequence[F32] | None = None,
    *,
    scale: float,
    shells: int,
    operations: Operations = PROCESSOR,
) -> F64:
    """By how much noise of variance 1 raises the power of each shell of each image.

    That is the number of a shell's pixels or, where an image and its noise have been multiplied by the
    CTF, the sum of the CTF's squares.

    Parameters
    ----------
    optics, parameters, model, squared : OpticsGroup, CtfParameters, ImageModel, sequence of ndarray
        Optics group, CTF of each of the n images, and choices, as for :func:`contrast_transfer`.
    scale : float
        Shells of the reference per shell of the images.
    shells : int
        Shells of the reference.
    operations : Operations
        Where the work is done.

    Returns
    -------
    ndarray, shape (n, shells)
    """
    whole = half_plane(optics.box, optics.box, scale, optics.dimensions)
    if not (optics.ctf_premultiplied and model.ctf_correction):
        return np.tile(pixels_per_shell(whole, shells).astype(np.float64), (len(parameters), 1))
    transfer = contrast_transfer(whole, optics, parameters, model, squared, operations)
    return operations.sum_by_shell(whole, transfer**2, shells)
