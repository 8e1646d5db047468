"""Image handler: rescale, rebox, filter, combine and measure maps, image stacks and particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.check import checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOB = Job(
    name="image-handler",
    title="Image handler",
    folder="",
    relion_label="",
    summary="Rescale, rebox, filter, combine and measure maps, stacks and particles",
)

_STACKS = (".mrcs", ".st")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is done to one file, in the order of the options below; each works on what the last one left."""

    input: Path = option(
        label="Input map, stack or STAR file",
        help="A map (.mrc), a stack of images (.mrcs), or a STAR file of particles.",
        kind="map",
    )
    output: Path | None = option(
        None,
        label="Output file",
        help="The file to write; it may not be the input. For particles: a stack (.mrcs), beside which a "
        "STAR file is written, or a word that is put before the extension of every stack. Nothing is written "
        "when only something is measured.",
        kind="map",
    )
    pixel_size: float | None = option(
        None,
        label="Pixel size",
        help="Pixel size of the input; that of the file unless given.",
        unit="A/px",
        step=0.001,
    )
    half_precision: bool = option(
        False,
        label="Write stacks in half precision?",
        help="Stacks take half the space; RELION reads them from version 4 on.",
        flag="float16",
    )
    stats: bool = option(
        False,
        label="Statistics?",
        help="Tell size, mean, standard deviation, lowest and highest value.",
        group="Measure",
    )
    com: bool = option(
        False,
        label="Centre of mass?",
        help="Tell the centre of mass of the positive values, relative to that of the box.",
        group="Measure",
    )
    fsc: Path | None = option(
        None,
        label="FSC with",
        help="Tell the Fourier shell correlation with this map.",
        group="Measure",
        kind="map",
    )
    power: bool = option(
        False,
        label="Power spectrum?",
        help="Tell the mean power of each shell.",
        group="Measure",
    )
    guinier: bool = option(
        False,
        label="Guinier plot?",
        help="Tell the logarithm of the mean amplitude of each shell.",
        group="Measure",
    )
    average: bool = option(
        False,
        label="Average the images?",
        help="Replace the images of a stack by their mean.",
        group="Arithmetic",
    )
    remove_nan: bool = option(
        False,
        label="Remove NaN?",
        help="Replace NaN and infinite values by the value below.",
        group="Arithmetic",
    )
    replace_nan: float = option(
        0.0,
        label="Value in their place",
        help="What stands where NaN and infinite values were.",
        group="Arithmetic",
        step=0.1,
    )
    flip_xy: bool = option(
        False,
        label="Exchange x and y?",
        help="Mirror images at the diagonal.",
        group="Geometry",
    )
    phase_randomise: float | None = option(
        None,
        label="Random phases beyond",
        help="Replace all phases beyond this resolution by random ones.",
        unit="A",
        group="Filter",
        minimum=0.001,
        step=1.0,
    )
    multiply_constant: float = option(
        1.0,
        label="Multiply by",
        help="Every voxel is multiplied by this.",
        group="Arithmetic",
        step=0.1,
    )
    divide_constant: float = option(
        1.0,
        label="Divide by",
        help="Every voxel is divided by this.",
        group="Arithmetic",
        step=0.1,
    )
    add_constant: float = option(
        0.0,
        label="Add",
        help="This is added to every voxel.",
        group="Arithmetic",
        step=0.1,
    )
    subtract_constant: float = option(
        0.0,
        label="Subtract",
        help="This is taken away from every voxel.",
        group="Arithmetic",
        step=0.1,
    )
    multiply: Path | None = option(
        None,
        label="Multiply by a map",
        help="Voxel by voxel, e.g. a mask.",
        group="Arithmetic",
        kind="map",
    )
    divide: Path | None = option(
        None,
        label="Divide by a map",
        help="Voxel by voxel; 0 where the other map is 0.",
        group="Arithmetic",
        kind="map",
    )
    add: Path | None = option(
        None,
        label="Add a map",
        help="Voxel by voxel.",
        group="Arithmetic",
        kind="map",
    )
    subtract: Path | None = option(
        None,
        label="Subtract a map",
        help="Voxel by voxel.",
        group="Arithmetic",
        kind="map",
    )
    optimise_scale_subtract: bool = option(
        False,
        label="Find the best scale?",
        help="Scale the map that is subtracted so that the least is left.",
        group="Arithmetic",
    )
    optimise_bfactor_subtract: float = option(
        0.0,
        label="Range of B-factors",
        help="Also sharpen or dampen the map that is subtracted, by up to this B-factor in steps of 10.",
        unit="A^2",
        group="Arithmetic",
        minimum=0.0,
        step=10.0,
    )
    mask_optimise_subtract: Path | None = option(
        None,
        label="Mask for the scale",
        help="Only what is within this mask counts for the scale.",
        group="Arithmetic",
        kind="map",
    )
    adjust_power: Path | None = option(
        None,
        label="Match the amplitudes of",
        help="Give every shell the mean amplitude that it has in this map.",
        group="Filter",
        kind="map",
    )
    bfactor: float = option(
        0.0,
        label="B-factor",
        help="Sharpen (negative) or dampen (positive) by this B-factor.",
        unit="A^2",
        group="Filter",
        step=10.0,
    )
    log_diameter: float | None = option(
        None,
        label="Blob filter",
        help="Laplacian of a Gaussian that answers best to blobs of this diameter.",
        unit="A",
        group="Filter",
        minimum=0.001,
        step=10.0,
        flag="LoG",
    )
    lowpass: float | None = option(
        None,
        label="Low-pass filter",
        help="Keep what is coarser than this resolution.",
        unit="A",
        group="Filter",
        minimum=0.001,
        step=1.0,
    )
    directional: str = option(
        "all",
        label="Direction of the low-pass filter",
        help="Filter in all directions, or along one axis alone.",
        group="Filter",
        choices=("all", "X", "Y", "Z"),
    )
    highpass: float | None = option(
        None,
        label="High-pass filter",
        help="Keep what is finer than this resolution.",
        unit="A",
        group="Filter",
        minimum=0.001,
        step=1.0,
    )
    filter_edge_width: int = option(
        2,
        label="Width of the filters' edge",
        help="Over so many shells the low-pass and the high-pass filter fall off.",
        unit="shells",
        group="Filter",
        minimum=0,
        step=1,
    )
    flip_x: bool = option(
        False,
        label="Flip along x?",
        help="Turn the order of voxels along this axis round, which moves the centre by one voxel.",
        group="Geometry",
    )
    flip_y: bool = option(
        False,
        label="Flip along y?",
        help="Turn the order of voxels along this axis round, which moves the centre by one voxel.",
        group="Geometry",
    )
    flip_z: bool = option(
        False,
        label="Flip along z?",
        help="Turn the order of voxels along this axis round, which moves the centre by one voxel.",
        group="Geometry",
    )
    invert_hand: bool = option(
        False,
        label="Invert the hand?",
        help="Mirror along x about the centre of the box, which keeps the symmetry axes in place.",
        group="Geometry",
    )
    shift_com: bool = option(
        False,
        label="Centre the mass?",
        help="Move the centre of mass of the positive values to the centre of the box.",
        group="Geometry",
    )
    shift_x: float = option(
        0.0,
        label="Shift along x",
        help="Move the content by so much; what comes in is 0.",
        unit="px",
        group="Geometry",
        step=1.0,
    )
    shift_y: float = option(
        0.0,
        label="Shift along y",
        help="Move the content by so much; what comes in is 0.",
        unit="px",
        group="Geometry",
        step=1.0,
    )
    shift_z: float = option(
        0.0,
        label="Shift along z",
        help="Move the content by so much; what comes in is 0.",
        unit="px",
        group="Geometry",
        step=1.0,
    )
    rescale_pixel_size: float | None = option(
        None,
        label="Rescaled pixel size",
        help="Resample to this pixel size. The box becomes an even number of pixels, so the true pixel "
        "size, which is written into the file, may differ a little.",
        unit="A/px",
        group="Geometry",
        minimum=0.001,
        step=0.001,
    )
    new_box: int | None = option(
        None,
        label="New box",
        help="Cut out or pad with zeros to this box about the centre, after rescaling.",
        unit="px",
        group="Geometry",
        minimum=2,
        step=2,
    )
    sym: str = option(
        "C1",
        label="Symmetrise",
        help="Average over the copies of this point group, e.g. D2.",
        group="Geometry",
    )
    threshold_above: float | None = option(
        None,
        label="Highest value",
        help="Higher values become this one.",
        group="Arithmetic",
    )
    threshold_below: float | None = option(
        None,
        label="Lowest value",
        help="Lower values become this one.",
        group="Arithmetic",
    )
    force_header_pixel_size: float | None = option(
        None,
        label="Pixel size in the header",
        help="Write this into the header, whatever was done.",
        unit="A/px",
        group="Geometry",
        minimum=0.001,
        step=0.001,
    )
    random_seed: int = option(
        1,
        label="Random seed",
        help="The same seed gives the same random phases.",
        group="Compute",
        minimum=0,
        step=1,
    )
    threads: int = vocabulary.threads()

    @property
    def measures(self) -> bool:
        """Whether anything is measured."""
        return self.stats or self.com or self.fsc is not None or self.power or self.guinier


