"""Tilt-series data for the tests of subtomogram averaging."""

from __future__ import annotations

from pathlib import Path

import pytest


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
