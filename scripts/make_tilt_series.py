"""Make sample_data/betagal_tilts: simulated tilt series of beta-galactosidase with known poses.

Usage: python scripts/make_tilt_series.py 5a1a.cif [FOLDER]

5a1a.cif is the atomic model PDB 5A1A (Bartesaghi et al. (2015), Science 348:1147; public domain, CC0):
https://files.rcsb.org/download/5A1A.cif. The same model gives the same files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cryorefine.io.atomic_model import AtomicModel, read_atomic_model
from cryorefine.refine.atoms import Atoms
from cryorefine.refine.tilt_project import Acquisition, simulate_project

TARGET = Path(__file__).resolve().parents[1] / "sample_data" / "betagal_tilts"
SIGMA = 1.5
"""Width of an atom in A: a B-factor of 180 A^2 for what moves within particles and between them."""


def on_two_fold_axes(model: AtomicModel) -> np.ndarray:
    """Return the positions of a tetramer turned so that its two-fold axes are x, y and z (group D2)."""
    alpha = model.names == "CA"
    chains = [model.positions[alpha & (model.chains == chain)] for chain in "ABCD"]
    middle = np.mean(np.concatenate(chains), axis=0)
    first = chains[0] - middle
    axes = []
    for other in chains[1:]:
        # Kabsch (1976), Acta Cryst. A32:922; the axis of the turn that takes the first chain to another.
        left, _, right = np.linalg.svd((other - middle).T @ first)
        turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        axes.append(np.linalg.eigh(turn + turn.T)[1][:, -1])
    # The nearest right-handed frame to three axes that are at right angles but for rounding.
    left, _, right = np.linalg.svd(np.array(axes))
    frame = left @ right
    frame[2] *= np.linalg.det(frame)
    return (model.positions - middle) @ frame.T


def main(model: Path, folder: Path) -> None:
    """Write the data set."""
    found = read_atomic_model(model)
    atoms = Atoms(on_two_fold_axes(found), found.atomic_numbers.astype(np.float64), SIGMA)
    simulate_project(folder, atoms, Acquisition(), snr=0.5, tomogram_binning=5)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else TARGET)
