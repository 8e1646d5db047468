"""Euler angles (rot, tilt, psi) in degrees and the rotation matrices they stand for.

The matrix A of (rot, tilt, psi) takes reference coordinates to view coordinates, components in
the order (x, y, z): ``view = A @ reference``. The projection runs along the view's z axis, so a
projection is the central slice of the reference's transform at ``A.T @ (kx, ky, 0)`` and its
viewing direction is the third row of A.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Below this sine of the tilt the rounding of float64 matrices blurs rot and psi, not their sum.
_POLE = 1e-7


def matrices(rot: ArrayLike, tilt: ArrayLike, psi: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation matrices of ZYZ Euler angles.

    First rot about z, then tilt about the new y, then psi about the new z. In SciPy's terms,
    ``Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix()`` is the transpose.

    Parameters
    ----------
    rot, tilt, psi : array_like
        Angles in degrees; they are broadcast against each other to one shape ``s``.

    Returns
    -------
    ndarray of float64, shape (*s, 3, 3)
        Matrices A, reference (x, y, z) to view (x, y, z).
    """
    phi, theta, chi = np.broadcast_arrays(
        np.deg2rad(np.asarray(rot, dtype=np.float64)),
        np.deg2rad(np.asarray(tilt, dtype=np.float64)),
        np.deg2rad(np.asarray(psi, dtype=np.float64)),
    )
    cos_rot, sin_rot = np.cos(phi), np.sin(phi)
    cos_tilt, sin_tilt = np.cos(theta), np.sin(theta)
    cos_psi, sin_psi = np.cos(chi), np.sin(chi)

    result = np.empty((*phi.shape, 3, 3))
    result[..., 0, 0] = cos_psi * cos_tilt * cos_rot - sin_psi * sin_rot
    result[..., 0, 1] = cos_psi * cos_tilt * sin_rot + sin_psi * cos_rot
    result[..., 0, 2] = -cos_psi * sin_tilt
    result[..., 1, 0] = -sin_psi * cos_tilt * cos_rot - cos_psi * sin_rot
    result[..., 1, 1] = -sin_psi * cos_tilt * sin_rot + cos_psi * cos_rot
    result[..., 1, 2] = sin_psi * sin_tilt
    result[..., 2, 0] = sin_tilt * cos_rot
    result[..., 2, 1] = sin_tilt * sin_rot
    result[..., 2, 2] = cos_tilt
    return result


def angles(
    rotation_matrices: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the Euler angles of rotation matrices; the inverse of :func:`matrices`.

    Parameters
    ----------
    rotation_matrices : array_like, shape (*s, 3, 3)
        Rotation matrices A, reference to view.

    Returns
    -------
    rot, tilt, psi : ndarray of float64, shape s
        Degrees; rot and psi in [-180, 180], tilt in [0, 180]. Where the viewing direction is
        along z, only rot + psi or psi - rot is defined: rot is 0 there and psi holds it all.
    """
    a = np.asarray(rotation_matrices, dtype=np.float64)
    sin_tilt = np.hypot(a[..., 2, 0], a[..., 2, 1])
    at_pole = sin_tilt < _POLE
    rot = np.where(at_pole, 0.0, np.arctan2(a[..., 2, 1], a[..., 2, 0]))
    tilt = np.arctan2(sin_tilt, a[..., 2, 2])
    psi = np.where(
        at_pole,
        np.arctan2(a[..., 0, 1], a[..., 1, 1]),
        np.arctan2(a[..., 1, 2], -a[..., 0, 2]),
    )
    return np.rad2deg(rot), np.rad2deg(tilt), np.rad2deg(psi)


def view_directions(rot: ArrayLike, tilt: ArrayLike) -> NDArray[np.float64]:
    """Return unit vectors of viewing directions, the third rows of the matrices.

    Parameters
    ----------
    rot, tilt : array_like
        Angles in degrees, broadcast to one shape ``s``.

    Returns
    -------
    ndarray of float64, shape (*s, 3)
        Components (x, y, z) in the reference's frame.
    """
    phi = np.deg2rad(np.asarray(rot, dtype=np.float64))
    theta = np.deg2rad(np.asarray(tilt, dtype=np.float64))
    sin_tilt = np.sin(theta)
    return np.stack(
        np.broadcast_arrays(sin_tilt * np.cos(phi), sin_tilt * np.sin(phi), np.cos(theta)), axis=-1
    )
