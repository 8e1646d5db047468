"""How the views of particles are spread over the sphere, and how well they sample Fourier space."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.geometry import healpix
from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.symmetry import point_group

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_FINE_ORDER = 8  # a quarter of a degree: views in one such pixel are put together for their slices


def count_views(rot: ArrayLike, tilt: ArrayLike, order: int, group: str = "C1") -> I64:
    """Count viewing directions in the pixels of a HEALPix sphere.

    Parameters
    ----------
    rot, tilt : array_like, shape (n,)
        Degrees.
    order : int
        HEALPix order.
    group : str
        Point group: each particle counts at its direction and at all symmetry mates of it, which
        look at the particle alike.

    Returns
    -------
    ndarray of int64, shape (12 * 4**order,)
        In NEST order; the sum is n times the number of operators.
    """
    counts = np.zeros(12 * 4**order, np.int64)
    for mates in _mates(rot, tilt, group):
        counts += np.bincount(_pixels(mates, order), minlength=len(counts))
    return counts


def fourier_sampling(
    rot: ArrayLike, tilt: ArrayLike, order: int, group: str = "C1", radius: float = 50.0
) -> F64:
    """Return how often the particles' slices pass through each direction of Fourier space.

    A view samples the central slice across its direction. On a sphere of some radius the slice is a
    band, one voxel to either side, over which linear interpolation spreads it: a direction k gets
    max(0, 1 - radius |k . view|) of it.

    Parameters
    ----------
    rot, tilt : array_like, shape (n,)
        Views in degrees.
    order : int
        HEALPix order of the directions k.
    group : str
        Point group whose mates of the views count too.
    radius : float
        Radius of the sphere in Fourier voxels: the particle's diameter over the resolution.

    Returns
    -------
    ndarray of float64, shape (12 * 4**order,)
        In NEST order. 1 everywhere for views that are spread evenly, on average for any others.
    """
    views, share = _merged(rot, tilt, group)
    directions = view_directions(*healpix.directions(order))
    # A direction and its opposite are the same coefficients: half of the sphere is enough.
    x, y, z = np.round(directions, 9).T
    upper = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    sampling = np.zeros(len(directions))
    # Evenly spread cosines have the mean 1 / (2 radius).
    sampling[upper] = _bands(directions[upper], views, share, radius) * 2 * radius
    sampling[~upper] = sampling[_pixels(-directions[~upper], order)]
    return sampling


def sampling_compensation_factor(sampling: F64, views: int, radius: float = 50.0) -> float:
    """Return the sampling compensation factor (SCF) of a distribution of views.

    1 / SCF is the mean of 1 / sampling over the sphere (Baldwin and Lyumkis, Prog. Biophys. Mol. Biol.
    150, 160-183, 2020): the factor by which uneven views lower the spectral signal-to-noise ratio.
    Even views have 1, views from all sides around one axis 8 / pi^2 = 0.81, and with an empty
    region it tends to 0. Directions that no slice reaches count as reached by half a slice.

    Parameters
    ----------
    sampling : ndarray, shape (pixels,)
        Sampling of each direction, mean 1, from :func:`fourier_sampling`.
    views : int
        Number of views, symmetry mates included.
    radius : float
        As given to :func:`fourier_sampling`.
    """
    return float(1 / np.mean(1 / np.maximum(sampling, radius / views)))


def _mates(rot: ArrayLike, tilt: ArrayLike, group: str) -> Iterator[F64]:
    """Yield the views, (n, 3), as seen through each operator of a group."""
    vectors = view_directions(rot, tilt).reshape(-1, 3)
    for operator in point_group(group).operators:
        yield vectors @ operator


def _pixels(vectors: F64, order: int) -> I64:
    x, y, z = vectors.T
    return healpix.nearest_pixels(
        np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arctan2(np.hypot(x, y), z)), order
    )


def _merged(rot: ArrayLike, tilt: ArrayLike, group: str) -> tuple[F64, F64]:
    """Return the mean view of each fine pixel that has any, (m, 3), and its share of all, (m,)."""
    counts = np.zeros(12 * 4**_FINE_ORDER)
    sums = np.zeros((3, len(counts)))
    for mates in _mates(rot, tilt, group):
        pixels = _pixels(mates, _FINE_ORDER)
        counts += np.bincount(pixels, minlength=len(counts))
        for total, component in zip(sums, mates.T, strict=True):
            total += np.bincount(pixels, component, minlength=len(counts))
    seen = np.flatnonzero(counts)
    views = sums[:, seen].T
    return views / np.linalg.norm(views, axis=1, keepdims=True), counts[seen] / counts.sum()


@numba.njit(nogil=True, cache=True, fastmath=True)  # sums of positive numbers, in any order
def _bands(directions, views, share, radius):  # type: ignore[no-untyped-def]
    """Return for each direction the shares of the views whose bands hold it, by their weights there."""
    result = np.zeros(directions.shape[0])
    for i in range(directions.shape[0]):
        x, y, z = directions[i]
        total = 0.0
        for j in range(views.shape[0]):
            across = abs(x * views[j, 0] + y * views[j, 1] + z * views[j, 2])
            total += max(0.0, 1.0 - radius * across) * share[j]
        result[i] = total
    return result
