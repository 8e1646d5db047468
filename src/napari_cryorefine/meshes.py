"""Surfaces by marching cubes, of no more triangles than a window can move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIANGLES = 50_000
"""About as many as a window takes in and draws without a graphics card in less than a tenth of a second."""


def isosurface(
    volume: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the surface at a threshold by marching cubes.

    Parameters
    ----------
    volume : numpy.ndarray
        Shape (z, y, x).
    threshold : float
        Level of the surface.

    Returns
    -------
    vertices, faces : numpy.ndarray
        Shapes (vertices, 3), in voxels (z, y, x), and (faces, 3); empty where there is no surface.
    """
    from skimage.measure import marching_cubes

    if not volume.min() < threshold < volume.max():
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
    vertices, faces, _, _ = marching_cubes(volume, threshold)
    return vertices, faces


def triangles(inside: NDArray[np.bool_]) -> float:
    """Return about how many triangles marching cubes makes around the true voxels of an array (z, y, x).

    They are twice as many as the edges of the grid that the surface crosses: each vertex lies on one,
    and a closed mesh has two triangles for each vertex.
    """
    crossed = 0
    for axis in range(3):
        a, b = (np.moveaxis(inside, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        crossed += np.count_nonzero(a != b)
    return 2.0 * crossed
