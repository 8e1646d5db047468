"""Image handler: rescale, rebox and filter maps and image stacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs.base import Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.check import checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOB = Job(
    name="image-handler",
    title="Image handler",
    folder="",
    relion_label="",
    summary="Rescale, rebox and filter a map or a stack of images",
)

_STACKS = (".mrcs", ".st")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is done to one file; the operations come in the order of the options below."""

    input: Path = option(
        label="Input map or stack",
        help="A map (.mrc) or a stack of images (.mrcs).",
        kind="map",
    )
    output: Path = option(
        label="Output file",
        help="The file to write; it may not be the input.",
        kind="map",
    )
    pixel_size: float | None = option(
        None,
        label="Pixel size",
        help="Pixel size of the input; that of the file unless given.",
        unit="A/px",
        step=0.001,
    )
    multiply_constant: float = option(
        1.0, label="Multiply by", help="Every voxel is multiplied by this.", group="Operations", step=0.1
    )
    add_constant: float = option(
        0.0, label="Add", help="This is added to every voxel.", group="Operations", step=0.1
    )
    bfactor: float = option(
        0.0,
        label="B-factor",
        help="Sharpen (negative) or dampen (positive) by this B-factor.",
        unit="A^2",
        group="Operations",
        step=10.0,
    )
    lowpass: float | None = option(
        None,
        label="Low-pass filter",
        help="Keep what is coarser than this resolution.",
        unit="A",
        group="Operations",
        minimum=0.001,
        step=1.0,
    )
    highpass: float | None = option(
        None,
        label="High-pass filter",
        help="Keep what is finer than this resolution.",
        unit="A",
        group="Operations",
        minimum=0.001,
        step=1.0,
    )
    invert_hand: bool = option(
        False,
        label="Invert the hand?",
        help="Mirror along x about the centre of the box, which keeps the symmetry axes in place.",
        group="Operations",
    )
    rescale_pixel_size: float | None = option(
        None,
        label="Rescaled pixel size",
        help="Resample to this pixel size. The box becomes an even number of pixels, so the true pixel "
        "size, which is written into the file, may differ a little.",
        unit="A/px",
        group="Operations",
        minimum=0.001,
        step=0.001,
    )
    new_box: int | None = option(
        None,
        label="New box",
        help="Cut out or pad with zeros to this box about the centre, after rescaling.",
        unit="px",
        group="Operations",
        minimum=2,
        step=2,
    )
    threads: int = option(
        0,
        label="Number of threads",
        help="How many processor cores to use; 0 means all of them.",
        group="Compute",
        minimum=0,
        maximum=1024,
        step=1,
    )


@dataclass(frozen=True)
class Result:
    """What a run of the image handler leaves.

    Attributes
    ----------
    output : Path
        The file written.
    pixel_size : float
        Its true pixel size in A.
    box : int
        Its box in pixels, along x.
    """

    output: Path
    pixel_size: float
    box: int


def run(options: Options) -> Run[Result]:
    """Process the file; yields events and returns the result. Makes no job folder."""
    import numpy as np

    from cryorefine.io.mrc import read_map, write_map, write_stack

    options = checked(options)
    given = options.pixel_size
    volume = read_map(options.input, pixel_size=given if given is not None and given > 0 else None)
    is_stack = options.input.suffix in _STACKS
    if (options.output.suffix in _STACKS) != is_stack:
        raise UserError(
            f"{options.input} is a {'stack' if is_stack else 'map'} but {options.output} is named as a "
            f"{'map' if is_stack else 'stack'}; name the output {'.mrcs' if is_stack else '.mrc'}."
        )
    if options.output.exists() and options.output.samefile(options.input):
        raise UserError(f"{options.output} is the input itself; give the output another name.")

    # One image in an .mrc file is an image, not a map of one section.
    images = list(volume.data) if is_stack or len(volume.data) == 1 else [volume.data]
    operations, pixel_size = _operations(options, images[0].shape, volume.pixel_size)
    if options.rescale_pixel_size is not None and abs(pixel_size / options.rescale_pixel_size - 1) > 1e-3:
        yield Notice(
            f"The pixel size of {options.output} is {pixel_size:.6g} A instead of the "
            f"{options.rescale_pixel_size:g} A asked for, because a box has an even number of pixels.",
            warning=True,
        )
    done: list[NDArray[Any]] = []
    for number, image in enumerate(images):
        yield Progress("Processing", number, len(images))
        for operation in operations:
            image = operation(image)
        done.append(image)

    if is_stack:
        write_stack(options.output, np.stack(done), pixel_size)
    else:
        write_map(options.output, done[0], pixel_size)
    yield Product("map", options.output, options.output.stem)
    yield Progress("Processing", len(images), len(images))
    return Result(options.output, pixel_size, int(done[0].shape[-1]))


def _operations(
    options: Options, shape: tuple[int, ...], pixel_size: float
) -> tuple[list[Callable[[NDArray[Any]], NDArray[Any]]], float]:
    """Return what is to be done to each image, in order, and the pixel size that comes out."""
    import numpy as np

    from cryorefine.maps import filters, fourier

    steps: list[Callable[[NDArray[Any]], NDArray[Any]]] = []
    threads = options.threads
    in_fourier_space = (
        options.lowpass,
        options.highpass,
        options.rescale_pixel_size,
        options.bfactor or None,
    )
    if any(value is not None for value in in_fourier_space) and len(set(shape)) != 1:
        raise UserError(
            f"{options.input} is {' x '.join(str(n) for n in reversed(shape))} px; filters and rescaling "
            "need a cubic map or square images; give --new-box first, in a run of its own."
        )
    if options.multiply_constant != 1:
        steps.append(lambda image: image * np.float32(options.multiply_constant))
    if options.add_constant != 0:
        steps.append(lambda image: image + np.float32(options.add_constant))
    if options.bfactor != 0:
        steps.append(lambda image: filters.apply_bfactor(image, pixel_size, options.bfactor, threads))
    if (lowpass := options.lowpass) is not None:
        steps.append(lambda image: filters.lowpass(image, pixel_size, lowpass, threads=threads))
    if (highpass := options.highpass) is not None:
        steps.append(lambda image: filters.highpass(image, pixel_size, highpass, threads=threads))
    if options.invert_hand:
        steps.append(fourier.mirror_x)
    out_size = pixel_size
    if options.rescale_pixel_size is not None:
        try:
            box, out_size = fourier.rescaled_size(shape[-1], pixel_size, options.rescale_pixel_size)
        except ValueError:
            raise UserError(
                f"--rescale-pixel-size {options.rescale_pixel_size:g} is too coarse for {options.input}, "
                f"whose box is {shape[-1]} px of {pixel_size:g} A; give a smaller one."
            ) from None
        steps.append(lambda image: fourier.rescale(image, box, threads))
    if (new_box := options.new_box) is not None:
        steps.append(lambda image: fourier.new_box(image, new_box))
    return steps, out_size
