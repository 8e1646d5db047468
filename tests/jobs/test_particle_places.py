"""Coordinates are counted in pixels of the micrograph that the particles were cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryorefine.io.particles import ParticleFile
from cryorefine.jobs.particle_places import places_in_angstrom


@pytest.mark.parametrize(
    ("pixel_sizes", "expected"),
    [
        ({"MicrographPixelSize": 0.8, "MicrographOriginalPixelSize": 0.4, "ImagePixelSize": 3.2}, 0.8),
        ({"MicrographOriginalPixelSize": 0.4, "ImagePixelSize": 3.2}, 0.4),
        ({"ImagePixelSize": 3.2}, 3.2),
    ],
)
def test_a_pixel_of_a_coordinate_is_one_of_the_micrograph(pixel_sizes, expected):
    optics = pd.DataFrame({"rlnOpticsGroup": [1], **{f"rln{name}": [v] for name, v in pixel_sizes.items()}})
    particles = pd.DataFrame(
        {"rlnOpticsGroup": [1, 1], "rlnCoordinateX": [0.0, 100.0], "rlnCoordinateY": [20.0, 0.0]}
    )
    places = places_in_angstrom(ParticleFile(optics, particles, {}, Path("particles.star")))
    np.testing.assert_allclose(places, expected * np.array([[0, 20], [100, 0]]))
