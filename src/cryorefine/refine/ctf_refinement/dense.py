"""The inner sums of a CTF refinement in plain array operations, for a GPU.

Each does for all images of a chunk at once what a compiled kernel does for one pixel after the other; the
tests insist that both agree. Arrays are of the module that comes first, NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any


def places(
    xp: Any, shape: tuple[int, ...], matrices: NDArray[np.float64], kx: Array, ky: Array, padding: float
) -> tuple[Array, tuple[Array, Array, Array], Array]:
    """Return where the points of slices lie in a Fourier volume.

    Parameters
    ----------
    xp : module
        Of the arrays.
    shape : tuple of int
        Of the volume.
    matrices : ndarray, shape (n, 3, 3)
        Orientations.
    kx, ky : array of float32, shape (pixels,)
        Fourier indices.
    padding : float
        Samples of the volume per pixel.

    Returns
    -------
    corner : array of int64, shape (n, pixels)
        Index of the first corner in the flat volume.
    parts : three arrays of float32, shape (n, pixels)
        Parts of a voxel from there along x, y and z.
    mate : array of bool, shape (n, pixels)
        Where the Friedel mate is taken.
    """
    turned = xp.asarray((padding * matrices).astype(np.float32))
    x, y, z = (turned[:, 0, k, None] * kx + turned[:, 1, k, None] * ky for k in range(3))
    mate = x < 0
    sign = xp.where(mate, np.float32(-1), np.float32(1))
    limit = np.float32(shape[0] // 2)
    along = x * sign, y * sign + limit, z * sign + limit
    first = tuple(xp.floor(values).astype(np.int64) for values in along)
    parts = tuple((v - f).astype(np.float32) for v, f in zip(along, first, strict=True))
    corner = (first[2] * shape[1] + first[1]) * shape[2] + first[0]
    return corner, (parts[0], parts[1], parts[2]), mate


def _ends(part: Array, coupling: float = 0.0) -> tuple[Array, Array]:
    """Return the weights of both ends of an interval; squares with a share of their product if coupled."""
    far, near = part, 1 - part
    if not coupling:
        return near, far
    return near * (near + coupling * far), far * (far + coupling * near)


def _gathered(volume: Array, corner: Array, weights: list[tuple[Array, Array]]) -> Array:
    """Sum over the corners of voxels of a flat volume with the weights of both ends along x, y and z."""
    flat, (_, height, width) = volume.reshape(-1), volume.shape
    total: Array = 0
    for z, y, x in product(range(2), repeat=3):
        weight = weights[0][x] * weights[1][y] * weights[2][z]
        total = total + weight * flat[corner + ((z * height + y) * width + x)]
    return total


def without_own(
    xp: Any,
    gain: Array,
    matrices: NDArray[np.float64],
    kx: Array,
    ky: Array,
    padding: float,
    coupling: NDArray[np.float32],
    scale: float,
    own: tuple[Array, Array, Array, Array, Array],
    prediction: Array,
) -> Array:
    """Return slices less what their own images brought to them, as :mod:`.prediction` does it.

    ``own`` are the arrays of :class:`.prediction.Inserted`, in its order.
    """
    image, correction, transfer, weight, inverse_noise = own
    corner, parts, _ = places(xp, gain.shape, matrices, kx, ky, padding)
    ends = [_ends(part, float(mu)) for part, mu in zip(parts, coupling[1:], strict=True)]
    share = _gathered(gain, corner, ends)
    amount = np.float32(scale * coupling[0]) * weight[:, None] * inverse_noise * transfer * share
    rest = xp.maximum(1 - amount * transfer, np.float32(0.1))
    return ((prediction - amount * (image * correction)) / rest).astype(np.complex64)


def cross_and_power(prediction: Array, image: Array) -> tuple[Array, Array]:
    """Return Re(conj(V) X) and the power of V, shape (n, pixels) each."""
    cross = prediction.real * image.real + prediction.imag * image.imag
    return cross, prediction.real * prediction.real + prediction.imag * prediction.imag


def sums_of_products(xp: Any, first: Array, second: Array) -> Array:
    """Sum the products of two arrays of shape (n, pixels) over pixels, in double precision; shape (n,)."""
    if xp is np:
        return np.einsum("np,np->n", first, second, dtype=np.float64)
    return (first.astype(np.float64) * second).sum(axis=1)


def sums_of_groups(xp: Any, values: Array, group: NDArray[np.int32], count: int) -> Array:
    """Sum each row of values (n, pixels) over pixels of one group, shape (n, count)."""
    inside = np.flatnonzero(group < count)
    order = inside[np.argsort(group[inside], kind="stable")]
    edges = np.searchsorted(group[order], np.arange(count + 1))
    running = xp.cumsum(values[:, xp.asarray(order)].astype(np.float64), axis=1)
    running = xp.concatenate([xp.zeros((len(values), 1), np.float64), running], axis=1)
    upper, lower = (running[:, xp.asarray(e)] for e in (edges[1:], edges[:-1]))
    return upper - lower


def shell_sums(xp: Any, arrays: Sequence[Array], shell: NDArray[np.int32], shells: int) -> Array:
    """Return Re(conj(c V) X), |c V|^2 and |X|^2 by shell for each image, shape (3, n, shells).

    ``arrays`` are slices V, images, what undoes their odd aberrations, and CTFs c.
    """
    prediction, image, correction, transfer = arrays
    cross, power = cross_and_power(prediction, image * correction)
    total = image.real * image.real + image.imag * image.imag
    values = (transfer * cross, transfer * transfer * power, total)
    return xp.stack([sums_of_groups(xp, v, shell, shells) for v in values])


def odd_sums(xp: Any, arrays: Sequence[Array]) -> Array:
    """Return real and imaginary part of sum(w c conj(V) X), and sum(w |c V|^2), shape (3, pixels).

    ``arrays`` are slices V, images X, CTFs c and the weights w of the images.
    """
    prediction, image, transfer, weight = arrays
    weighted = weight[:, None] * transfer
    turned = prediction.conj() * image
    _, power = cross_and_power(prediction, image)
    parts = (weighted * turned.real, weighted * turned.imag, weighted * transfer * power)
    return xp.stack([part.sum(axis=0, dtype=np.float64) for part in parts])


def even_sums(xp: Any, arrays: Sequence[Array]) -> Array:
    """Return the five sums over images that even aberrations are fitted to, shape (5, pixels).

    ``arrays`` are slices, images, sine and cosine of gamma with the envelope, and weights of the images.
    """
    prediction, image, sine, cosine, weight = arrays
    cross, power = cross_and_power(prediction, image)
    cross, power = weight[:, None] * cross, weight[:, None] * power
    parts = (-sine * cross, -cosine * cross, sine**2 * power, sine * cosine * power, cosine**2 * power)
    return xp.stack([part.sum(axis=0, dtype=np.float64) for part in parts])


def defocus_sums(xp: Any, arrays: Sequence[Array], group: NDArray[np.int32], count: int) -> Array:
    """Return the four sums over pixels of equal u^2 of :mod:`.defocus`, shape (n, count, 4).

    Parameters
    ----------
    xp : module
        Of the arrays.
    arrays : sequence of array
        Slices and images; coefficients of gamma (5, n) as :func:`cryorefine.ctf.ctf.phase_coefficients`
        gives them; frequencies x and y and the phase of even aberrations (pixels,); and the weights of
        Re(conj(V) X) and of the power of V with the envelope in them.
    group : ndarray of int32, shape (pixels,)
        Which pixels are summed up together.
    count : int
        Number of groups.
    """
    prediction, image, coefficients, x, y, even, linear, quadratic = arrays
    xx, xy, yy, quartic, constant = (c[:, None] for c in coefficients)
    square = x * x + y * y
    gamma = xx * (x * x) + xy * (x * y) + yy * (y * y) + quartic * (square * square) + constant + even
    cross, power = cross_and_power(prediction, image)
    sine, cosine = xp.sin(gamma), xp.cos(gamma)
    a, b = linear * cross, quadratic * power
    return xp.stack([sums_of_groups(xp, v, group, count) for v in _terms(a, b, sine, cosine)], axis=-1)


def _terms(a: Array, b: Array, sine: Array, cosine: Array) -> Iterator[Array]:
    yield -a * sine
    yield -a * cosine
    yield b * (1 - 2 * sine * sine)
    yield b * (2 * sine * cosine)
