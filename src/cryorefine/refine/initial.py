"""The state before the first iteration: filtered references and noise spectra from the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.io.images import ImageReader
from cryorefine.maps.filters import initial_lowpass
from cryorefine.maps.fourier import forward
from cryorefine.maps.shells import radial_average
from cryorefine.refine.half_plane import sum_by_shell
from cryorefine.refine.images import independent_power, prepare_images
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.state import HalfModel
from cryorefine.refine.work import read_images, read_squared_ctf

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
IMAGES_FOR_NOISE = 1000


def initial_noise(
    particles: ParticleSet, reader: ImageReader, model: ImageModel, *, box: int, pixel_size: float
) -> F64:
    """Noise power spectra of the optics groups before anything is aligned, shape (groups, shells).

    Half the mean power of the masked images minus half the power of their average, which holds
    what they have in common.
    """
    shells = box // 2 + 1
    result = np.ones((len(particles.optics), shells))
    for index, optics in enumerate(particles.optics):
        members = np.flatnonzero(particles.image_optics == index)[:IMAGES_FOR_NOISE]
        if len(members) == 0:
            continue
        power, average, count = np.zeros(shells), np.zeros(shells), np.zeros(shells)
        total = np.zeros(1, np.complex64)
        step = 256 if optics.dimensions == 2 else 4
        for first in range(0, len(members), step):
            some = members[first : first + step]
            piece = particles.images(some)
            squared = read_squared_ctf(piece, reader)
            prepared = prepare_images(
                np.stack(read_images(piece, reader)),
                optics=optics,
                box=box,
                pixel_size=pixel_size,
                size=box,
                # A noise mask would need the spectrum that is sought here.
                model=replace(model, zero_mask=True),
                gain=np.ones(len(some)),
                shifts=np.zeros((len(some), 2), np.int64),
                sigma2=np.ones(shells),
                seeds=np.zeros(len(some), np.int64),
                squared_ctf=squared,
            )
            plane = prepared.plane
            independent = independent_power(
                optics, piece.ctf, model, squared, scale=plane.scale, shells=shells
            )
            count += independent.sum(axis=0)
            power += prepared.power.sum(axis=0)
            total = total + prepared.masked.sum(axis=0)
            average = sum_by_shell(plane, np.abs(total[None] / len(members)) ** 2, shells)[0]
        result[index] = _positive((power - len(members) * average) / (2 * np.maximum(count, 1e-30)))
    return result


def _positive(spectrum: F64) -> F64:
    """Replace shells that are not positive by the nearest positive one before them, else after."""
    good = np.flatnonzero(spectrum > 0)
    if len(good) == 0:
        return np.ones_like(spectrum)
    nearest = np.clip(np.searchsorted(good, np.arange(len(spectrum)), "right") - 1, 0, None)
    return spectrum[good[nearest]]


def initial_model(
    reference: F32,
    noise: F64,
    *,
    lowpass: float,
    pixel_size: float,
    grid: SamplingGrid,
    groups: int,
    particles: int,
    sigma_offset: float = 10.0,
) -> HalfModel:
    """Model of a half set before the first iteration.

    Parameters
    ----------
    reference : ndarray of float32, shape (box, box, box)
        Starting map.
    noise : ndarray, shape (optics groups, shells)
        Noise spectra.
    lowpass : float
        Initial low-pass filter in A; 0 for none.
    pixel_size : float
        A per voxel.
    grid : SamplingGrid
        First grid of orientations.
    groups, particles : int
        Numbers of scale groups and of particles.
    sigma_offset : float
        Prior width of the shifts in A.
    """
    box = reference.shape[0]
    filtered = initial_lowpass(reference, pixel_size, lowpass) if lowpass > 0 else reference
    # Power on the scale of 2D images: a slice of FFT / box^3 is box times smaller than FFT / box^2.
    tau2 = 0.5 * box**2 * radial_average(np.abs(forward(filtered)) ** 2)
    shell = np.maximum(np.arange(len(tau2)), 0.5)
    ssnr = particles * tau2 / (noise.mean(axis=0) * 2 * shell)
    return HalfModel(
        reference=np.ascontiguousarray(filtered, np.float32),
        sigma2_noise=noise,
        direction_prior=np.full(grid.n_directions, 1 / grid.n_directions),
        scale=np.ones(groups),
        ssnr=ssnr,
        sigma2=np.divide(tau2, ssnr, out=np.zeros_like(tau2), where=ssnr > 0),
        tau2=tau2,
        sigma_offset=sigma_offset,
        mean_norm=1.0,
        mean_largest_weight=0.0,
        log_likelihood=0.0,
    )
