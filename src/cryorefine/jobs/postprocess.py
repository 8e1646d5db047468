"""PostProcess: masked resolution, sharpening and weighting of a pair of half maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Curve, Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    import numpy as np
    from numpy.typing import NDArray

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
_LARGEST_KEPT = 512
"""Box up to which the half maps' transforms are kept in memory."""


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
    random_phases: str = option(
        "averaged",
        label="Random phases",
        help="What the mask adds to the FSC is measured with random phases: 'averaged' takes the mean of all "
        "that could be drawn, which is the same each time; 'drawn' takes one draw, as RELION does.",
        group="Compute",
        choices=("averaged", "drawn"),
    )
    random_seed: int = option(
        1,
        label="Random seed",
        help="Decides the phases where they are drawn; averaged ones need none.",
        group="Compute",
        minimum=0,
        maximum=2**31 - 1,
        step=1,
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()

    def check(self) -> None:
        """Refuse what is no name of a device."""
        vocabulary.check_device(self.device)


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
    from concurrent.futures import ThreadPoolExecutor

    from cryorefine.compute.array_module import to_host
    from cryorefine.compute.memory import return_freed_memory
    from cryorefine.compute.place import Place
    from cryorefine.jobs import postprocess_checks, postprocess_report
    from cryorefine.jobs.postprocess_sharpen import sharpening_gain
    from cryorefine.jobs.volumes import pixel_size_of_header, read_divisor, read_halves, read_mask
    from cryorefine.maps import sharpen, solvent

    place = Place(options.device)
    yield Progress(_STAGE, 0, _STEPS, "reading the maps")
    paths, first, second = read_halves(options.half_map, options.pixel_size, mapped=True)
    mask = read_mask(options.mask, first, mapped=True) if options.mask is not None else None
    mtf = read_divisor(options.mtf) if options.mtf is not None else None
    pixel_size = first.pixel_size
    yield from pixel_size_of_header(paths[0], pixel_size, options.pixel_size)
    given = [*paths, options.mask] if options.mask is not None else list(paths)
    for sentence in postprocess_checks.pixel_sizes(given, pixel_size, options.pixel_size):
        yield Notice(sentence, warning=True)

    yield Progress(_STAGE, 1, _STEPS, "correlating the half maps")
    # Large maps stay in their files, and their transforms are made anew when they are needed.
    keep = place.on_gpu or len(first.data) <= _LARGEST_KEPT
    if not keep:
        return_freed_memory()
    halves = place.do(solvent.HalfMaps, first.data, second.data, options.threads, keep)
    postprocess_checks.refuse_copies(paths, halves.unmasked)
    curves = None
    if mask is not None:
        yield Progress(_STAGE, 2, _STEPS, "correlating behind the mask")
        rng = source_of_phases(options)
        curves = place.do(solvent.solvent_corrected_fsc, halves, mask, rng=rng, threads=options.threads)
    report = postprocess_report.Report(
        paths, options.mask, pixel_size, halves, curves, mask, options.molecular_weight
    )
    yield as_curve("FSC", report, report.fsc_curves())
    for sentence in postprocess_checks.curves(report, mask):
        yield Notice(sentence, warning=True)

    yield Progress(_STAGE, 3, _STEPS, "sharpening")
    halves = place.put(halves)
    average = place.do(solvent.HalfMaps.average, halves, overwrite=not options.half_maps)
    amplitudes = place.do(sharpen.Amplitudes, average, options.threads)
    gain = yield from sharpening_gain(options, amplitudes, mask, mtf, report)
    yield as_curve("Guinier", report, report.guinier_curves())

    yield Progress(_STAGE, 4, _STEPS, "writing the maps")

    def sharpened(spectrum: NDArray[Any]) -> NDArray[Any]:
        # A shortage of a GPU's memory would have the processor begin anew, with the spectrum as it was.
        overwrite = not place.on_gpu
        return to_host(place.do(sharpen.filtered_map, spectrum, gain, options.threads, overwrite))

    volumes = {"postprocess": sharpened(average)}
    del average
    if options.half_maps:
        for number in (0, 1):
            volumes[f"postprocess_half{number + 1}"] = sharpened(halves.spectrum(number))
    for sentence in place.notices:
        yield Notice(sentence, warning=True)
    # The disk is slower than all else: files are written side by side, and the report meanwhile.
    with ThreadPoolExecutor() as pool:
        maps = _Maps(options.output, pixel_size, mask)
        written = {name: maps.write(pool, name, volume) for name, volume in volumes.items()}
        yield Progress(_STAGE, 5, _STEPS, "writing curves and plots")
        map_path, masked_path = maps.paths("postprocess")
        star = postprocess_report.write(report, options.output, map_path, masked_path)
        for futures in written.values():
            for future in futures:
                future.result()
    for name in written:
        kind = "map" if name == "postprocess" else "half_map"
        yield Product(kind, maps.paths(name)[0], name.replace("_half", " half "))
    if masked_path is not None:
        yield Product("map", masked_path, "postprocess masked")
    figures = {"resolution (A)": report.resolution, "B-factor (A^2)": report.b_factor}
    error = report.fit.b_factor_error if report.fit is not None else None
    if error is not None:
        figures["uncertainty of the B-factor (A^2)"] = error
    yield Figures(figures)
    yield Progress(_STAGE, _STEPS, _STEPS)
    return Result(options.output, map_path, masked_path, star, report.resolution, report.b_factor, error)


def source_of_phases(options: Options) -> np.random.Generator | None:
    """Return where one draw of random phases comes from, None where their average is wanted."""
    import numpy as np

    return np.random.default_rng(options.random_seed) if options.random_phases == "drawn" else None


def as_curve(name: str, report: Report, curves: dict[str, NDArray[np.float64]]) -> Curve:
    """Return curves over the shells of a report, as an event."""
    return Curve(name, report.frequency.tolist(), {label: y.tolist() for label, y in curves.items()})


class _Maps:
    """Maps of one folder, each with the same behind the mask."""

    def __init__(self, folder: Path, pixel_size: float, mask: NDArray[np.float32] | None) -> None:
        self.folder, self.pixel_size, self.mask = folder, pixel_size, mask

    def paths(self, name: str) -> tuple[Path, Path | None]:
        masked = None if self.mask is None else self.folder / f"{name}_masked.mrc"
        return self.folder / f"{name}.mrc", masked

    def write(self, pool: Executor, name: str, volume: NDArray[np.float32]) -> list[Future[None]]:
        """Begin to write a map and its masked copy."""
        path, masked = self.paths(name)
        return [
            pool.submit(self._write, target, volume, mask)
            for target, mask in ((path, None), (masked, self.mask))
            if target is not None
        ]

    def _write(self, path: Path, volume: NDArray[np.float32], mask: NDArray[np.float32] | None) -> None:
        from cryorefine.io.mrc import write_map

        write_map(path, volume if mask is None else volume * mask, self.pixel_size)
