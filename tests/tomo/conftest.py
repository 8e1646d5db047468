"""Tilt-series data for the tests of subtomogram averaging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cryorefine.io.mrc import write_stack
from cryorefine.io.star import write_star
from cryorefine.io.tomograms import read_tomograms
from cryorefine.tomo.geometry import project


@pytest.fixture(scope="session")
def sim_hiv(shared: Path) -> Path:
    """Folder of the simulated tilt series with true poses."""
    folder = shared / "data" / "sim_hiv_sta"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="session")
def hiv_tutorial(shared: Path) -> Path:
    """Folder of the metadata of RELION 5's official subtomogram tutorial."""
    folder = shared / "data" / "hiv_sta_relion5_metadata"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="session")
def warp_stacks(shared: Path) -> Path:
    """Optimisation set of real particle stacks that WarpTools exported."""
    path = (
        shared / "data/warp_2d_stacks/warptools_test_4-tomos_10-ptcls_box-32_angpix-12_optimisation_set.star"
    )
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return path


class Project:
    """A small project: one tilt series of five images with a dot for each particle.

    The dots are dark Gaussians of standard deviation 3 px at the projected centres, in focus and without
    dose, so that an extracted particle is a bright dot in the middle of its box.
    """

    tilts = np.array([-40.0, -20, 0, 20, 40])
    pixel_size = 2.0
    width, height = 160, 140

    def __init__(self, folder: Path, centred: NDArray[np.float64], **columns: Any) -> None:
        self.folder = folder
        self.centred = centred
        self.write_tables(**columns)
        series = read_tomograms(self.tomograms, images=False)["TS_1"]
        centres, _ = project(series, centred / self.pixel_size + series.centre)
        centres += np.array([self.width // 2, self.height // 2])
        x, y = np.arange(self.width), np.arange(self.height)[:, None]
        self.images = np.array(
            [
                -sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18) for cx, cy in centres[:, tilt])
                for tilt in range(5)
            ]
        )
        write_stack(folder / "TS_1.mrcs", self.images, self.pixel_size, half_precision=True)

    @property
    def tomograms(self) -> Path:
        return self.folder / "tomograms.star"

    @property
    def particles(self) -> Path:
        return self.folder / "particles.star"

    def write_tables(self, **columns: Any) -> None:
        n = len(self.tilts)
        table = pd.DataFrame(
            {
                "rlnMicrographName": [f"{i}@TS_1.mrcs" for i in range(1, n + 1)],
                "rlnMicrographPreExposure": [40.0, 20, 0, 10, 30],
                "rlnTomoXTilt": 0.0,
                "rlnTomoYTilt": self.tilts,
                "rlnTomoZRot": 5.0,
                "rlnTomoXShiftAngst": [1.5, -2, 0.5, 3, -1],
                "rlnTomoYShiftAngst": [0.5, 1, -0.5, 2, -2],
                "rlnDefocusU": 20000.0,
                "rlnDefocusV": 19000.0,
                "rlnDefocusAngle": 30.0,
            }
        )
        row = {
            "rlnTomoName": ["TS_1"],
            "rlnTomoTiltSeriesStarFile": "TS_1.star",
            "rlnTomoTiltSeriesPixelSize": self.pixel_size,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnTomoHand": -1,
            "rlnTomoSizeX": self.width,
            "rlnTomoSizeY": self.height,
            "rlnTomoSizeZ": 60,
        }
        write_star(self.folder / "TS_1.star", {"TS_1": table})
        write_star(self.tomograms, {"global": pd.DataFrame(row)})
        particles = {"rlnTomoName": "TS_1"} | {
            f"rlnCenteredCoordinate{axis}Angst": self.centred[:, i] for i, axis in enumerate("XYZ")
        }
        write_star(self.particles, {"particles": pd.DataFrame(particles | columns)})


@pytest.fixture
def project_of_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Four particles that every image shows, and one outside of all of them; the current directory."""
    monkeypatch.chdir(tmp_path)
    centred = np.array([[0.0, 0, 0], [31.3, -40.7, 10.2], [-50.0, 35.5, -20], [11, 60, 15], [0, 130, 0]])
    return Project(tmp_path, centred)
