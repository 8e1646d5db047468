"""What a directional FSC found, and the files that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry import healpix
from cryorefine.geometry.sky import order_of
from cryorefine.io.files import write_whole
from cryorefine.io.star import write_star
from cryorefine.jobs.sky_plot import draw_sky
from cryorefine.maps.conical_fsc import Cones, ConicalFsc
from cryorefine.maps.directional_fsc import area_ratio, areas, crossing_shells, sphericity
from cryorefine.maps.shells import shell_frequencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = NDArray[np.float64]
_UNRESOLVED = 999.0


class Report:
    """Figures of one directional FSC.

    Parameters
    ----------
    fsc : ConicalFsc
        The curves.
    around : Cones
        Their cones.
    size : int
        Box in pixels.
    pixel_size : float
        A/px.
    threshold : float
        FSC at which a direction's resolution is read.

    Attributes
    ----------
    frequency : ndarray, shape (shells,)
        1/A.
    resolutions, area : ndarray, shape (12 * 4**order,)
        For each HEALPix pixel in NEST order: resolution in A, and area under the FSC in 1/A.
    cfar, sphericity : float
        See :mod:`cryorefine.maps.directional_fsc`.
    resolution, best, worst : float
        Of whole shells, of the best and of the worst direction, in A.
    """

    def __init__(
        self, fsc: ConicalFsc, around: Cones, size: int, pixel_size: float, threshold: float
    ) -> None:
        self.fsc, self.size, self.pixel_size, self.threshold = fsc, size, pixel_size, threshold
        self.half_angle = around.half_angle
        self.frequency = shell_frequencies(size, pixel_size)
        self.whole_shell = float(crossing_shells(fsc.whole[None], threshold)[0])
        shells = crossing_shells(fsc.curves, threshold)
        self.reaches_nyquist = bool((shells >= size // 2).any())
        extent = size * pixel_size
        self.resolutions: F64 = (extent / shells)[around.place]
        area = areas(fsc.curves, threshold)
        self.area: F64 = (area / extent)[around.place]
        self.cfar = area_ratio(area)
        self.sphericity = sphericity(shells[around.place], around.half_angle / 2)
        self.resolution = extent / self.whole_shell
        self.best, self.worst = float(self.resolutions.min()), float(self.resolutions.max())
        self.directions = healpix.directions(order_of(self.resolutions))

    @property
    def worst_direction(self) -> tuple[float, float]:
        """Rot and tilt, in degrees, of the direction with the smallest area, in the upper half."""
        tilt = self.directions[1]
        worst = int(np.argmin(np.where(tilt <= 90, self.area, np.inf)))
        return float(self.directions[0][worst]), float(tilt[worst])

    def spread(self) -> dict[str, F64]:
        """Return the curves that the spread is told by, the one of whole shells first."""
        curves = self.fsc.curves
        return {
            "all directions": self.fsc.whole,
            "lowest": curves.min(axis=0),
            "highest": curves.max(axis=0),
            "mean": curves.mean(axis=0),
        }

    def blocks(self) -> dict[str, Any]:
        """Return the tables of directional_fsc.star."""
        import pandas

        rot, tilt = self.worst_direction
        general = {
            "rlnFinalResolution": self.resolution,
            "rlnImageSize": self.size,
            "rlnPixelSize": self.pixel_size,
            "cryorefineConeHalfAngle": self.half_angle,
            "cryorefineFscThreshold": self.threshold,
            "cryorefineFscAreaRatio": self.cfar,
            "cryorefineSphericity": self.sphericity,
            "cryorefineBestResolution": self.best,
            "cryorefineWorstResolution": self.worst,
            "cryorefineMedianResolution": float(np.median(self.resolutions)),
            "cryorefineWorstAngleRot": rot,
            "cryorefineWorstAngleTilt": tilt,
        }
        directions = pandas.DataFrame(
            {
                "rlnAngleRot": self.directions[0],
                "rlnAngleTilt": self.directions[1],
                "rlnAngstromResolution": self.resolutions,
                "cryorefineFscArea": self.area,
            }
        )
        spread = self.spread()
        with np.errstate(divide="ignore"):
            resolution = np.where(self.frequency > 0, 1 / self.frequency, _UNRESOLVED)
        curves = pandas.DataFrame(
            {
                "rlnSpectralIndex": np.arange(len(self.frequency)),
                "rlnResolution": self.frequency,
                "rlnAngstromResolution": resolution,
                "cryorefineFscAllDirections": spread["all directions"],
                "cryorefineFscLowest": spread["lowest"],
                "cryorefineFscHighest": spread["highest"],
                "cryorefineFscMean": spread["mean"],
                "cryorefineFscDeviation": self.fsc.curves.std(axis=0),
            }
        )
        return {"general": general, "directions": directions, "fsc": curves}


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write directional_fsc.star, .png and .pdf into a folder; return the paths of the first two."""
    from matplotlib.figure import Figure

    from cryorefine import __version__

    star, picture = folder / "directional_fsc.star", folder / "directional_fsc.png"
    write_star(star, report.blocks(), [f"cryorefine directional-fsc; version {__version__}"])
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    curves, sky = figure.subplots(1, 2, width_ratios=(1, 1.4))
    _plot_curves(report, curves)
    draw_sky(sky, report.resolutions, "resolution (Å)", "viridis_r")
    sky.set_title(f"{report.best:.2f} to {report.worst:.2f} Å", fontsize=10)
    for path in (picture, folder / "directional_fsc.pdf"):
        with write_whole(path) as temporary:
            figure.savefig(temporary, dpi=150)
    return star, picture


def _plot_curves(report: Report, axes: Axes) -> None:
    x, spread, deviation = report.frequency, report.spread(), report.fsc.curves.std(axis=0)
    mean = spread["mean"]
    axes.fill_between(x, spread["lowest"], spread["highest"], color="0.88", label="lowest to highest")
    axes.fill_between(
        x, mean - deviation, mean + deviation, color="tab:blue", alpha=0.35, label="mean ± 1 s.d."
    )
    axes.plot(x, spread["all directions"], color="black", linewidth=1.8, label="all directions")
    axes.axhline(report.threshold, color="0.4", linewidth=0.8, linestyle="--")
    axes.axvline(1 / report.resolution, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, x[-1])
    axes.set_ylim(-0.15, 1.05)
    axes.set_xlabel("spatial frequency (1/Å)")
    axes.set_ylabel(f"FSC in cones of {report.half_angle:g}°")
    axes.set_title(
        f"cFAR {report.cfar:.2f}, sphericity {report.sphericity:.3f}, {report.resolution:.2f} Å", fontsize=10
    )
    axes.legend(frameon=False, fontsize=8)
