"""What the image handler does to each image, as a list of functions in the documented order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.geometry.symmetry import point_group
from cryorefine.maps import filters, fourier, image_operations
from cryorefine.maps.randomise import randomise_phases
from cryorefine.maps.slabs import over_slabs

if TYPE_CHECKING:
    from cryorefine.jobs.image_handler import Options

Image = NDArray[Any]
Step = Callable[[Image], Image]

BATCH = 512
"""Images between two words on progress, which are in memory together where they are read as needed."""


def processed(images: Sequence[Image] | NDArray[Any], steps: list[Step], options: Options) -> NDArray[Any]:
    """Take each image through the steps, several images at a time.

    Parameters
    ----------
    images : sequence of ndarray
        All of one shape; at least one.
    steps : list of callable
        Made for so many images.
    options : Options
        Of the job.

    Returns
    -------
    ndarray, shape (images, ...)
    """

    def through(image: Image) -> Image:
        for step in steps:
            image = step(image)
        return image

    first = through(images[0])
    if len(images) == 1:
        return first[None]
    result = np.empty((len(images), *first.shape), first.dtype)
    result[0] = first

    def work(slab: slice) -> None:
        for number in range(slab.start + 1, slab.stop + 1):
            result[number] = through(images[number])

    # Random phases come one after the other, so that the same seed gives every image the same ones.
    over_slabs(work, len(images) - 1, 1 if options.phase_randomise is not None else options.threads)
    return result


def steps_for(
    options: Options, shape: tuple[int, ...], pixel_size: float, count: int = 1
) -> tuple[list[Step], float]:
    """Return what is to be done to each image, in order, and the pixel size that comes out.

    Parameters
    ----------
    options : Options
        Of the job.
    shape : tuple of int
        (z, y, x) of a map, (y, x) of an image.
    pixel_size : float
        A/px.
    count : int
        Number of images: threads share several, or work on one together.

    Raises
    ------
    UserError
        When an operation does not go with the shape, or another file does not.
    """
    _refuse(options, shape)
    if count > 1:
        options = replace(options, threads=1)
    steps = _edges_and_diagonals(options)
    if options.flip_xy != options.flip_mxy and len(set(shape)) > 1:
        shape = shape[::-1]
    steps += _arithmetic(options, shape, pixel_size)
    # Filters of a rectangle see it framed by its mean, so that the frame adds no edge.
    steps += [_square(step, shape, framed=True) for step in _filters(options, pixel_size)]
    steps += _geometry(options, len(shape))
    out_size = pixel_size
    if options.rescale_pixel_size is not None:
        try:
            box, out_size = fourier.rescaled_size(max(shape), pixel_size, options.rescale_pixel_size)
        except ValueError:
            raise UserError(
                f"--rescale-pixel-size {options.rescale_pixel_size:g} is too coarse for {options.input}, "
                f"whose box is {max(shape)} px of {pixel_size:g} A; give a smaller one."
            ) from None
        steps.append(_square(lambda image: fourier.rescale(image, box, options.threads), shape))
    if (new_box := options.new_box) is not None:
        steps.append(lambda image: fourier.new_box(image, new_box))
    if options.sym.upper() != "C1":
        steps.append(lambda image: image_operations.symmetrise(image, options.sym))
    low, high = options.threshold_below, options.threshold_above
    if low is not None or high is not None:
        steps.append(lambda image: np.clip(image, low, high))
    return steps, out_size


def _refuse(options: Options, shape: tuple[int, ...]) -> None:
    needs_square = {
        "--optimise-bfactor-subtract": options.optimise_bfactor_subtract or None,
        "--correct-avg-ampl": options.correct_avg_ampl,
    }
    needs_cube = needs_square | {
        "--phase-randomise": options.phase_randomise,
        "--adjust-power": options.adjust_power,
        "--bfactor": options.bfactor or None,
        "--LoG": options.log_diameter,
        "--lowpass": options.lowpass,
        "--highpass": options.highpass,
        "--rescale-pixel-size": options.rescale_pixel_size,
    }
    asked_for = [
        name for name, value in (needs_cube if len(shape) == 3 else needs_square).items() if value is not None
    ]
    if len(set(shape)) != 1 and asked_for:
        raise UserError(
            f"{options.input} is {' x '.join(str(n) for n in reversed(shape))} px; {asked_for[0]} needs "
            f"{'a cubic map' if len(shape) == 3 else 'square images'}; give --new-box first, in a run of its "
            "own."
        )
    only_maps = {
        "--sym": options.sym.upper() != "C1",
        "--flip-z": options.flip_z,
        "--shift-z": options.shift_z != 0,
        "--directional Z": options.directional == "Z" and options.lowpass is not None,
    }
    for name, asked in only_maps.items():
        if asked and len(shape) != 3:
            raise UserError(f"{name} needs a map, but {options.input} holds images; leave it out.")
    only_images = {
        "--flip-xy": options.flip_xy,
        "--flip-mxy": options.flip_mxy,
        "--add-edge": options.add_edge,
        "--avg-ampl2-ali": options.avg_ampl2_ali,
    }
    for name, asked in only_images.items():
        if asked and len(shape) == 3:
            raise UserError(f"{name} needs images, but {options.input} is a map; leave it out.")
    if options.sym.upper() != "C1":
        point_group(options.sym)


def _square(step: Step, shape: tuple[int, ...], framed: bool = False) -> Step:
    """Return a step that takes rectangular images as well, where there are such."""
    if len(set(shape)) == 1:
        return step
    return lambda image: image_operations.on_square(step, image, float(image.mean()) if framed else 0.0)


def _edges_and_diagonals(options: Options) -> list[Step]:
    steps: list[Step] = []
    if options.add_edge:
        first, last = (options.edge_y0, options.edge_x0), (options.edge_yf, options.edge_xf)
        steps.append(lambda image: image_operations.repeat_edges(image, first, last))
    if options.flip_xy:
        steps.append(lambda image: image.T)
    if options.flip_mxy:
        steps.append(lambda image: image[::-1, ::-1].T)
    return steps


def _arithmetic(options: Options, shape: tuple[int, ...], pixel_size: float) -> list[Step]:
    steps: list[Step] = []
    if (beyond := options.phase_randomise) is not None:
        rng = np.random.default_rng(options.random_seed)
        size = max(shape)
        first = int(size * pixel_size / beyond)

        def randomise(image: Image) -> Image:
            spectrum = fourier.forward(image, options.threads)
            spectrum = randomise_phases(spectrum, first, size, rng, options.threads)
            return fourier.inverse(spectrum, size, options.threads, overwrite=True)

        steps.append(_square(randomise, shape, framed=True))
    factor = np.float32(options.multiply_constant / options.divide_constant)
    if factor != 1:
        steps.append(lambda image: image * factor)
    term = np.float32(options.add_constant - options.subtract_constant)
    if term != 0:
        steps.append(lambda image: image + term)
    if options.multiply is not None:
        steps.append(_with(options.multiply, shape, np.multiply))
    if options.divide is not None:
        steps.append(_with(options.divide, shape, image_operations.divide))
    if options.add is not None:
        steps.append(_with(options.add, shape, np.add))
    if options.subtract is not None:
        steps.append(_subtraction(options, options.subtract, shape, pixel_size))
    if options.adjust_power is not None:
        other = fourier.window(other_image(options.adjust_power, shape), (max(shape),) * len(shape))
        steps.append(
            _square(lambda image: image_operations.match_power(image, other, options.threads), shape)
        )
    if options.correct_avg_ampl is not None:
        amplitudes = other_image(options.correct_avg_ampl, (*shape[:-1], shape[-1] // 2 + 1))
        least = options.minr_ampl_corr
        steps.append(
            lambda image: image_operations.even_out_amplitudes(image, amplitudes, least, options.threads)
        )
    if options.fourier_filter is not None:
        gain = other_image(options.fourier_filter, shape)
        steps.append(lambda image: image_operations.filter_by_image(image, gain, options.threads))
    return steps


def _subtraction(options: Options, path: Path, shape: tuple[int, ...], pixel_size: float) -> Step:
    if not options.optimise_scale_subtract and options.optimise_bfactor_subtract == 0:
        return _with(path, shape, np.subtract)
    mask = None
    if options.mask_optimise_subtract is not None:
        mask = other_image(options.mask_optimise_subtract, shape)

    def subtract(image: Image, other: Image) -> Image:
        left, _, _ = image_operations.best_subtraction(
            image, other, pixel_size, options.optimise_bfactor_subtract, mask, options.threads
        )
        return left

    return _with(path, shape, subtract)


def _filters(options: Options, pixel_size: float) -> list[Step]:
    steps: list[Step] = []
    threads, edge = options.threads, options.filter_edge_width
    if options.bfactor != 0:
        steps.append(lambda image: filters.apply_bfactor(image, pixel_size, options.bfactor, threads))
    if (diameter := options.log_diameter) is not None:
        steps.append(lambda image: image_operations.blob_filter(image, pixel_size, diameter, threads))
    if (lowpass := options.lowpass) is not None:
        if options.directional == "all":
            steps.append(lambda image: filters.lowpass(image, pixel_size, lowpass, edge, threads))
        else:
            steps.append(
                lambda image: image_operations.one_way_lowpass(
                    image, pixel_size, lowpass, options.directional, edge, threads
                )
            )
    if (highpass := options.highpass) is not None:
        steps.append(lambda image: filters.highpass(image, pixel_size, highpass, edge, threads))
    return steps


def _geometry(options: Options, ndim: int) -> list[Step]:
    steps: list[Step] = []
    for axis, asked in (("X", options.flip_x), ("Y", options.flip_y), ("Z", options.flip_z)):
        if asked:
            steps.append(lambda image, axis=axis: image_operations.flip(image, axis))  # type: ignore[misc]
    if options.invert_hand:
        steps.append(fourier.mirror_x)
    if options.shift_com:
        steps.append(
            lambda image: image_operations.move(image, tuple(-image_operations.centre_of_mass(image)))
        )
    offset = (options.shift_z, options.shift_y, options.shift_x)[-ndim:]
    if any(offset):
        steps.append(lambda image: image_operations.move(image, offset))
    return steps


def _with(path: Path, shape: tuple[int, ...], combine: Callable[[Image, Image], Image]) -> Step:
    other = other_image(path, shape)
    return lambda image: combine(image, other)


def other_image(path: Path, shape: tuple[int, ...]) -> Image:
    """Read another map or image, which has to have this shape."""
    from cryorefine.io.mrc import read_map

    data = read_map(path, pixel_size=1.0).data
    if len(shape) == 2 and len(data) == 1:
        data = data[0]
    if data.shape != shape:
        raise UserError(
            f"{path} is {' x '.join(map(str, data.shape[::-1]))} px but the input is "
            f"{' x '.join(map(str, shape[::-1]))} px; give one of that size."
        )
    return data
