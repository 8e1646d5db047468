"""Confidence map: for each voxel, how sure it is that its density is real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder
from cryorefine.jobs.volumes import pixel_size_of_header, read_halves, read_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map
    from cryorefine.maps.solvent import HalfMaps

JOB = Job(
    name="confidence",
    title="Confidence map",
    folder="Confidence",
    relion_label="relion.external.cryorefine.confidence",
    summary="Tell real density from noise by the false-discovery rate of each voxel",
)

_STAGE = "Confidence map"
_STEPS = 4
_WIDTH = 4.0
"""Resolutions that the window of the noise level spans: some ten thousand independent values."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one confidence map is made from, and how."""

    half_map: Path = vocabulary.half_map()
    mask: Path | None = option(
        None,
        label="Mask",
        help="Only voxels where this is above 0 are tested, so that fewer tests find more; take a generous "
        "one. Its FSC decides the resolution.",
        kind="mask",
    )
    output: Path = option(
        label="Output folder",
        help="The folder of this job, e.g. Confidence/job005; confidence.mrc and others are written there.",
        kind="folder",
    )
    pixel_size: float | None = vocabulary.calibrated_pixel_size()
    lowpass: float | None = option(
        None,
        label="Lowpass filter maps",
        help="Resolution to which the maps are filtered before the test. Coarser finds fainter density and "
        "shows less of its shape. Unless given, that at which the half maps agree (FSC = 0.143).",
        unit="A",
        group="Test",
        minimum=0.001,
        step=1.0,
    )
    bfactor: float = option(
        0.0,
        label="B-factor",
        help="Sharpen the maps with this B-factor before the test, e.g. -80, which raises detail and noise "
        "alike.",
        unit="A^2",
        group="Test",
        step=10.0,
    )
    false_discovery_rate: float = option(
        0.01,
        label="False-discovery rate",
        help="Share of the voxels in significant.mrc that may be noise.",
        flag="fdr",
        group="Test",
        minimum=0.0,
        maximum=1.0,
        step=0.001,
    )
    noise_window: float | None = option(
        None,
        label="Window of the noise level",
        help="The noise is measured in a Gaussian window of this standard deviation; four times the "
        "resolution unless given. A narrow one follows uneven noise and is less certain.",
        unit="A",
        group="Test",
        minimum=0.001,
        step=1.0,
    )
    threads: int = vocabulary.threads()


@dataclass(frozen=True)
class Result:
    """What a finished confidence map leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    confidence : Path
        confidence.mrc: one minus the false-discovery rate at which a voxel counts as real.
    filtered : Path
        filtered.mrc, the map that was tested.
    significant : Path
        significant.mrc, the same where the false-discovery rate is as small as was asked for; 0 elsewhere.
    lowpass : float
        Resolution in A to which the maps were filtered.
    volume : float
        Volume of the significant density in A^3.
    """

    output: Path
    confidence: Path
    filtered: Path
    significant: Path
    lowpass: float
    volume: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Make the confidence map; yields events and returns the result."""
    import numpy as np

    from cryorefine.io.mrc import write_map
    from cryorefine.maps import confidence

    yield Progress(_STAGE, 0, _STEPS, "reading the maps")
    paths, first, second = read_halves(options.half_map, options.pixel_size)
    mask = read_mask(options.mask, first) if options.mask is not None else None
    size, pixel_size = first.data.shape[0], first.pixel_size
    yield from pixel_size_of_header(paths[0], pixel_size, options.pixel_size)

    yield Progress(_STAGE, 1, _STEPS, "filtering")
    average, difference, resolution = _filtered(options, first, second, mask)
    region = mask > 0 if mask is not None else None
    width = (options.noise_window or _WIDTH * resolution) / pixel_size
    if width > size / 4:
        yield Notice(
            f"The noise of {paths[0]} is taken to be the same everywhere, because a window of "
            f"{width * pixel_size:.0f} A spans the box; give a narrower --noise-window if it is not."
        )
    yield Progress(_STAGE, 2, _STEPS, "measuring the noise")
    level = confidence.noise_level(difference, width, region, options.threads)
    if not level.any():
        raise UserError(
            f"{paths[0]} and {paths[1]} are the same map; give half maps that were refined independently."
        )
    yield Progress(_STAGE, 3, _STEPS, "testing each voxel")
    rate = confidence.false_discovery_rate(average, difference, level, region, options.threads)
    real = rate <= options.false_discovery_rate

    files = {name: options.output / f"{name}.mrc" for name in ("filtered", "confidence", "significant")}
    write_map(files["filtered"], average, pixel_size)
    write_map(files["confidence"], np.float32(1) - rate, pixel_size)
    write_map(files["significant"], np.where(real, average, np.float32(0)), pixel_size)
    count = int(np.count_nonzero(real))
    volume = count * pixel_size**3
    if count == 0:
        yield Notice(
            f"No density of {paths[0]} is significant at a false-discovery rate of "
            f"{options.false_discovery_rate:g}; give a coarser --lowpass than "
            f"{resolution:.2f} A, or a --mask.",
            warning=True,
        )
    else:
        yield Figures(
            {
                "resolution (A)": resolution,
                "significant volume (A^3)": volume,
                "of the tested voxels (%)": 100
                * count
                / np.count_nonzero(level if region is None else region),
                "lowest significant density": float(average[real].min()),
            }
        )
    yield Product("map", files["significant"], "significant density")
    yield Product("map", files["confidence"], "confidence")
    yield Progress(_STAGE, _STEPS, _STEPS)
    return Result(
        options.output, files["confidence"], files["filtered"], files["significant"], resolution, volume
    )


def _filtered(
    options: Options, first: Map, second: Map, mask: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return half the sum and half the difference of the half maps, filtered, and the resolution in A."""
    from cryorefine.maps import filters, fourier
    from cryorefine.maps.shells import apply_gain, radius_table
    from cryorefine.maps.solvent import HalfMaps

    size, pixel_size = first.data.shape[0], first.pixel_size
    halves = HalfMaps(first.data, second.data, options.threads)
    resolution = options.lowpass
    if resolution is None:
        resolution = _agreement(halves, mask, first, options.threads)
    gain = filters.lowpass_gain(radius_table(size), size, pixel_size, resolution)
    if options.bfactor != 0:
        gain = gain * filters.bfactor_gain(radius_table(size), size, pixel_size, options.bfactor)
    average, difference = (
        fourier.inverse(
            apply_gain((halves.spectra[0] + sign * halves.spectra[1]) / 2, gain, options.threads),
            size,
            options.threads,
        )
        for sign in (1, -1)
    )
    return average, difference, resolution


def _agreement(halves: HalfMaps, mask: NDArray[np.float32] | None, like: Map, threads: int) -> float:
    """Return the resolution in A at which the half maps agree, behind the mask if there is one."""
    import numpy as np

    from cryorefine.maps import fsc, solvent

    curve = halves.unmasked
    if mask is not None and fsc.first_shell_below(curve, solvent.RANDOMISE_BELOW) is not None:
        curves = solvent.solvent_corrected_fsc(halves, mask, threads=threads)
        # A mask that cuts into the particle makes the curve worse; the better one counts.
        curve = max(curve, curves.corrected, key=fsc.resolution_shell)
    resolution = fsc.resolution(curve, like.data.shape[0], like.pixel_size)
    if not np.isfinite(resolution):
        raise UserError(
            f"{like.path} and its partner do not agree at any resolution (FSC below 0.143 from the first "
            "shell on); check that they belong to the same refinement, or give a --lowpass."
        )
    return resolution
