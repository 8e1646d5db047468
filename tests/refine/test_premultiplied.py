"""Images that were multiplied by their CTF say the same as those that were not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.ctf import CtfParameters
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import write_stack
from cryorefine.refine.chunk_images import prepare_views
from cryorefine.refine.half_plane import half_plane
from cryorefine.refine.images import contrast_transfer
from cryorefine.refine.initial import initial_noise
from cryorefine.refine.parameters import ExpectationParameters, ImageModel, Sampling
from cryorefine.refine.particle_set import single_particles

BOX, PIXEL, COUNT = 32, 4.0, 60
# A mask beyond the corners: only then multiplication and masking do not mix.
MODEL = ImageModel(mask_diameter=PIXEL * BOX * 2)


@pytest.fixture
def both(tmp_path, rng):
    """White noise of variance 4, plain and multiplied by its CTF: particle sets and their images."""
    defocus = rng.uniform(8e3, 2e4, COUNT)
    ctf = CtfParameters(300.0, 2.7, 0.1, defocus, defocus, dose=rng.uniform(0, 60, COUNT))
    images = rng.normal(0, 2, (COUNT, BOX, BOX)).astype(np.float32)
    plane = half_plane(BOX, BOX)
    transfer = np.zeros((COUNT, BOX * (BOX // 2 + 1)), np.float32)
    transfer[:, plane.source] = contrast_transfer(plane, optics(), ctf, MODEL)
    half = transfer.reshape(COUNT, BOX, -1)
    half[:, BOX // 2 + 1 :, 0] = half[:, 1 : BOX // 2, 0][:, ::-1]
    multiplied = np.fft.irfft2(np.fft.rfft2(images) * half, s=(BOX, BOX)).astype(np.float32)
    sets = []
    for name, stack in (("plain", images), ("multiplied", multiplied)):
        write_stack(tmp_path / f"{name}.mrcs", stack, PIXEL)
        group = replace(optics(), ctf_premultiplied=name == "multiplied")
        sets.append(_particles(tmp_path, group, f"{name}.mrcs", ctf))
    return sets, (images, multiplied)


def _particles(folder, group, stack, ctf):
    nothing = np.zeros((COUNT, 2))
    return single_particles(
        root=folder,
        optics=[group],
        optics_index=np.zeros(COUNT, np.int64),
        groups=["all"],
        group=np.zeros(COUNT, np.int64),
        image_names=[f"{i + 1}@{stack}" for i in range(COUNT)],
        ctf=ctf,
        half=np.ones(COUNT, np.int64),
        angles=np.zeros((COUNT, 3)),
        offsets=nothing,
        offset_priors=nothing,
        norm=np.ones(COUNT),
    )


def test_noise_is_that_of_the_images_before_multiplication(both):
    sets, _ = both
    expected = 4 / (2 * BOX**2)
    for particles in sets:
        noise = initial_noise(particles, ImageReader(particles.root), MODEL, box=BOX, pixel_size=PIXEL)
        # Few pixels, and a CTF near zero, near the origin.
        np.testing.assert_allclose(noise[0, 4 : BOX // 2], expected, rtol=0.12)


def test_scores_and_sums_are_the_same(both):
    (plain, multiplied), (images, products) = both
    parameters = ExpectationParameters(
        reference=Path("unused.npy"),
        pixel_size=PIXEL,
        padding=2.0,
        current_size=24,
        coarse_size=24,
        screening_size=12,
        images=replace(MODEL, reference_ctf_corrected=True),
        sampling=Sampling(SamplingGrid(0, "C1"), 0.0, "", np.zeros((1, 2)), np.zeros((1, 4, 2))),
        sigma2_noise=np.full((1, BOX // 2 + 1), 4 / (2 * BOX**2)),
        direction_prior=np.full(12, 1 / 12),
        sigma_offset=5.0,
        scale=np.ones(1),
        mean_norm=0.0,
        cross_correlation=False,
        fraction=0.999,
        seed=1,
    )
    (one,) = prepare_views(plain, list(images), parameters)
    (other,) = prepare_views(multiplied, list(products), parameters)
    for name in ("a", "y"):
        for first, second in zip(getattr(one, name), getattr(other, name), strict=True):
            np.testing.assert_allclose(second, first, atol=1e-4 * np.abs(first).max())
    np.testing.assert_array_equal(other.b, one.b)
    np.testing.assert_array_equal(other.weight, one.weight)
