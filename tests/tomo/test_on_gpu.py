"""Extraction and reconstruction on a GPU come to what they do on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryorefine.io.mrc import read_map
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import pseudo_subtomo, reconstruct_particle
from cryorefine.jobs.base import Notice
from cryorefine.refine import particle_reconstruction as reconstruction
from cryorefine.refine.gpu.extraction import GpuExtraction
from cryorefine.tomo.extraction import soft_circle
from cryorefine.tomo.operations import PROCESSOR

BOX, CROP, COUNT = 20, 12, 3


def complex_normal(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.fixture
def gpu(cupy):
    return GpuExtraction(cupy)


@pytest.mark.parametrize("multiplied", [False, True])
def test_cropping_and_moving(gpu, rng, multiplied):
    spectra = complex_normal(rng, COUNT, 32, 17)
    shifts = rng.normal(scale=3, size=(COUNT, 2))
    gain = rng.normal(size=(COUNT, BOX * (BOX // 2 + 1))).astype(np.float32) if multiplied else None
    expected = PROCESSOR.crop_shift_multiply(spectra, shifts, gain, -1.5, BOX)
    there = None if gain is None else gpu.array(gain)
    found = gpu.crop_shift_multiply(gpu.array(spectra), shifts, there, -1.5, BOX)
    np.testing.assert_allclose(gpu.host(found), expected, atol=2e-5)


@pytest.mark.parametrize("crop", [BOX, CROP])
def test_levelling(gpu, rng, crop):
    images = rng.normal(5, size=(COUNT, BOX, BOX)).astype(np.float32)
    circle = soft_circle(BOX, CROP)
    found = gpu.level_and_crop(gpu.array(images), circle, crop)
    np.testing.assert_allclose(gpu.host(found), PROCESSOR.level_and_crop(images, circle, crop), atol=1e-5)


@pytest.mark.parametrize("crop", [BOX, CROP])
def test_volumes_of_tilt_images(gpu, rng, crop):
    pixels = BOX * (BOX // 2 + 1)
    spectra = complex_normal(rng, COUNT, BOX, BOX // 2 + 1)
    gains, use = (rng.normal(size=(COUNT, pixels)).astype(np.float32) for _ in range(2))
    rotations = Rotation.random(COUNT, random_state=2).as_matrix()
    rotations[0] = np.eye(3)
    expected = PROCESSOR.insert_tilts(spectra, gains, use, rotations, crop)
    there = (gpu.array(each) for each in (spectra, gains, use))
    found = gpu.insert_tilts(*there, rotations, crop)
    for a, b in zip(expected, found, strict=True):
        assert np.abs(a).max() > 0.5
        np.testing.assert_allclose(gpu.host(b), a, atol=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 0.8])
def test_sums_of_a_reconstruction(gpu, rng, ratio):
    spectra = complex_normal(rng, COUNT, BOX, BOX // 2 + 1)
    gain = rng.normal(size=(COUNT, BOX * (BOX // 2 + 1))).astype(np.float32)
    keep = rng.random(gain.shape) < 0.9
    turned = Rotation.random(COUNT, random_state=5).as_matrix()
    turned[1] = np.eye(3)
    here, there = reconstruction.empty_sums(BOX), gpu.array(reconstruction.empty_sums(BOX))
    for _ in range(2):
        reconstruction.insert_images(here, spectra, gain, keep, turned, ratio)
        reconstruction.insert_images(there, gpu.array(spectra), gpu.array(gain), keep, turned, ratio)
    assert np.abs(here).max() > 1
    np.testing.assert_allclose(gpu.host(there), here, atol=2e-5)


@pytest.mark.parametrize("snr", [None, 0.5])
def test_map_of_sums(cupy, rng, snr):
    sums = reconstruction.empty_sums(BOX)
    sums[..., :3] = rng.normal(size=(*sums.shape[:3], 3))
    sums[..., 2] = np.maximum(sums[..., 2] + 0.5, 0)
    operators = Rotation.create_group("C2").as_matrix()
    maps = []
    for xp in (np, cupy):
        parts = (xp.asarray(part) for part in reconstruction.split_sums(sums))
        mean = reconstruction.symmetric_mean(*parts, operators)
        maps.append(reconstruction.solve(*mean, BOX, snr=snr))
    assert np.ptp(maps[0]) > 0
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-4 * np.abs(maps[0]).max())


def warnings_of(running):
    return [event.message for event in running if isinstance(event, Notice) and event.warning]


@pytest.mark.parametrize("stack", [True, False], ids=["stacks", "volumes"])
def test_extraction_job(project_of_dots, too_little, stack):
    made = []
    for name, device in (("job001", "cpu"), ("job002", "gpu:0")):
        options = pseudo_subtomo.Options(
            particles=project_of_dots.particles,
            tomograms=project_of_dots.tomograms,
            output=Path("Extract") / name,
            box_size=24,
            crop_size=16,
            stack_2d=stack,
            float16=False,
            device=device,
            threads=2,
        )
        warned = [text for text in warnings_of(pseudo_subtomo.run(options)) if "GPU" in text]
        particles = read_star(options.output / "particles.star")["particles"]
        columns = ["rlnImageName"] if stack else ["rlnImageName", "rlnCtfImage"]
        made.append([read_map(Path(name)).data for column in columns for name in particles[column]])
    assert len(warned) == too_little
    for a, b in zip(*made, strict=True):
        assert np.ptp(a) > 0
        np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())


def test_reconstruction_job(project_of_dots, too_little):
    blocks = read_star(project_of_dots.particles)
    halves = np.arange(len(blocks["particles"])) % 2 + 1
    blocks["particles"] = blocks["particles"].assign(rlnRandomSubset=halves)
    write_star(project_of_dots.particles, blocks)
    maps = []
    for name, device in (("job001", "cpu"), ("job002", "gpu:0")):
        options = reconstruct_particle.Options(
            particles=project_of_dots.particles,
            tomograms=project_of_dots.tomograms,
            output=Path("Reconstruct") / name,
            box_size=24,
            crop_size=16,
            device=device,
            threads=2,
        )
        warned = [text for text in warnings_of(reconstruct_particle.run(options)) if "GPU" in text]
        maps.append([read_map(options.output / f"{each}.mrc").data for each in ("half1", "half2", "merged")])
    assert len(warned) == (3 if too_little else 0)  # a part of each half, and the maps
    for a, b in zip(*maps, strict=True):
        assert np.ptp(a) > 0
        np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())
