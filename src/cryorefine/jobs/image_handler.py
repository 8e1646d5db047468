"""Image handler: rescale, rebox, filter, combine and measure maps, image stacks and particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Job, Run, option
from cryorefine.jobs.check import checked

JOB = Job(
    name="image-handler",
    title="Image handler",
    folder="",
    relion_label="",
    summary="Rescale, rebox, filter, combine and measure maps, stacks and particles",
)


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
        help="The file to write; it may not be the input. A .png is a picture of an image. For particles: a "
        "stack (.mrcs), beside which a STAR file is written, or a word that is put before the extension of "
        "every stack. Nothing is written when only something is measured.",
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
    cos_phase: Path | None = option(
        None,
        label="Phase difference with",
        help="Tell the mean cosine of the difference of the phases from those of this map, for each shell.",
        group="Measure",
        kind="map",
    )
    average: bool = option(
        False,
        label="Average the images?",
        help="Replace the images of a stack by their mean.",
        group="Frames",
    )
    average_all_movie_frames: bool = option(
        False,
        label="Average all movies?",
        help="Replace the frames of all movies of a STAR file (rlnMicrographMovieName) by their mean.",
        group="Frames",
    )
    avg_bin: int | None = option(
        None,
        label="Frames to add up",
        help="Add up every so many images of a stack, e.g. the frames of a movie; an incomplete last group "
        "is left out.",
        group="Frames",
        minimum=1,
        step=1,
    )
    avg_first: int | None = option(
        None,
        label="First frame",
        help="Leave out the images before this one, and add up or average the others.",
        group="Frames",
        minimum=1,
        step=1,
    )
    avg_last: int | None = option(
        None,
        label="Last frame",
        help="Leave out the images after this one, and add up or average the others.",
        group="Frames",
        minimum=1,
        step=1,
    )
    avg_ampl: bool = option(
        False,
        label="Average the amplitudes?",
        help="Write the mean amplitude of each Fourier component of all images, for --correct-avg-ampl.",
        group="Frames",
    )
    avg_ampl2: bool = option(
        False,
        label="Average the power?",
        help="Write the mean squared amplitude of each Fourier component of all images.",
        group="Frames",
    )
    avg_ampl2_ali: bool = option(
        False,
        label="Average the power of aligned images?",
        help="The same after turning each particle image by its rlnAnglePsi.",
        group="Frames",
    )
    add_edge: bool = option(
        False,
        label="Repeat pixels at the edges?",
        help="Fill what lies beyond the four lines below with the pixels of these lines, e.g. where a camera "
        "has dead rows.",
        group="Geometry",
    )
    edge_x0: int = option(
        0,
        label="Left edge",
        help="Column whose pixels are repeated to the left of it.",
        unit="px",
        group="Geometry",
        minimum=0,
        step=1,
    )
    edge_y0: int = option(
        0,
        label="Top edge",
        help="Row whose pixels are repeated above it.",
        unit="px",
        group="Geometry",
        minimum=0,
        step=1,
    )
    edge_xf: int = option(
        4095,
        label="Right edge",
        help="Column whose pixels are repeated to the right of it, if the image is as wide.",
        unit="px",
        group="Geometry",
        minimum=0,
        step=1,
        flag="edge-xF",
    )
    edge_yf: int = option(
        4095,
        label="Bottom edge",
        help="Row whose pixels are repeated below it, if the image is as high.",
        unit="px",
        group="Geometry",
        minimum=0,
        step=1,
        flag="edge-yF",
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
        help="Mirror images at the diagonal through the first pixel.",
        group="Geometry",
    )
    flip_mxy: bool = option(
        False,
        label="Mirror at the other diagonal?",
        help="Exchange x and y and turn the order of both round.",
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
    correct_avg_ampl: Path | None = option(
        None,
        label="Even out amplitudes by",
        help="Divide each Fourier component by its mean amplitude in this file of --avg-ampl, and multiply "
        "it by the mean of these over the shell.",
        group="Filter",
        kind="map",
    )
    minr_ampl_corr: int = option(
        0,
        label="Not up to the radius",
        help="Shells up to this one are left as they are.",
        unit="Fourier px",
        group="Filter",
        minimum=0,
        step=1,
    )
    fourier_filter: Path | None = option(
        None,
        label="Filter in Fourier space",
        help="Multiply the Fourier transform by this image or map, whose centre voxel N/2 is the origin.",
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
    black: float = option(
        0.0,
        label="Value shown black",
        help="In a .png; with black and white alike, the lowest and the highest value are taken.",
        group="PNG",
        step=0.1,
    )
    white: float = option(
        0.0,
        label="Value shown white",
        help="In a .png; with black and white alike, the lowest and the highest value are taken.",
        group="PNG",
        step=0.1,
    )
    sigma_contrast: float = option(
        0.0,
        label="Contrast",
        help="Black and white lie so many standard deviations from the mean; 0 takes the values above.",
        group="PNG",
        minimum=0.0,
        step=0.5,
    )
    colour: str = option(
        "grey",
        label="Colours",
        help="From low to high: fire black-grey-white-red, ice blue-black-grey-white, fire-n-ice "
        "blue-grey-red, rainbow cyan-blue-black-red-yellow.",
        group="PNG",
        choices=("grey", "fire", "ice", "fire-n-ice", "rainbow"),
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
        asked = self.stats, self.com, self.power, self.guinier
        return any(asked) or self.fsc is not None or self.cos_phase is not None

    @property
    def amplitudes(self) -> str:
        """Which mean over Fourier components of all images is wanted; "" for none."""
        kinds = [name for name in ("avg_ampl", "avg_ampl2", "avg_ampl2_ali") if getattr(self, name)]
        return kinds[0] if kinds else ""

    def check(self) -> None:
        """Say what does not go together."""
        kinds = [name for name in ("avg_ampl", "avg_ampl2", "avg_ampl2_ali") if getattr(self, name)]
        if len(kinds) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in kinds)
            raise UserError(f"{flags} cannot be written into one file; give one of them.")
        if self.avg_first is not None and self.avg_last is not None and self.avg_first > self.avg_last:
            raise UserError(
                f"--avg-first {self.avg_first} comes after --avg-last {self.avg_last}; exchange them."
            )


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
    from cryorefine.jobs import image_handler_files, image_handler_movies, image_handler_particles

    options = checked(options)
    if options.output is None and not options.measures:
        raise UserError("There is nothing to do: give --output, or something to measure, e.g. --stats.")
    if options.average_all_movie_frames:
        return (yield from image_handler_movies.run(options))
    if options.input.suffix == ".star":
        return (yield from image_handler_particles.run(options))
    return (yield from image_handler_files.run(options))
