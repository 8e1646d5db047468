"""What PostProcess found, and the files that say so: STAR, EMDB's XML, plain columns, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.files import write_whole
from cryorefine.io.star import Columns, write_star
from cryorefine.maps import fsc
from cryorefine.maps.density import DALTONS_PER_CUBIC_ANGSTROM
from cryorefine.maps.sharpen import NO_AMPLITUDE, GuinierFit
from cryorefine.maps.shells import shell_frequencies
from cryorefine.maps.solvent import HalfMaps, SolventFsc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

_UNRESOLVED = 999.0
"""What RELION writes for the resolution of shell 0."""

_GUINIER_NAMES = {
    "rlnLogAmplitudesOriginal": "original",
    "rlnLogAmplitudesMTFCorrected": "MTF-corrected",
    "rlnLogAmplitudesWeighted": "FSC-weighted",
    "rlnLogAmplitudesSharpened": "sharpened",
}


class Report:
    """Curves and figures of one post-processing, gathered while it runs.

    Parameters
    ----------
    halves : pair of Path
        The half maps.
    mask_path : Path or None
        The mask.
    pixel_size : float
        A/px.
    pair : HalfMaps
        The half maps themselves; only what is known of each shell is looked at.
    curves : SolventFsc or None
        The curves behind the mask, if there is one.
    mask : numpy.ndarray or None
        The mask itself, shape (z, y, x).
    molecular_weight : float or None
        kDa of ordered protein, if known.

    Attributes
    ----------
    final_fsc : numpy.ndarray
        The curve that decides the resolution and the weights: the corrected one, or the unmasked one
        without a mask and where that is the better of the two.
    fell_back : bool
        Whether the unmasked curve is used in spite of a mask.
    resolution_shell : int
        Last shell before ``final_fsc`` drops below 0.143.
    resolution : float
        Its resolution in A.
    power : numpy.ndarray
        Geometric mean of the power, summed over the voxels of each shell, of the maps to which
        ``final_fsc`` belongs.
    mask_factor : float
        How many times larger the box is than the masked particle, counting protein at its own volume.
    weight_factor : float
        The same for the molecular weight; 0 where that is unknown.
    fit : GuinierFit or None
        The line through the Guinier plot, if one was fitted.
    b_factor : float
        B-factor applied, in A^2.
    """

    def __init__(
        self,
        halves: tuple[Path, Path],
        mask_path: Path | None,
        pixel_size: float,
        pair: HalfMaps,
        curves: SolventFsc | None,
        mask: NDArray[Any] | None,
        molecular_weight: float | None = None,
    ) -> None:
        self.halves, self.mask_path = halves, mask_path
        size = pair.size
        self.size, self.pixel_size = size, pixel_size
        self.frequency = shell_frequencies(size, pixel_size)
        self.unmasked, self.curves = pair.unmasked, curves
        # 0.476 is the share of a wet particle's volume that the protein itself fills (cisTEM).
        inside = np.count_nonzero(mask > 0.5) / mask.size if mask is not None else 0.0
        self.mask_factor = 0.476 / inside if inside > 0 else 1.0
        self.molecular_weight = molecular_weight
        self.weight_factor = 0.0
        if molecular_weight is not None:
            volume = (size * pixel_size) ** 3
            self.weight_factor = 0.476 * volume * DALTONS_PER_CUBIC_ANGSTROM / (1000 * molecular_weight)
        self.final_fsc, self.power, self.fell_back = pair.unmasked, pair.power, False
        if curves is not None:
            shells = fsc.resolution_shell(pair.unmasked), fsc.resolution_shell(curves.corrected)
            self.fell_back = shells[0] > shells[1]
            if not self.fell_back:
                self.final_fsc, self.power = curves.corrected, curves.masked_power
        self.resolution_shell = fsc.resolution_shell(self.final_fsc)
        self.resolution = fsc.shell_resolution(self.resolution_shell, size, pixel_size)
        self.fit: GuinierFit | None = None
        self.b_factor = 0.0
        self._guinier: dict[str, NDArray[np.float64]] = {}

    def add_guinier(self, label: str, log_amplitudes: NDArray[np.float64]) -> None:
        """Keep the Guinier plot of a stage under its RELION label."""
        self._guinier[label] = log_amplitudes

    def last_guinier(self) -> NDArray[np.float64]:
        """Return the Guinier plot of the stage reached."""
        return list(self._guinier.values())[-1]

    def fsc_curves(self) -> dict[str, NDArray[np.float64]]:
        """Return the FSC curves by name, the one that counts first."""
        if self.curves is None:
            return {"unmasked": self.unmasked}
        return {
            "corrected": self.curves.corrected,
            "unmasked": self.unmasked,
            "masked": self.curves.masked,
            "phase-randomised": self.curves.randomised,
        }

    def guinier_curves(self) -> dict[str, NDArray[np.float64]]:
        """Return ln of the amplitude for each stage, NaN where there is none, and the fitted line."""
        curves = {
            _GUINIER_NAMES[label]: np.where(values > NO_AMPLITUDE, values, np.nan)
            for label, values in self._guinier.items()
        }
        if self.fit is not None:
            curves["fit"] = self.fit.intercept + self.fit.slope * self.frequency**2
        return curves

    def blocks(self, map_path: Path, masked_path: Path | None) -> dict[str, Any]:
        """Return the tables of postprocess.star."""
        return {
            "general": self._general(map_path, masked_path),
            "fsc": self._fsc_table(),
            "guinier": self._guinier_table(),
        }

    def _general(self, map_path: Path, masked_path: Path | None) -> dict[str, Any]:
        general: dict[str, Any] = {
            "rlnFinalResolution": self.resolution if self.resolution_shell else _UNRESOLVED,
            "rlnBfactorUsedForSharpening": float(self.b_factor),
            "rlnUnfilteredMapHalf1": str(self.halves[0]),
            "rlnUnfilteredMapHalf2": str(self.halves[1]),
            "rlnPostprocessedMap": str(map_path),
        }
        if self.molecular_weight is not None:
            general["rlnMolecularWeight"] = self.molecular_weight
            general["rlnParticleBoxFractionMolecularWeight"] = self.weight_factor
        if self.curves is not None:
            start = self.curves.first_randomised_shell
            general["rlnParticleBoxFractionSolventMask"] = self.mask_factor
            general["rlnMaskName"] = str(self.mask_path)
            general["rlnRandomiseFrom"] = fsc.shell_resolution(start, self.size, self.pixel_size)
            general["rlnPostprocessedMapMasked"] = str(masked_path)
        if self.fit is not None:
            general["rlnFittedSlopeGuinierPlot"] = self.fit.slope
            general["rlnFittedInterceptGuinierPlot"] = self.fit.intercept
            general["rlnCorrelationFitGuinierPlot"] = self.fit.correlation
            if self.fit.b_factor_error is not None:
                general["cryorefineBfactorUncertainty"] = self.fit.b_factor_error
        return general

    def _fsc_table(self) -> Columns:
        shells = np.arange(self.size // 2 + 1)
        with np.errstate(divide="ignore"):
            resolution = np.where(shells > 0, 1.0 / self.frequency, _UNRESOLVED)
        table = Columns(
            rlnSpectralIndex=shells,
            rlnResolution=np.where(shells > 0, self.frequency, 1.0 / _UNRESOLVED),
            rlnAngstromResolution=resolution,
        )
        unmasked = "rlnFourierShellCorrelationUnmaskedMaps"
        if self.curves is None:
            table[unmasked] = self.unmasked
        else:
            particle = fsc.part_fsc(self.unmasked, self.mask_factor)
            table["rlnFourierShellCorrelationCorrected"] = self.final_fsc
            table["rlnFourierShellCorrelationParticleMaskFraction"] = particle
            if self.weight_factor > 0:
                particle = fsc.part_fsc(self.unmasked, self.weight_factor)
                table["rlnFourierShellCorrelationParticleMolWeight"] = particle
            table[unmasked] = self.unmasked
            table["rlnFourierShellCorrelationMaskedMaps"] = self.curves.masked
            table["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = self.curves.randomised
        return table

    def _guinier_table(self) -> Columns:
        table = Columns(rlnResolutionSquared=self.frequency**2, **self._guinier)
        if self.fit is not None:
            table["rlnLogAmplitudesIntercept"] = np.full(len(self.frequency), self.fit.intercept)
        return table


def write(report: Report, folder: Path, map_path: Path, masked_path: Path | None) -> Path:
    """Write postprocess.star, postprocess_fsc.xml, postprocess_fsc.dat and logfile.pdf into a folder.

    Returns
    -------
    Path
        postprocess.star.
    """
    from cryorefine import __version__

    with write_whole(folder / "postprocess_fsc.xml") as temporary:
        temporary.write_text(_xml(report))
    with write_whole(folder / "postprocess_fsc.dat") as temporary:
        np.savetxt(temporary, np.column_stack([report.frequency, report.final_fsc]), fmt="%.6f")
    _write_plots(report, folder / "logfile.pdf")
    star = folder / "postprocess.star"
    write_star(star, report.blocks(map_path, masked_path), [f"cryorefine postprocess; version {__version__}"])
    return star


def _xml(report: Report) -> str:
    """Return the final FSC in the form that EMDB takes with a deposition."""
    kind = "unmasked" if report.curves is None or report.fell_back else "masked-corrected"
    lines = [f'<fsc title="{kind} FSC" xaxis="Resolution (A-1)" yaxis="Correlation Coefficient">']
    for frequency, value in zip(report.frequency, report.final_fsc, strict=True):
        lines += [
            "  <coordinate>",
            f"    <x>{frequency:.6g}</x>",
            f"    <y>{value:.6g}</y>",
            "  </coordinate>",
        ]
    return "\n".join([*lines, "</fsc>", ""])


def load_plotting() -> tuple[type[PdfPages], type[Figure]]:
    """Import what draws the plots.

    It is the object interface, which needs no display and leaves the plots of the host program alone.
    """
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    return PdfPages, Figure


def _write_plots(report: Report, path: Path) -> None:
    pdf_pages, figure_type = load_plotting()

    with write_whole(path) as temporary, pdf_pages(temporary) as pages:
        for draw in (_plot_fsc, _plot_guinier):
            figure = figure_type(figsize=(7.0, 4.8))
            draw(report, figure.add_axes((0.1, 0.11, 0.87, 0.73)))
            pages.savefig(figure)


def _plot_fsc(report: Report, axes: Axes) -> None:
    colours = {
        "corrected": "black",
        "unmasked": "tab:green",
        "masked": "tab:blue",
        "phase-randomised": "tab:red",
    }
    for name, values in report.fsc_curves().items():
        width = 2.0 if name == "corrected" else 1.2
        axes.plot(report.frequency, values, label=name, color=colours[name], linewidth=width)
    axes.axhline(fsc.GOLD_STANDARD, color="0.5", linewidth=0.8, linestyle="--")
    axes.axhline(0.0, color="0.8", linewidth=0.8)
    axes.set_xlim(0, report.frequency[-1])
    axes.set_ylim(min(-0.1, float(np.nanmin(report.unmasked))), 1.05)
    axes.set_ylabel("Fourier shell correlation")
    _label_frequency(axes, report.frequency[-1], squared=False)
    if report.resolution_shell:
        axes.axvline(1 / report.resolution, color="0.5", linewidth=0.8, linestyle="--")
    axes.set_title(f"Final resolution = {report.resolution:.2f} Angstroms")
    axes.legend(frameon=False)


def _plot_guinier(report: Report, axes: Axes) -> None:
    squared = report.frequency**2
    shown = []
    for name, values in report.guinier_curves().items():
        style = "--" if name == "fit" else "-"
        axes.plot(squared, values, style, label=name, linewidth=1.5, color="0.4" if name == "fit" else None)
        if name != "fit":
            shown.append(values)
    finite = np.concatenate(shown)
    finite = finite[np.isfinite(finite)]
    if len(finite):
        margin = 0.05 * (finite.max() - finite.min()) + 0.1
        axes.set_ylim(finite.min() - margin, finite.max() + margin)
    axes.set_xlim(0, squared[-1])
    axes.set_ylabel("ln (mean amplitude)")
    _label_frequency(axes, squared[-1], squared=True)
    error = report.fit.b_factor_error if report.fit is not None else None
    uncertainty = f" ± {error:.1f}" if error is not None else ""
    axes.set_title(f"Guinier plot, B-factor = {report.b_factor:.1f}{uncertainty} Å²")
    axes.legend(frameon=False)


def _label_frequency(axes: Axes, highest: float, squared: bool) -> None:
    """Label the axis in 1/A or 1/A^2, and above it the resolutions in A."""
    ticks = highest * np.linspace(0.1, 1.0, 8)
    axes.set_xlabel("spatial frequency² (1/Å²)" if squared else "spatial frequency (1/Å)")
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [f"{(1 / np.sqrt(t) if squared else 1 / t):.1f}" for t in ticks])
    above.set_xlabel("resolution (Å)")
