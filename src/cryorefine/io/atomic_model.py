"""Atoms of a structure in the PDBx/mmCIF format of the Protein Data Bank."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError

ATOMIC_NUMBERS = {
    "H": 1, "D": 1, "C": 6, "N": 7, "O": 8, "NA": 11, "MG": 12, "P": 15, "S": 16, "CL": 17, "K": 19,
    "CA": 20, "MN": 25, "FE": 26, "CO": 27, "NI": 28, "CU": 29, "ZN": 30, "SE": 34, "CD": 48, "I": 53,
}  # fmt: skip
_WATER = ("HOH", "DOD", "WAT")
_PREFIX = "_atom_site."


@dataclass(frozen=True, eq=False)
class AtomicModel:
    """Atoms of a structure without water.

    Attributes
    ----------
    positions : ndarray, shape (atoms, 3)
        Coordinates (x, y, z) in A.
    atomic_numbers : ndarray of int, shape (atoms,)
        Number of protons.
    names, chains, residues : ndarray of str, shape (atoms,)
        Name of each atom ("CA"), its chain and the number of its residue in the chain.
    """

    positions: NDArray[np.float64]
    atomic_numbers: NDArray[np.int64]
    names: NDArray[np.str_]
    chains: NDArray[np.str_]
    residues: NDArray[np.str_]


def read_atomic_model(path: str | os.PathLike[str]) -> AtomicModel:
    """Read the atoms of an mmCIF file; water and second places of an atom are left out.

    Raises
    ------
    UserError
        If the file is missing, holds no atoms, or holds one of an unknown element.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); choose an mmCIF file.") from None
    labels = [line.strip().removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
    rows = [_words(line, len(labels)) for line in lines if line.startswith(("ATOM ", "HETATM "))]
    if not labels or not rows or any(len(row) != len(labels) for row in rows):
        raise UserError(f"{file} holds no table of atoms (_atom_site); choose an mmCIF file.")
    columns = dict(zip(labels, np.array(rows).T, strict=True))
    kept = ~np.isin(columns["label_comp_id"], _WATER) & np.isin(columns["label_alt_id"], (".", "?", "A"))
    if "pdbx_PDB_model_num" in columns:
        kept &= columns["pdbx_PDB_model_num"] == columns["pdbx_PDB_model_num"][0]
    table = {label: column[kept] for label, column in columns.items()}
    elements = np.char.upper(table["type_symbol"])
    unknown = set(elements) - set(ATOMIC_NUMBERS)
    if unknown:
        raise UserError(f"{file} holds atoms of the element {min(unknown)}, which is not known; remove them.")
    return AtomicModel(
        np.stack([table[f"Cartn_{axis}"].astype(np.float64) for axis in "xyz"], axis=1),
        np.array([ATOMIC_NUMBERS[element] for element in elements]),
        table["label_atom_id"],
        table["label_asym_id"],
        table["label_seq_id"],
    )


def _words(line: str, count: int) -> list[str]:
    words = line.split()
    # Only names such as "O5'" are quoted; the slow way is kept for them.
    return words if len(words) == count and '"' not in line else shlex.split(line)
