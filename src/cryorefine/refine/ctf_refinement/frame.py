"""The grid that references live on, and where an optics group's pixels lie on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.fourier import rescale
from cryorefine.refine.ctf_refinement.settings import SuppliedMaps
from cryorefine.refine.half_plane import HalfPlane, half_plane
from cryorefine.refine.images import frequencies, image_size, remap
from cryorefine.refine.particle_set import OpticsGroup, View
from cryorefine.refine.slicing import effective_rotation
from cryorefine.refine.volume import volume_limit

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# A fit of the magnification may move pixels outwards by this share of their radius.
_MARGIN = 1.03


@dataclass(frozen=True, eq=False)
class Frame:
    """The grid of the references: the box of the supplied maps, sampled no finer than is needed.

    Attributes
    ----------
    edge : float
        Edge of the box in A.
    box : int
        Its edge in voxels of the working maps.
    shells : int
        Images are compared up to this shell, counted in 1 / edge.
    size : int
        Image size in pixels that the Fourier volumes reach.
    padding : float
        Samples of a Fourier volume per shell.
    mask : ndarray of float32, shape (box, box, box)
        Solvent mask on the working grid.
    """

    edge: float
    box: int
    shells: int
    size: int
    padding: float
    mask: F32

    @property
    def pixel_size(self) -> float:
        """A per voxel of the working maps."""
        return self.edge / self.box

    @property
    def padded(self) -> int:
        """Edge of the padded maps in voxels."""
        return round(self.padding * self.box)

    @property
    def limit(self) -> int:
        """Largest index of a Fourier volume."""
        return volume_limit(self.size, self.padding)

    @cached_property
    def compensation(self) -> F32:
        """1 / sinc^2(r / padded box): undoes what one interpolation does to a map, shape (box, box, box)."""
        half = self.box // 2
        square = np.arange(half + 1) ** 2
        along = np.sinc(np.sqrt(np.arange(3 * half**2 + 1)) / self.padded) ** -2
        octant = along.astype(np.float32)[square[:, None, None] + square[:, None] + square]
        mirrored = np.abs(np.arange(self.box) - half)
        return octant[mirrored][:, mirrored][:, :, mirrored]

    @cached_property
    def window(self) -> F32:
        """Mask and compensation of two interpolations, about voxel 0 of a padded map."""
        window = np.zeros((self.padded,) * 3, np.float32)
        half = self.box // 2
        ends = ((slice(0, half), slice(self.padded - half, None)), (slice(half, None), slice(0, half)))
        for (z, to_z), (y, to_y), (x, to_x) in product(ends, repeat=3):
            block = self.compensation[z, y, x] ** 2
            block *= self.mask[z, y, x]
            window[to_z, to_y, to_x] = block
        return window

    @cached_property
    def coupling(self) -> F32:
        """What the window makes of one voxel of a Fourier volume.

        The value that stays there, and the shares of it that neighbours along x, y and z get, shape (4,).
        """
        axis = np.cos(2 * np.pi * np.arange(self.padded) / self.padded).astype(np.float32)
        along_x = self.window.reshape(-1, self.padded) @ np.stack([axis, np.ones_like(axis)], axis=1)
        plane = along_x.reshape(self.padded, self.padded, 2).astype(np.float64)
        total = plane[..., 1].sum()
        neighbours = (plane[..., 0].sum(), plane[..., 1].sum(axis=0) @ axis, plane[..., 1].sum(axis=1) @ axis)
        return np.array([total / self.padded**3, *(n / total for n in neighbours)], np.float32)


def _fast(least: int) -> int:
    """Return the next even number that an FFT is quick for: of factors 2, 3 and 5 alone."""
    number = least + least % 2
    while True:
        rest = number
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return number
        number += 2


def _squared_radius(box: int) -> NDArray[np.int32]:
    """Return the squared distance of each voxel from the centre, shape (box, box, box)."""
    square = (np.arange(box, dtype=np.int32) - box // 2) ** 2
    return np.asarray(square[:, None, None] + square[:, None] + square)


def make_frame(maps: SuppliedMaps, shells: int, threads: int) -> Frame:
    """Choose the grid for comparisons up to a shell.

    The padding that a trilinear interpolation needs grows with the diameter of what is interpolated
    relative to the box: 1.5 for a particle that fills the box.

    Parameters
    ----------
    maps : SuppliedMaps
        Half maps and mask.
    shells : int
        Last shell of the comparisons.
    threads : int
        Threads of the FFT.
    """
    shells = min(shells, maps.box // 2 - 1)
    size = min(2 * int(np.ceil(_MARGIN * shells)), maps.box)
    box = min(_fast(size + 4), maps.box)
    box += box % 2
    mask = maps.mask if box == maps.box else np.clip(rescale(maps.mask, box, threads), 0, 1)
    reach = np.sqrt(_squared_radius(box)[mask > 0.05].max(initial=box**2 // 16))
    padded = _fast(int(np.ceil(float(np.clip(1.5 * (2 * reach) / box, 1.25, 2.0)) * box)))
    return Frame(maps.box * maps.pixel_size, box, shells, size, padded / box, mask.astype(np.float32))


@dataclass(frozen=True, eq=False)
class GroupPlane:
    """The Fourier pixels of an optics group's images, and their frequencies as the optics are now.

    Attributes
    ----------
    plane : HalfPlane
        The pixels; the same throughout a job.
    rotation : ndarray, shape (3, 3)
        What multiplies an orientation to give a slice.
    area : float
        Factor between a slice of the reference and an image's transform.
    x, y : ndarray, shape (pixels,)
        Frequencies in 1/A after the magnification matrix.
    compared : ndarray of bool, shape (pixels,)
        Whether a pixel takes part in the fits.
    """

    plane: HalfPlane
    rotation: F64
    area: float
    x: F64
    y: F64
    compared: NDArray[np.bool_]

    @cached_property
    def square(self) -> F64:
        """Squared frequency in 1/A^2, shape (pixels,)."""
        return self.x**2 + self.y**2


def comparison_plane(optics: OpticsGroup, view: View, frame: Frame) -> HalfPlane:
    """Return the pixels of an optics group's images that are compared, within every volume's reach."""
    scale = remap(optics, frame.box, frame.pixel_size)
    size = image_size(optics, 2 * frame.shells, frame.box, frame.pixel_size)
    plane = half_plane(optics.box, size, scale)
    rotation = effective_rotation(view, optics, frame.box, frame.pixel_size)
    return plane.take(within(plane, rotation, frame.shells))


def within(plane: HalfPlane, rotation: F64, shells: int) -> NDArray[np.bool_]:
    """Tell which pixels lie within a shell where ``rotation`` puts them, shape (pixels,)."""
    length = np.linalg.norm(np.stack([plane.kx, plane.ky], axis=1) @ rotation[:2], axis=1)
    return np.asarray(length <= shells + 0.5)


def group_plane(
    plane: HalfPlane, optics: OpticsGroup, view: View, frame: Frame, minimum_resolution: float
) -> GroupPlane:
    """Return where a group's pixels lie with its present magnification."""
    x, y = frequencies(plane, optics)
    return GroupPlane(
        plane=plane,
        rotation=effective_rotation(view, optics, frame.box, frame.pixel_size),
        area=remap(optics, frame.box, frame.pixel_size) ** 2,
        x=x,
        y=y,
        compared=np.hypot(x, y) >= 1 / minimum_resolution,
    )
