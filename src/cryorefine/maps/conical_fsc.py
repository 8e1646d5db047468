"""FSC of half maps over cones of Fourier space, one for each direction.

The correlation is taken over the coefficients of a shell within some angle of an axis and of its
opposite (Tan et al., Nature Methods 14, 793-796, 2017). Every coefficient counts once, whichever
of the two Friedel mates is stored; the axes are the pixels of a HEALPix sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry import healpix
from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.symmetry import point_group
from cryorefine.maps.shells import logical_indices, radius_table, shell_table
from cryorefine.maps.slabs import over_slabs

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FEWEST = 8
"""Low shells in which a cone has fewer coefficients than this are put together."""
_COARSE, _FINE = 16, 64  # cells along the edge of a cube's face: 5.6 and 1.4 degrees


@dataclass(frozen=True, eq=False)
class Cones:
    """Cones that cover the sphere.

    Attributes
    ----------
    half_angle : float
        Angle between axis and mantle in degrees.
    axes : ndarray of float64, shape (n, mates, 3)
        Unit vectors (x, y, z). The mates of one axis under the symmetry make one cone together.
    place : ndarray of int64, shape (12 * 4**order,)
        The cone of each HEALPix pixel (NEST order): the same one for a direction, its opposite and
        their symmetry mates.
    """

    half_angle: float
    axes: F64
    place: I64


@dataclass(frozen=True, eq=False)
class ConicalFsc:
    """Curves of all cones.

    Attributes
    ----------
    curves : ndarray of float64, shape (n, shells)
        FSC of each cone.
    whole : ndarray of float64, shape (shells,)
        FSC of whole shells.
    """

    curves: F64
    whole: F64


def cones(order: int, half_angle: float, group: str = "C1") -> Cones:
    """Return cones around the pixels of a HEALPix order.

    Parameters
    ----------
    order : int
        HEALPix order of the axes: 2 has 192 directions 15 degrees apart, 3 has 768 at 7.5.
    half_angle : float
        Degrees, up to 90, where each cone is the whole space.
    group : str
        Point group of the map. Mates are put together, which makes what they say about it one.
    """
    from scipy.spatial import cKDTree

    vectors = view_directions(*healpix.directions(order))
    operators = point_group(group).operators
    unit = vectors[healpix.asymmetric_unit(order, group)]
    if len(operators) == 1:  # opposite directions are pixels, too
        x, y, z = np.round(unit, 9).T
        unit = unit[(z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))]
    mates = np.einsum("ni,sij->nsj", unit, operators)
    both = np.concatenate([mates, -mates], axis=1)
    _, nearest = cKDTree(both.reshape(-1, 3)).query(vectors)
    return Cones(half_angle, mates, np.asarray(nearest, np.int64) // both.shape[1])


def conical_fsc(first: NDArray[Any], second: NDArray[Any], around: Cones, threads: int = 0) -> ConicalFsc:
    """Correlate two half-complex spectra over shells within cones, in one pass over the voxels.

    Parameters
    ----------
    first, second : ndarray
        Complex, shape (z, y, x // 2 + 1).
    around : Cones
        The cones.
    threads : int
        0 for every core.

    Returns
    -------
    ConicalFsc
        1 in shell 0. The shells below the first in which every cone has 8 coefficients share one value
        for each cone: that of their sums, every shell divided by its mean powers.
    """
    if first.shape != second.shape:
        raise ValueError(f"spectra of different shapes: {first.shape} and {second.shape}")
    size = first.shape[0]
    index = logical_indices(size)
    shells, table, radius = size // 2 + 1, shell_table(size), radius_table(size)
    start, listed, vectors = _axes_of_cells(around)
    target = np.repeat(np.arange(len(around.axes)), around.axes.shape[1])
    cosine = np.cos(np.deg2rad(around.half_angle)) - 1e-9  # what lies on the mantle is inside

    def work(slab: slice) -> tuple[F64, F64]:
        sums, whole = np.zeros((shells, len(around.axes), 4)), np.zeros((shells, 3))
        _cone_kernel(
            first[slab], second[slab], index[slab], index, table, radius,
            start, listed, vectors, target, cosine, sums, whole,
        )  # fmt: skip
        return sums, whole

    parts = over_slabs(work, size, threads)
    whole = np.sum([part[1] for part in parts], axis=0)
    sums = np.sum([part[0] for part in parts], axis=0)
    curves = _correlation(sums)
    few = (sums[..., 3] < 2 * FEWEST * around.axes.shape[1]).any(axis=1)  # Friedel and symmetry mates count
    enough = np.flatnonzero(~few[1:])
    first_alone = int(enough[0]) + 1 if len(enough) else shells
    curves[1:first_alone] = _correlation(_together(sums[1:first_alone], whole[1:first_alone]))
    curves[0] = 1.0
    total = _correlation(whole)
    total[0] = 1.0
    return ConicalFsc(np.ascontiguousarray(curves.T), total)


def fsc_volume(fsc: ConicalFsc, around: Cones, size: int, threads: int = 0) -> NDArray[np.float32]:
    """Return the 3D FSC: at every point of Fourier space the FSC of the cones nearest to its direction.

    Parameters
    ----------
    fsc : ConicalFsc
        The curves.
    around : Cones
        Their cones.
    size : int
        Box of the half maps.
    threads : int
        0 for every core.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        The origin of Fourier space is voxel size // 2; 0 beyond the last shell. The four nearest
        cones are weighted by their inverse squared distances, in cells of 1.4 degrees.
    """
    from scipy.spatial import cKDTree

    mates = np.concatenate([around.axes, -around.axes], axis=1)
    distance, nearest = cKDTree(mates.reshape(-1, 3)).query(_cell_centres(_FINE), k=4)
    weight = 1 / (np.asarray(distance) ** 2 + 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    curves = fsc.curves[np.asarray(nearest) // mates.shape[1]]
    cells = np.einsum("ck,cks->cs", weight, curves).astype(np.float32)
    index, table = np.arange(size) - size // 2, shell_table(size)
    volume = np.zeros((size,) * 3, np.float32)
    over_slabs(lambda s: _volume_kernel(volume[s], index[s], index, table, cells), size, threads)
    return volume


def _together(sums: F64, whole: F64) -> F64:
    """Add sums (shells, cones, 4) over shells after dividing each by the powers of the whole shell."""
    powers = np.stack([np.sqrt(whole[:, 1] * whole[:, 2]), whole[:, 1], whole[:, 2]], axis=1)
    scale = np.divide(sums[..., 3].sum(axis=1)[:, None], powers, out=np.zeros_like(powers), where=powers > 0)
    return np.asarray((sums[..., :3] * scale[:, None]).sum(axis=0))


def _correlation(sums: F64) -> F64:
    """Return the FSC from sums of products and of both powers on the last axis; 0 without power."""
    norm = np.sqrt(sums[..., 1] * sums[..., 2])
    return np.divide(sums[..., 0], norm, out=np.zeros_like(norm), where=norm > 0)


def _axes_of_cells(around: Cones) -> tuple[I64, I64, F64]:
    """List for each coarse cell the axes whose cones may reach into it."""
    centres = _cell_centres(_COARSE)
    vectors = around.axes.reshape(-1, 3)
    reach = np.deg2rad(around.half_angle) + np.sqrt(2) / _COARSE  # half a diagonal is no longer than that
    near = np.abs(centres @ vectors.T) >= np.cos(min(reach, np.pi / 2)) - 1e-9
    cell, axis = np.nonzero(near)
    start = np.searchsorted(cell, np.arange(len(centres) + 1))
    return start.astype(np.int64), axis.astype(np.int64), np.ascontiguousarray(vectors)


def _cell_centres(edge: int) -> F64:
    """Return the middles of the cells of three faces of a cube, as unit vectors (x, y, z)."""
    middle = (np.arange(edge) + 0.5) * 2 / edge - 1
    u, v = (array.ravel() for array in np.meshgrid(middle, middle, indexing="ij"))
    one = np.ones_like(u)
    faces = [np.stack(face, axis=1) for face in ((one, u, v), (u, one, v), (u, v, one))]
    centres = np.concatenate(faces)
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


@numba.njit(nogil=True, cache=True, inline="always")
def _cell(x, y, z, edge):  # type: ignore[no-untyped-def]
    """Return the cell of a direction or of its opposite, whichever of them a face has."""
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        face, u, v, w = 0, y, z, x
    elif ay >= az:
        face, u, v, w = 1, x, z, y
    else:
        face, u, v, w = 2, x, y, z
    i = min(int((u / w + 1) * 0.5 * edge), edge - 1)
    j = min(int((v / w + 1) * 0.5 * edge), edge - 1)
    return (face * edge + i) * edge + j


@numba.njit(nogil=True, cache=True)
def _cone_kernel(  # type: ignore[no-untyped-def]
    first, second, z_index, y_index, table, radius, start, listed, vectors, target, cosine, sums, whole
):
    last, half = sums.shape[0] - 1, first.shape[2] - 1
    even = y_index.shape[0] % 2 == 0
    for i in range(first.shape[0]):
        z = z_index[i]
        for j in range(first.shape[1]):
            y = y_index[j]
            for x in range(first.shape[2]):
                square = z * z + y * y + x * x
                shell = table[square]
                if shell > last or square == 0:
                    continue
                # The other Friedel mate of these is stored as well.
                count = 1.0 if x == 0 or (even and x == half) else 2.0
                a, b = first[i, j, x], second[i, j, x]
                product = count * (a.real * b.real + a.imag * b.imag)
                power_a = count * (a.real * a.real + a.imag * a.imag)
                power_b = count * (b.real * b.real + b.imag * b.imag)
                whole[shell, 0] += product
                whole[shell, 1] += power_a
                whole[shell, 2] += power_b
                least = cosine * radius[square]
                cell = _cell(float(x), float(y), float(z), _COARSE)
                for k in range(start[cell], start[cell + 1]):
                    axis = listed[k]
                    along = vectors[axis, 0] * x + vectors[axis, 1] * y + vectors[axis, 2] * z
                    if abs(along) >= least:
                        cone = target[axis]
                        sums[shell, cone, 0] += product
                        sums[shell, cone, 1] += power_a
                        sums[shell, cone, 2] += power_b
                        sums[shell, cone, 3] += count


@numba.njit(nogil=True, cache=True)
def _volume_kernel(volume, z_index, index, table, cells):  # type: ignore[no-untyped-def]
    for i in range(volume.shape[0]):
        z = z_index[i]
        for j in range(volume.shape[1]):
            y = index[j]
            for k in range(volume.shape[2]):
                x = index[k]
                square = z * z + y * y + x * x
                shell = table[square]
                if square == 0:
                    volume[i, j, k] = 1
                elif shell < cells.shape[1]:
                    volume[i, j, k] = cells[_cell(float(x), float(y), float(z), _FINE), shell]
