"""What the curves of all directions say: resolutions, areas, and how alike they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.sky import order_of, sphere_mesh
from cryorefine.maps.fsc import GOLD_STANDARD

F64 = NDArray[np.float64]


def crossing_shells(curves: F64, threshold: float = GOLD_STANDARD) -> F64:
    """Return where curves first drop below a threshold, in shells, linearly between two of them.

    Parameters
    ----------
    curves : ndarray, shape (n, shells)
        Each begins with 1.
    threshold : float
        Below 1.

    Returns
    -------
    ndarray of float64, shape (n,)
        At most the last shell.
    """
    below = curves < threshold
    after = np.argmax(below, axis=1)
    rows = np.arange(len(curves))
    high, low = curves[rows, after - 1], curves[rows, after]
    drop = np.where(high > low, high - low, 1.0)
    return np.where(below.any(axis=1), after - (threshold - low) / drop, curves.shape[1] - 1.0)


def areas(curves: F64, threshold: float = GOLD_STANDARD) -> F64:
    """Return the area under each curve up to where it first drops below a threshold.

    What comes after is noise of either sign. In shells, by the trapezoidal rule; shape (n,).
    """
    end = crossing_shells(curves, threshold)
    shells = np.arange(curves.shape[1])
    # Trapezoids of whole shells before the crossing, and the piece of the one that it lies in.
    steps = (curves[:, 1:] + curves[:, :-1]) / 2
    whole = np.where(shells[1:] <= end[:, None], steps, 0.0).sum(axis=1)
    last = np.floor(end).astype(np.int64)
    piece = (curves[np.arange(len(curves)), last] + threshold) / 2 * (end - last)
    return whole + piece


def area_ratio(area: F64) -> float:
    """Return cFAR, the smallest area under a conical FSC over the largest: 1 for an isotropic map."""
    return float(area.min() / area.max()) if area.max() > 0 else 0.0


def sphericity(radius: F64, smoothing: float = 0.0) -> float:
    """Return how near a body around the origin is to a sphere: 1 for a sphere, less for all others.

    pi^(1/3) (6 V)^(2/3) / A of volume V and surface A (Wadell, J. Geology 43, 250-280, 1935), which Tan
    et al. (2017) take of the body that the 3D FSC encloses. Relative to a sphere of the same mesh.

    Parameters
    ----------
    radius : ndarray, shape (12 * 4**order,)
        Distance of the surface in the direction of each HEALPix pixel, e.g. the frequency reached.
    smoothing : float
        Distances are averaged over so many degrees around each direction first. Noise makes the
        surface rough, which looks like less of a sphere; it has no detail finer than the cones.
    """
    vectors, triangles = sphere_mesh(order_of(radius))
    near = (vectors @ vectors.T >= np.cos(np.deg2rad(smoothing)) - 1e-9).astype(np.float64)
    smooth = near @ np.asarray(radius, np.float64) / near.sum(axis=1)

    def measure(corners: F64) -> float:
        a, b, c = (corners[triangles[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        surface = np.linalg.norm(normal, axis=1).sum() / 2
        volume = np.einsum("ij,ij->", a, normal) / 6
        return float(volume ** (2 / 3) / surface) if surface > 0 else 0.0

    return measure(vectors * smooth[:, None]) / measure(vectors)
