"""LocalRes: resolution at every place of a map, and the map filtered to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder
from cryorefine.jobs.volumes import pixel_size_of_header, read_divisor, read_halves, read_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map
    from cryorefine.maps.local_resolution import LocalResolution, Sphere

JOB = Job(
    name="local-resolution",
    title="Local resolution",
    folder="LocalRes",
    relion_label="relion.localres.own",
    summary="Measure the resolution place by place and filter the map to it",
)

_STAGE = "Local resolution"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one estimate of the local resolution is asked to do."""

    half_map: Path = vocabulary.half_map(relion="fn_in")
    mask: Path | None = option(
        None,
        label="User-provided solvent mask",
        help="Only places from which the sphere reaches into the mask are measured, and the histogram "
        "counts the voxels inside. The values inside are the same without it.",
        kind="mask",
        relion="fn_mask",
    )
    output: Path = option(
        label="Output folder",
        help="The folder of this job, e.g. LocalRes/job004; relion_locres.mrc and others are written there.",
        kind="folder",
    )
    pixel_size: float | None = vocabulary.calibrated_pixel_size(relion="angpix")
    bfactor: float = option(
        -100.0,
        label="User-provided B-factor",
        help="The filtered map is sharpened with this B-factor; 0 leaves it as it is. It does not change "
        "the local resolution.",
        unit="A^2",
        group="Sharpen",
        step=10.0,
        relion="adhoc_bfac",
    )
    mtf: Path | None = vocabulary.mtf(relion="fn_mtf")
    mtf_pixel_size: float = vocabulary.mtf_pixel_size()
    sampling: float = option(
        25.0,
        label="Sampling rate",
        help="Distance between the places at which the resolution is measured. Half of it costs eight "
        "times the time.",
        unit="A",
        group="Sphere",
        minimum=0.001,
        step=1.0,
        relion="locres_sampling",
    )
    sphere_radius: float | None = option(
        None,
        label="Radius of the sphere",
        help="Radius of the soft sphere behind which the maps are correlated; half the sampling rate unless "
        "given. A small one finds more detail and is noisier.",
        unit="A",
        group="Sphere",
        minimum=0.001,
        step=1.0,
    )
    sphere_edge: float | None = option(
        None,
        label="Soft edge of the sphere",
        help="Width of the sphere's edge beyond its radius; as wide as the sampling rate unless given.",
        unit="A",
        group="Sphere",
        minimum=0.0,
        step=1.0,
    )
    randomise_at: float = option(
        25.0,
        label="Frequency for phase-randomisation",
        help="The correlation that the sphere itself makes is worked out for phases that are random beyond "
        "this resolution, and taken away.",
        unit="A",
        group="Sphere",
        minimum=0.001,
        step=1.0,
        relion="randomize_at",
    )
    lowest_resolution: float = option(
        50.0,
        label="Lowest resolution",
        help="Places that are worse than this get this resolution.",
        unit="A",
        group="Sphere",
        minimum=0.001,
        step=1.0,
    )
    smooth: bool = option(
        False,
        label="Also write a smooth map?",
        help="Write locres_smooth.mrc, the resolution as a smooth function of the place without the steps "
        "of overlapping spheres, to colour surfaces with.",
        group="Sphere",
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()

    def check(self) -> None:
        """Refuse what is no name of a device."""
        vocabulary.check_device(self.device)


@dataclass(frozen=True)
class Result:
    """What a finished estimate leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    local_resolution : Path
        relion_locres.mrc, the resolution in A at each voxel; 0 where it was not measured.
    filtered : Path
        relion_locres_filtered.mrc, the sharpened map filtered to it.
    smooth : Path or None
        locres_smooth.mrc, if it was asked for.
    histogram : Path or None
        histogram.pdf, with a mask.
    best, median, worst : float
        Resolution in A that 1, 50 and 99 % of the voxels reach: of those inside the mask, or of all
        that were measured.
    """

    output: Path
    local_resolution: Path
    filtered: Path
    smooth: Path | None
    histogram: Path | None
    best: float
    median: float
    worst: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Measure the local resolution; yields events and returns the result."""
    import numpy as np

    from cryorefine.compute.array_module import gpus
    from cryorefine.compute.place import Place
    from cryorefine.io.mrc import write_map
    from cryorefine.jobs import local_resolution_report

    place = Place(options.device)
    yield Progress(_STAGE, 0, 0, "reading the maps")
    paths, first, second = read_halves(options.half_map, options.pixel_size)
    yield from pixel_size_of_header(paths[0], first.pixel_size, options.pixel_size)
    mask = read_mask(options.mask, first) if options.mask is not None else None
    size, pixel_size = first.data.shape[0], first.pixel_size

    yield Progress(_STAGE, 0, 0, "correlating the half maps")
    centres = _places(options, first, mask)
    local, unmasked = place.do(_prepare, first.data, second.data, options, first.pixel_size)
    if place.on_gpu:
        for number in gpus(options.device)[1:]:
            local.also_on(Place(f"gpu:{number}").put)
    for done, _ in enumerate(local.visit(centres, options.threads), start=1):
        yield Progress(_STAGE, done, len(centres))

    if local.left_gpu:
        place.leave()
    for sentence in place.notices:
        yield Notice(sentence, warning=True)
    resolution, filtered = local.maps()
    path, filtered_path = options.output / "relion_locres.mrc", options.output / "relion_locres_filtered.mrc"
    write_map(path, resolution, pixel_size)
    write_map(filtered_path, filtered, pixel_size)
    smooth_path = options.output / "locres_smooth.mrc" if options.smooth else None
    if smooth_path is not None:
        write_map(smooth_path, local.smooth_map(), pixel_size)
    local_resolution_report.write_curves(
        options.output / "relion_locres_fscs.star", local.points, unmasked, size, pixel_size
    )
    counted = resolution[(mask > 0.5) & (resolution > 0) if mask is not None else resolution > 0]
    histogram = None
    if mask is not None:
        histogram = options.output / "histogram.pdf"
        local_resolution_report.write_histogram(histogram, counted)
    best, median, worst = (float(a) for a in np.percentile(counted, (1, 50, 99)))
    yield Product("local_resolution", filtered_path, "local resolution")
    yield Figures({"best 1 % (A)": best, "median (A)": median, "worst 1 % (A)": worst})
    if best < 2.02 * pixel_size:
        yield Notice(
            f"The best parts reach {best:.2f} A, the most that {pixel_size:g} A/px can hold; refine with "
            "less binned particles to see how good they are.",
            warning=True,
        )
    if worst > 0.99 * options.lowest_resolution and mask is not None:
        yield Notice(
            f"Parts inside {options.mask} are worse than {options.lowest_resolution:g} A; the mask is wider "
            "than the particle, or these parts move.",
            warning=True,
        )
    return Result(options.output, path, filtered_path, smooth_path, histogram, best, median, worst)


def _sphere(options: Options, pixel_size: float) -> Sphere:
    from cryorefine.maps.local_resolution import Sphere

    return Sphere.of(pixel_size, options.sampling, options.sphere_radius, options.sphere_edge)


def _places(options: Options, first: Map, mask: NDArray[np.float32] | None) -> list[tuple[int, int, int]]:
    """Return the voxels to measure at."""
    from cryorefine.maps.local_resolution import sampling_points

    size, pixel_size = first.data.shape[0], first.pixel_size
    sphere = _sphere(options, pixel_size)
    if sphere.radius < 1 or sphere.radius >= size / 2:
        raise UserError(
            f"A sphere of {sphere.radius * pixel_size:g} A does not suit {first.path}, whose box is "
            f"{size * pixel_size:g} A wide with {pixel_size:g} A/px; give another --sphere-radius."
        )
    centres = sampling_points(size, sphere, mask > 0 if mask is not None else None)
    if not centres:
        raise UserError(
            f"No place to measure at lies in {first.path}, whose box is {size * pixel_size:g} A wide; give a "
            f"smaller --sampling than {options.sampling:g} A."
        )
    return centres


def _prepare(
    first: NDArray[Any], second: NDArray[Any], options: Options, pixel_size: float
) -> tuple[LocalResolution, NDArray[np.float64]]:
    """Return what measures, and the FSC of the whole maps."""
    from cryorefine.maps import fsc
    from cryorefine.maps.local_resolution import LocalFsc, LocalResolution
    from cryorefine.maps.solvent import HalfMaps

    size = len(first)
    halves = HalfMaps(first, second, options.threads)
    average = halves.average()
    _sharpen(options, average, pixel_size)
    start = max(1, int(size * pixel_size / options.randomise_at))
    local_fsc = LocalFsc(halves, _sphere(options, pixel_size), start, options.threads)
    # The best parts of a map are usually not much better than the whole box.
    expected = fsc.resolution_shell(halves.unmasked) * 5 // 4
    local = LocalResolution(local_fsc, pixel_size, options.lowest_resolution, average, expected)
    return local, halves.unmasked


def _sharpen(options: Options, spectrum: NDArray[Any], pixel_size: float) -> None:
    from cryorefine.maps import filters, sharpen
    from cryorefine.maps.shells import apply_gain, radius_table

    size = spectrum.shape[0]
    if options.mtf is not None:
        frequency, value = read_divisor(options.mtf)
        detector = options.mtf_pixel_size if options.mtf_pixel_size > 0 else pixel_size
        apply_gain(spectrum, sharpen.mtf_gain(frequency, value, detector, size, pixel_size), options.threads)
    if options.bfactor != 0:
        gain = filters.bfactor_gain(radius_table(size), size, pixel_size, options.bfactor)
        apply_gain(spectrum, gain, options.threads)
