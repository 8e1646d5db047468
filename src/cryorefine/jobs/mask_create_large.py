"""MaskCreate of maps that had better not be in memory as a whole: a few planes at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs.base import Notice, Product, Progress, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.jobs.mask_create import Options, Result

_STAGE = "Making the mask"
_SAMPLE = 192


def box_of(path: Path) -> int:
    """Return the longest side of a map in voxels, from its header."""
    from cryorefine.io.mrc import read_layout

    return max(read_layout(path).shape)


def run(options: Options, path: Path, planes: int) -> Run[Result]:
    """Make the mask by slabs; its voxels are the same as those of the mask made in one piece."""
    import numpy as np

    from cryorefine.io.mrc import map_by_pieces
    from cryorefine.jobs import mask_create
    from cryorefine.maps import filters, fourier, mask_checks, mask_recipe

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
    yield Progress(_STAGE, 1, 3, "filtering")
    padded = None
    if options.lowpass > 0:
        spectrum = filters.lowpass_spectrum(
            volume, pixel_size, options.lowpass, threads=options.threads, precision="f8"
        )
        padded = fourier.inverse_padded_in_z(spectrum, size, options.threads)
        del spectrum

    def density(start: int, stop: int) -> NDArray[Any]:
        if padded is None:
            return np.asarray(volume[start:stop], dtype=np.float32)
        return fourier.padded_planes(padded, size, start, stop)

    threshold = options.threshold
    if options.threshold_from != "given":
        # What is asked of the whole map is asked of every few voxels along each axis.
        step = -(-size // _SAMPLE)
        sample = np.stack([density(z, z + 1)[0, ::step, ::step] for z in range(0, size, step)])
        threshold = yield from mask_create.threshold_of(options, sample, pixel_size * step)
    recipe = mask_create.recipe_of(options, threshold, pixel_size)
    highest = -np.inf

    def binary(start: int, stop: int) -> NDArray[np.bool_]:
        nonlocal highest
        part = density(start, stop)
        if not np.isfinite(part).all():
            raise UserError(f"{path} holds NaN or infinite values; make the map again.")
        highest = max(highest, float(part.max()))
        return mask_recipe.binary_mask(part, recipe, None if second is None else second[start:stop])

    yield Progress(_STAGE, 2, 3, "thresholding")
    inside, touches, empty = 0, False, True
    with map_by_pieces(options.output / "mask.mrc", size, pixel_size) as mask:
        mask_recipe.mask_by_slabs(binary, size, recipe, mask, planes, options.threads)
        for z, plane in enumerate(mask):
            upright = 1 - plane if options.invert else plane
            inside += int(np.count_nonzero(upright > 0.5))
            empty = empty and not upright.any()
            rim = upright if z in (0, size - 1) else upright[[0, -1]]
            touches = touches or bool(rim.any() or upright[:, [0, -1]].any())
    if empty:
        yield Notice(mask_create.why_empty(options, threshold, highest), warning=True)
    elif touches:
        yield Notice(mask_checks.TOUCHES, warning=True)
    yield Product("mask", options.output / "mask.mrc", "mask")
    return (yield from mask_create.result_of(options, inside, size**3, pixel_size, threshold))


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