@dataclass(frozen=True)
class Result:
    """What a run of the image handler leaves.

    Attributes
    ----------
    output : Path or None
        The file written: the map, the stack, or the STAR file of the particles.
    pixel_size : float
        True pixel size in A.
    box : int
        Box in pixels, along x.
    """

    output: Path | None
    pixel_size: float
    box: int


def run(options: Options) -> Run[Result]:
    """Process the file; yields events and returns the result. Makes no job folder."""
    from cryorefine.jobs import image_handler_particles

    options = checked(options)
    if options.output is None and not options.measures:
        raise UserError("There is nothing to do: give --output, or something to measure, e.g. --stats.")
    if options.input.suffix == ".star":
        return (yield from image_handler_particles.run(options))
    return (yield from _file(options))


def _file(options: Options) -> Run[Result]:
    import numpy as np

    from cryorefine.io.mrc import write_map, write_stack
    from cryorefine.jobs.image_handler_measure import measure
    from cryorefine.jobs.image_handler_steps import steps_for

    data, pixel_size = _read(options)
    is_stack = options.input.suffix in _STACKS
    output, becomes_stack = options.output, is_stack and not options.average
    if output is not None:
        if (output.suffix in _STACKS) != becomes_stack:
            raise UserError(
                f"{options.input} gives a {'stack' if becomes_stack else 'map'} but {output} is named as a "
                f"{'map' if becomes_stack else 'stack'}; name the output "
                f"{'.mrcs' if becomes_stack else '.mrc'}."
            )
        if output.exists() and output.samefile(options.input):
            raise UserError(f"{output} is the input itself; give the output another name.")
    # One image in an .mrc file is an image, not a map of one section.
    images = list(data) if is_stack or len(data) == 1 else [data]
    if options.average:
        images = [np.mean(images, axis=0)]
    steps, new_pixel_size = steps_for(options, images[0].shape, pixel_size)
    wanted = options.rescale_pixel_size
    if wanted is not None and abs(new_pixel_size / wanted - 1) > 1e-3:
        yield Notice(
            f"The pixel size of {output} is {new_pixel_size:.6g} A instead of the "
            f"{wanted:g} A asked for, because a box has an even number of pixels.",
            warning=True,
        )
    done: list[NDArray[Any]] = []
    for number, image in enumerate(images):
        yield Progress("Processing", number, len(images))
        for step in steps:
            image = step(image)
        done.append(image)
    yield from measure(options, done, new_pixel_size)
    header = options.force_header_pixel_size or new_pixel_size
    if output is not None:
        if becomes_stack:
            write_stack(output, np.stack(done), header, options.half_precision)
        else:
            write_map(output, done[0], header)
        yield Product("map", output, output.stem)
    yield Progress("Processing", len(images), len(images))
    return Result(output, header, int(done[0].shape[-1]))


def _read(options: Options) -> tuple[NDArray[Any], float]:
    """Return float32 data of three axes, NaN replaced where that is asked for, and the pixel size."""
    import numpy as np

    from cryorefine.io.mrc import read_layout, read_map

    given = options.pixel_size if options.pixel_size is not None and options.pixel_size > 0 else None
    if not options.remove_nan:
        volume = read_map(options.input, pixel_size=given)
        return volume.data, volume.pixel_size
    layout = read_layout(options.input)
    order = [2 - layout.axes.index(axis) for axis in (3, 2, 1)]
    data = np.array(layout.memory_map().transpose(order), dtype=np.float32, order="C")
    value = options.replace_nan
    np.nan_to_num(data, copy=False, nan=value, posinf=value, neginf=value)
    if given is None and layout.pixel_size <= 0:
        raise UserError(f"{options.input} has no pixel size in its header; give the pixel size in A.")
    return data, given or layout.pixel_size
