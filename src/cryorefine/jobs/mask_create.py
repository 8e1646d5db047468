"""MaskCreate: a soft mask around the density of a map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.compute.place import Place
    from cryorefine.io.mrc import Map
    from cryorefine.maps.mask_recipe import MaskRecipe

JOB = Job(
    name="mask-create",
    title="Mask creation",
    folder="MaskCreate",
    relion_label="relion.maskcreate",
    summary="Make a soft mask around the density of a map",
)

_STAGE = "Making the mask"
_CENTRE = "Where the sphere's centre lies relative to that of the box."
_LARGEST_WHOLE = 640
_PLANES = 32


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one mask is made from, and how."""

    input: Path | None = option(
        None,
        label="Input 3D map",
        help="The map to make the mask from, usually run_class001.mrc of a refinement.",
        kind="map",
        relion="fn_in",
    )
    output: Path = option(
        label="Output folder",
        help="The folder of this job, e.g. MaskCreate/job002; mask.mrc is written there.",
        kind="folder",
    )
    lowpass: float = option(
        15.0,
        label="Lowpass filter map",
        help="The map is filtered to this resolution before the threshold is applied, so that noise "
        "makes no specks; 0 or less leaves it as it is.",
        unit="A",
        group="Mask",
        step=1.0,
        relion="lowpass_filter",
    )
    pixel_size: float | None = option(
        None,
        label="Pixel size",
        help="Pixel size of the map; that of the file unless given.",
        unit="A/px",
        group="Mask",
        step=0.001,
        relion="angpix",
    )
    threshold: float = option(
        0.02,
        label="Initial binarisation threshold",
        help="Density of the filtered map from which on a voxel belongs to the mask. Choose the lowest "
        "level at which the map shows no specks of noise outside the particle.",
        group="Mask",
        step=0.001,
        relion="inimask_threshold",
    )
    threshold_from: str = option(
        "given",
        label="Where the threshold comes from",
        help="'given' takes the number above; 'solvent' a level that noise of the solvent does not reach; "
        "'mass' the level that encloses protein of the mass below.",
        group="Mask",
        choices=("given", "solvent", "mass"),
    )
    mass: float | None = option(
        None,
        label="Mass of the particle",
        help="What the threshold encloses when it comes from the mass.",
        unit="kDa",
        group="Mask",
        minimum=0.001,
        step=10.0,
    )
    second_map: Path | None = option(
        None,
        label="Second map",
        help="Another map in the same box, compared with the same threshold without being filtered.",
        group="Mask",
        kind="map",
    )
    combination: str = option(
        "and",
        label="Combine with the second map",
        help="A voxel belongs to the mask if the first map reaches the threshold and / or the second one "
        "does, or does not.",
        group="Mask",
        choices=("and", "or", "and-not", "or-not"),
    )
    resolution: float | None = option(
        None,
        label="Resolution to be used at",
        help="Resolution at which the mask will be used, to check that its edge is soft enough.",
        unit="A",
        group="Mask",
        minimum=0.001,
        step=0.5,
    )
    fill_holes: bool = option(
        False,
        label="Fill holes?",
        help="Add what is enclosed by density on all sides.",
        group="Mask",
    )
    keep_largest: int | None = option(
        None,
        label="Islands to keep",
        help="Keep only this many of the largest connected parts; all of them unless given.",
        group="Mask",
        minimum=1,
        step=1,
    )
    smallest_island: float = option(
        0.0,
        label="Smallest island",
        help="Remove connected parts of a smaller volume.",
        unit="A^3",
        group="Mask",
        minimum=0.0,
        step=100.0,
    )
    extend: float = option(
        3.0,
        label="Extend binary map this many pixels",
        help="The mask grows by this distance in all directions; a negative number makes it shrink.",
        unit="px",
        group="Mask",
        step=1.0,
        relion="extend_inimask",
    )
    soft_edge: float = option(
        3.0,
        label="Add a soft-edge of this many pixels",
        help="Width of the edge, shaped as a cosine, by which the mask falls from 1 to 0. A sharp edge "
        "makes the masked FSC look better than it is.",
        unit="px",
        group="Mask",
        minimum=0.0,
        step=1.0,
        relion="width_mask_edge",
    )
    invert: bool = option(
        False,
        label="Invert the mask?",
        help="Write one minus the mask: 0 inside, 1 outside.",
        group="Mask",
    )
    helix: bool = option(
        False,
        label="Mask a 3D helix?",
        help="Keep only the centre of the box along z, with a soft edge as above.",
        group="Helix",
        relion="do_helix",
    )
    helix_length: float = option(
        30.0,
        label="Central Z length",
        help="Share of the box along z that is kept of a helix.",
        unit="%",
        group="Helix",
        minimum=10.0,
        maximum=90.0,
        step=5.0,
        relion="helical_z_percentage",
    )
    new_box: int | None = option(
        None,
        label="Box of a new mask",
        help="Make a sphere or a shell in this box instead of a mask from a map.",
        unit="px",
        group="Sphere",
        minimum=2,
        step=2,
    )
    outer_radius: float = option(
        0.0,
        label="Outer radius",
        help="The sphere reaches this far, the soft edge beyond it.",
        unit="px",
        group="Sphere",
        minimum=0.0,
        step=1.0,
    )
    inner_radius: float = option(
        0.0,
        label="Inner radius",
        help="Makes the sphere a shell, which begins here with the soft edge within it.",
        unit="px",
        group="Sphere",
        minimum=0.0,
        step=1.0,
    )
    centre_x: float = option(0.0, label="Centre along x", help=_CENTRE, unit="px", group="Sphere", step=1.0)
    centre_y: float = option(0.0, label="Centre along y", help=_CENTRE, unit="px", group="Sphere", step=1.0)
    centre_z: float = option(0.0, label="Centre along z", help=_CENTRE, unit="px", group="Sphere", step=1.0)
    slab: int = option(
        0,
        label="Planes at a time",
        help="Make the mask this many planes at a time, in bounded memory and with the same result; 0 does "
        "so with 32 planes from a box of 640 px on, unless a GPU has the memory for it.",
        group="Compute",
        minimum=0,
        maximum=65536,
        step=1,
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()

    def check(self) -> None:
        """Say what is missing or does not go together."""
        vocabulary.check_device(self.device)
        if (self.input is None) == (self.new_box is None):
            raise UserError(
                "A mask is made either from a map or as a sphere; give --input, or --new-box and "
                "--outer-radius."
            )
        if self.new_box is not None:
            if self.inner_radius >= self.outer_radius:
                raise UserError(
                    f"--inner-radius {self.inner_radius:g} is not below --outer-radius "
                    f"{self.outer_radius:g} px, so the mask is empty; give a larger outer radius."
                )
            if self.pixel_size is None or self.pixel_size <= 0:
                raise UserError("A new mask has no header to take the pixel size from; give --pixel-size.")
        if self.threshold_from == "mass" and self.mass is None:
            raise UserError("--threshold-from mass needs the mass of the particle; give --mass in kDa.")


@dataclass(frozen=True)
class Result:
    """What a finished mask creation leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    mask : Path
        mask.mrc.
    fraction : float
        Fraction of the box where the mask is above one half.
    threshold : float
        The threshold applied; 0 for a sphere.
    volume : float
        Volume in A^3 where the mask is above one half.
    """

    output: Path
    mask: Path
    fraction: float
    threshold: float
    volume: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Make the mask; yields events and returns the result."""
    from cryorefine.compute.place import Place
    from cryorefine.jobs import mask_create_large

    if options.new_box is not None:
        return (yield from _sphere(options, options.new_box))
    assert options.input is not None
    place = Place(options.device)
    if options.slab > 0 or mask_create_large.box_of(options.input) >= _LARGEST_WHOLE:
        if options.slab > 0 and place.on_gpu:
            place = Place()
            yield Notice("A mask is made slab by slab, as --slab says, by the processor.")
        return (yield from mask_create_large.run(options, options.input, options.slab or _PLANES, place))
    return (yield from _from_map(options, options.input, place))


def _from_map(options: Options, path: Path, place: Place) -> Run[Result]:
    from cryorefine.compute.array_module import to_host
    from cryorefine.jobs.volumes import read_cubic
    from cryorefine.maps.mask_recipe import mask_from_recipe

    yield Progress(_STAGE, 0, 3, "reading the map")
    volume = read_cubic(path, options.pixel_size, mapped=True)
    second = read_second(options, volume) if options.second_map is not None else None
    yield Progress(_STAGE, 1, 3, "filtering")
    density = place.do(filtered, volume.data, options, volume.pixel_size)
    threshold = yield from threshold_of(options, density, volume.pixel_size)
    recipe = recipe_of(options, threshold, volume.pixel_size)

    yield Progress(_STAGE, 2, 3, "thresholding")
    mask = to_host(place.do(mask_from_recipe, density, recipe, second, options.threads))
    density = to_host(density)
    for sentence in place.notices:
        yield Notice(sentence, warning=True)
    upright = 1 - mask if options.invert else mask
    for sentence in doubts(options, upright, volume, density, recipe.threshold):
        yield Notice(sentence, warning=True)
    return (yield from _finished(options, mask, upright, volume.pixel_size, recipe.threshold))


def _sphere(options: Options, size: int) -> Run[Result]:
    from cryorefine.maps import mask_checks

    yield Progress(_STAGE, 0, 3, "drawing the sphere")
    upright = sphere(options, size)
    pixel_size = options.pixel_size or 1.0
    for sentence in mask_checks.sentences(upright, pixel_size, None, options.resolution):
        yield Notice(sentence, warning=True)
    mask = 1 - upright if options.invert else upright
    return (yield from _finished(options, mask, upright, pixel_size, 0.0))


def filtered(volume: NDArray[Any], options: Options, pixel_size: float) -> NDArray[Any]:
    """Return the map as it is compared with the threshold."""
    from cryorefine.maps import fourier
    from cryorefine.maps.filters import lowpass_spectrum

    if options.lowpass <= 0:
        return volume
    # Double precision, so that a voxel very close to the threshold falls on the right side of it.
    spectrum = lowpass_spectrum(volume, pixel_size, options.lowpass, threads=options.threads, precision="f8")
    return fourier.inverse_padded(spectrum, len(volume), options.threads)


def doubts(
    options: Options, upright: NDArray[Any], volume: Map, density: NDArray[Any], threshold: float
) -> Iterator[str]:
    """Say what is wrong with a mask made from a map, before it is inverted."""
    from cryorefine.maps import mask_checks
    from cryorefine.maps.filters import lowpass

    if not upright.any():
        yield why_empty(options, threshold, float(density.max()))
        return
    if not 0 < options.lowpass <= 2 * mask_checks.COVER_RESOLUTION:
        density = lowpass(volume.data, volume.pixel_size, mask_checks.COVER_RESOLUTION)
    yield from mask_checks.sentences(upright, volume.pixel_size, density, options.resolution)


def sphere(options: Options, size: int) -> NDArray[np.float32]:
    """Return a new sphere or shell, shape (size, size, size), before it is inverted."""
    from cryorefine.maps import masks

    centre = (options.centre_z, options.centre_y, options.centre_x)
    mask = masks.soft_shell(size, options.outer_radius, options.inner_radius, options.soft_edge, centre)
    if options.helix:
        window = masks.helix_window(size, options.helix_length / 100, options.soft_edge)
        mask = mask * window[:, None, None]
    return mask


def read_second(options: Options, like: Map) -> NDArray[np.float32]:
    """Return the second map, which has to have the box of the first."""
    from cryorefine.io.mrc import read_map
    from cryorefine.io.pixel_sizes import insist_on_one_pixel_size

    assert options.second_map is not None
    if like.path is not None:
        insist_on_one_pixel_size(options.second_map, like.path, "give a second map on the same grid")
    second = read_map(options.second_map, pixel_size=like.pixel_size).data
    if second.shape != like.data.shape:
        raise UserError(
            f"{options.second_map} has {' x '.join(map(str, second.shape[::-1]))} px but {like.path} has "
            f"{' x '.join(map(str, like.data.shape[::-1]))} px; give a second map in the same box."
        )
    return second


def threshold_of(options: Options, density: NDArray[Any], pixel_size: float) -> Run[float]:
    """Return the threshold, which the filtered map itself may decide."""
    from cryorefine.maps.density import suggest_threshold, threshold_for_mass

    if options.threshold_from == "given":
        return options.threshold
    if options.threshold_from == "mass":
        try:
            found = threshold_for_mass(density, pixel_size, options.mass or 0.0)
        except ValueError as error:
            raise UserError(f"--mass does not fit {options.input}: {error}; correct it.") from None
    else:
        found = suggest_threshold(density)
    yield Notice(f"The threshold of {found.value:.4g} {found.reason}.")
    return found.value


def recipe_of(options: Options, threshold: float, pixel_size: float) -> MaskRecipe:
    """Return what is to be done to the filtered map."""
    from cryorefine.maps.mask_recipe import MaskRecipe

    return MaskRecipe(
        threshold=threshold,
        combination=options.combination,
        fill_holes=options.fill_holes,
        largest_islands=options.keep_largest,
        smallest_island=options.smallest_island / pixel_size**3,
        extend=options.extend,
        soft_edge=options.soft_edge,
        helix_length=options.helix_length / 100 if options.helix else None,
        invert=options.invert,
    )


def why_empty(options: Options, threshold: float, highest: float) -> str:
    """Return what to change when no voxel is left."""
    if highest < threshold:
        return (
            f"The mask of {options.input} is empty: no voxel reaches {threshold:g}, the highest is "
            f"{highest:.4g} after filtering; give a lower --threshold."
        )
    if options.extend < 0:
        return (
            f"The mask of {options.input} is empty because an --extend of {options.extend:g} px "
            "shrinks it to nothing; shrink it less."
        )
    return (
        f"The mask of {options.input} is empty although its highest density is {highest:.4g}; look at the "
        "second map, --smallest-island and --helix-length."
    )


def _finished(
    options: Options, mask: NDArray[Any], upright: NDArray[Any], pixel_size: float, threshold: float
) -> Run[Result]:
    import numpy as np

    from cryorefine.io.mrc import write_map

    path = options.output / "mask.mrc"
    write_map(path, mask, pixel_size)
    yield Product("mask", path, "mask")
    return (
        yield from result_of(options, int(np.count_nonzero(upright > 0.5)), mask.size, pixel_size, threshold)
    )


def result_of(options: Options, inside: int, voxels: int, pixel_size: float, threshold: float) -> Run[Result]:
    """Tell the enclosed volume, and return the result."""
    from cryorefine.maps.density import DALTONS_PER_CUBIC_ANGSTROM

    volume = inside * pixel_size**3
    yield Figures(
        {
            "threshold": threshold,
            "volume (A^3)": volume,
            "protein of that volume (kDa)": volume * DALTONS_PER_CUBIC_ANGSTROM / 1000,
            "part of the box (%)": 100 * inside / voxels,
        }
    )
    yield Progress(_STAGE, 3, 3)
    share = inside / voxels
    fraction = 1 - share if options.invert else share
    return Result(options.output, options.output / "mask.mrc", fraction, threshold, volume)
