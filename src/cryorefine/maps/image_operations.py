"""Operations on maps and images: edges, shifts, flips, symmetry, filters, spectra, subtraction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.symmetry import point_group
from cryorefine.maps import filters, fourier
from cryorefine.maps.shells import (
    apply_gain,
    cross_sums,
    logical_indices,
    radial_average,
    radial_sums,
    radius_table,
    shell_index,
    shell_table,
    voxels_by_squared_radius,
)

AXES = {"X": -1, "Y": -2, "Z": -3}
"""Where x, y and z are among the axes of an array (z, y, x) or (y, x)."""

_NO_DIVISOR = 1e-10


def divide(image: NDArray[Any], divisor: NDArray[Any]) -> NDArray[Any]:
    """Divide voxel by voxel; 0 where the divisor is (nearly) 0."""
    usable = np.abs(divisor) >= _NO_DIVISOR
    return np.divide(image, divisor, out=np.zeros_like(image), where=usable)


def flip(image: NDArray[Any], axis: str) -> NDArray[Any]:
    """Turn the order of voxels along "X", "Y" or "Z" round: index i goes to N - 1 - i."""
    return np.flip(image, AXES[axis])


def repeat_edges(image: NDArray[Any], first: tuple[int, int], last: tuple[int, int]) -> NDArray[Any]:
    """Fill an image outside two pixels (y, x), its new corners, with the rows and columns of these.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (y, x).
    first, last : tuple of int
        First and last row and column that stay as they are; beyond the image they do nothing.
    """
    result = image
    for axis, length in enumerate(image.shape):
        inside = np.arange(length).clip(first[axis], last[axis])
        result = np.take(result, inside.clip(0, length - 1), axis)
    return result


def move(image: NDArray[Any], offset: tuple[float, ...]) -> NDArray[Any]:
    """Move the content by (z, y, x) or (y, x) pixels, linearly interpolated; what comes in is 0."""
    from scipy import ndimage

    return ndimage.shift(image, offset, order=1, mode="constant", cval=0.0)


def centre_of_mass(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the centre of mass of the positive values from ``floor(N / 2)``, in the order of axes."""
    positive = np.maximum(image, 0)
    total = float(positive.sum(dtype=np.float64))
    if total <= 0:
        return np.zeros(image.ndim)
    centre = []
    for axis, length in enumerate(image.shape):
        others = tuple(a for a in range(image.ndim) if a != axis)
        profile = positive.sum(axis=others, dtype=np.float64)
        centre.append(float(profile @ (np.arange(length) - length // 2)) / total)
    return np.array(centre)


def one_way_lowpass(
    image: NDArray[Any],
    pixel_size: float,
    resolution: float,
    axis: str,
    edge_width: int = 2,
    threads: int = 0,
) -> NDArray[Any]:
    """Low-pass filter along "X", "Y" or "Z" alone."""
    size = image.shape[AXES[axis]]
    length = size // 2 + 1 if axis == "X" else size
    radius = np.abs(logical_indices(size)[:length]).astype(np.float64)
    gain = filters.lowpass_gain(radius, size, pixel_size, resolution, edge_width)
    spectrum = fourier.forward(image, threads)
    spectrum *= gain.astype(spectrum.real.dtype).reshape(-1, *[1] * (-AXES[axis] - 1))
    return fourier.inverse(spectrum, image.shape[-1], threads, overwrite=True)


def blob_filter(image: NDArray[Any], pixel_size: float, diameter: float, threads: int = 0) -> NDArray[Any]:
    """Filter with the Laplacian of a Gaussian, whose response is best for blobs of a diameter in A.

    The gain is r^2 exp(-r^2 / (2 sigma^2)) / sigma^2 with sigma = N pixel_size / (2 diameter), for the
    radius r in Fourier pixels.
    """
    size = image.shape[-1]
    squared = radius_table(size, image.ndim) ** 2
    variance = (0.5 * size * pixel_size / diameter) ** 2
    return filters.apply_filter(image, squared * np.exp(-0.5 * squared / variance) / variance, threads)


def symmetrise(volume: NDArray[Any], group: str) -> NDArray[Any]:
    """Average a map (z, y, x) over its copies rotated by a point group, with trilinear interpolation.

    Raises
    ------
    UserError
        When there is no such group.
    """
    from scipy import ndimage

    centre = np.array([n // 2 for n in volume.shape], dtype=np.float64)
    result = np.zeros(volume.shape, dtype=np.float64)
    operators = point_group(group).operators
    for operator in operators:
        # Of (x, y, z), to act on (z, y, x). Rounded, so that a quarter turn stays within the box.
        matrix = np.round(operator[::-1, ::-1], 12)
        result += ndimage.affine_transform(
            volume, matrix, offset=centre - matrix @ centre, order=1, mode="constant", cval=0.0
        )
    return (result / len(operators)).astype(volume.dtype)


def power_spectrum(image: NDArray[Any], threads: int = 0) -> NDArray[np.float64]:
    """Return the mean of |F|^2 in shells 0..size/2, shape (size // 2 + 1,)."""
    return radial_average(np.abs(fourier.forward(image, threads)) ** 2, threads)


def match_power(image: NDArray[Any], other: NDArray[Any], threads: int = 0) -> NDArray[Any]:
    """Give an image the mean amplitude of another in every shell, as far as the corners."""
    shells = shell_table(image.shape[-1], image.ndim)
    bins = int(shells[-1]) + 1
    spectrum = fourier.forward(image, threads)
    own, _ = radial_sums(spectrum, shells, bins, threads)
    wanted, _ = radial_sums(fourier.forward(other, threads), shells, bins, threads)
    ratio = np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)
    return fourier.inverse(
        apply_gain(spectrum, ratio[shells], threads), image.shape[-1], threads, overwrite=True
    )


def phase_cosine(first: NDArray[Any], second: NDArray[Any], threads: int = 0) -> NDArray[np.float64]:
    """Return the mean cosine of the phase difference of two maps in shells 0..size/2."""
    spectra = [fourier.forward(image, threads) for image in (first, second)]
    for spectrum in spectra:
        modulus = np.abs(spectrum)
        np.divide(spectrum, modulus, out=spectrum, where=modulus > 0)
    size, ndim = first.shape[-1], first.ndim
    counts = np.bincount(shell_table(size, ndim), voxels_by_squared_radius(size, ndim))
    return cross_sums(spectra[0], spectra[1], threads)[0] / counts[: size // 2 + 1]


class MeanAmplitudes:
    """Mean amplitude, or power, of each Fourier component of many images.

    Parameters
    ----------
    squared : bool
        Whether amplitudes are squared.
    threads : int
        0 for every core.
    """

    def __init__(self, squared: bool, threads: int = 0) -> None:
        self._squared, self._threads = squared, threads
        self._sum, self._count = np.zeros(()), 0

    def add(self, image: NDArray[Any], psi: float = 0.0) -> None:
        """Add an image, (y, x) or (z, y, x); one of two axes may be turned by ``psi`` degrees first."""
        turned = turn(image, psi) if psi else image
        modulus = np.abs(fourier.forward(turned, self._threads)).astype(np.float64)
        self._sum = self._sum + (modulus**2 if self._squared else modulus)
        self._count += 1

    def result(self) -> NDArray[np.float32]:
        """Return the mean, shape (..., y, x // 2 + 1), scaled as by :func:`.fourier.forward`."""
        return (self._sum / max(self._count, 1)).astype(np.float32)


def turn(image: NDArray[Any], psi: float) -> NDArray[Any]:
    """Turn an image (y, x) about its centre by the in-plane angle ``psi`` in degrees, linearly interpolated.

    The result is what the particle looks like at an angle of 0; what comes in from outside is 0.
    """
    from scipy import ndimage

    cosine, sine = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([n // 2 for n in image.shape])
    return ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1, mode="constant")


def even_out_amplitudes(
    image: NDArray[Any], amplitudes: NDArray[Any], least: int = 0, threads: int = 0
) -> NDArray[Any]:
    """Divide each Fourier component by its mean amplitude, and multiply by the mean of these in the shell.

    Parameters
    ----------
    image : numpy.ndarray
        Square (y, x) or cubic (z, y, x).
    amplitudes : numpy.ndarray
        Half-complex (:class:`MeanAmplitudes`), shape (..., y, x // 2 + 1).
    least : int
        Shells up to this one stay as they are; 0 for none but the origin.
    threads : int
        0 for every core.
    """
    spectrum = fourier.forward(image, threads)
    shells = shell_index(image.shape)
    mean = np.bincount(shells.ravel(), amplitudes.ravel()) / np.bincount(shells.ravel())
    usable = (shells > least) & (amplitudes > 0)
    factor = np.divide(mean[shells], amplitudes, out=np.ones(shells.shape), where=usable)
    spectrum *= factor.astype(spectrum.real.dtype)
    return fourier.inverse(spectrum, image.shape[-1], threads, overwrite=True)


def filter_by_image(image: NDArray[Any], gain: NDArray[Any], threads: int = 0) -> NDArray[Any]:
    """Multiply a Fourier transform by a gain of the image's shape, whose centre voxel is the origin."""
    spectrum = fourier.forward(image, threads)
    spectrum *= np.fft.ifftshift(gain)[..., : spectrum.shape[-1]].astype(spectrum.real.dtype)
    return fourier.inverse(spectrum, image.shape[-1], threads, overwrite=True)


def on_square(
    operation: Callable[[NDArray[Any]], NDArray[Any]], image: NDArray[Any], fill: float
) -> NDArray[Any]:
    """Pad a rectangular image to a square, apply an operation that may rescale it, and cut it back.

    Parameters
    ----------
    operation : callable
        Takes and returns a square image.
    image : numpy.ndarray
        Shape (y, x).
    fill : float
        Value of what is added.

    Returns
    -------
    numpy.ndarray
        The rectangle that the image has become; rescaled sides are rounded, then down to even ones.
    """
    side = max(image.shape)
    result = operation(fourier.window(image, (side, side), fill))
    new = len(result)
    if new == side:
        return fourier.window(result, image.shape)
    sides = (int(np.floor(length * new / side + 0.5)) // 2 * 2 for length in image.shape)
    return fourier.window(result, tuple(max(length, 2) for length in sides))


def best_scale(image: NDArray[Any], other: NDArray[Any], mask: NDArray[Any] | None = None) -> float:
    """Return the factor by which ``other`` comes nearest to ``image``, voxels weighted with mask^2."""
    weighted = other.astype(np.float64) if mask is None else other * mask.astype(np.float64) ** 2
    norm = float(np.vdot(weighted, other))
    return float(np.vdot(weighted, image)) / norm if norm > 0 else 0.0


def best_subtraction(
    image: NDArray[Any],
    other: NDArray[Any],
    pixel_size: float,
    b_range: float = 0.0,
    mask: NDArray[Any] | None = None,
    threads: int = 0,
) -> tuple[NDArray[Any], float, float]:
    """Subtract another image with the factor, and the B-factor, that leave the least.

    Parameters
    ----------
    image, other, mask : numpy.ndarray
        Same shape.
    pixel_size : float
        A/px.
    b_range : float
        B-factors from -range to range are tried in steps of 10 A^2; 0 for none.
    threads : int
        0 for every core.

    Returns
    -------
    difference : numpy.ndarray
        What is left.
    scale, b_factor : float
        What ``other`` was multiplied by and sharpened with.
    """
    spectrum = fourier.forward(other, threads) if b_range > 0 else None
    size = image.shape[-1]
    best: tuple[float, NDArray[Any], float, float] | None = None
    for b_factor in np.arange(-b_range, b_range + 1e-6, 10.0) if b_range > 0 else [0.0]:
        candidate = other
        if spectrum is not None and b_factor != 0:
            gain = filters.bfactor_gain(radius_table(size, image.ndim), size, pixel_size, b_factor)
            candidate = fourier.inverse(apply_gain(spectrum.copy(), gain, threads), size, threads)
        scale = best_scale(image, candidate, mask)
        difference = image - image.dtype.type(scale) * candidate
        weighted = difference if mask is None else difference * mask
        left = float(np.vdot(weighted, weighted))
        if best is None or left < best[0]:
            best = left, difference, scale, float(b_factor)
    assert best is not None
    return best[1], best[2], best[3]
