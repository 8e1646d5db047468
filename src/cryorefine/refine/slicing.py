"""Slices of a reference as an optics group's images see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.images import remap
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.particle_set import OpticsGroup, View
from cryorefine.refine.volume import C64, F32, volume_limit

F64 = NDArray[np.float64]


def effective_rotation(view: View, optics: OpticsGroup, box: int, pixel_size: float) -> F64:
    """Return what multiplies an orientation so that slice points come out in samples of the reference.

    Parameters
    ----------
    view, optics : View, OpticsGroup
        Of the images.
    box, pixel_size : int, float
        Edge of the reference in voxels, and A per voxel.

    Returns
    -------
    ndarray, shape (3, 3)
        The view's rotation with magnification matrix and pixel size.
    """
    embedded = np.eye(3)
    embedded[:2, :2] = np.reshape(optics.magnification, (2, 2)).T
    return np.asarray(remap(optics, box, pixel_size) * embedded @ view.rotation)


def slices(
    volume: C64,
    matrices: F64,
    plane: HalfPlane,
    padding: float,
    operations: Operations = PROCESSOR,
) -> tuple[F32, F32]:
    """Central slices, or turned volumes, split into two parts, shape (orientations, pixels) each.

    The volume and the slices live where the operations do.
    """
    re, im = (operations.xp.empty((len(matrices), plane.pixels), np.float32) for _ in range(2))
    operations.slice_volume(
        volume, matrices.astype(np.float32), plane.kx, plane.ky, plane.kz, padding, re, im
    )
    return re, im


def within_reach(plane: HalfPlane, rotation: F64, size: int, padding: float) -> HalfPlane:
    """Keep the pixels of a plane whose samples lie inside the Fourier volume of a current size.

    Magnification and other pixel sizes can carry a plane's rim beyond it.
    """
    length = np.linalg.norm(plane.indices @ rotation[: plane.dimensions], axis=1)
    return plane.take(padding * length < volume_limit(size, padding) - 0.01)
