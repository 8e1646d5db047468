"""Sums over an optics group's particles that its aberrations and magnification are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.refine.ctf_refinement import dense
from cryorefine.refine.ctf_refinement.comparison import Compared, Comparison
from cryorefine.refine.ctf_refinement.phase_fit import EvenSums, OddSums
from cryorefine.refine.ctf_refinement.signal import Signal
from cryorefine.refine.slicing import slices

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}
# Step of the numerical gradient in Fourier pixels: the particle fills the box, so its transform bends
# within a pixel.
_STEP = 0.25

Blocks = dict[int, list[F64]]


def _gain(compared: Compared, signal: Signal, group: int) -> tuple[F64, F64]:
    """Return slope and 1 / sigma2 of each pixel, 0 where nothing is compared."""
    shell = np.minimum(compared.plane.plane.shell, signal.sigma2.shape[1] - 1)
    inverse = np.where(compared.plane.compared, 1 / signal.sigma2[group, shell], 0.0)
    return signal.slope[group, shell], inverse


def pixel_weights(compared: Compared, signal: Signal, group: int) -> tuple[F32, F32]:
    """Return what turns Re(conj(V) X) and the power of V into log-likelihoods, shape (pixels,) each."""
    slope, inverse = _gain(compared, signal, group)
    return (slope * inverse).astype(np.float32), (slope**2 * inverse).astype(np.float32)


def _by_block(comparison: Comparison, results: Iterator[F64], done: Callable[[int], None]) -> Blocks:
    """Add chunks' sums up by optics group and block; groups without particles have none."""
    sums: dict[int, dict[int, F64]] = {}
    particles = comparison.particles
    for count, (chunk, values) in enumerate(zip(comparison.chunks, results, strict=True), 1):
        blocks = sums.setdefault(particles.views[chunk.view].optics, {})
        if chunk.block in blocks:
            blocks[chunk.block] += values
        else:
            blocks[chunk.block] = values
        done(count)
    return {group: [blocks[b] for b in sorted(blocks)] for group, blocks in sorted(sums.items())}


def odd_sums(
    comparison: Comparison, signal: Signal, done: Callable[[int], None] = lambda count: None
) -> dict[int, list[OddSums]]:
    """Return the sums for odd aberrations of each optics group and block."""
    group = np.array([v.optics for v in comparison.particles.views])
    blocks = _by_block(comparison, comparison.each(_odd_chunk, signal, group), done)
    return {g: [OddSums(b[0] + 1j * b[1], b[2]) for b in parts] for g, parts in blocks.items()}


def _odd_chunk(compared: Compared, signal: Signal, group: NDArray[np.int64]) -> F64:
    linear, quadratic = pixel_weights(compared, signal, int(group[compared.chunk.view]))
    result = np.zeros((3, len(linear)))
    weight = signal.weight[compared.chunk.particles].astype(np.float32)
    if compared.on_gpu:
        arrays = compared.there(compared.slice, compared.image, compared.transfer(), weight)
        result += to_host(dense.odd_sums(compared.operations.xp, arrays))
    else:
        _add_odd(compared.slice, compared.image, compared.transfer(), weight, result)
    result[:2] *= linear
    result[2] *= quadratic
    return result


@njit(**_FAST)
def _add_odd(prediction: C64, image: C64, transfer: F32, weight: F32, out: F64) -> None:
    for i in range(image.shape[0]):
        for p in range(image.shape[1]):
            v, x, c = prediction[i, p], image[i, p], transfer[i, p]
            w = weight[i] * c
            out[0, p] += w * (v.real * x.real + v.imag * x.imag)
            out[1, p] += w * (v.real * x.imag - v.imag * x.real)
            out[2, p] += w * c * (v.real * v.real + v.imag * v.imag)


def even_sums(
    comparison: Comparison, signal: Signal, done: Callable[[int], None] = lambda count: None
) -> dict[int, list[EvenSums]]:
    """Return the sums for even aberrations of each optics group and block."""
    group = np.array([v.optics for v in comparison.particles.views])
    blocks = _by_block(comparison, comparison.each(_even_chunk, signal, group), done)
    return {g: [EvenSums(b[:2], b[2:]) for b in parts] for g, parts in blocks.items()}


def _even_chunk(compared: Compared, signal: Signal, group: NDArray[np.int64]) -> F64:
    linear, quadratic = pixel_weights(compared, signal, int(group[compared.chunk.view]))
    sine, cosine = compared.sine_and_cosine(even=False)
    envelope = compared.operations.array(_envelope(compared))
    sine *= envelope
    cosine *= envelope
    result = np.zeros((5, len(linear)))
    weight = signal.weight[compared.chunk.particles].astype(np.float32)
    image = compared.without_odd_aberrations()
    if compared.on_gpu:
        arrays = compared.there(compared.slice, image, sine, cosine, weight)
        result += to_host(dense.even_sums(compared.operations.xp, arrays))
    else:
        _add_even(compared.slice, image, sine, cosine, weight, result)
    result[:2] *= linear
    result[2:] *= quadratic
    return result


