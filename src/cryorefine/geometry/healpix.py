"""HEALPix grids of viewing directions (NEST order) and of in-plane angles.

Gorski et al. (2005), ApJ 622:759. Order o has 12 * 4**o directions; the nominal step is
360 / (6 * 2**o) degrees, and the in-plane angle psi is sampled with the same step.
"""

from __future__ import annotations

from functools import lru_cache

import healpix
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.symmetry import point_group

# On the border of an asymmetric unit, in pixel spacings: pixels closer than the first to a mate of
# another are the same pixel twice; directions farther than the second from every mate are a hole.
# The whole grid's own largest distance, at the corner of a pixel, is 0.7 to 0.8.
_DUPLICATE = 0.5
_HOLE = 0.8


def angular_step(order: int) -> float:
    """Return the nominal angular step of an order in degrees (order 2: 15, order 3: 7.5)."""
    return 360.0 / (6 * 2**order)


def pixel_spacing(order: int) -> float:
    """Return the side in degrees of a square as large as one pixel (order 2: 14.66)."""
    return float(np.rad2deg(np.sqrt(4 * np.pi / (12 * 4**order))))


@lru_cache(maxsize=16)
def directions(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the directions of all pixels of an order, in NEST order.

    Returns
    -------
    rot, tilt : ndarray of float64, shape (12 * 4**order,)
        Degrees, rot in (-180, 180], tilt in (0, 180); read-only, computed once for each order.
    """
    theta, phi = healpix.pix2ang(2**order, np.arange(12 * 4**order), nest=True)
    rot = np.rad2deg(phi)
    rot[rot > 180] -= 360
    tilt = np.rad2deg(theta)
    rot.setflags(write=False)
    tilt.setflags(write=False)
    return rot, tilt


def psi_angles(order: int) -> NDArray[np.float64]:
    """Return the coarse in-plane angles of an order in degrees: 0, step, 2 step, ... < 360."""
    return np.arange(6 * 2**order) * angular_step(order)


def nearest_pixels(rot: ArrayLike, tilt: ArrayLike, order: int) -> NDArray[np.int64]:
    """Return the NEST pixel that holds each direction; directions near one another get numbers nearby.

    Parameters
    ----------
    rot, tilt : array_like
        Euler angles in degrees.
    order : int
        HEALPix order.
    """
    theta, phi = np.deg2rad(np.asarray(tilt)), np.deg2rad(np.asarray(rot))
    return np.asarray(healpix.ang2pix(2**order, theta, phi, nest=True), np.int64)


def children(pixels: ArrayLike) -> NDArray[np.int64]:
    """Return the four pixels of the next order that share each pixel's area.

    Parameters
    ----------
    pixels : array_like of int, shape (n,)
        NEST pixel numbers.

    Returns
    -------
    ndarray of int64, shape (n, 4)
        NEST pixel numbers of the order above.
    """
    return 4 * np.asarray(pixels, dtype=np.int64)[..., None] + np.arange(4)


def oversampled_psi(psi: ArrayLike, step: float) -> NDArray[np.float64]:
    """Return the centres of the two halves of each in-plane cell, psi -+ step/4 (degrees).

    Parameters
    ----------
    psi : array_like, shape (n,)
        Centres of the cells in degrees.
    step : float
        Width of a cell in degrees.

    Returns
    -------
    ndarray of float64, shape (n, 2)
    """
    return np.asarray(psi, dtype=np.float64)[..., None] + step * np.array([-0.25, 0.25])


@lru_cache(maxsize=32)
def asymmetric_unit(order: int, group: str = "C1") -> NDArray[np.int64]:
    """Return the pixels that stand for all directions of a symmetric particle.

    A direction d and its mates ``S.T @ d`` look at the particle alike. The unit is the set of
    directions that are closer to one generic point than any of their mates. The grid does not
    share the symmetry, so the unit's border needs mending: a pixel is dropped when a mate of a
    pixel already kept lies within half a pixel, and where pixels outside the unit are farther
    than 0.8 pixels from every mate of a kept one, the farthest of them are added. Without the
    second step all views along the axis of C5, C6, C7... would be missing.

    Parameters
    ----------
    order : int
        HEALPix order.
    group : str
        Name of the point group.

    Returns
    -------
    ndarray of int64, shape (n,)
        NEST pixel numbers in rising order, about 12 * 4**order / len(group) of them; read-only.
    """
    symmetry = point_group(group)
    if len(symmetry) == 1:
        pixels = np.arange(12 * 4**order)
        pixels.setflags(write=False)
        return pixels
    vectors = view_directions(*directions(order))
    spacing = np.deg2rad(pixel_spacing(order))
    centre = _centre_of_unit(symmetry.name)
    mates = vectors @ (symmetry.operators[1:] @ centre).T
    # 1e-9: a pixel exactly on the border belongs to the unit, as does its mate
    pixels = np.flatnonzero(vectors @ centre >= mates.max(axis=1) - 1e-9)
    pixels = pixels[_without_twins(vectors[pixels], symmetry.operators, _DUPLICATE * spacing)]
    pixels = np.union1d(pixels, _holes(vectors, pixels, symmetry.operators, _HOLE * spacing))
    pixels.setflags(write=False)
    return pixels


def _without_twins(
    vectors: NDArray[np.float64], operators: NDArray[np.float64], distance: float
) -> NDArray[np.int64]:
    """Return the rows that are not within a distance of a mate of an earlier row."""
    from scipy.spatial import cKDTree

    tree = cKDTree(vectors)
    twins: dict[int, set[int]] = {}
    for operator in operators[1:]:
        for i, near in enumerate(tree.query_ball_point(vectors @ operator, distance)):
            for j in near:
                if i != j:
                    twins.setdefault(i, set()).add(j)
                    twins.setdefault(j, set()).add(i)
    dropped: set[int] = set()
    for i in sorted(twins):
        if i not in dropped:
            dropped |= twins[i]
    return np.setdiff1d(np.arange(len(vectors)), sorted(dropped))


def _holes(
    vectors: NDArray[np.float64],
    pixels: NDArray[np.int64],
    operators: NDArray[np.float64],
    distance: float,
) -> NDArray[np.int64]:
    """Return pixels to add, so that no pixel is farther than a distance from every mate of a kept one."""
    from scipy.spatial import cKDTree

    tree = cKDTree((vectors[pixels] @ operators).reshape(-1, 3))
    gap = np.asarray(tree.query(vectors)[0])
    open_pixels = np.flatnonzero(gap > distance)
    gap = gap[open_pixels]
    added = []
    while len(open_pixels):
        # rounded, so that mates tie and every machine picks the same one
        farthest = open_pixels[np.argmax(np.round(gap, 9))]
        added.append(farthest)
        for operator in operators:
            gap = np.minimum(gap, np.linalg.norm(vectors[open_pixels] - vectors[farthest] @ operator, axis=1))
        still = gap > distance
        open_pixels, gap = open_pixels[still], gap[still]
    return np.array(added, dtype=np.int64)


def _centre_of_unit(name: str) -> NDArray[np.float64]:
    """Return the point whose surroundings are the asymmetric unit, off every symmetry axis."""
    if name.startswith("C"):
        return np.array([1.0, 0.0, 0.0])  # rot within -+180/n
    if name.startswith("D"):
        return np.array([0.0, 1.0, 1.0]) / np.sqrt(2)  # about rot 90, between two-folds
    return np.array([0.2, 0.1, 0.9])
