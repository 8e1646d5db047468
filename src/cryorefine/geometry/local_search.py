"""Which orientations of a full grid lie near a previous orientation, and how probable they are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry import healpix
from cryorefine.geometry.euler import angles, view_directions

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

# Gaussian priors are cut at three standard deviations.
_CUTOFF = 3.0


@lru_cache(maxsize=4)
def _direction_tree(order: int) -> cKDTree:
    """Return a search tree over the unit vectors of all directions of an order."""
    from scipy.spatial import cKDTree

    return cKDTree(view_directions(*healpix.directions(order)), balanced_tree=False)


def find_candidates(
    order: int, centres: NDArray[np.float64], sigma: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the coarse orientations of a full grid within three sigma of each particle's centres.

    Parameters
    ----------
    order : int
        HEALPix order of the grid.
    centres : ndarray, shape (n, m, 3, 3)
        For each of n particles m centres of equal weight: rotation matrices, reference to view.
    sigma : float
        Standard deviation in degrees, of the viewing direction and of the in-plane angle.

    Returns
    -------
    indptr : ndarray of int64, shape (n + 1,)
    indices : ndarray of int64, shape (k,)
        Orientation indices, rising within a particle.
    weights : ndarray of float64, shape (k,)
        Probabilities, summing to 1 for each particle.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, not {sigma} degrees")
    n, m = centres.shape[:2]
    flat = centres.reshape(n * m, 3, 3)
    owner, pixel, swing = _near_directions(order, flat, _CUTOFF * sigma)
    owner, index, log_weight = _near_psi(order, flat, owner, pixel, swing, sigma)

    # each centre's weights sum to 1/m
    weight: NDArray[np.float64] = np.exp(log_weight - _per_owner_maximum(log_weight, owner, n * m)[owner])
    weight /= m * np.bincount(owner, weight, minlength=n * m)[owner]

    n_orientations = 12 * 4**order * 6 * 2**order
    particle = owner // m
    if m == 1:
        sort = np.argsort(particle * n_orientations + index)
        particle, index, weight = particle[sort], index[sort], weight[sort]
    else:  # centres may share candidates
        key, inverse = np.unique(particle * n_orientations + index, return_inverse=True)
        particle, index = np.divmod(key, n_orientations)
        weight = np.bincount(inverse, weight).astype(np.float64)
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(particle, minlength=n), out=indptr[1:])
    return indptr, index, weight


def _near_directions(
    order: int, centres: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (centre, pixel, angle in degrees) of all directions within a radius of each view."""
    tree = _direction_tree(order)
    views = centres[:, 2]
    chord = 2 * np.sin(np.deg2rad(min(radius, 180.0)) / 2)
    found = tree.query_ball_point(views, chord * (1 + 1e-12))
    counts = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    for i in np.flatnonzero(counts == 0):
        found[i] = [int(tree.query(views[i])[1])]
    counts = np.maximum(counts, 1)
    owner = np.repeat(np.arange(len(centres)), counts)
    pixel = np.concatenate([np.asarray(one, dtype=np.int64) for one in found])
    chords = np.linalg.norm(tree.data[pixel] - views[owner], axis=1)
    return owner, pixel, np.rad2deg(2 * np.arcsin(np.minimum(chords / 2, 1.0)))


def twist(
    rot0: NDArray[np.float64], tilt0: NDArray[np.float64], rot: NDArray[np.float64], tilt: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rotation about the view, in degrees, that comes with a change of direction at the same psi.

    Two orientations differ by a tilt about an axis in the image plane and a rotation about the view by
    ``psi - psi0 + twist``; near the poles, where rot says little, the twist is large.

    Parameters
    ----------
    rot0, tilt0, rot, tilt : ndarray, shape (n,)
        Both directions in degrees.
    """
    cos_tilt, sin_tilt = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    cos_tilt0, sin_tilt0 = np.cos(np.deg2rad(tilt0)), np.sin(np.deg2rad(tilt0))
    delta = np.deg2rad(rot - rot0)
    angle = np.arctan2(
        np.sin(delta) * (cos_tilt + cos_tilt0),
        np.cos(delta) * (1 + cos_tilt * cos_tilt0) + sin_tilt * sin_tilt0,
    )
    return np.asarray(np.rad2deg(angle))


def _near_psi(
    order: int,
    centres: NDArray[np.float64],
    owner: NDArray[np.int64],
    pixel: NDArray[np.int64],
    swing: NDArray[np.float64],
    sigma: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (centre, orientation index, log weight) of the in-plane angles near each direction's own.

    The rotation about the view that :func:`twist` tells is made up for.
    """
    step = healpix.angular_step(order)
    n_psi = 6 * 2**order
    all_rot, all_tilt = healpix.directions(order)
    rot0, tilt0, psi0 = angles(centres)
    best_psi = psi0[owner] - twist(rot0[owner], tilt0[owner], all_rot[pixel], all_tilt[pixel])

    nearest = np.floor(best_psi / step + 0.5).astype(np.int64)
    reach = min(int(_CUTOFF * sigma / step + 0.5), (n_psi - 1) // 2)
    offset = np.arange(-reach, reach + 1)
    psi_index = nearest[:, None] + offset
    difference = psi_index * step - best_psi[:, None]
    keep = np.abs(difference) <= _CUTOFF * sigma * (1 + 1e-12)
    keep[:, reach] = True  # the nearest, however narrow sigma is
    log_weight = -0.5 * (swing[:, None] ** 2 + difference**2) / sigma**2
    rows, columns = np.nonzero(keep)
    index = pixel[rows] * n_psi + psi_index[rows, columns] % n_psi
    return owner[rows], index, log_weight[rows, columns]


def _per_owner_maximum(values: NDArray[np.float64], owner: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return the largest value of each owner, shape (n,)."""
    result = np.full(n, -np.inf)
    np.maximum.at(result, owner, values)
    return result