def _envelope(compared: Compared) -> F32:
    b, scale = compared.ctf.column("b_factor"), compared.ctf.column("scale")
    if not np.any(b):
        return scale[:, None].astype(np.float32)
    return (scale[:, None] * np.exp(-b[:, None] / 4 * compared.plane.square)).astype(np.float32)


@njit(**_FAST)
def _add_even(prediction: C64, image: C64, sine: F32, cosine: F32, weight: F32, out: F64) -> None:
    for i in range(image.shape[0]):
        for p in range(image.shape[1]):
            v, x, s, c = prediction[i, p], image[i, p], sine[i, p], cosine[i, p]
            cross = weight[i] * (v.real * x.real + v.imag * x.imag)
            power = weight[i] * (v.real * v.real + v.imag * v.imag)
            out[0, p] -= s * cross
            out[1, p] -= c * cross
            out[2, p] += s * s * power
            out[3, p] += s * c * power
            out[4, p] += c * c * power


def displacement_sums(
    comparison: Comparison, signal: Signal, done: Callable[[int], None] = lambda count: None
) -> dict[int, list[F64]]:
    """Return what is known of each pixel's displacement d, by optics group and block.

    With the gradient g of the prediction, b = Re(conj(g) (X - prediction)) is expected to be E d. Gradients
    hold noise. That of the images themselves would pass for displacements, so g is of the other half set's
    reference; and noise of g with itself would make E too large and d too small, so E is Re(conj(g) h) with
    the gradient h that the particles' own half set gives.

    Each of shape (8, pixels): V_xx, V_xy, V_yy, the covariance of b; b_x, b_y; E_xx, E_xy, E_yy. In Fourier
    pixels after the magnification matrix.
    """
    group = np.array([v.optics for v in comparison.particles.views])
    padding, reliability = comparison.frame.padding, comparison.reliability
    results = comparison.each(_displacement_chunk, signal, group, padding, reliability, comparison.scale)
    return _by_block(comparison, results, done)


def moved_plane(compared: Compared) -> tuple[F64, F64]:
    """Return the pixels' indices (x, y) after the magnification matrix."""
    edge = compared.optics.box * compared.optics.pixel_size
    return compared.plane.x * edge, compared.plane.y * edge


def _displacement_chunk(
    compared: Compared,
    signal: Signal,
    group: NDArray[np.int64],
    padding: float,
    reliability: F64,
    scale: F64,
) -> F64:
    slope, inverse = _gain(compared, signal, int(group[compared.chunk.view]))
    shell = np.minimum(compared.plane.plane.shell, len(reliability) - 1)
    where, xp = compared.operations, compared.operations.xp
    transfer = compared.transfer()
    (x_re, x_im), (y_re, y_im) = _gradient(compared, compared.other, padding)
    (u_re, u_im), (v_re, v_im) = _gradient(compared, compared.own, padding)
    gain = transfer * where.array(slope.astype(np.float32))
    rest = where.array(compared.without_odd_aberrations()) - gain * where.array(compared.slice)
    power = gain**2
    whole = scale[group[compared.chunk.view]] / np.maximum(reliability, 0.02)
    mixed = gain * transfer * where.array(whole[shell].astype(np.float32))
    products = (
        power * (x_re**2 + x_im**2),
        power * (x_re * y_re + x_im * y_im),
        power * (y_re**2 + y_im**2),
        gain * (x_re * rest.real + x_im * rest.imag),
        gain * (y_re * rest.real + y_im * rest.imag),
        mixed * (x_re * u_re + x_im * u_im),
        0.5 * mixed * (x_re * v_re + x_im * v_im + y_re * u_re + y_im * u_im),
        mixed * (y_re * v_re + y_im * v_im),
    )
    weight = where.array(signal.weight[compared.chunk.particles])
    return np.asarray(to_host(xp.stack([weight @ product for product in products])) * inverse)


def _gradient(compared: Compared, volume: C64, padding: float) -> list[tuple[F32, F32]]:
    """Return gradients of slices along x and y there, per Fourier pixel after the magnification matrix."""
    x, y = moved_plane(compared)
    embedded = np.eye(3)
    embedded[:2, :2] = np.reshape(compared.optics.magnification, (2, 2)).T
    matrices = np.linalg.inv(embedded) @ compared.matrices
    scale = np.float32(compared.plane.area / (2 * _STEP))
    volume = compared.operations.volume(volume)
    gradient = []
    for dx, dy in ((_STEP, 0.0), (0.0, _STEP)):
        sides = []
        for sign in (1, -1):
            kx, ky = (x + sign * dx).astype(np.float32), (y + sign * dy).astype(np.float32)
            plane = replace(compared.plane.plane, kx=kx, ky=ky)
            sides.append(slices(volume, matrices, plane, padding, compared.operations))
        (a_re, a_im), (b_re, b_im) = sides
        gradient.append(((a_re - b_re) * scale, (a_im - b_im) * scale))
    return gradient
