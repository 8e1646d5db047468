"""A whole refinement, with all of its chunks and maximisation steps on GPUs."""

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.refine.atoms import random_protein
from cryorefine.refine.simulation import simulate_particles


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_come_to_what_the_processor_does(tmp_path, refined):
    atoms = random_protein(60, radius=42.0, symmetry="D2")
    made = simulate_particles(tmp_path, atoms, [optics()], 40, snr=2.0)
    changes = {"symmetry": "D2", "initial_lowpass": 30.0}
    expected = refined(made, **changes)
    found = refined(made, device="gpu:0,1", **changes)
    assert found.result.iterations == expected.result.iterations
    assert found.agreement == pytest.approx(expected.agreement, abs=2e-3)
    np.testing.assert_allclose(np.median(found.angle_error), np.median(expected.angle_error), atol=0.2)
