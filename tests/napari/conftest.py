"""Tests of the plugin: a viewer needs a display or Xvfb, everything else a Qt that draws nowhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

HAS_DISPLAY = bool(
    sys.platform in ("darwin", "win32")
    or os.environ.get("DISPLAY")
    or os.environ.get("WAYLAND_DISPLAY")
    or shutil.which("Xvfb")
)
if not HAS_DISPLAY:
    # Without this Qt aborts the whole process of the tests.
    os.environ["QT_QPA_PLATFORM"] = "offscreen"

PIXEL_SIZE = 2.5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a viewer where there is nowhere to show one."""
    if HAS_DISPLAY:
        return
    for item in items:
        if {"viewer", "make_napari_viewer", "make_napari_viewer_proxy"} & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker(pytest.mark.skip(reason="no display and no Xvfb (Debian package xvfb)"))


@pytest.fixture
def viewer(make_napari_viewer):
    """Real viewer in a window that is not shown."""
    return make_napari_viewer(show=False)


@pytest.fixture
def model():
    """Viewer without Qt."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty project folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def blob() -> np.ndarray:
    """Return an asymmetric particle of 24^3 voxels in weak noise; shape (z, y, x)."""
    z, y, x = np.indices((24, 24, 24)) - 12.0
    particle = np.exp(-(((x - 3) / 4) ** 2 + (y / 3) ** 2 + ((z + 2) / 3) ** 2))
    noise = np.random.default_rng(1).normal(0, 0.02, particle.shape)
    return (particle + noise).astype(np.float32)


@pytest.fixture
def map_file(project: Path, blob: np.ndarray) -> Path:
    """MRC file of the blob."""
    from cryorefine.io.mrc import write_map

    path = project / "blob.mrc"
    write_map(path, blob, PIXEL_SIZE)
    return path


@pytest.fixture
def half_maps(project: Path, blob: np.ndarray) -> tuple[Path, Path]:
    """Two half maps of the blob with their own noise."""
    from cryorefine.io.mrc import write_map

    paths = []
    for half in (1, 2):
        noise = np.random.default_rng(half).normal(0, 0.05, blob.shape)
        paths.append(project / f"run_half{half}_class001_unfil.mrc")
        write_map(paths[-1], (blob + noise).astype(np.float32), PIXEL_SIZE)
    return paths[0], paths[1]


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Return what the forms told the person: (kind, sentence), oldest first."""
    from napari_cryorefine import forms

    told: list[tuple[str, str]] = []

    def record(kind: str) -> Callable[[str], None]:
        return lambda sentence: told.append((kind, sentence))

    for kind in ("info", "warning", "error"):
        monkeypatch.setattr(forms, f"show_{kind}", record(kind))
    monkeypatch.setattr(forms, "show_error_with_log", lambda text, show_log: told.append(("error", text)))
    return told


@pytest.fixture(autouse=True)
def settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of settings of this test alone: forms are as they are the first time."""
    from napari_cryorefine import remembered

    folder = tmp_path_factory.mktemp("settings") / "forms"
    monkeypatch.setattr(remembered, "settings_folder", lambda: folder)
    return folder
