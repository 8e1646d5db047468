"""Fixtures for every test: the shared data, where present, and seeded random numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.gpu.fixtures import cupy, stand_in, too_little, two_gpus  # noqa: F401


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of shared data and references beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def betagal(shared: Path) -> Path:
    """Folder of the real beta-galactosidase particles (EMPIAR-10204)."""
    folder = shared / "data" / "betagal_empiar10204"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run of a test."""
    return np.random.default_rng(20261120)


@pytest.fixture(scope="session")
def relion() -> Callable[[str], str]:
    """Function that returns the path of a RELION program, or skips the test where RELION is absent."""

    def program(name: str) -> str:
        path = shutil.which(f"relion_{name}")
        if path is None:
            pytest.skip(f"relion_{name} is not installed (Debian package relion)")
        return path

    return program
