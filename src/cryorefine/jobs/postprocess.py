"""PostProcess: masked resolution, sharpening and weighting of a pair of half maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Curve, Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map
    from cryorefine.jobs.postprocess_report import Report

JOB = Job(
    name="postprocess",
    title="Post-processing",
    folder="PostProcess",
    relion_label="relion.postprocess",
    summary="Sharpen a refined map and measure its resolution behind a mask",
)

_LOWPASS = 5.0
_STAGE = "Post-processing"
_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one post-processing is asked to do."""

    half_map: Path = vocabulary.half_map(relion="fn_in")
    mask: Path | None = option(
        None,
        label="Solvent mask",
        help="A soft mask, 1 where the particle is and 0 where the solvent is, in the box of the half maps.",
        kind="mask",
        relion="fn_mask",
    )
    output: Path = option(
        label="Output folder",
        help="The folder of this job, e.g. PostProcess/job003; postprocess.mrc and others are written there.",
        kind="folder",
    )
    pixel_size: float | None = vocabulary.calibrated_pixel_size(relion="angpix")
    mtf: Path | None = vocabulary.mtf(relion="fn_mtf")
    mtf_pixel_size: float = vocabulary.mtf_pixel_size(relion="mtf_angpix")
    auto_bfactor: bool = option(
        True,
        label="Estimate B-factor automatically?",
        help="Fit the B-factor to the fall-off of the amplitudes. A B-factor of your own takes its place.",
        group="Sharpen",
        relion="do_auto_bfac",
    )
    autob_lowest_resolution: float = option(
        10.0,
        label="Lowest resolution for auto-B fit",
        help="The fit begins here; coarser than about 10 A the amplitudes follow the shape of the "
        "particle instead of the B-factor.",
        unit="A",
        group="Sharpen",
        minimum=0.001,
        step=1.0,
        relion="autob_lowres",
    )
    autob_highest_resolution: float = option(
        0.0,
        label="Highest resolution for auto-B fit",
        help="The fit ends here; 0 means as far as the FSC goes.",
        unit="A",
        group="Sharpen",
        minimum=0.0,
        step=0.5,
    )
    bfactor_method: str = option(
        "weighted",
        label="How to fit the B-factor",
        help="'weighted' fits the amplitude that both half maps share, each shell by how well it is known, "
        "and tells the uncertainty; 'relion' gives every shell the same weight, as RELION does.",
        group="Sharpen",
        choices=("weighted", "relion"),
    )
    bfactor: float | None = option(
        None,
        label="User-provided B-factor",
        help="Sharpen with this B-factor, e.g. -80, instead of an estimated one.",
        unit="A^2",
        group="Sharpen",
        step=10.0,
        relion="adhoc_bfac",
    )
    skip_fsc_weighting: bool = option(
        False,
        label="Skip FSC-weighting?",
        help="Leave out the weights that bring down shells of low correlation, e.g. where some parts of "
        "the map are better than the FSC says. The low-pass filter below is applied instead.",
        group="Sharpen",
        relion="do_skip_fsc_weighting",
    )
    lowpass: float = option(
        _LOWPASS,
        label="Ad-hoc low-pass filter",
        help="Resolution to which the map is filtered when FSC-weighting is skipped; 0 or less: not at all.",
        unit="A",
        group="Sharpen",
        step=1.0,
        relion="low_pass",
    )
    half_maps: bool = option(
        False,
        label="Sharpen the half maps as well?",
        help="Write postprocess_half1.mrc and postprocess_half2.mrc, each half map with the same filters.",
        group="Sharpen",
    )
    molecular_weight: float | None = option(
        None,
        label="Molecular weight",
        help="Weight of the ordered part of the particle; adds the FSC that it would have alone, without "
        "the solvent of the box, to the table.",
        unit="kDa",
        group="Sharpen",
        minimum=0.001,
        step=10.0,
    )
    random_seed: int = option(
        1,
        label="Random seed",
        help="The same seed gives the same random phases.",
        group="Compute",
        minimum=0,
        maximum=2**31 - 1,
        step=1,
    )
    threads: int = vocabulary.threads()


