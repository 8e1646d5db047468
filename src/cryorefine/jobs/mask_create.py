"""MaskCreate: a soft mask around the density of a map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryorefine.jobs.base import Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

JOB = Job(
    name="mask-create",
    title="Mask creation",
    folder="MaskCreate",
    relion_label="relion.maskcreate",
    summary="Make a soft mask around the density of a map",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one mask is made from, and how."""

    input: Path = option(
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
    """What a finished mask creation leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    mask : Path
        mask.mrc.
    fraction : float
        Fraction of the box where the mask is above one half.
    """

    output: Path
    mask: Path
    fraction: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Make the mask; yields events and returns the result."""
    import numpy as np

    from cryorefine.io.mrc import write_map
    from cryorefine.jobs.volumes import read_cubic
    from cryorefine.maps import filters, masks

    yield Progress("Making the mask", 0, 3, "reading the map")
    volume = read_cubic(options.input, options.pixel_size)
    # Double precision, so that a voxel very close to the threshold falls on the right side of it.
    density = volume.data.astype(np.float64)
    if options.lowpass > 0:
        yield Progress("Making the mask", 1, 3, "filtering")
        density = filters.lowpass(density, volume.pixel_size, options.lowpass, threads=options.threads)

    yield Progress("Making the mask", 2, 3, "thresholding")
    mask = masks.mask_from_map(
        density, options.threshold, options.extend, options.soft_edge, threads=options.threads
    )
    if not mask.any():
        yield Notice(_why_empty(options, float(density.max())), warning=True)
    elif masks.touches_box(mask > 0):
        yield Notice(
            f"The mask of {options.input} reaches the edge of the box; give a higher --threshold than "
            f"{options.threshold:g} or a narrower --extend and --soft-edge, or use a larger box.",
            warning=True,
        )
    if options.invert:
        mask = np.float32(1) - mask

    path = options.output / "mask.mrc"
    write_map(path, mask, volume.pixel_size)
    yield Product("mask", path, "mask")
    yield Progress("Making the mask", 3, 3)
    return Result(options.output, path, float(np.count_nonzero(mask > 0.5) / mask.size))


def _why_empty(options: Options, highest: float) -> str:
    if highest >= options.threshold:
        return (
            f"The mask of {options.input} is empty because an --extend of {options.extend:g} px "
            "shrinks it to nothing; shrink it less."
        )
    return (
        f"The mask of {options.input} is empty: no voxel reaches {options.threshold:g}, the highest is "
        f"{highest:.4g} after filtering; give a lower --threshold."
    )
