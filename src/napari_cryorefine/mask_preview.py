"""What MaskCreate will make of the values on its form, piece by piece; runs in a thread, knows no Qt."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryorefine.errors import UserError
from cryorefine.io.mrc import Map
from cryorefine.jobs import mask_create
from cryorefine.jobs.base import Notice
from cryorefine.jobs.volumes import read_cubic
from cryorefine.maps import mask_checks, mask_recipe, preview
from cryorefine.maps.density import Threshold, Volume, suggest_threshold, volume_of
from napari_cryorefine.layer_data import mask_regions
from napari_cryorefine.meshes import TRIANGLES, isosurface, triangles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryorefine.jobs.mask_create import Options


@dataclass(frozen=True)
class Wish:
    """What is to be shown.

    Attributes
    ----------
    options : Options
        Of MaskCreate.
    source, second : Map, optional
        Maps of layers that have no file yet, in place of those in the options.
    parts : tuple of str
        The surfaces that are wanted: "density" (what the mask begins with), "core" and "soft edge"
        (the mask's own boundaries); none where slices are looked at.
    """

    options: Options
    source: Map | None = None
    second: Map | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Levels:
    """The thresholds that a filtered map offers, from low to high, and what is made of them.

    Attributes
    ----------
    thresholds : numpy.ndarray
        Shape (steps,).
    suggested : Threshold
        The one that its solvent suggests.
    threshold : float
        The one that the options ask for.
    reason : str
        Why, if the map has decided it.
    """

    thresholds: NDArray[np.float64]
    suggested: Threshold
    threshold: float
    reason: str


@dataclass(frozen=True)
class Isosurface:
    """A surface: of what the mask begins with (the map at the threshold, or a sphere), or of the mask.

    Attributes
    ----------
    part : str
        Which one, as in :class:`Wish`.
    vertices, faces : numpy.ndarray
        Shapes (vertices, 3), in voxels of the surface's own grid, and (faces, 3); empty if there is none.
    voxel : float
        Width of those voxels in A.
    """

    part: str
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    voxel: float


@dataclass(frozen=True)
class Regions:
    """Core and soft edge of the mask, over the map's own voxels.

    Attributes
    ----------
    labels : numpy.ndarray
        1 in the core, 2 in the soft edge, shape (z, y, x).
    pixel_size : float
        A/px.
    enclosed : Volume or None
        What the threshold encloses, if there is one.
    volume : Volume
        Where the mask is above one half, before it is inverted.
    """

    labels: NDArray[np.uint8]
    pixel_size: float
    enclosed: Volume | None
    volume: Volume


@dataclass(frozen=True)
class Doubts:
    """What is wrong with the mask, in sentences."""

    sentences: tuple[str, ...]


Piece = Levels | Isosurface | Regions | Doubts

SIZES = (preview.COARSE_SIZE, 96, 72, 54, 40)
"""Boxes that surfaces are made in: the largest in which they have few enough triangles."""
BOUNDARIES = {"core": 1 - 1e-5, "soft edge": 1e-5}
"""Values from which on a voxel of the mask belongs to its core, and to either part."""


class MaskMaker:
    """Makes the pieces of a preview, and keeps the filtered map as long as it serves."""

    def __init__(self) -> None:
        self._read_key: Any = None
        self._filtered_key: Any = None

    def __call__(self, wish: Wish) -> Iterator[Piece]:
        """Yield the levels of the filtered map, its surface, the mask, and what is wrong with it.

        Raises
        ------
        UserError
            If a map cannot be read, or the options contradict each other.
        """
        wish.options.check()
        if wish.options.new_box is not None:
            return self._sphere(wish, wish.options.new_box)
        return self._from_map(wish)

    def _sphere(self, wish: Wish, size: int) -> Iterator[Piece]:
        options = wish.options
        pixel_size = options.pixel_size or 1.0
        upright = mask_create.sphere(options, size)
        if "density" in wish.parts:
            yield mask_surface(upright, "density", 0.5, pixel_size)
        yield from _of_mask(wish, upright, pixel_size, None)
        yield Doubts(tuple(mask_checks.sentences(upright, pixel_size, None, options.resolution)))

    def _from_map(self, wish: Wish) -> Iterator[Piece]:
        options = wish.options
        self._filter(wish)
        pixel_size = self._map.pixel_size
        threshold, reason = _threshold(mask_create.threshold_of(options, self._density, pixel_size))
        yield Levels(self._thresholds, self._suggested, threshold, reason)

        second = self._second(wish)
        if "density" in wish.parts:
            yield self._surface(options, threshold, second)
        recipe = mask_create.recipe_of(options, threshold, pixel_size)
        binary = mask_recipe.over_whole(mask_recipe.binary_mask(self._density, recipe, second), recipe)
        soft = mask_recipe.soften(binary, recipe, options.threads)
        upright = mask_recipe.shaped(soft, recipe, 0, len(soft))
        if options.invert:
            upright = np.float32(1) - upright
        yield from _of_mask(wish, upright, pixel_size, volume_of(binary, pixel_size))
        yield Doubts(tuple(mask_create.doubts(options, upright, self._map, self._density, threshold)))

    def _surface(self, options: Options, threshold: float, second: NDArray[np.float32] | None) -> Isosurface:
        coarse = self._coarse_for(threshold)
        voxel = self._map.pixel_size * len(self._density) / len(coarse)
        recipe = mask_create.recipe_of(options, threshold, voxel)
        coarse_second = preview.coarse_copy(second, len(coarse)) if second is not None else None
        shown = preview.shown_density(coarse, recipe, coarse_second)
        return Isosurface("density", *isosurface(shown, threshold), voxel)

    def _coarse_for(self, threshold: float) -> NDArray[np.float32]:
        """Return the largest copy whose surface has few enough triangles."""
        largest = self._coarse[0]
        for copy in self._coarse:
            if triangles(copy >= threshold) <= TRIANGLES:
                return copy
        smaller = [size for size in SIZES if size < len(largest)]
        for size in smaller[len(self._coarse) - 1 :]:
            self._coarse.append(preview.coarse_copy(largest, size))
            if triangles(self._coarse[-1] >= threshold) <= TRIANGLES:
                break
        return self._coarse[-1]

    def _filter(self, wish: Wish) -> None:
        """Read and filter the map if it is not the one in hand."""
        options, path = wish.options, wish.options.input
        if wish.source is not None:
            read_key: Any = (id(wish.source.data), wish.source.pixel_size)
        else:
            assert path is not None
            read_key = (path, path.stat().st_mtime_ns if path.is_file() else 0, options.pixel_size)
        if read_key != self._read_key:
            self._read_key = self._filtered_key = None
            self._map = wish.source or read_cubic(path, options.pixel_size)
            self._read_key = read_key
        if options.lowpass == self._filtered_key:
            return
        self._filtered_key = None
        self._density = mask_create.filtered(self._map.data, options, self._map.pixel_size)
        self._coarse = [preview.coarse_copy(self._density)]
        self._thresholds = preview.threshold_ladder(self._coarse[0])
        self._suggested = suggest_threshold(self._density)
        self._filtered_key = options.lowpass

    def _second(self, wish: Wish) -> NDArray[np.float32] | None:
        if wish.options.second_map is None:
            return None
        if wish.second is None:
            return mask_create.read_second(wish.options, self._map)
        if wish.second.data.shape != self._map.data.shape:
            raise UserError("The second map has another box than the first; take one in the same box.")
        return wish.second.data


def mask_surface(mask: NDArray[np.float32], part: str, level: float, pixel_size: float) -> Isosurface:
    """Return the surface around the voxels of a mask that reach some value, without their steps.

    Voxels are skipped until the surface has few enough triangles.

    Parameters
    ----------
    mask : numpy.ndarray
        Shape (z, y, x).
    part : str
        What the surface is called.
    level : float
        The value.
    pixel_size : float
        A/px.
    """
    from scipy.ndimage import gaussian_filter

    step = max(1, -(-len(mask) // SIZES[0]))
    while triangles(mask[::step, ::step, ::step] >= level) > TRIANGLES:
        step += 1
    inside = (mask[::step, ::step, ::step] >= level).astype(np.float32)
    return Isosurface(part, *isosurface(gaussian_filter(inside, 1.0, truncate=2.0), 0.5), pixel_size * step)


def _of_mask(
    wish: Wish, upright: NDArray[np.float32], pixel_size: float, enclosed: Volume | None
) -> Iterator[Piece]:
    """Yield regions and boundaries of a mask, which is inverted last."""
    mask = np.float32(1) - upright if wish.options.invert else upright
    yield Regions(mask_regions(mask), pixel_size, enclosed, volume_of(upright > 0.5, pixel_size))
    for part, level in BOUNDARIES.items():
        if part in wish.parts:
            yield mask_surface(mask, part, level, pixel_size)


def _threshold(steps: Generator[Any, None, float]) -> tuple[float, str]:
    """Return what the job's step returns, and the sentence that it yields, if any."""
    reason = ""
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            return stop.value, reason
        if isinstance(event, Notice):
            reason = event.message
