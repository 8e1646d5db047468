"""What an installation needs is declared, and what it promises is there."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = {"cupy", "cupyx", "dask_jobqueue"}
"""Asked for by name where they are used, with what to install."""
WITH_NAPARI = {"magicgui", "napari", "pint", "psygnal", "qtpy", "skimage", "superqt", "vispy"}
"""Comes with napari."""


def imported(package: str) -> set[str]:
    """Return the top-level modules of others that a package of ours imports anywhere."""
    names = set()
    for path in (ROOT / "src" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"cryorefine", "napari_cryorefine"}


@pytest.mark.parametrize(("package", "more"), [("cryorefine", set()), ("napari_cryorefine", WITH_NAPARI)])
def test_every_import_is_a_dependency(package, more):
    words = re.compile(r"[\w.-]+")  # the name, then its extras: dask[array,distributed]
    declared = {word for text in PROJECT["dependencies"] for word in words.findall(text.partition(">")[0])}
    distributions = packages_distributions()
    for module in imported(package) - OPTIONAL - more:
        owners = {name.lower() for name in distributions.get(module, [])}
        assert owners & declared, f"{package} imports {module}, which pyproject.toml does not ask for"


def test_every_dependency_has_an_oldest_version_that_can_be_tried(monkeypatch):
    pytest.importorskip("packaging")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from oldest import oldest

    asked = PROJECT["dependencies"]
    assert len(oldest(asked)) == len(asked)
    assert oldest(["napari[pyside6]>=0.7", "PySide6<6.12"]) == ["napari==0.7"]


def test_timers_are_started_in_a_way_that_every_binding_of_qt_has():
    """PyQt6 has no QTimer.singleShot with an owner; call_soon of _compat.py takes its place."""
    for path in (ROOT / "src/napari_cryorefine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "QTimer.singleShot":
                assert len(node.args) == 2, f"{path.name}, line {node.lineno}"


def test_the_hub_finds_what_it_lists():
    assert "Framework :: napari" in PROJECT["classifiers"]
    assert any(text.startswith("Operating System") for text in PROJECT["classifiers"])
    assert PROJECT["license"] == "BSD-3-Clause"
    assert "docs/pictures/" in (ROOT / PROJECT["readme"]).read_text(encoding="utf-8")
