"""A whole refinement, with all of its chunks and maximisation steps on GPUs."""

import numpy as np
import pytest
from tests.gpu.fixtures import real_cupy
from tests.refine.conftest import optics

from cryorefine.refine.atoms import random_protein
from cryorefine.refine.simulation import simulate_particles


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """Two stand-ins for GPUs, and all real ones there are."""
    if request.param == "host":
        request.getfixturevalue("two_gpus")
        return "gpu:0,1"
    real_cupy()
    return "gpu"


def test_gpus_come_to_what_the_processor_does(tmp_path, refined, device):
    atoms = random_protein(60, radius=42.0, symmetry="D2")
    made = simulate_particles(tmp_path, atoms, [optics()], 40, snr=2.0)
    changes = {"symmetry": "D2", "initial_lowpass": 30.0}
    expected = refined(made, **changes)
    found = refined(made, device=device, **changes)
    assert found.result.iterations == expected.result.iterations
    assert found.agreement == pytest.approx(expected.agreement, abs=2e-3)
    np.testing.assert_allclose(np.median(found.angle_error), np.median(expected.angle_error), atol=0.2)
