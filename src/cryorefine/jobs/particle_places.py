"""Where particles lie on their micrographs, and how far from focus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.particles import ParticleFile, column

F64 = NDArray[np.float64]

_PIXELS = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnImagePixelSize")
"""Whose pixels coordinates are counted in; particles that were never rescaled may give only the last."""


def micrograph_pixel_size(file: ParticleFile) -> F64:
    """Return the pixel size in A of each particle's micrograph, shape (particles,); 1 where unknown."""
    for label in _PIXELS:
        pixel_size = column(file, label, 0.0)
        if (pixel_size > 0).all():
            return pixel_size
    return np.ones(len(file))


def places_in_angstrom(file: ParticleFile) -> F64:
    """Return x and y of each particle from the micrograph's first pixel in A, shape (particles, 2).

    NaN where the file has no coordinates.
    """
    x, y = (column(file, f"rlnCoordinate{axis}", np.nan) for axis in "XY")
    places: F64 = np.stack([x, y], axis=1) * micrograph_pixel_size(file)[:, None]
    return places


def mean_defocus(file: ParticleFile) -> F64:
    """Return the mean of defocus U and V of each particle in A, shape (particles,)."""
    u = column(file, "rlnDefocusU")
    v = column(file, "rlnDefocusV") if "rlnDefocusV" in file else u
    return (u + v) / 2
