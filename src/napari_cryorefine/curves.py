"""The curves that finished jobs keep in their STAR files, of this program and of RELION."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryorefine.jobs.base import Curve

FSC_LABELS = {  # as PostProcess names them while it runs
    "rlnFourierShellCorrelationCorrected": "corrected",
    "rlnFourierShellCorrelationUnmaskedMaps": "unmasked",
    "rlnFourierShellCorrelationMaskedMaps": "masked",
    "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "phase-randomised",
}
GUINIER_LABELS = {
    "rlnLogAmplitudesOriginal": "original",
    "rlnLogAmplitudesMTFCorrected": "MTF-corrected",
    "rlnLogAmplitudesWeighted": "FSC-weighted",
    "rlnLogAmplitudesSharpened": "sharpened",
}
DIRECTIONAL_LABELS = {
    "cryorefineFscAllDirections": "all directions",
    "cryorefineFscLowest": "lowest",
    "cryorefineFscHighest": "highest",
    "cryorefineFscMean": "mean",
}
EMPTY_SHELL = -90.0
"""RELION writes -99 as the logarithm of a shell that holds nothing."""


def postprocess_curves(path: Path) -> list[Curve]:
    """Return the FSC and Guinier curves of a postprocess.star, those that it holds."""
    from cryorefine.io.star import read_star

    blocks = read_star(path)
    curves = []
    if "fsc" in blocks:
        frequency = _column(blocks["fsc"], "rlnResolution")
        curves.append(Curve("FSC", frequency, _family(blocks["fsc"], FSC_LABELS)))
    if "guinier" in blocks:
        frequency = np.sqrt(_column(blocks["guinier"], "rlnResolutionSquared"))
        family = _family(blocks["guinier"], GUINIER_LABELS)
        for values in family.values():
            values[values < EMPTY_SHELL] = np.nan
        general = blocks.get("general", {})
        if "rlnFittedSlopeGuinierPlot" in general:
            slope, intercept = (general[f"rlnFitted{name}GuinierPlot"] for name in ("Slope", "Intercept"))
            family["fit"] = float(intercept) + float(slope) * frequency**2
        curves.append(Curve("Guinier", frequency, family))
    return curves


def refinement_curves(path: Path) -> list[Curve]:
    """Return the FSC between the half maps of a run_model.star."""
    from cryorefine.io.star import read_star

    table = read_star(path).get("model_class_1")
    if table is None or "rlnGoldStandardFsc" not in table:
        return []
    return [Curve("FSC", _column(table, "rlnResolution"), {"unmasked": _column(table, "rlnGoldStandardFsc")})]


def directional_curves(path: Path) -> list[Curve]:
    """Return how the FSC spreads over the directions of a directional_fsc.star."""
    from cryorefine.io.star import read_star

    table = read_star(path).get("fsc")
    if table is None:
        return []
    return [Curve("Directional FSC", _column(table, "rlnResolution"), _family(table, DIRECTIONAL_LABELS))]


def _column(table: Any, name: str) -> Any:
    return np.array(table[name], dtype=float)


def _family(table: Any, labels: dict[str, str]) -> dict[str, Any]:
    return {label: _column(table, name) for name, label in labels.items() if name in table}
