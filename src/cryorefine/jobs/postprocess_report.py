"""What PostProcess found, and the files that say so: STAR, EMDB's XML, plain columns, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.files import write_whole
from cryorefine.io.pdf import BLACK, write_pdf
from cryorefine.io.star import Columns, write_star
from cryorefine.jobs.curve_plot import BLUE, GREEN, GREY, LIGHT, ORANGE, RED, Line, Plot, draw
from cryorefine.maps import fsc
from cryorefine.maps.density import DALTONS_PER_CUBIC_ANGSTROM
from cryorefine.maps.sharpen import NO_AMPLITUDE, GuinierFit
from cryorefine.maps.shells import shell_frequencies
from cryorefine.maps.solvent import HalfMaps, SolventFsc

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
    write_pdf(folder / "logfile.pdf", [draw(_plot_fsc(report)), draw(_plot_guinier(report))])
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


def _plot_fsc(report: Report) -> Plot:
    styles = {
        "corrected": (BLACK, 2.0),
        "unmasked": (GREEN, 1.2),
        "masked": (BLUE, 1.2),
        "phase-randomised": (RED, 1.2),
    }
    highest = float(report.frequency[-1])
    bottom = min(-0.1, float(np.nanmin(report.unmasked)))
    lines = [
        Line((0, highest), (0, 0), colour=LIGHT, width=0.8),
        Line((0, highest), (fsc.GOLD_STANDARD,) * 2, colour=GREY, width=0.8, dashed=True),
    ]
    if report.resolution_shell:
        lines.append(Line((1 / report.resolution,) * 2, (bottom, 1.05), colour=GREY, width=0.8, dashed=True))
    lines += [
        Line(report.frequency.tolist(), values.tolist(), name, *styles[name])
        for name, values in report.fsc_curves().items()
    ]
    return Plot(
        title=f"Final resolution = {report.resolution:.2f} Angstroms",
        x_label="spatial frequency (1/Å)",
        y_label="Fourier shell correlation",
        x_range=(0.0, highest),
        y_range=(bottom, 1.05),
        lines=lines,
        top_ticks=[(place, f"{1 / place:.1f}") for place in _places(highest)],
        top_label="resolution (Å)",
    )


def _plot_guinier(report: Report) -> Plot:
    squared = report.frequency**2
    colours = dict(zip(_GUINIER_NAMES.values(), (BLUE, ORANGE, GREEN, RED), strict=True))
    lines, shown = [], [np.zeros(0)]
    for name, values in report.guinier_curves().items():
        line = (squared.tolist(), values.tolist(), name)
        if name == "fit":
            lines.append(Line(*line, colour=GREY, width=1.5, dashed=True))
        else:
            lines.append(Line(*line, colour=colours[name], width=1.5))
            shown.append(values[np.isfinite(values)])
    finite = np.concatenate(shown)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    margin = 0.05 * (high - low) + 0.1
    error = report.fit.b_factor_error if report.fit is not None else None
    uncertainty = f" ± {error:.1f}" if error is not None else ""
    return Plot(
        title=f"Guinier plot, B-factor = {report.b_factor:.1f}{uncertainty} Å²",
        x_label="spatial frequency² (1/Å²)",
        y_label="ln (mean amplitude)",
        x_range=(0.0, float(squared[-1])),
        y_range=(low - margin, high + margin),
        lines=lines,
        top_ticks=[(place, f"{place**-0.5:.1f}") for place in _places(float(squared[-1]))],
        top_label="resolution (Å)",
    )


def _places(highest: float) -> list[float]:
    """Return where resolutions are written above a plot."""
    return [float(place) for place in highest * np.linspace(0.1, 1.0, 8)]
