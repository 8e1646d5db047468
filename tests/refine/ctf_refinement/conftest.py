"""Simulated particles with CTF errors that are known, and refinements of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cryorefine.compute.executor import LocalExecutor
from cryorefine.ctf.ctf import CtfParameters
from cryorefine.geometry.euler import angles
from cryorefine.io.mrc import write_stack
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine.atoms import density, random_protein
from cryorefine.refine.ctf_refinement import CtfFit, CtfResult, SuppliedMaps, refine_ctf
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet, single_particles
from cryorefine.refine.simulation import contrast_for, normalise, random_rotations, simulate_images

BOX, PIXEL, RADIUS = 64, 1.5, 28.0


@dataclass(frozen=True)
class Case:
    """Particles as a user has them, the truth, and post-processing's maps."""

    particles: ParticleSet
    truth: ParticleSet
    micrograph: np.ndarray
    maps: SuppliedMaps
    empty: np.ndarray


def simulate(
    folder: Path,
    *,
    count: int = 240,
    symmetry: str = "D2",
    snr: float = 0.4,
    micrographs: int = 10,
    spread: float = 0.0,
    error: float = 0.0,
    empty: float = 0.0,
    gain: float = 0.0,
    sigma: float = 0.9,
    box: int = BOX,
    seed: int = 1,
    given: dict | None = None,
    **optics,
) -> Case:
    """Simulate particles; ``optics`` are true values that ``given`` (at first nothing) does not have."""
    rng = np.random.default_rng(seed)
    atoms = random_protein(60, radius=RADIUS, symmetry=symmetry, sigma=sigma, seed=seed)
    blank = OpticsGroup("scope", PIXEL, box, 300.0, 2.7, 0.1)
    true_group = replace(blank, **optics)
    poses, offsets = random_rotations(count, rng), rng.normal(scale=2, size=(count, 2))
    micrograph = np.arange(count) % micrographs
    mean = rng.uniform(8000, 14000, micrographs)[micrograph]
    astigmatism = rng.uniform(50, 150, micrographs)[micrograph]
    angle = rng.uniform(0, 180, micrographs)[micrograph]

    def ctf(defocus):
        return CtfParameters(300.0, 2.7, 0.1, defocus + astigmatism, defocus - astigmatism, angle)

    true_ctf = ctf(mean + rng.normal(scale=spread, size=count))
    if gain > 0:
        true_ctf = replace(true_ctf, scale=np.exp(rng.normal(scale=gain, size=count)))
    nothing = rng.random(count) < empty
    contrast = contrast_for(atoms, poses, true_ctf, true_group, snr) * np.where(nothing, 0, 1)
    images = simulate_images(atoms, poses, offsets, true_ctf, true_group, contrast=contrast, rng=rng)
    write_stack(folder / "particles.mrcs", normalise(images, 0.45 * box), PIXEL)
    half = np.empty(count, np.int64)
    half[rng.permutation(count)] = 1 + np.arange(count) % 2
    particles = single_particles(
        root=folder,
        optics=(replace(blank, **(given or {})),),
        optics_index=np.zeros(count, np.int64),
        groups=("all",),
        group=np.zeros(count, np.int64),
        image_names=[f"{i + 1}@particles.mrcs" for i in range(count)],
        ctf=ctf(mean + rng.normal(scale=error, size=micrographs)[micrograph]),
        half=half,
        angles=np.stack(angles(poses), axis=1),
        offsets=offsets,
        offset_priors=np.zeros((count, 2)),
        norm=np.ones(count),
    )
    mask = soft_sphere((box,) * 3, RADIUS / PIXEL + 4, 4)
    truth = density(atoms, box, PIXEL)
    # Post-processing's word on the resolution is a starting point, no more.
    u = np.arange(box // 2 + 1) / (box * PIXEL)
    maps = SuppliedMaps((truth, truth), mask, 1 / (1 + np.exp((u - 0.19) / 0.02)), PIXEL)
    return Case(particles, replace(particles, ctf=true_ctf, optics=(true_group,)), micrograph, maps, nothing)


def refine(case: Case, fit: CtfFit, threads: int = 2) -> tuple[CtfResult, list]:
    """Run a refinement; return its result and its events."""
    events = []
    with LocalExecutor(threads) as executor:
        run = refine_ctf(case.particles, case.micrograph, case.maps, fit, executor)
        while True:
            try:
                events.append(next(run))
            except StopIteration as stop:
                return stop.value, events


def mean_defocus(particles) -> np.ndarray:
    """Mean of both defocus values of a ParticleSet's CTF or of ParticleValues, in A."""
    values = getattr(particles, "ctf", particles)
    return (np.asarray(values.defocus_u) + np.asarray(values.defocus_v)) / 2


@pytest.fixture(scope="package")
def tilted(tmp_path_factory) -> Case:
    """Particles with a beam tilt and a defocus of their own, both unknown."""
    return simulate(tmp_path_factory.mktemp("tilted"), beam_tilt=(1.5, -1.0), spread=250.0, error=80.0)


@pytest.fixture(scope="package")
def tilted_refined(tilted) -> tuple[CtfResult, list]:
    """Outcome of one job on them."""
    return refine(tilted, CtfFit(beam_tilt=True, defocus="per-particle", symmetry="D2"))
