"""The maximisation step on a GPU's operations comes to what it does on the processor."""

from dataclasses import replace

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.geometry import point_group
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine.expectation import ChunkSums
from cryorefine.refine.gpu import volumes
from cryorefine.refine.gpu.volumes import GpuVolumes
from cryorefine.refine.insertion import Insertion
from cryorefine.refine.maximisation import MaximisationOptions, maximise
from cryorefine.refine.reconstruct import divide
from cryorefine.refine.state import HalfModel
from cryorefine.refine.sums import HalfSums
from cryorefine.refine.volume import (
    empty_volume,
    enforce_friedel,
    half_volume_correlation,
    shell_means,
    symmetrise,
)

BOX, SIZE, SHELLS = 20, 16, 11


@pytest.fixture(params=[1.0, 2.0, 1.5])
def padding(request):
    return request.param


def accumulators(rng, padding):
    """A noisy signal, the same in each call, and its weights, filled to the rim."""
    numerator, weight = empty_volume(SIZE, padding)
    limit = numerator.shape[0] // 2
    index = np.arange(-limit, limit + 1)
    r2 = index[:, None, None] ** 2 + index[:, None] ** 2 + np.arange(limit + 2) ** 2
    signal = np.random.default_rng(1).normal(size=(2, *weight.shape)) * 3 * np.exp(-r2 / (limit / 2) ** 2)
    noise = rng.normal(size=(2, *weight.shape))
    weight += rng.uniform(0.5, 2, weight.shape).astype(np.float32)
    numerator += ((signal[0] + noise[0] + 1j * (signal[1] + noise[1])) * weight).astype(np.complex64)
    return numerator, weight


def test_each_operation(cupy, rng, padding):
    gpu = GpuVolumes(cupy)
    here = accumulators(rng, padding)
    there = [cupy.asarray(each) for each in here]
    enforce_friedel(*here)
    gpu.enforce_friedel(*there)
    operators = point_group("D2").operators
    turned = symmetrise(*here, operators, SIZE, padding)
    for a, b in zip(turned, symmetrise(*there, operators, SIZE, padding, gpu), strict=True):
        np.testing.assert_allclose(b.get(), a, atol=1e-4)
    means = shell_means(here[1], padding, SHELLS)
    np.testing.assert_allclose(gpu.shell_means(there[1], padding, SHELLS), means, rtol=1e-9)
    how = (means * 0.1, means * 1.05, padding * SIZE / 2, padding)
    np.testing.assert_allclose(gpu.divide(*there, *how).get(), divide(*here, *how), rtol=1e-6)
    other = accumulators(rng, padding)
    sizes = (SIZE, SHELLS, padding)
    found = half_volume_correlation(there, [cupy.asarray(each) for each in other], *sizes, gpu)
    np.testing.assert_allclose(found, half_volume_correlation(here, other, *sizes), atol=1e-6)


def half_sums(rng):
    spectra = rng.uniform(1, 2, (4, 1, SHELLS))
    return HalfSums(ChunkSums(Insertion(*accumulators(rng, 2.0)), *spectra, np.ones(12), 50.0, 10.0))


@pytest.fixture
def step(rng):
    """Arguments of a maximisation step; its sums are made anew in each call, since the step changes them."""
    model = HalfModel(
        reference=np.zeros((BOX,) * 3, np.float32),
        sigma2_noise=np.ones((1, SHELLS)),
        ssnr=np.ones(SHELLS),
        sigma2=np.ones(SHELLS),
        tau2=np.ones(SHELLS),
        direction_prior=np.ones(12) / 12,
        sigma_offset=5.0,
        scale=np.ones(1),
        mean_norm=1.0,
        mean_largest_weight=1.0,
        log_likelihood=0.0,
    )
    options = MaximisationOptions(
        size=SIZE,
        box=BOX,
        pixel_size=4.0,
        padding=2.0,
        symmetry="C2",
        resolution=0.1,
        last=False,
        first=False,
        initial_lowpass=0.0,
        mask=None,
        mask_diameter=70.0,
        solvent_fsc=False,
    )
    some = (np.zeros(10, np.int64),) * 2, *((np.ones(10),) * 2,) * 3
    names = ("group", "norms", "weights", "likelihoods")

    def run(**changes):
        rng = np.random.default_rng(5)
        sums = half_sums(rng), half_sums(rng)
        return maximise(
            sums, (model, model), replace(options, **changes), **dict(zip(names, some, strict=True))
        )

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {"last": False},
        {"last": True},
        {"first": True, "initial_lowpass": 20.0},
        {"solvent_fsc": True, "mask": soft_sphere((BOX,) * 3, 7, 3.0)},
    ],
    ids=" ".join,
)
def test_a_whole_step(cupy, step, changes):
    expected, found = step(**changes), step(**changes, device="gpu:0")
    assert 0.2 < expected.fsc.mean() < 0.9
    np.testing.assert_allclose(found.fsc, expected.fsc, atol=1e-6)
    pairs = [(f.reference, e.reference) for f, e in zip(found.halves, expected.halves, strict=True)]
    if changes.get("last"):
        pairs += [(found.joined, expected.joined), *zip(found.unfiltered, expected.unfiltered, strict=True)]
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_too_little_memory_leaves_it_to_the_processor(stand_in, step):
    expected = step()
    stand_in.largest = 2**12
    found = step(device="gpu:0")
    np.testing.assert_array_equal(found.halves[0].reference, expected.halves[0].reference)
    assert "memory is too small" in found.notices[0]


def test_a_cluster_may_have_gpus_that_its_client_lacks(step, monkeypatch):
    def none(device):
        raise UserError("no GPU")

    monkeypatch.setattr(volumes, "turns", none)
    np.testing.assert_array_equal(step(device="gpu:0").fsc, step().fsc)
