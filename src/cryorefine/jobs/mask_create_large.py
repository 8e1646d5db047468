"""MaskCreate of large maps: on a GPU that holds them, or a few planes at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs.base import Notice, Product, Progress, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.compute.place import Place
    from cryorefine.jobs.mask_create import Options, Result

_STAGE = "Making the mask"
_SAMPLE = 192
_BYTES = 48
"""What a voxel takes on a GPU at the most: transforms in double precision, with their working memory."""
_PLANES = 32


def box_of(path: Path) -> int:
    """Return the longest side of a map in voxels, from its header."""
    from cryorefine.io.mrc import read_layout

    return max(read_layout(path).shape)


def run(options: Options, path: Path, planes: int, place: Place) -> Run[Result]:
    """Make the mask on a GPU, if that holds the map, or else by slabs; its voxels are the same."""
    import numpy as np

    from cryorefine.io.mrc import map_by_pieces
    from cryorefine.jobs import mask_create
    from cryorefine.maps import mask_checks

    yield Progress(_STAGE, 0, 3, "reading the map")
    volume, pixel_size = _mapped(path, options.pixel_size)
    size = len(volume)
    second = None
    if options.second_map is not None:
        second, _ = _mapped(options.second_map, pixel_size)
        if second.shape != volume.shape:
            raise UserError(
                f"{options.second_map} has a box of {len(second)} px but {path} one of {size} px; give a "
                "second map in the same box."
            )
    maps = _Maps(path, volume, second, pixel_size)
    yield Progress(_STAGE, 1, 3, "filtering")
    made = None
    if place.on_gpu and not place.holds(_BYTES * size**3):
        place.leave()
    if place.on_gpu:
        try:
            made = yield from _on_gpu(options, maps, place)
        except MemoryError:
            pass
        # Only here is what the failed attempt held let go.
        if made is None:
            place.leave()
    for sentence in place.notices:
        yield Notice(sentence, warning=True)
    if made is None:
        made = yield from _by_slabs(options, maps, planes)
    yield Progress(_STAGE, 2, 3, "thresholding")
    inside, touches, empty = 0, False, True
    with map_by_pieces(options.output / "mask.mrc", size, pixel_size) as mask:
        made.write(mask)
        for z, plane in enumerate(mask):
            upright = 1 - plane if options.invert else plane
            inside += int(np.count_nonzero(upright > 0.5))
            empty = empty and not upright.any()
            rim = upright if z in (0, size - 1) else upright[[0, -1]]
            touches = touches or bool(rim.any() or upright[:, [0, -1]].any())
    if empty:
        yield Notice(mask_create.why_empty(options, made.threshold, made.highest()), warning=True)
    elif touches:
        yield Notice(mask_checks.TOUCHES, warning=True)
    yield Product("mask", options.output / "mask.mrc", "mask")
    return (yield from mask_create.result_of(options, inside, size**3, pixel_size, made.threshold))


@dataclass(frozen=True)
class _Maps:
    """What a mask is made from; the maps are in their files."""

    path: Path
    volume: NDArray[Any]
    second: NDArray[Any] | None
    pixel_size: float


@dataclass(frozen=True)
class _Made:
    """A mask: its threshold, what writes it into an array, and the highest density once it is written."""

    threshold: float
    write: Callable[[NDArray[Any]], None]
    highest: Callable[[], float]


def _step(size: int) -> int:
    """Every so manieth voxel along each axis is asked where the threshold should be."""
    return -(-size // _SAMPLE)


def _on_gpu(options: Options, maps: _Maps, place: Place) -> Run[_Made]:
    """Make the mask on a GPU; raises MemoryError where it does not fit."""
    from cryorefine.compute.array_module import to_host
    from cryorefine.jobs import mask_create
    from cryorefine.maps.mask_recipe import mask_from_recipe

    step = _step(len(maps.volume))
    density = place.here(mask_create.filtered, maps.volume, options, maps.pixel_size)
    with place.current():
        highest, lowest = float(density.max()), float(density.min())
        sample = to_host(density[::step, ::step, ::step])
    _insist_on_numbers(maps.path, highest - lowest)
    threshold = yield from mask_create.threshold_of(options, sample, maps.pixel_size * step)
    recipe = mask_create.recipe_of(options, threshold, maps.pixel_size)
    mask = place.here(mask_from_recipe, density, recipe, maps.second)

    def write(file: NDArray[Any]) -> None:
        with place.current():
            for first in range(0, len(file), _PLANES):
                file[first : first + _PLANES] = to_host(mask[first : first + _PLANES])

    return _Made(threshold, write, lambda: highest)


def _by_slabs(options: Options, maps: _Maps, planes: int) -> Run[_Made]:
    """Make the mask on the processor, a few planes at a time."""
    import numpy as np

    from cryorefine.jobs import mask_create
    from cryorefine.maps import filters, fourier, mask_recipe

    volume, second, size = maps.volume, maps.second, len(maps.volume)
    padded = None
    if options.lowpass > 0:
        spectrum = filters.lowpass_spectrum(
            volume, maps.pixel_size, options.lowpass, threads=options.threads, precision="f8"
        )
        padded = fourier.inverse_padded_in_z(spectrum, size, options.threads)
        del spectrum

    def density(start: int, stop: int) -> NDArray[Any]:
        if padded is None:
            return np.asarray(volume[start:stop], dtype=np.float32)
        return fourier.padded_planes(padded, size, start, stop)

    threshold = options.threshold
    if options.threshold_from != "given":
        step = _step(size)
        sample = np.stack([density(z, z + 1)[0, ::step, ::step] for z in range(0, size, step)])
        threshold = yield from mask_create.threshold_of(options, sample, maps.pixel_size * step)
    recipe = mask_create.recipe_of(options, threshold, maps.pixel_size)
    highest = -np.inf

    def binary(start: int, stop: int) -> NDArray[np.bool_]:
        nonlocal highest
        part = density(start, stop)
        _insist_on_numbers(maps.path, float(part.max()) - float(part.min()))
        highest = max(highest, float(part.max()))
        return mask_recipe.binary_mask(part, recipe, None if second is None else second[start:stop])

    def write(file: NDArray[Any]) -> None:
        mask_recipe.mask_by_slabs(binary, size, recipe, file, planes, options.threads)

    return _Made(threshold, write, lambda: highest)


def _insist_on_numbers(path: Path, range_: float) -> None:
    """Refuse a map whose highest and lowest density are infinitely far apart, or no numbers."""
    if not math.isfinite(range_):
        raise UserError(f"{path} holds NaN or infinite values; make the map again.")


def _mapped(path: Path, given: float | None) -> tuple[NDArray[Any], float]:
    """Return a map in the file, with axes z, y, x, and its pixel size in A."""
    from cryorefine.io.mrc import read_layout

    layout = read_layout(path)
    volume = layout.memory_map().transpose([2 - layout.axes.index(axis) for axis in (3, 2, 1)])
    if len(set(volume.shape)) != 1:
        raise UserError(f"{path} is {' x '.join(map(str, volume.shape[::-1]))} px; a map has to be a cube.")
    pixel_size = given if given is not None and given > 0 else layout.pixel_size
    if pixel_size <= 0:
        raise UserError(f"{path} has no pixel size in its header; give the pixel size in A.")
    return volume, pixel_size
