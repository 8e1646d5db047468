"""Plain columns give what a table of pandas gives, without loading it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryorefine.io.columns import Columns, as_array

TABLE = Columns(rlnMicrographName=["b.mrc", "a.mrc", "b.mrc"], rlnDefocusU=np.array([1.5, 2.5, 3.5]))


def test_rows_are_taken_in_the_order_asked_for() -> None:
    some = TABLE.take(np.array([2, 0]))
    assert some.words("rlnMicrographName").tolist() == ["b.mrc", "b.mrc"]
    assert some.numbers("rlnDefocusU").tolist() == [3.5, 1.5]
    assert TABLE.row(1) == {"rlnMicrographName": "a.mrc", "rlnDefocusU": 2.5}


def test_columns_are_replaced_in_their_place_and_added_at_the_end() -> None:
    more = TABLE.with_columns(rlnOpticsGroup=1, rlnMicrographName=["x", "y", "z"])
    assert list(more) == ["rlnMicrographName", "rlnDefocusU", "rlnOpticsGroup"]
    assert more["rlnOpticsGroup"].tolist() == [1, 1, 1]
    assert more.words("rlnMicrographName").tolist() == ["x", "y", "z"]
    assert TABLE.words("rlnMicrographName").tolist() == ["b.mrc", "a.mrc", "b.mrc"]
    assert list(more.without("rlnDefocusU", "rlnVoltage")) == ["rlnMicrographName", "rlnOpticsGroup"]


def test_texts_are_no_numbers_and_stay_objects() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        TABLE.numbers("rlnMicrographName")
    assert as_array(["a", "bc"]).dtype == object


SCRIPT = """
import sys
from cryorefine.io.particles import column, read_particles, write_particles

file = read_particles(sys.argv[1])
write_particles(sys.argv[2], file.replace(particles=file.columns.take([1])))
loaded = "pandas" in sys.modules
print(column(file, "rlnVoltage").tolist(), loaded, len(file.particles), "pandas" in sys.modules)
"""


def test_particles_are_read_and_written_without_pandas(tmp_path: Path) -> None:
    (tmp_path / "p.star").write_text(
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n1 300\n\n"
        "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n1@a.mrcs 1\n2@a.mrcs 1\n"
    )
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "p.star"), str(tmp_path / "q.star")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "[300.0, 300.0] False 2 True\n"
    assert "2@a.mrcs" in (tmp_path / "q.star").read_text()
    assert "1@a.mrcs" not in (tmp_path / "q.star").read_text()
