"""Where particles lie in the images of a tilt series, and what contrast transfer they have there.

Positions are tomogram coordinates (x, y, z) in px of the tilt images, counted from the tomogram's first
voxel. Orientations: ``tomogram = A_sub @ A_particle @ reference``, both factors matrices of Euler angles
as in :mod:`cryorefine.geometry.euler`, and a tilt image sees the particle's frame through
``R = P[:3, :3] @ A_sub``. So its orientation for the slice rule is ``R @ A_particle``, and a shift of the
particle in its own frame moves the image by the first two rows of R.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.ctf.ctf import CtfParameters, dose_weight
from cryorefine.io.tomograms import TiltSeries
from cryorefine.tomo.deformation import deform

F64 = NDArray[np.float64]


def tomogram_positions(series: TiltSeries, centred: F64, offsets: F64, sub_rotations: F64) -> F64:
    """Return the positions of particles from centred coordinates and offsets.

    Parameters
    ----------
    series : TiltSeries
        The tilt series of all of them.
    centred : ndarray, shape (n, 3)
        rlnCenteredCoordinateX/Y/ZAngst, in A from the tomogram's centre.
    offsets : ndarray, shape (n, 3)
        rlnOriginX/Y/ZAngst in A, in the particle's frame; zeros to leave them out.
    sub_rotations : ndarray, shape (n, 3, 3)
        A_sub.

    Returns
    -------
    ndarray, shape (n, 3)
        Pixels from the first voxel.
    """
    moved = centred - np.einsum("nij,nj->ni", sub_rotations, offsets)
    return moved / series.pixel_size + series.centre


def project(series: TiltSeries, positions: F64) -> tuple[F64, F64]:
    """Project positions into every tilt image.

    Parameters
    ----------
    series : TiltSeries
        The tilt series.
    positions : ndarray, shape (n, 3) or (n, tilts, 3)
        Positions in px, the same for all tilts or one for each (trajectories).

    Returns
    -------
    centres : ndarray, shape (n, tilts, 2)
        (x, y) in the tilt images in px; a pixel's centre is a whole number.
    depths : ndarray, shape (n, tilts)
        Depth in px along the beam, relative to the tomogram's centre.
    """
    rotation, origin = series.projections[:, :3, :3], series.projections[:, :3, 3]
    if positions.ndim == 2:
        projected = np.einsum("tij,nj->nti", rotation, positions) + origin
    else:
        projected = np.einsum("tij,ntj->nti", rotation, positions) + origin
    centre = rotation[:, 2] @ series.centre + origin[:, 2]
    centres = np.ascontiguousarray(projected[..., :2])
    if series.deformation is not None and series.image_size is not None:
        centres = deform(series.deformation, series.image_size, centres)
    return centres, projected[..., 2] - centre


def visible_images(
    series: TiltSeries, centres: F64, radius: float, max_dose: float | None = None
) -> NDArray[np.bool_]:
    """Tell in which images particles lie wholly, before too much dose.

    Parameters
    ----------
    series : TiltSeries
        The tilt series, with the size of its images.
    centres : ndarray, shape (n, tilts, 2)
        Projected centres in px.
    radius : float
        Half the box in px of the tilt images; a centre must be further than that from all edges.
    max_dose : float, optional
        Images that began with more electrons per A^2 than this are left out.

    Returns
    -------
    ndarray of bool, shape (n, tilts)
    """
    if series.image_size is None:
        raise ValueError("the size of the tilt images is unknown; read the tomograms with images=True")
    size = np.array(series.image_size)
    inside = np.all((centres > radius) & (centres < size - radius), axis=-1)
    if max_dose is not None:
        inside &= series.dose <= max_dose
    return inside


def image_rotations(series: TiltSeries, sub_rotations: F64) -> F64:
    """Return the rotations from particles' frames to the tilt images, shape (n, tilts, 3, 3)."""
    return np.einsum("tij,njk->ntik", series.projections[:, :3, :3], sub_rotations)


def image_ctf(series: TiltSeries, depths: F64, *, damped: bool = False) -> CtfParameters:
    """Return the contrast transfer of particles in every tilt image.

    Defocus changes by ``hand * slope * pixel size * depth`` along the beam.

    Parameters
    ----------
    series : TiltSeries
        The tilt series.
    depths : ndarray, shape (n, tilts)
        Depth in px, from :func:`project`.
    damped : bool
        Whether the dose before each image damps the CTF; otherwise see :func:`dose_weights`.

    Returns
    -------
    CtfParameters
        Of n * tilts images, the tilts of a particle one after the other.
    """
    count = len(depths)
    change = series.hand * series.defocus_slope * series.pixel_size * depths
    b_factor, dose = series.b_factor, np.zeros(len(series))
    if damped and series.dose_b_factor > 0:
        b_factor = b_factor + series.dose_b_factor * series.dose
    elif damped:
        dose = series.dose
    return CtfParameters(
        voltage=series.voltage,
        spherical_aberration=series.spherical_aberration,
        amplitude_contrast=series.amplitude_contrast,
        defocus_u=(series.defocus_u + change).ravel(),
        defocus_v=(series.defocus_v + change).ravel(),
        defocus_angle=np.tile(series.defocus_angle, count),
        phase_shift=np.tile(series.phase_shift, count),
        b_factor=np.tile(b_factor, count),
        scale=np.tile(series.scale, count),
        dose=np.tile(dose, count),
    )


def dose_weights(series: TiltSeries, frequency: ArrayLike) -> F64:
    """Return what the dose before each tilt image has left of the signal.

    The empirical curve of :func:`cryorefine.ctf.ctf.dose_weight`, or ``exp(-B dose u^2 / 4)`` where the
    tomogram has a B-factor for each electron (rlnCtfBfactorPerElectronDose).

    Parameters
    ----------
    series : TiltSeries
        The tilt series.
    frequency : array_like, shape (pixels,)
        Spatial frequency u in 1/A.

    Returns
    -------
    ndarray, shape (tilts, pixels)
    """
    u = np.asarray(frequency, dtype=np.float64)
    if series.dose_b_factor > 0:
        return np.exp(-series.dose_b_factor / 4 * series.dose[:, None] * u**2)
    return dose_weight(u, series.dose[:, None])
