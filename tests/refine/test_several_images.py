"""Particles seen in several images each, as in a tilt series: one pose explains them all."""

from __future__ import annotations

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.compute.executor import LocalExecutor
from cryorefine.ctf import CtfParameters
from cryorefine.geometry import angular_distance, matrices, point_group
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import write_stack
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.atoms import density, random_protein
from cryorefine.refine.engine import IterationDone, Settings, refine
from cryorefine.refine.initial import initial_model, initial_noise
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.particle_set import ParticleSet, View
from cryorefine.refine.schedule import Schedule
from cryorefine.refine.simulation import contrast_for, random_rotations, simulate_images
from cryorefine.refine.state import PoseTable, State

COUNT, BOX, PIXEL, SYMMETRY = 90, 32, 4.0, "D2"
TILTS = (-40.0, 0.0, 40.0)


@pytest.fixture(scope="module")
def atoms():
    return random_protein(60, radius=42.0, symmetry=SYMMETRY)


@pytest.fixture(scope="module")
def truth(atoms):
    """Poses and 3D offsets in A."""
    rng = np.random.default_rng(8)
    return random_rotations(COUNT, rng), rng.normal(scale=3.0, size=(COUNT, 3))


def particle_set(folder, atoms, truth):
    """Three views of each particle, but for a fifth of the particles, which lack one."""
    poses, offsets = truth
    rng = np.random.default_rng(9)
    turns = matrices(0.0, TILTS, 0.0)
    # A 3D shift d in the frame that poses lead to is seen as the first two components of R d.
    views = tuple(View(0, turn, turn[:2]) for turn in turns)
    particle, view = (part.ravel() for part in np.indices((COUNT, len(TILTS))))
    kept = (particle % 5 != 0) | (view != 2)
    particle, view = particle[kept], view[kept]
    ctf = CtfParameters(300.0, 2.7, 0.1, *np.tile(rng.uniform(8e3, 2e4, len(particle)), (2, 1)))
    planar = np.einsum("nij,nj->ni", turns[view][:, :2], offsets[particle])
    group = optics()
    seen = turns[view] @ poses[particle]
    contrast = contrast_for(atoms, seen, ctf, group, snr=1.0)
    images = simulate_images(atoms, seen, planar, ctf, group, contrast=contrast, rng=rng)
    write_stack(folder / "images.mrcs", images, PIXEL)
    nothing = np.zeros((COUNT, 3))
    return ParticleSet(
        root=folder,
        optics=(group,),
        views=views,
        groups=("all",),
        image_names=np.array([f"{i + 1}@images.mrcs" for i in range(len(images))], dtype=object),
        image_particle=particle,
        image_view=view,
        ctf=ctf,
        identity=np.arange(COUNT),
        half=1 + np.arange(COUNT) % 2,
        group=np.zeros(COUNT, np.int64),
        poses=np.tile(np.eye(3), (COUNT, 1, 1)),
        offsets=nothing,
        offset_priors=nothing,
        norm=np.ones(COUNT),
    )


def test_poses_and_shifts_in_space_come_back(tmp_path, atoms, truth):
    particles = particle_set(tmp_path, atoms, truth)
    images = ImageModel(mask_diameter=100.0)
    settings = Settings(
        images=images,
        symmetry=SYMMETRY,
        relax_symmetry="",
        padding=2.0,
        mask=None,
        solvent_fsc=False,
        first_by_correlation=True,
        initial_lowpass=25.0,
        finer_faster=True,
        seed=1,
        correct_norm=False,
        device="cpu",
        scratch=tmp_path,
    )
    reader = ImageReader(tmp_path)
    expected = density(atoms, BOX, PIXEL)
    noise = initial_noise(particles, reader, images, box=BOX, pixel_size=PIXEL)
    schedule = Schedule(order=1, local_order=3, offset_range=12.0, offset_step=8.0, resolution=1 / 25.6)
    half = {"lowpass": 25.0, "pixel_size": PIXEL, "grid": SamplingGrid(1, SYMMETRY), "groups": 1}
    model = initial_model(expected, noise, particles=COUNT // 2, **half)
    zeros = np.zeros(COUNT)
    table = PoseTable(particles.poses, particles.offsets, particles.norm, zeros, zeros, zeros.astype(int))
    start = State(0, PIXEL, (model, model), table, particles.half, np.ones(BOX // 2 + 1), schedule)

    with LocalExecutor(2) as executor:
        steps = [
            s for s in refine(start, particles, reader, settings, executor) if isinstance(s, IterationDone)
        ]
    last = steps[-1]
    poses, offsets = last.state.table.poses, last.state.table.offsets
    angle = angular_distance(poses, truth[0], point_group(SYMMETRY))
    shift = np.linalg.norm(offsets - truth[1], axis=1)
    fsc = fourier_shell_correlation(last.result.joined, expected)
    assert np.median(angle) < 4
    assert np.median(shift) < 1.2
    assert fsc.mean() > 0.87
