"""The sphere of directions as something to look at: a Mollweide map, and a mesh of triangles.

Values on the sphere are arrays over all HEALPix pixels of an order, in NEST order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.geometry import healpix
from cryorefine.geometry.euler import view_directions

F64 = NDArray[np.float64]


def order_of(values: ArrayLike) -> int:
    """Return the HEALPix order of an array over all pixels of the sphere.

    Raises
    ------
    ValueError
        If its length is not 12 * 4**order.
    """
    length = len(np.asarray(values))
    order = max(0, round(np.log2(max(length, 1) / 12) / 2))
    if length != 12 * 4**order:
        raise ValueError(f"{length} values are not a whole HEALPix sphere")
    return order


def mollweide_position(rot: ArrayLike, tilt: ArrayLike) -> tuple[F64, F64]:
    """Return where directions lie on a Mollweide map.

    The map is equal in area and shows the sphere from outside, with rot 0 in the middle and growing
    to the right, and tilt 0 (+z) at the top (Snyder 1987, Map Projections, USGS paper 1395, p. 251).

    Parameters
    ----------
    rot, tilt : array_like
        Degrees.

    Returns
    -------
    across, up : ndarray of float64
        Within [-2, 2] and [-1, 1].
    """
    longitude = (np.asarray(rot, np.float64) + 180) % 360 - 180
    latitude = np.deg2rad(90 - np.asarray(tilt, np.float64))
    # Newton's steps for 2t + sin 2t = pi sin(latitude); at the poles the slope vanishes.
    t = latitude.copy() if latitude.ndim else np.array(latitude)
    for _ in range(60):
        slope = np.maximum(2 + 2 * np.cos(2 * t), 1e-12)
        t = np.clip(t - (2 * t + np.sin(2 * t) - np.pi * np.sin(latitude)) / slope, -np.pi / 2, np.pi / 2)
    return longitude / 90 * np.cos(t), np.sin(t)


@lru_cache(maxsize=8)
def mollweide_pixels(order: int, width: int = 720) -> NDArray[np.int64]:
    """Return which HEALPix pixel each point of a Mollweide map shows.

    Parameters
    ----------
    order : int
        HEALPix order.
    width : int
        Width of the picture; it is half as high.

    Returns
    -------
    ndarray of int64, shape (width // 2, width)
        NEST pixel numbers, -1 outside the ellipse; the first row is the top (tilt 0). Read-only.
    """
    up, across = np.meshgrid(
        1 - (np.arange(width // 2) + 0.5) / (width // 2) * 2,
        (np.arange(width) + 0.5) / width * 4 - 2,
        indexing="ij",
    )
    t = np.arcsin(up)
    latitude = np.arcsin(np.clip((2 * t + np.sin(2 * t)) / np.pi, -1, 1))
    rot = across * 90 / np.cos(t)
    inside = np.abs(rot) < 180
    pixels = np.full(up.shape, -1, np.int64)
    pixels[inside] = healpix.nearest_pixels(rot[inside], 90 - np.rad2deg(latitude[inside]), order)
    pixels.setflags(write=False)
    return pixels


def mollweide_image(values: ArrayLike, width: int = 720) -> F64:
    """Return values on the sphere as a picture, NaN outside the ellipse; see :func:`mollweide_pixels`.

    Parameters
    ----------
    values : array_like, shape (12 * 4**order,)
        One value for each pixel, in NEST order.
    width : int
        Width of the picture; it is half as high.
    """
    pixels = mollweide_pixels(order_of(values), width)
    return np.where(pixels >= 0, np.asarray(values, np.float64)[pixels], np.nan)


@lru_cache(maxsize=8)
def sphere_mesh(order: int) -> tuple[F64, NDArray[np.int64]]:
    """Return a closed mesh whose corners are the pixels of a HEALPix order.

    Returns
    -------
    vectors : ndarray of float64, shape (12 * 4**order, 3)
        Unit vectors (x, y, z) of the pixels, in NEST order; read-only.
    triangles : ndarray of int64, shape (m, 3)
        Corners of each triangle, anticlockwise as seen from outside; read-only.
    """
    from scipy.spatial import ConvexHull

    vectors = view_directions(*healpix.directions(order))
    triangles = ConvexHull(vectors).simplices.astype(np.int64)
    a, b, c = (vectors[triangles[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    vectors.setflags(write=False)
    triangles.setflags(write=False)
    return vectors, triangles
