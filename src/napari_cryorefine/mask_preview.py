"""What MaskCreate will make of the values on its form, piece by piece; runs in a thread, knows no Qt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryorefine.io.mrc import Map
from cryorefine.jobs.volumes import read_cubic
from cryorefine.maps import density, filters, masks, preview
from cryorefine.maps.density import Threshold, Volume
from napari_cryorefine.layer_data import mask_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Wish:
    """Values of the form: those of MaskCreate's options, with the map of a layer in place of its file."""

    source: Path | Map
    pixel_size: float | None
    lowpass: float
    threshold: float
    extend: float
    soft_edge: float
    invert: bool


@dataclass(frozen=True)
class Levels:
    """The thresholds that a filtered map offers, from low to high, and the one that its solvent suggests."""

    thresholds: NDArray[np.float64]
    suggested: Threshold


@dataclass(frozen=True)
class Isosurface:
    """The surface of the filtered map at the threshold.

    Attributes
    ----------
    vertices, faces : numpy.ndarray
        Shapes (vertices, 3), in voxels of the surface's own grid, and (faces, 3); empty if no voxel
        or every voxel reaches the threshold.
    voxel : float
        Width of those voxels in A.
    volume : Volume
        What the threshold encloses in the whole map.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    voxel: float
    volume: Volume


@dataclass(frozen=True)
class Regions:
    """Core and soft edge of the mask, over the map's own voxels.

    Attributes
    ----------
    labels : numpy.ndarray
        1 in the core, 2 in the soft edge, shape (z, y, x).
    pixel_size : float
        A/px.
    volume : Volume
        Where the mask is above one half.
    checks : tuple of str
        What is wrong with the mask, in sentences.
    """

    labels: NDArray[np.uint8]
    pixel_size: float
    volume: Volume
    checks: tuple[str, ...]


class MaskMaker:
    """Makes the pieces of a preview, and keeps the filtered map as long as it serves."""

    def __init__(self) -> None:
        self._read_key: Any = None
        self._filtered_key: Any = None

    def __call__(self, wish: Wish) -> Iterator[Levels | Isosurface | Regions]:
        """Yield the levels that the filtered map offers, its surface, and the mask.

        Raises
        ------
        UserError
            If the map cannot be read.
        """
        self._filter(wish)
        yield self._levels
        pixel_size, size = self._map.pixel_size, self._density.shape[0]
        chosen = self._density >= wish.threshold
        vertices, faces = isosurface(self._coarse, wish.threshold)
        voxel = pixel_size * size / self._coarse.shape[0]
        yield Isosurface(vertices, faces, voxel, density.volume_of(chosen, pixel_size))
        mask = masks.mask_from_map(self._density, wish.threshold, wish.extend, wish.soft_edge)
        checks = tuple(_checks(mask))
        volume = density.volume_of(mask > 0.5, pixel_size)
        if wish.invert:
            mask = np.float32(1) - mask
        yield Regions(mask_regions(mask), pixel_size, volume, checks)

    def _filter(self, wish: Wish) -> None:
        """Read and filter the map if it is not the one in hand."""
        if isinstance(wish.source, Map):
            read_key: Any = (id(wish.source.data), wish.source.pixel_size)
        else:
            changed = wish.source.stat().st_mtime_ns if wish.source.is_file() else 0
            read_key = (wish.source, changed, wish.pixel_size)
        if read_key != self._read_key:
            self._read_key = self._filtered_key = None
            given = wish.source
            self._map = given if isinstance(given, Map) else read_cubic(given, wish.pixel_size)
            self._read_key = read_key
        if wish.lowpass == self._filtered_key:
            return
        self._filtered_key = None
        self._density = self._map.data.astype(np.float64)  # as in the job, so that both agree
        if wish.lowpass > 0:
            self._density = filters.lowpass(self._density, self._map.pixel_size, wish.lowpass)
        self._coarse = preview.coarse_copy(self._density)
        self._levels = Levels(
            preview.threshold_ladder(self._coarse), density.suggest_threshold(self._density)
        )
        self._filtered_key = wish.lowpass


def softened(request: tuple[str, Map, float]) -> Iterator[tuple[str, Map]]:
    """Yield a painted mask with a soft edge, from its name, its 0s and 1s, and the edge's width in voxels."""
    name, painted, width = request
    yield name, Map(masks.add_soft_edge(painted.data > 0, width), painted.pixel_size)


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


def _checks(mask: NDArray[np.float32]) -> Iterator[str]:
    if not mask.any():
        yield "The mask is empty: give a lower threshold."
    elif masks.touches_box(mask > 0):
        yield "The mask reaches the edge of the box: give a higher threshold, or extend it less."
