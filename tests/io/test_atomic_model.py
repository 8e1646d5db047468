"""Atoms of mmCIF files."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.atomic_model import read_atomic_model

COLUMNS = ("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id",
           "label_asym_id", "label_seq_id",
           "Cartn_x", "Cartn_y", "Cartn_z", "pdbx_PDB_model_num")  # fmt: skip
ROWS = """ATOM 1 N N . MET A 1 1.0 2.0 3.0 1
ATOM 2 C CA A MET A 1 1.5 2.5 3.5 1
ATOM 3 C CA B MET A 1 9.5 2.5 3.5 1
ATOM 4 O "O5'" . DG B 7 4.0 5.0 -6.0 1
HETATM 5 O O . HOH C . 7.0 7.0 7.0 1
HETATM 6 MG MG . MG D . 8.0 8.0 8.0 1
ATOM 7 N N . MET A 1 1.0 2.0 3.0 2
"""


def write(path, rows=ROWS):
    path.write_text("data_X\nloop_\n" + "".join(f"_atom_site.{c} \n" for c in COLUMNS) + rows + "#\n")
    return path


def test_atoms_without_water_second_places_and_second_models(tmp_path):
    model = read_atomic_model(write(tmp_path / "a.cif"))
    np.testing.assert_array_equal(model.positions[:, 0], (1, 1.5, 4, 8))
    assert list(model.names) == ["N", "CA", "O5'", "MG"]
    assert list(model.atomic_numbers) == [7, 6, 8, 12]
    assert list(model.chains) == ["A", "A", "B", "D"]


@pytest.mark.parametrize(
    ("rows", "says"), [("", "no table of atoms"), ("ATOM 1 XX N . MET A 1 1 2 3 1\n", "element XX")]
)
def test_what_is_no_model_is_refused(tmp_path, rows, says):
    with pytest.raises(UserError, match=says):
        read_atomic_model(write(tmp_path / "a.cif", rows))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.cif"):
        read_atomic_model(tmp_path / "nothing.cif")
