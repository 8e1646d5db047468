"""The image handler on a map or a stack: read, combine frames, process each image, write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_layout, read_map, write_map, write_stack
from cryorefine.io.png import write_png
from cryorefine.jobs.base import Notice, Product, Progress, Run
from cryorefine.jobs.image_handler import Options, Result
from cryorefine.jobs.image_handler_measure import measure
from cryorefine.jobs.image_handler_picture import picture
from cryorefine.jobs.image_handler_steps import BATCH, processed, steps_for
from cryorefine.maps.image_operations import MeanAmplitudes

if TYPE_CHECKING:
    from collections.abc import Sequence

_STACKS = (".mrcs", ".st")


def run(options: Options) -> Run[Result]:
    """Process one file."""
    data, pixel_size = _read(options)
    is_stack = options.input.suffix in _STACKS
    # One image in an .mrc file is an image, not a map of one section.
    images = list(data) if is_stack or len(data) == 1 else [data]
    if is_stack:
        images = combined(options, images)
    becomes_stack = is_stack and not (options.amplitudes or _becomes_one(options))
    output = options.output
    if output is not None:
        _check_output(options, output, becomes_stack, images)
    steps, new_pixel_size = steps_for(options, images[0].shape, pixel_size, len(images))
    wanted = options.rescale_pixel_size
    if wanted is not None and abs(new_pixel_size / wanted - 1) > 1e-3:
        yield Notice(
            f"The pixel size of {output} is {new_pixel_size:.6g} A instead of the "
            f"{wanted:g} A asked for, because a box has an even number of pixels.",
            warning=True,
        )
    done: list[NDArray[Any]] = []
    for start in range(0, len(images), BATCH):
        yield Progress("Processing", start, len(images))
        done.extend(processed(images[start : start + BATCH], steps, options))
    yield from measure(options, done, new_pixel_size)
    if options.amplitudes:
        mean = MeanAmplitudes(options.amplitudes != "avg_ampl", options.threads)
        for image in done:
            mean.add(image)
        done = [mean.result()]
    header = options.force_header_pixel_size or new_pixel_size
    if output is not None:
        for path in _written(options, output, done, header, becomes_stack):
            yield Product("picture" if path.suffix == ".png" else "map", path, path.stem)
    yield Progress("Processing", len(images), len(images))
    return Result(output, header, int(done[0].shape[-1]))


def combined(options: Options, frames: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the images of a stack that are asked for, added up or averaged where that is asked for.

    Raises
    ------
    UserError
        When none is left.
    """
    first, last = options.avg_first or 1, options.avg_last or len(frames)
    chosen = list(frames[first - 1 : last])
    group = options.avg_bin or len(chosen)
    if not chosen or group > len(chosen):
        raise UserError(
            f"{options.input} holds {len(frames)} images, of which {len(chosen)} are left for "
            f"--avg-first {first}, --avg-last {last} and --avg-bin {group}; give other numbers."
        )
    if options.average:
        return [np.mean(chosen, axis=0)]
    if options.avg_bin is None and not _becomes_one(options):
        return chosen
    starts = range(0, len(chosen) - group + 1, group)
    return [np.sum(chosen[start : start + group], axis=0) for start in starts]


def _becomes_one(options: Options) -> bool:
    """Whether the images of a stack become a single one."""
    if options.average:
        return True
    return options.avg_bin is None and (options.avg_first is not None or options.avg_last is not None)


def _check_output(
    options: Options, output: Path, becomes_stack: bool, images: Sequence[NDArray[Any]]
) -> None:
    if output.exists() and output.samefile(options.input):
        raise UserError(f"{output} is the input itself; give the output another name.")
    if output.suffix == ".png":
        if images[0].ndim != 2 or options.amplitudes:
            raise UserError(f"{output} is to be a picture, but {options.input} gives no image; name it .mrc.")
        return
    if (output.suffix in _STACKS) != becomes_stack:
        raise UserError(
            f"{options.input} gives a {'stack' if becomes_stack else 'map'} but {output} is named as a "
            f"{'map' if becomes_stack else 'stack'}; name the output "
            f"{'.mrcs' if becomes_stack else '.mrc'}."
        )


def _written(
    options: Options, output: Path, images: list[NDArray[Any]], pixel_size: float, is_stack: bool
) -> list[Path]:
    """Write the images and return the files."""
    if output.suffix == ".png":
        paths = [output]
        if len(images) > 1:
            paths = [output.with_stem(f"{output.stem}_{n:06d}") for n in range(1, len(images) + 1)]
        for path, image in zip(paths, images, strict=True):
            write_png(path, picture(image, options))
        return paths
    if is_stack:
        write_stack(output, np.stack(images), pixel_size, options.half_precision)
    else:
        write_map(output, images[0], pixel_size)
    return [output]


def _read(options: Options) -> tuple[NDArray[Any], float]:
    """Return float32 data of three axes, NaN replaced where that is asked for, and the pixel size."""
    given = options.pixel_size if options.pixel_size is not None and options.pixel_size > 0 else None
    if not options.remove_nan:
        volume = read_map(options.input, pixel_size=given, mapped=True)
        return volume.data, volume.pixel_size
    layout = read_layout(options.input)
    order = [2 - layout.axes.index(axis) for axis in (3, 2, 1)]
    data = np.array(layout.memory_map().transpose(order), dtype=np.float32, order="C")
    value = options.replace_nan
    np.nan_to_num(data, copy=False, nan=value, posinf=value, neginf=value)
    if given is None and layout.pixel_size <= 0:
        raise UserError(f"{options.input} has no pixel size in its header; give the pixel size in A.")
    return data, given or layout.pixel_size
