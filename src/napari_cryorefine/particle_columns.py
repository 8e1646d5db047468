"""What the columns of a particle table are called where people read them, with their units."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

DEFOCUS, CHANGE = "Defocus (Å)", "Change (Å)"
FITTED = {
    "rlnPhaseShift": "Phase shift (°)",
    "rlnCtfBfactor": "B-factor (Å²)",
    "rlnCtfScalefactor": "Scale",
    "cryorefineDefocusUncertainty": "± Defocus (Å)",
    "cryorefineAstigmatismUncertainty": "± Astigmatism (Å)",
    "cryorefinePhaseShiftUncertainty": "± Phase shift (°)",
    "cryorefineCtfBfactorUncertainty": "± B-factor (Å²)",
    "cryorefineCtfScalefactorUncertainty": "± Scale",
    "cryorefineSignal": "Signal",
    "cryorefineNoise": "Noise",
}
"""Columns that a fit of CTFs may change while it is watched."""
DERIVED = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "cryorefineDefocusChange")
"""Columns that are shown as mean defocus, change, astigmatism and its angle."""
_KNOWN = {
    "rlnAngleRot": "Rot (°)",
    "rlnAngleTilt": "Tilt (°)",
    "rlnAnglePsi": "Psi (°)",
    "rlnOriginXAngst": "Shift x (Å)",
    "rlnOriginYAngst": "Shift y (Å)",
    "rlnOriginZAngst": "Shift z (Å)",
    "rlnMaxValueProbDistribution": "Largest probability",
    "rlnLogLikeliContribution": "Log-likelihood",
    "rlnNrOfSignificantSamples": "Significant samples",
    "rlnNormCorrection": "Norm correction",
    "rlnCtfMaxResolution": "CTF resolution (Å)",
    "rlnCtfFigureOfMerit": "CTF figure of merit",
    "rlnAutopickFigureOfMerit": "Picking figure of merit",
    "rlnRandomSubset": "Half set",
    "rlnBeamTiltX": "Beam tilt x (mrad)",
    "rlnBeamTiltY": "Beam tilt y (mrad)",
}
_ENDINGS = (("Angst", " (Å)"), ("Resolution", " resolution (Å)"))
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def shown_name(label: str) -> str:
    """Return what a column is called, e.g. ``Class number`` for ``rlnClassNumber``."""
    if label in _KNOWN:
        return _KNOWN[label]
    if label.startswith("rlnAngle"):
        return f"{_words(label[3:])} (°)"
    for ending, shown in _ENDINGS:
        if label.endswith(ending) and label != ending:
            return _words(label.removesuffix(ending)) + shown
    return _words(label)


def telling_columns(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns of numbers that tell particles apart, by what they are called.

    Those of :data:`FITTED` and :data:`DERIVED` are left out, and those of the same number everywhere.
    Well-known ones come first, the others in the order of the table.
    """
    found: dict[str, str] = {}
    # What a refinement has found comes first, coordinates and the like last.
    order = {label: number for number, label in enumerate(_KNOWN)}
    for label in sorted(table.columns, key=lambda label: order.get(label, len(order))):
        if label in FITTED or label in DERIVED or table[label].dtype.kind not in "iuf":
            continue
        values: Any = table[label].to_numpy()
        if len(values) == 0 or np.all(values == values[0]):
            continue
        name = shown_name(str(label))
        found[str(label) if name in found else name] = str(label)
    return found


def _words(label: str) -> str:
    """Return a label as a person would write it: Coordinate X for rlnCoordinateX."""
    words = _WORD.findall(label.removeprefix("rln"))
    text = " ".join(word if len(word) == 1 or word.isupper() else word.lower() for word in words)
    return text[:1].upper() + text[1:] if text else label
