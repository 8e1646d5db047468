"""Particle tables of RELION 3.0: one table with the microscope's settings and offsets in pixels.

The rules are those by which RELION 3.1 converts such tables on reading.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryorefine.errors import UserError
from cryorefine.io.star import Columns

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


def split_optics(file: Path, table: Columns) -> tuple[Columns, Columns]:
    """Split the single table of RELION 3.0 into optics groups and particles."""
    settings = [label for label in _OPTICS_3_0 if label in table]
    if "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        # The detector's pixel is given in micrometres.
        pixel_size = 1e4 * table.numbers("rlnDetectorPixelSize") / table.numbers("rlnMagnification")
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
        pixel_size = table.numbers(given[0])
    # Numbered in the order in which they come, not in that of their values.
    known: dict[tuple[str, ...], int] = {}
    keys = zip(*(table.words(label) for label in settings), strict=True)
    group = np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)
    first = np.unique(group, return_index=True)[1]
    distinct = table.take(first)
    optics = Columns(
        rlnOpticsGroupName=[f"opticsGroup{i}" for i in range(1, len(first) + 1)],
        rlnOpticsGroup=np.arange(1, len(first) + 1),
    )
    for label in settings:
        if label in _OPTICS_3_0[:5]:
            optics[label] = distinct[label]
    optics["rlnImagePixelSize"] = pixel_size[first]
    particles = table.without(*settings).with_columns(rlnOpticsGroup=group + 1)
    return optics, offsets_in_angstrom(file, optics, particles)


def offsets_in_angstrom(file: Path, optics: Columns, particles: Columns) -> Columns:
    """Convert lengths in pixels to A under their new names, in place of the old columns."""
    old = [label for label in _PIXELS_TO_ANGSTROM if label in particles]
    if not old:
        return particles
    if "rlnImagePixelSize" not in optics:
        raise UserError(
            f"{file} gives {old[0]} in pixels but no rlnImagePixelSize; add the pixel size to data_optics."
        )
    rows = np.asarray(particles["rlnOpticsGroup"], dtype=np.int64) - 1
    pixel_size = optics.numbers("rlnImagePixelSize")[rows]
    result = Columns()
    for label, values in particles.items():
        if label not in old:
            result[label] = values
        elif _PIXELS_TO_ANGSTROM[label] not in particles:
            result[_PIXELS_TO_ANGSTROM[label]] = particles.numbers(label) * pixel_size
    return result
