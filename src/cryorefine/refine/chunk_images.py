"""A chunk's images as the kernels take them: weighted, split and sorted by view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.half_plane import HalfPlane, half_plane, pixels_per_shell, shift_phases
from cryorefine.refine.images import (
    PreparedImages,
    contrast_transfer,
    independent_power,
    prepare_images,
    remap,
)
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet, View
from cryorefine.refine.slicing import effective_rotation, within_reach
from cryorefine.refine.volume import F32

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ViewData:
    """Images of one view, ready for the kernels, and where their particles are.

    Complex arrays of shape (images, pixels) are split into real and imaginary parts. All arrays of pixels
    live where the operations do that prepared them; the others on the processor.

    Attributes
    ----------
    view, optics : View, OpticsGroup
        The view and its optics group.
    rotation : ndarray, shape (3, 3)
        What multiplies an orientation to give this view's slice.
    image : ndarray of int, shape (images,)
        Position of each image in the chunk.
    row_of_particle : ndarray of int32, shape (particles,)
        Which image is a particle's; -1 where it has none in this view.
    plane : HalfPlane
        Fourier pixels.
    a, b : tuple of ndarray, ndarray
        Weighted images of the scores, and the weights of their models' power.
    x, model : tuple of ndarray, ndarray
        Masked images, and the CTF of their models.
    y, weight : tuple of ndarray, ndarray
        Weighted unmasked images, and their weights in the reconstruction.
    power : ndarray, shape (images, shells)
        Whole power of the masked images.
    independent : ndarray, shape (images, shells)
        By how much noise of variance 1 raises that power.
    """

    view: View
    optics: OpticsGroup
    rotation: F64
    image: I64
    row_of_particle: I32
    plane: HalfPlane
    a: tuple[F32, F32]
    b: F32
    x: tuple[F32, F32]
    model: F32
    y: tuple[F32, F32]
    weight: F32
    power: F64
    independent: F64

    @property
    def pixel_size(self) -> float:
        """A per pixel of the images."""
        return self.optics.pixel_size


def shift_prior(chunk: ParticleSet, parameters: ExpectationParameters) -> F32:
    """Return the log prior of each coarse shift of each particle, shape (particles, shifts)."""
    if parameters.cross_correlation:
        return np.zeros((len(chunk), len(parameters.sampling.shifts)), np.float32)
    distance = chunk.offsets[:, None] + parameters.sampling.shifts[None] - chunk.offset_priors[:, None]
    return (-0.5 * np.sum(distance**2, axis=2) / parameters.sigma_offset**2).astype(np.float32)


def prepare_views(
    chunk: ParticleSet,
    raw: list[F32],
    parameters: ExpectationParameters,
    squared_ctf: list[F32] | None = None,
    operations: Operations = PROCESSOR,
) -> list[ViewData]:
    """Prepare a chunk's images, view by view, centred by the offsets that are known.

    Whole pixels are moved before the images are masked, what is left of an offset afterwards: a search
    that began at a whole pixel might not reach the true offset any more once its range is small.

    Parameters
    ----------
    chunk : ParticleSet
        Particles.
    raw : list of ndarray, each of shape (box, box) or (box, box, box)
        Their images as read.
    parameters : ExpectationParameters
        Noise, scales and choices.
    squared_ctf : list of ndarray, each of shape (box, box, box/2 + 1), or None
        What volumes hold of the CTF.
    operations : Operations
        Where the work is done.
    """
    result = []
    mean = parameters.mean_norm
    for index in np.unique(chunk.image_view):
        image = np.flatnonzero(chunk.image_view == index)
        particle = chunk.image_particle[image]
        view = chunk.views[index]
        optics = chunk.optics[view.optics]
        sigma2 = parameters.sigma2_noise[view.optics]
        rotation = effective_rotation(view, optics, parameters.box, parameters.pixel_size)
        moved = chunk.offsets[particle] @ view.projection.T / optics.pixel_size
        whole = np.floor(np.abs(moved) + 0.5).astype(np.int64) * np.sign(moved).astype(np.int64)
        if chunk.dimensions == 3:
            whole[:] = 0
        squared = None if squared_ctf is None else [squared_ctf[i] for i in image]
        independent = independent_power(
            optics,
            chunk.ctf.take(image),
            parameters.images,
            squared,
            scale=remap(optics, parameters.box, parameters.pixel_size),
            shells=parameters.shells,
            operations=operations,
        )
        prepared = prepare_images(
            np.stack([raw[i] for i in image]),
            optics=optics,
            box=parameters.box,
            pixel_size=parameters.pixel_size,
            size=parameters.current_size,
            model=parameters.images,
            gain=mean / chunk.norm[particle] if mean > 0 else np.ones(len(image)),
            shifts=whole,
            # What is left of the noise where the CTF has been multiplied in, on average.
            sigma2=sigma2 * independent.mean(axis=0) / np.maximum(_shell_pixels(optics, parameters), 1),
            seeds=parameters.seed + chunk.identity[particle],
            squared_ctf=squared,
            reach=partial(
                within_reach,
                rotation=rotation,
                size=parameters.current_size,
                padding=parameters.padding,
            ),
            operations=operations,
        )
        prepared = _shifted(prepared, moved - whole, operations.xp)
        rows = np.full(len(chunk), -1, np.int32)
        rows[particle] = np.arange(len(image))
        result.append(
            _weighted(
                chunk, view, rotation, image, rows, prepared, independent, squared, parameters, operations
            )
        )
    return result


def _shifted(prepared: PreparedImages, shifts: F64, xp: Any) -> PreparedImages:
    """Apply shifts (n, 2) in pixels to transforms."""
    phases = shift_phases(prepared.plane, shifts, xp)
    return PreparedImages(
        prepared.plane, prepared.masked * phases, prepared.unmasked * phases, prepared.power
    )


def _weighted(
    chunk: ParticleSet,
    view: View,
    rotation: F64,
    image: I64,
    rows: I32,
    prepared: PreparedImages,
    independent: F64,
    squared: list[F32] | None,
    parameters: ExpectationParameters,
    operations: Operations,
) -> ViewData:
    xp = operations.xp
    plane = prepared.plane
    optics = chunk.optics[view.optics]
    model_choices = parameters.images
    transfer = contrast_transfer(plane, optics, chunk.ctf.take(image), model_choices, squared, operations)
    # A slice of the reference holds FFT / box^2 of the reference's box; an image's box may differ in A.
    area = np.float32(remap(optics, parameters.box, parameters.pixel_size) ** 2)
    premultiplied = optics.ctf_premultiplied and model_choices.ctf_correction
    compared = transfer if model_choices.reference_ctf_corrected else xp.ones_like(transfer)
    scale = parameters.scale[chunk.group[chunk.image_particle[image]]].astype(np.float32)[:, None]
    inverse = (1 / parameters.sigma2_noise[view.optics])[np.minimum(plane.shell, parameters.shells - 1)]
    inverse[plane.shell >= parameters.shells] = 0
    inverse = inverse.astype(np.float32)
    # The origin holds the background's mean: it is reconstructed but not compared.
    compared_inverse = inverse.copy()
    compared_inverse[0] = 0
    if parameters.cross_correlation:
        compared_inverse = (compared_inverse > 0).astype(np.float32)
        scale = np.ones_like(scale)
    scale, inverse, compared_inverse = (xp.asarray(each) for each in (scale, inverse, compared_inverse))
    # The likelihood of an image Y = c S + noise needs c Y and c^2 alone, and c Y is what a premultiplied
    # image is; its noise, which is small where c is, is not what sigma2 describes.
    a = prepared.masked * (area * scale * compared_inverse)
    y = prepared.unmasked * (area * scale * inverse)
    if not premultiplied:
        a, y = a * compared, y * transfer
    if parameters.cross_correlation:
        length = xp.sqrt(xp.sum(xp.abs(prepared.masked) ** 2 * compared_inverse, axis=1, keepdims=True))
        a = a / xp.maximum(length, 1e-30)
    b = 0.5 * (area * scale * compared) ** 2 * compared_inverse
    model = area * (transfer**2 if premultiplied else compared)
    return ViewData(
        view=view,
        optics=optics,
        rotation=rotation,
        image=image,
        row_of_particle=rows,
        plane=plane,
        a=operations.split(a),
        b=xp.ascontiguousarray(b, np.float32),
        x=operations.split(prepared.masked),
        model=xp.ascontiguousarray(model, np.float32),
        y=operations.split(y),
        weight=xp.ascontiguousarray((area * scale * transfer) ** 2 * inverse, np.float32),
        power=prepared.power,
        independent=independent,
    )


def _shell_pixels(optics: OpticsGroup, parameters: ExpectationParameters) -> I64:
    """Pixels of a group's whole images in each of the reference's shells, shape (shells,)."""
    scale = remap(optics, parameters.box, parameters.pixel_size)
    return pixels_per_shell(half_plane(optics.box, optics.box, scale, optics.dimensions), parameters.shells)


def split_phases(data: ViewData, plane: HalfPlane, shifts: F64, operations: Operations) -> tuple[F32, F32]:
    """Return the phases of shifts (blocks, 4, dimensions) in A, split, shape (blocks, 4, pixels) each."""
    moved = shifts @ data.view.projection.T / data.pixel_size
    return operations.split(shift_phases(plane, moved, operations.xp))


def in_fours(values: F64) -> F64:
    """Arrange rows in blocks of four, the last filled up with copies of its final row."""
    fill = -len(values) % 4
    return np.concatenate([values, np.repeat(values[-1:], fill, axis=0)]).reshape(-1, 4, values.shape[-1])


def segments(block: NDArray[np.integer], pixels: int, memory: int) -> list[slice]:
    """Cut a sorted list of blocks of four slices into runs whose slices fit a working memory in bytes."""
    unique, first = np.unique(block, return_index=True)
    if len(unique) == 0:
        return []
    starts = first[:: max(1, memory // (4 * 8 * pixels))]
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(block)], strict=True)]
