"""A small tomogram of a tilt series, to look at: weighted back-projection in real space.

Radermacher (1992), in Electron Tomography (ed. Frank), chapter 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.fourier import forward_cropped, inverse

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def back_project(
    images: NDArray[np.floating], rotations: F64, shifts: F64, shape: tuple[int, int, int], binning: int
) -> F32:
    """Return a tomogram whose voxel i lies at voxel i times the binning of the unbinned one.

    Parameters
    ----------
    images : ndarray, shape (tilts, size, size)
        Tilt images; the size is an even multiple of the binning.
    rotations : ndarray, shape (tilts, 3, 3)
        From the tomogram's frame to the images', acting on x, y, z.
    shifts : ndarray, shape (tilts, 2)
        x and y in unbinned pixels by which the specimen lies off the middle of each image.
    shape : tuple of int
        Of the binned tomogram, z, y, x.
    binning : int
        Unbinned pixels per voxel.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        The mean of the images' filtered values along the beams; 0 outside the images.
    """
    from scipy.ndimage import map_coordinates

    size = images.shape[-1]
    small = size // binning
    z, y, x = (np.arange(n, dtype=np.float32) - n // 2 for n in shape)
    tomogram = np.zeros(shape, np.float32)
    for image, rotation, shift in zip(images, rotations, shifts, strict=True):
        filtered = _ramp(np.asarray(image, np.float32), small, rotation)
        row, column = (
            rotation[axis, 0] * x
            + rotation[axis, 1] * y[:, None]
            + rotation[axis, 2] * z[:, None, None]
            + shift[axis] / binning
            + small // 2
            for axis in (1, 0)
        )
        tomogram += map_coordinates(filtered, (row, column), order=1, output=np.float32)
    return tomogram / np.float32(len(images))


def _ramp(image: F32, small: int, rotation: F64) -> F32:
    """Bin an image, weight its frequencies by their distance from the tilt axis, and set the mean to 0."""
    spectrum = forward_cropped(image, small, threads=1)
    # The tilt axis is the tomogram's y axis as the image shows it.
    along = rotation[:2, 1] / np.linalg.norm(rotation[:2, 1])
    ky, kx = np.fft.fftfreq(small)[:, None], np.arange(small // 2 + 1) / small
    spectrum *= 2 * np.abs(kx * along[1] - ky * along[0])
    spectrum[0, 0] = 0
    return inverse(spectrum, small, threads=1).astype(np.float32)
