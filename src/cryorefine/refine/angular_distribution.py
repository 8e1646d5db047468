"""How the views of the particles are spread over the sphere, as numbers and as a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import point_group

F64 = NDArray[np.float64]
# Longest cylinder and thickness, both as fractions: of the sphere's radius, and of half a sampling step.
_LONGEST = 0.3
_THICKNESS = 0.5


def distribution_of_poses(poses: F64, grid: SamplingGrid) -> F64:
    """Share of the particles that look along each direction of a grid.

    Parameters
    ----------
    poses : ndarray, shape (n, 3, 3)
        Orientation matrices, reference to view.
    grid : SamplingGrid
        Directions, of the asymmetric unit of its group; its perturbation takes no part.

    Returns
    -------
    ndarray, shape (directions,)
        Sums to 1; every particle counts for the direction nearest to it or to one of its mates.
    """
    from scipy.spatial import cKDTree

    if len(poses) == 0:
        return np.full(grid.n_directions, 1 / grid.n_directions)
    tree = cKDTree(grid.direction_vectors)
    nearest = np.zeros(len(poses), np.int64)
    smallest = np.full(len(poses), np.inf)
    for operator in point_group(grid.group).operators:
        # Asking only for what is nearer than a mate already found keeps large groups fast.
        reach = float(smallest.max())
        distance, index = (
            np.asarray(x) for x in tree.query(poses[:, 2] @ operator, distance_upper_bound=reach)
        )
        closer = distance < smallest
        smallest[closer], nearest[closer] = distance[closer], index[closer]
    return np.bincount(nearest, minlength=grid.n_directions) / len(poses)


def bild(distribution: F64, grid: SamplingGrid, *, extent: float) -> str:
    """Draw a distribution as cylinders on a sphere, in the BILD format of UCSF Chimera and ChimeraX.

    Lengths are proportional to the probability, 0.3 of the sphere's radius for the largest; colours
    go from blue one standard deviation below the mean to red five above. These are the sizes and
    colours of RELION 3.1's files, measured on its output.

    Parameters
    ----------
    distribution : ndarray, shape (directions,)
        Probabilities; directions without any are left out.
    grid : SamplingGrid
        The directions.
    extent : float
        Edge of the map's box in A; the sphere fills the box.
    """
    radius = extent / 2
    shown = np.flatnonzero(distribution > 0)
    if len(shown) == 0:
        return ""
    values = distribution[shown]
    spread = float(np.std(distribution))
    deviation = (values - distribution.mean()) / spread if spread > 1e-12 else np.zeros_like(values)
    red = (np.clip(deviation, -1, 5) + 1) / 6
    thickness = _THICKNESS * radius * np.deg2rad(grid.step) / 2
    foot = radius * grid.direction_vectors[shown]
    top = foot * (1 + _LONGEST * values / distribution.max())[:, None]
    lines = []
    for share, a, b in zip(red.tolist(), (foot + radius).tolist(), (top + radius).tolist(), strict=True):
        ends = " ".join(f"{number:.6g}" for number in (*a, *b))
        lines.append(f".color {share:.6g} 0 {1 - share:.6g}\n.cylinder {ends} {thickness:.6g}\n")
    return "".join(lines)
