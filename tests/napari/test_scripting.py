"""The examples of docs/scripting.md run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def blocks():
    text = (ROOT / "docs" / "scripting.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_examples_run_in_a_copy_of_the_sample(blocks, project, qtbot):
    shutil.copytree(ROOT / "sample_data" / "betagal_tilts", project, dirs_exist_ok=True)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/scripting.md, example {number + 1}", "exec"), names)
    assert names["sharpened"].resolution < 25
    assert len(names["layers"]) >= 2
    assert (project / "sharpened.png").stat().st_size > 10_000
    assert (project / "half_the_size.mrc").exists()
