"""Particle tables of RELION 3.0: one table with the microscope's settings and offsets in pixels.

The rules are those by which RELION 3.1 converts such tables on reading.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryorefine.errors import UserError

# What RELION 3.0 stored with each particle and what decides its optics group.
_OPTICS_3_0 = (
    "rlnAmplitudeContrast",
    "rlnBeamTiltX",
    "rlnBeamTiltY",
    "rlnSphericalAberration",
    "rlnVoltage",
    # These two make the pixel size and are gone after the conversion.
    "rlnDetectorPixelSize",
    "rlnMagnification",
)
# Lengths that RELION 3.0 gave in pixels, and their names in A.
_PIXELS_TO_ANGSTROM = {
    "rlnOriginX": "rlnOriginXAngst",
    "rlnOriginY": "rlnOriginYAngst",
    "rlnOriginZ": "rlnOriginZAngst",
    "rlnOriginXPrior": "rlnOriginXPriorAngst",
    "rlnOriginYPrior": "rlnOriginYPriorAngst",
    "rlnOriginZPrior": "rlnOriginZPriorAngst",
    "rlnHelicalTrackLength": "rlnHelicalTrackLengthAngst",
}


def split_optics(file: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the single table of RELION 3.0 into optics groups and particles."""
    settings = [label for label in _OPTICS_3_0 if label in table]
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns):
        # The detector's pixel is given in micrometres.
        pixel_size = 1e4 * table["rlnDetectorPixelSize"] / table["rlnMagnification"]
    else:
        # Other programs write the pixel size itself.
        given = [label for label in ("rlnImagePixelSize", "rlnPixelSize") if label in table]
        if not given:
            missing = "rlnDetectorPixelSize" if "rlnDetectorPixelSize" not in table else "rlnMagnification"
            raise UserError(
                f"{file} has neither data_optics nor the column {missing}; add one of them to give "
                "the pixel size."
            )
        settings.append(given[0])
        pixel_size = table[given[0]]
    group = table.groupby(settings, sort=False, dropna=False).ngroup()
    first = ~group.duplicated()
    distinct = table[first].reset_index(drop=True)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": [f"opticsGroup{i}" for i in range(1, len(distinct) + 1)],
            "rlnOpticsGroup": np.arange(1, len(distinct) + 1),
        }
    )
    for label in settings:
        if label in _OPTICS_3_0[:5]:
            optics[label] = distinct[label]
    optics["rlnImagePixelSize"] = pixel_size[first].to_numpy(dtype=np.float64)
    particles = table.drop(columns=settings).assign(rlnOpticsGroup=group.to_numpy(dtype=np.int64) + 1)
    return optics, offsets_in_angstrom(file, optics, particles)


def offsets_in_angstrom(file: Path, optics: pd.DataFrame, particles: pd.DataFrame) -> pd.DataFrame:
    """Convert lengths in pixels to A under their new names, in place of the old columns."""
    old = [label for label in _PIXELS_TO_ANGSTROM if label in particles]
    if not old:
        return particles
    if "rlnImagePixelSize" not in optics:
        raise UserError(
            f"{file} gives {old[0]} in pixels but no rlnImagePixelSize; add the pixel size to data_optics."
        )
    rows = particles["rlnOpticsGroup"].to_numpy(dtype=np.int64) - 1
    pixel_size = optics["rlnImagePixelSize"].to_numpy(dtype=np.float64)[rows]
    result = particles.copy()
    for label in old:
        new = _PIXELS_TO_ANGSTROM[label]
        if new not in particles:
            result[label] = particles[label].to_numpy(dtype=np.float64) * pixel_size
            result = result.rename(columns={label: new})
        else:
            result = result.drop(columns=label)
    return result