@dataclass(frozen=True)
class Result:
    """What a finished post-processing leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    map : Path
        postprocess.mrc, sharpened and weighted.
    masked_map : Path or None
        postprocess_masked.mrc, the same behind the mask.
    star : Path
        postprocess.star with the curves and figures.
    resolution : float
        Final resolution in A (FSC = 0.143); infinite when no shell but the first reaches it.
    b_factor : float
        B-factor applied, in A^2; 0 for none.
    b_factor_error : float or None
        Its standard error in A^2, where it was fitted by the weighted method.
    """

    output: Path
    map: Path
    masked_map: Path | None
    star: Path
    resolution: float
    b_factor: float
    b_factor_error: float | None


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Post-process the half maps; yields events and returns the result."""
    import numpy as np

    from cryorefine.jobs import postprocess_checks, postprocess_report
    from cryorefine.jobs.postprocess_sharpen import sharpening_gain
    from cryorefine.jobs.volumes import read_mask
    from cryorefine.maps import fsc, solvent
    from cryorefine.maps.fourier import forward
    from cryorefine.maps.shells import apply_gain, cross_sums

    yield Progress(_STAGE, 0, _STEPS, "reading the maps")
    paths = half_map_paths(options.half_map)
    first, second = read_pair(paths, options.pixel_size)
    mask = read_mask(options.mask, first) if options.mask is not None else None
    mtf = read_mtf(options.mtf) if options.mtf is not None else None
    size, pixel_size = first.data.shape[0], first.pixel_size
    if options.pixel_size is None or options.pixel_size <= 0:
        yield Notice(f"The pixel size of {paths[0]} is {pixel_size:g} A/px, as its header says.")
    given = [*paths, options.mask] if options.mask is not None else list(paths)
    for sentence in postprocess_checks.pixel_sizes(given, pixel_size, options.pixel_size):
        yield Notice(sentence, warning=True)

    # Loading the plotting library takes about as long as the transforms, which leave a core to it.
    loading = Thread(target=postprocess_report.load_plotting)
    loading.start()
    yield Progress(_STAGE, 1, _STEPS, "correlating the half maps")
    spectra = forward(first.data, options.threads), forward(second.data, options.threads)
    sums = cross_sums(spectra[0], spectra[1], options.threads)
    unmasked = fsc.fsc_of_sums(sums)
    postprocess_checks.refuse_copies(paths, unmasked)
    curves = None
    if mask is not None:
        yield Progress(_STAGE, 2, _STEPS, "correlating behind the mask")
        curves = solvent.solvent_corrected_fsc(
            spectra,
            mask,
            unmasked,
            # Where the FSC never drops there is nothing to randomise, and the masked FSC stays as it is.
            fsc.first_shell_below(unmasked, solvent.RANDOMISE_BELOW) or len(unmasked) - 1,
            np.random.default_rng(options.random_seed),
            threads=options.threads,
            halves=(first.data, second.data),
        )
    power = np.sqrt(sums[1] * sums[2])
    report = postprocess_report.Report(
        paths, options.mask, size, pixel_size, unmasked, power, curves, mask, options.molecular_weight
    )
    yield as_curve("FSC", report, report.fsc_curves())
    for sentence in postprocess_checks.curves(report, mask):
        yield Notice(sentence, warning=True)

    yield Progress(_STAGE, 3, _STEPS, "sharpening")
    average = spectra[0]
    average += spectra[1]
    average *= 0.5
    gain = yield from sharpening_gain(options, average, mask, mtf, report)
    apply_gain(average, gain, options.threads)
    yield as_curve("Guinier", report, report.guinier_curves())

    yield Progress(_STAGE, 4, _STEPS, "writing the maps")
    map_path, masked_path = _write_maps(options, "postprocess", average, first, mask)
    yield Product("map", map_path, "postprocess")
    if masked_path is not None:
        yield Product("map", masked_path, "postprocess masked")
    if options.half_maps:
        for number, half in enumerate((first, second), 1):
            spectrum = apply_gain(forward(half.data, options.threads), gain, options.threads)
            path, _ = _write_maps(options, f"postprocess_half{number}", spectrum, first, mask)
            yield Product("half_map", path, f"postprocess half {number}")
    yield Progress(_STAGE, 5, _STEPS, "writing curves and plots")
    loading.join()
    star = postprocess_report.write(report, options.output, map_path, masked_path)
    figures = {"resolution (A)": report.resolution, "B-factor (A^2)": report.b_factor}
    error = report.fit.b_factor_error if report.fit is not None else None
    if error is not None:
        figures["uncertainty of the B-factor (A^2)"] = error
    yield Figures(figures)
    yield Progress(_STAGE, _STEPS, _STEPS)
    return Result(options.output, map_path, masked_path, star, report.resolution, report.b_factor, error)


def half_map_paths(half_map: Path) -> tuple[Path, Path]:
    """Return both half maps, the first one first, from the path of either.

    Raises
    ------
    UserError
        When the name tells no half, or the partner is not there.
    """
    name = half_map.name
    here, there = ("half1", "half2") if "half1" in name else ("half2", "half1")
    if here not in name:
        raise UserError(
            f"{half_map} has neither half1 nor half2 in its name, so its partner cannot be found; "
            "name the two half maps so that they differ in that alone."
        )
    partner = half_map.with_name(name.replace(here, there))
    if not partner.exists():
        raise UserError(f"{half_map} has no partner: {partner} does not exist; put both in one folder.")
    return (half_map, partner) if here == "half1" else (partner, half_map)


def read_pair(paths: tuple[Path, Path], pixel_size: float | None) -> tuple[Map, Map]:
    """Read two half maps.

    Parameters
    ----------
    paths : pair of Path
        The half maps.
    pixel_size : float or None
        A/px; that of the header of the first one unless given.

    Raises
    ------
    UserError
        When they cannot be read or have different boxes.
    """
    from cryorefine.jobs.volumes import read_cubic

    first = read_cubic(paths[0], pixel_size)
    second = read_cubic(paths[1], first.pixel_size)
    if first.data.shape != second.data.shape:
        raise UserError(
            f"{paths[0]} has a box of {first.data.shape[0]} px but {paths[1]} one of "
            f"{second.data.shape[0]} px; give two half maps of one refinement."
        )
    return first, second


def read_mtf(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the frequencies and values of a detector's MTF, all of them above 0.

    Raises
    ------
    UserError
        When the file cannot be read, or a value is not above 0.
    """
    from cryorefine.io.mtf import read_mtf

    frequency, value = read_mtf(path)
    if value.min() <= 0:
        raise UserError(
            f"The MTF {path} falls to {value.min():g}; the map is divided by it, so give one above 0."
        )
    return frequency, value


def as_curve(name: str, report: Report, curves: dict[str, NDArray[np.float64]]) -> Curve:
    """Return curves over the shells of a report, as an event."""
    return Curve(name, report.frequency.tolist(), {label: y.tolist() for label, y in curves.items()})


def _write_maps(
    options: Options, name: str, spectrum: NDArray[Any], like: Map, mask: NDArray[np.float32] | None
) -> tuple[Path, Path | None]:
    from cryorefine.io.mrc import write_map
    from cryorefine.maps.fourier import inverse

    volume = inverse(spectrum, like.data.shape[0], options.threads, overwrite=True)
    path = options.output / f"{name}.mrc"
    write_map(path, volume, like.pixel_size)
    if mask is None:
        return path, None
    masked_path = options.output / f"{name}_masked.mrc"
    volume *= mask
    write_map(masked_path, volume, like.pixel_size)
    return path, masked_path
