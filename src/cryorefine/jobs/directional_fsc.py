"""Directional FSC: how good a pair of half maps is in each direction of space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Curve, Figures, Job, Notice, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    from cryorefine.jobs.directional_fsc_report import Report

JOB = Job(
    name="directional-fsc",
    title="Directional FSC",
    folder="DirectionalFsc",
    relion_label="relion.external.cryorefine.directionalfsc",
    summary="Measure the resolution of half maps in every direction",
)

ANISOTROPIC = 0.5
"""A cFAR below this generally means preferred orientations (CryoSPARC guide, Orientation Diagnostics)."""
_UNRELATED = 2  # shells; the first few have so few coefficients that unrelated maps may agree there
_STAGE = "Directional FSC"
_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one directional FSC is asked to do."""

    half_map: Path = vocabulary.half_map()
    mask: Path | None = option(
        None,
        label="Solvent mask",
        help="A soft mask, 1 where the particle is and 0 where the solvent is, in the box of the half maps; "
        "noise in the solvent hides differences between directions.",
        kind="mask",
    )
    output: Path = option(
        label="Output folder",
        help="The folder of this job; directional_fsc.star, fsc3d.mrc and a picture are written there.",
        kind="folder",
    )
    pixel_size: float | None = vocabulary.calibrated_pixel_size()
    cone_angle: float = option(
        20.0,
        label="Half-angle of the cones",
        help="Angle between a cone's axis and its mantle. Narrow cones tell directions apart better and "
        "are noisier.",
        unit="degrees",
        group="Cones",
        minimum=5.0,
        maximum=90.0,
        step=1.0,
    )
    healpix_order: int = option(
        3,
        label="HEALPix order of the directions",
        help="2 has 192 directions 15 degrees apart, 3 has 768 at 7.5 degrees, 4 has 3072 at 3.75 degrees.",
        group="Cones",
        minimum=1,
        maximum=4,
        step=1,
    )
    symmetry: str = option(
        "C1",
        label="Symmetry",
        help="Point group of the map, e.g. C6 or D2; symmetry mates of a direction are measured together.",
        group="Cones",
    )
    threshold: float = option(
        0.143,
        label="FSC threshold",
        help="The resolution of a direction is where its FSC first drops below this.",
        group="Cones",
        minimum=0.01,
        maximum=0.9,
        step=0.001,
    )
    threads: int = vocabulary.threads()

    def check(self) -> None:
        """Refuse a symmetry that is none."""
        from cryorefine.geometry.symmetry import point_group

        point_group(self.symmetry)


@dataclass(frozen=True)
class Result:
    """What a finished directional FSC leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    star : Path
        directional_fsc.star: the figures, the resolution of every direction, the spread of the curves.
    volume : Path
        fsc3d.mrc, the FSC at every point of Fourier space.
    picture : Path
        directional_fsc.png; the same is in directional_fsc.pdf.
    cfar : float
        Smallest area under the FSC of a cone over the largest; 1 for an isotropic map.
    sphericity : float
        Of the body of all frequencies that are resolved; 1 for an isotropic map.
    resolution : float
        Resolution of the whole shells in A.
    best_resolution, worst_resolution : float
        Resolution of the best and the worst direction in A.
    """

    output: Path
    star: Path
    volume: Path
    picture: Path
    cfar: float
    sphericity: float
    resolution: float
    best_resolution: float
    worst_resolution: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Correlate the half maps direction by direction; yields events and returns the result."""
    from cryorefine.io.mrc import write_map
    from cryorefine.jobs import directional_fsc_report
    from cryorefine.jobs.volumes import read_halves, read_mask
    from cryorefine.maps import conical_fsc
    from cryorefine.maps.fourier import forward

    yield Progress(_STAGE, 0, _STEPS, "reading the maps")
    paths, first, second = read_halves(options.half_map, options.pixel_size)
    halves = [first.data, second.data]
    if options.mask is not None:
        mask = read_mask(options.mask, first)
        halves = [half * mask for half in halves]
    size, pixel_size = first.data.shape[0], first.pixel_size

    yield Progress(_STAGE, 1, _STEPS, "transforming")
    spectra = [forward(half, options.threads) for half in halves]
    yield Progress(_STAGE, 2, _STEPS, "correlating in cones")
    around = conical_fsc.cones(options.healpix_order, options.cone_angle, options.symmetry)
    fsc = conical_fsc.conical_fsc(spectra[0], spectra[1], around, options.threads)
    report = directional_fsc_report.Report(fsc, around, size, pixel_size, options.threshold)
    yield Curve(
        "Directional FSC", report.frequency.tolist(), {k: v.tolist() for k, v in report.spread().items()}
    )
    yield from _warn(report, paths[0])

    yield Progress(_STAGE, 3, _STEPS, "writing the 3D FSC")
    volume = options.output / "fsc3d.mrc"
    write_map(volume, conical_fsc.fsc_volume(fsc, around, size, options.threads), pixel_size)
    yield Progress(_STAGE, 4, _STEPS, "writing the table and the picture")
    star, picture = directional_fsc_report.write(report, options.output)
    yield Figures(
        {
            "cFAR": report.cfar,
            "sphericity": report.sphericity,
            "resolution (A)": report.resolution,
            "best direction (A)": report.best,
            "worst direction (A)": report.worst,
        }
    )
    yield Progress(_STAGE, _STEPS, _STEPS)
    return Result(
        output=options.output,
        star=star,
        volume=volume,
        picture=picture,
        cfar=report.cfar,
        sphericity=report.sphericity,
        resolution=report.resolution,
        best_resolution=report.best,
        worst_resolution=report.worst,
    )


def _warn(report: Report, path: Path) -> Iterator[Notice]:
    """Say what is wrong with the directions, if anything."""
    if report.whole_shell < _UNRELATED:
        yield Notice(
            f"{path} and its partner agree at no resolution; check that they belong to the same refinement.",
            warning=True,
        )
        return
    if report.reaches_nyquist:
        yield Notice(
            f"The FSC of {path} and its partner reaches the last shell in some directions, so the pixel size "
            f"of {report.pixel_size:g} A/px hides differences; refine with less binned particles.",
            warning=True,
        )
    if report.cfar < ANISOTROPIC:
        rot, tilt = report.worst_direction
        yield Notice(
            f"The map of {path} is anisotropic (cFAR {report.cfar:.2f}), with {report.worst:.1f} A along rot "
            f"{rot:.0f}, tilt {tilt:.0f} and {report.best:.1f} A in the best direction; add views across the "
            "bad direction, e.g. by tilting the stage.",
            warning=True,
        )
