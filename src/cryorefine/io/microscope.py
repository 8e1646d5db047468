"""What a microscope can be, and how numbers that it cannot have usually come about."""

from __future__ import annotations

import math

_RANGES = {
    "rlnVoltage": (20.0, 3000.0, "give it in kV, such as 300"),
    # Correctors may leave a little less than nothing.
    "rlnSphericalAberration": (-0.1, 20.0, "give it in mm, such as 2.7, or 0.01 with a corrector"),
    "rlnAmplitudeContrast": (0.0, 1.0, "give a fraction from 0 to 1, such as 0.1"),
}


def remedy_for(label: str, value: float) -> str:
    """Return what to do about a value that no microscope has; empty for one that it may have.

    Parameters
    ----------
    label : str
        rlnVoltage, rlnSphericalAberration or rlnAmplitudeContrast; of others nothing is known.
    value : float
        In kV, mm, or as a fraction.

    Examples
    --------
    >>> remedy_for("rlnVoltage", 300000.0)
    'give it in kV, such as 300'
    """
    low, high, remedy = _RANGES.get(label, (-math.inf, math.inf, ""))
    return "" if low <= value <= high else remedy
