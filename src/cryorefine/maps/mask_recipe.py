"""A mask from a map, in one piece or slab by slab: threshold, second map, islands, edge, helix, inversion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.maps import density, masks

COMBINATIONS = ("and", "or", "and-not", "or-not")


@dataclass(frozen=True)
class MaskRecipe:
    """What is done to a filtered map, in the order of the attributes.

    Attributes
    ----------
    threshold : float
        A voxel of at least this density belongs to the mask.
    combination : str
        How the second map, at the same threshold, takes part: one of :data:`COMBINATIONS`.
    fill_holes : bool
        Whether enclosed holes are filled.
    largest_islands : int or None
        How many connected parts are kept; all unless given.
    smallest_island : float
        Voxels; smaller parts are removed.
    extend : float
        Voxels; negative shrinks. See :func:`.masks.extend_binary`.
    soft_edge : float
        Voxels. See :func:`.masks.add_soft_edge`.
    helix_length : float or None
        Share of the box kept along z (:func:`.masks.helix_window`); all unless given.
    invert : bool
        Whether the result is one minus the mask.
    """

    threshold: float
    combination: str = "and"
    fill_holes: bool = False
    largest_islands: int | None = None
    smallest_island: float = 0.0
    extend: float = 0.0
    soft_edge: float = 0.0
    helix_length: float | None = None
    invert: bool = False

    @property
    def looks_at_whole(self) -> bool:
        """Whether a slab cannot be made without all the others: islands and holes may span the box."""
        return self.fill_holes or self.largest_islands is not None or self.smallest_island > 0

    @property
    def reach(self) -> int:
        """How many voxels away a voxel of the map may change the mask."""
        return math.ceil(abs(self.extend)) + math.ceil(max(self.soft_edge, 0.0)) + 1


def mask_from_recipe(
    volume: NDArray[Any], recipe: MaskRecipe, second: NDArray[Any] | None = None, threads: int = 0
) -> NDArray[np.float32]:
    """Make a soft mask around the density of a map.

    Parameters
    ----------
    volume : numpy.ndarray
        Shape (z, y, x), usually low-pass filtered.
    recipe : MaskRecipe
        What is done.
    second : numpy.ndarray, optional
        A second map of the same shape, taken as it is.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        float32, shape (z, y, x), values in [0, 1].
    """
    binary = over_whole(binary_mask(volume, recipe, second), recipe)
    return shaped(soften(binary, recipe, threads), recipe, 0, len(binary))


def binary_mask(
    volume: NDArray[Any], recipe: MaskRecipe, second: NDArray[Any] | None = None
) -> NDArray[np.bool_]:
    """Return which voxels of a map, or of a slab of it, reach the threshold, with the second map's say."""
    binary = volume >= recipe.threshold
    if second is None:
        return binary
    other = second >= recipe.threshold
    if recipe.combination.endswith("not"):
        other = ~other
    return binary & other if recipe.combination.startswith("and") else binary | other


def over_whole(binary: NDArray[np.bool_], recipe: MaskRecipe) -> NDArray[np.bool_]:
    """Fill holes and remove islands of the binary mask of a whole map."""
    if recipe.fill_holes:
        binary = density.fill_holes(binary)
    if recipe.largest_islands is not None or recipe.smallest_island > 0:
        binary = density.keep_islands(binary, recipe.largest_islands, recipe.smallest_island)
    return binary


def soften(binary: NDArray[np.bool_], recipe: MaskRecipe, threads: int = 0) -> NDArray[np.float32]:
    """Extend a binary mask and give it a soft edge."""
    return masks.add_soft_edge(masks.extend_binary(binary, recipe.extend, threads), recipe.soft_edge, threads)


def shaped(mask: NDArray[np.float32], recipe: MaskRecipe, start: int, size: int) -> NDArray[np.float32]:
    """Apply helix window and inversion to the planes from ``start`` on of a box of ``size`` voxels."""
    if recipe.helix_length is not None:
        window = masks.helix_window(size, recipe.helix_length, recipe.soft_edge)
        mask = mask * module_of(mask).asarray(window[start : start + len(mask), None, None])
    return np.float32(1) - mask if recipe.invert else mask


def mask_by_slabs(
    read: Callable[[int, int], NDArray[Any]],
    size: int,
    recipe: MaskRecipe,
    write: Any,
    planes: int = 32,
    threads: int = 0,
) -> None:
    """Make the mask of a map that need not fit into memory; the voxels are those of :func:`mask_from_recipe`.

    Slabs of the binary mask overlap by :attr:`MaskRecipe.reach` planes, so that every voxel sees all
    that may change it. Islands and holes need the binary mask of the whole box, 1 byte a voxel, and
    labels of 4 bytes a voxel.

    Parameters
    ----------
    read : callable
        Takes the first plane and the one after the last; returns the binary mask of these planes,
        boolean of shape (planes, y, x).
    size : int
        Box in voxels.
    recipe : MaskRecipe
        What is done.
    write : array_like
        Takes planes by ``write[start:stop, 0:size, 0:size] = values``, e.g. a memory map of the file.
    planes : int
        How many planes make a slab.
    threads : int
        Slabs worked on at a time; 0 for every core.
    """
    import dask.array
    import dask.config
    from dask.delayed import delayed

    from cryorefine.maps.slabs import thread_count

    arrays: Any = dask.array  # whose functions have no types

    edges = [*range(0, size, planes), size]
    pieces = [
        arrays.from_delayed(delayed(read)(a, b), (b - a, size, size), bool)
        for a, b in itertools.pairwise(edges)
    ]
    binary = arrays.concatenate(pieces)
    with dask.config.set(scheduler="threads", num_workers=thread_count(threads)):
        if recipe.looks_at_whole:
            whole = over_whole(binary.compute(), recipe)
            binary = arrays.from_array(whole, chunks=(planes, size, size))

        def work(block: NDArray[np.bool_], block_info: Any = None) -> NDArray[np.float32]:
            return soften(block, recipe, threads=1)

        depth = {0: recipe.reach, 1: 0, 2: 0}
        mask = arrays.map_overlap(work, binary, depth=depth, boundary="none", dtype=np.float32)

        def finish(block: NDArray[np.float32], block_info: Any = None) -> NDArray[np.float32]:
            start = block_info[0]["array-location"][0][0] if block_info else 0
            return shaped(block, recipe, start, size)

        arrays.store(mask.map_blocks(finish, dtype=np.float32), write, lock=False)
