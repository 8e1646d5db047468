"""Defocus and beam tilt that a refinement estimates along with the poses."""

from __future__ import annotations

import numpy as np
import pytest
from tests.refine.conftest import settings

from cryorefine.errors import UserError
from cryorefine.io.particles import ParticleFile, column, read_particles, write_particles
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import finish
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.checkpoints import latest_checkpoint
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import simulate_particles
from cryorefine.refine.state import load_state

TILT = np.array([0.9, -0.6])
ERROR = 300.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Particles of one micrograph's defocus and no beam tilt, which in truth vary and are tilted."""
    folder = tmp_path_factory.mktemp("simulated")
    atoms = random_protein(60, radius=28.0, symmetry="D2", sigma=0.9)
    group = OpticsGroup("scope", 1.5, 64, 300.0, 2.7, 0.1, beam_tilt=tuple(TILT))
    particles = simulate_particles(folder, atoms, [group], 160, snr=3.0, astigmatism=0.0, micrographs=4)
    file = read_particles(particles.truth)
    defocus = column(file, "rlnDefocusU")
    wrong = defocus + np.random.default_rng(2).normal(scale=ERROR, size=len(defocus))
    write_particles(
        particles.particles,
        ParticleFile(
            file.optics.assign(rlnBeamTiltX=0.0, rlnBeamTiltY=0.0),
            file.particles.assign(rlnDefocusU=wrong, rlnDefocusV=wrong),
        ),
    )
    return particles, defocus


def test_defocus_and_tilt_come_closer_to_the_truth_and_are_kept(simulated, tmp_path):
    particles, truth = simulated
    options = settings(
        particles,
        tmp_path / "Refine3D",
        refine_ctf=True,
        symmetry="D2",
        initial_lowpass=8.0,
        mask_diameter=75.0,
        initial_angular_sampling=1.8,
        local_search_from=1.8,
        initial_offset_range=2.0,
        absolute_greyscale=True,
    )
    result = finish(refine3d.run(options))
    file = read_particles(result.data)
    found = (column(file, "rlnDefocusU") + column(file, "rlnDefocusV")) / 2
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.4 * ERROR
    tilt = np.array([float(file.optics[f"rlnBeamTilt{axis}"].iloc[0]) for axis in "XY"])
    np.testing.assert_allclose(tilt, TILT, atol=0.25)
    state = load_state(latest_checkpoint(tmp_path / "Refine3D"))
    np.testing.assert_allclose(state.transfer.beam_tilt[0], tilt, atol=1e-6)


def test_subtomograms_are_refused(simulated, tmp_path):
    with pytest.raises(UserError, match="--refine-ctf is for single particles"):
        settings(simulated[0], tmp_path, refine_ctf=True, optimisation_set=tmp_path / "set.star").check()
