"""A chunk compared with a reference on a GPU's operations comes to what it does on the processor.

The whole of the GPU's code runs: its Python on the stand-in for CuPy, or on CuPy where there is a GPU, and
its CUDA kernels.
"""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.ctf import CtfParameters
from cryorefine.errors import UserWarningMessage
from cryorefine.geometry import matrices
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.refine import expectation as expectation_module
from cryorefine.refine.atoms import density, random_protein
from cryorefine.refine.coarse import CoarseSearch
from cryorefine.refine.expectation import expectation
from cryorefine.refine.gpu.operations import GpuOperations
from cryorefine.refine.operations import ProcessorOperations
from cryorefine.refine.parameters import ExpectationParameters, ImageModel, Sampling
from cryorefine.refine.particle_set import ParticleSet, View
from cryorefine.refine.simulation import contrast_for, random_rotations, simulate_images
from cryorefine.refine.volume import enforce_friedel, fourier_volume

BOX, PIXEL, COUNT, SIZE, PADDING = 32, 4.0, 9, 24, 2.0
MODEL = ImageModel(mask_diameter=100.0)


@pytest.fixture(scope="module")
def protein():
    return random_protein(60, radius=42.0)


@pytest.fixture(scope="module")
def volume(protein):
    return fourier_volume(density(protein, BOX, PIXEL), SIZE, PADDING)


@pytest.fixture(scope="module")
def particles(protein):
    """Particles and their images: two views of each, but for every third one, which lacks one."""
    rng = np.random.default_rng(9)
    poses, offsets = random_rotations(COUNT, rng), rng.normal(scale=3.0, size=(COUNT, 3))
    turns = matrices(0.0, (0.0, 30.0), 0.0)
    # The second view's images have beam tilt and other pixels.
    groups = (optics(), optics("second", beam_tilt=(1.5, -0.5), magnification=(1.01, 0.0, 0.0, 0.99)))
    particle, view = (part.ravel() for part in np.indices((COUNT, 2)))
    kept = (particle % 3 != 0) | (view == 0)
    particle, view = particle[kept], view[kept]
    defocus = rng.uniform(8e3, 2e4, len(particle))
    ctf = CtfParameters(300.0, 2.7, 0.1, defocus, defocus - 300, rng.uniform(0, 180, len(particle)))
    ctf = replace(ctf, dose=rng.uniform(0, 20, len(particle)), b_factor=np.full(len(particle), 20.0))
    planar = np.einsum("nij,nj->ni", turns[view][:, :2], offsets[particle])
    seen = turns[view] @ poses[particle]
    contrast = contrast_for(protein, seen, ctf, groups[0], snr=0.5)
    images = simulate_images(protein, seen, planar, ctf, groups[0], contrast=contrast, rng=rng)
    chunk = ParticleSet(
        root=Path("nowhere"),
        optics=groups,
        views=tuple(View(i, turn, turn[:2]) for i, turn in enumerate(turns)),
        groups=("all",),
        image_names=np.array([f"{i + 1}@images.mrcs" for i in range(len(images))], dtype=object),
        image_particle=particle,
        image_view=view,
        ctf=ctf,
        identity=np.arange(COUNT),
        half=np.ones(COUNT, np.int64),
        group=np.zeros(COUNT, np.int64),
        poses=poses @ matrices(2.0, 1.0, -1.0),
        offsets=offsets + rng.normal(scale=2.0, size=(COUNT, 3)),
        offset_priors=offsets,
        norm=rng.uniform(0.9, 1.1, COUNT),
    )
    return chunk, list(images)


def parameters(local: bool, **changes) -> ExpectationParameters:
    grid = SamplingGrid(2 if local else 0, "C1")
    steps = np.array(np.meshgrid(*[[-4.0, 0.0, 4.0]] * 3)).reshape(3, -1).T[::2]
    fine = steps[:, None] + 2.0 * (np.array(list(np.ndindex(2, 2, 2))) - 0.5)
    values = {
        "reference": Path("unused.npy"),
        "pixel_size": PIXEL,
        "padding": PADDING,
        "current_size": SIZE,
        "coarse_size": 16,
        "screening_size": 12,
        "images": MODEL,
        "sampling": Sampling(grid, 5.0 if local else 0.0, "", steps, fine),
        "sigma2_noise": np.full((2, BOX // 2 + 1), 2e-3),
        "direction_prior": np.full(grid.n_directions, 1 / grid.n_directions),
        "sigma_offset": 5.0,
        "scale": np.ones(1),
        "mean_norm": 1.0,
        "cross_correlation": False,
        "fraction": 0.999,
        "seed": 1,
    }
    return ExpectationParameters(**(values | changes))


def differences(first, second) -> dict[str, float]:
    """Largest difference of each array of two results, relative to the array's largest value."""
    result = {}
    volumes = [each.sums.volume.volumes() for each in (first, second)]
    for each in volumes:
        # Which of two Friedel mates with x = 0 a point is added to is a matter of rounding.
        enforce_friedel(*each)
    for name, a, b in zip(("numerator", "weight"), *volumes, strict=True):
        result[name] = np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)
    for part in ("sums", "particles"):
        one, two = getattr(first, part), getattr(second, part)
        for name in (field.name for field in fields(one) if field.name != "volume"):
            a, b = np.asarray(getattr(one, name)), np.asarray(getattr(two, name))
            assert type(getattr(two, name)) in (np.ndarray, float)
            assert a.shape == b.shape
            if a.size:
                result[name] = np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)
    return result


SEARCHES = {
    "global": (False, {}),
    "local": (True, {}),
    "local without screening": (True, {"sampling": replace(parameters(True).sampling, local_sigma=2.0)}),
    "correlation": (False, {"cross_correlation": True, "mean_norm": 0.0}),
    "local correlation": (True, {"cross_correlation": True, "mean_norm": 0.0}),
    "noise around the particle": (True, {"images": replace(MODEL, zero_mask=False)}),
}


@pytest.mark.parametrize(("local", "changes"), SEARCHES.values(), ids=SEARCHES)
def test_same_sums_and_poses(cupy, particles, volume, local, changes):
    settings = parameters(local, **changes)
    expected = expectation(*particles, volume, settings)
    found = expectation(*particles, volume, replace(settings, device="gpu:0"))
    assert expected.particles.significant.min() >= 1
    assert np.abs(expected.sums.volume.volumes()[0]).max() > 0
    for name, difference in differences(expected, found).items():
        assert difference < 2e-4, name
    np.testing.assert_array_equal(found.particles.significant, expected.particles.significant)


@pytest.mark.parametrize("in_part", [False, True], ids=["in all images", "in a part first"])
def test_searches_that_are_screened(cupy, particles, volume, monkeypatch, in_part):
    screened = []
    if in_part:
        monkeypatch.setattr("cryorefine.refine.coarse.IMAGES_FOR_PORTION", 1)
        monkeypatch.setattr("cryorefine.refine.coarse.PORTION", 2)
    screen = CoarseSearch._screened

    def noted(self, candidates, shift_prior):
        kept = screen(self, candidates, shift_prior)
        screened.append((type(self.operations), len(candidates.orientation), len(kept.orientation)))
        return kept

    monkeypatch.setattr(CoarseSearch, "_screened", noted)
    sampling = replace(parameters(True).sampling, grid=SamplingGrid(3, "C1"), local_sigma=9.0)
    settings = parameters(True, sampling=sampling)
    expected = expectation(*particles, volume, settings)
    found = expectation(*particles, volume, replace(settings, device="gpu:0"))
    (_, all_here, kept_here), (kind, all_there, kept_there) = screened
    assert kind is GpuOperations
    assert all_here == all_there > kept_here == kept_there
    for name, difference in differences(expected, found).items():
        assert difference < 2e-4, name


def test_subtomograms_that_are_volumes(cupy, rng):
    box, count, size = 16, 3, 12
    group = optics(box=box, dimensions=3, ctf_premultiplied=True)
    zeros = np.zeros((count, 3))
    chunk = ParticleSet(
        root=Path("nowhere"),
        optics=(group,),
        views=(View(0, np.eye(3), np.eye(3)),),
        groups=("all",),
        image_names=np.array(["data.mrc"] * count, dtype=object),
        image_particle=np.arange(count),
        image_view=np.zeros(count, np.int64),
        ctf=CtfParameters(300.0, 2.7, 0.1, np.full(count, 1e4), np.full(count, 1e4)),
        identity=np.arange(count),
        half=np.ones(count, np.int64),
        group=np.zeros(count, np.int64),
        poses=random_rotations(count, rng),
        offsets=zeros,
        offset_priors=zeros,
        norm=np.ones(count),
        weight_names=np.array(["weights.mrc"] * count, dtype=object),
    )
    raw = list(rng.normal(size=(count, box, box, box)).astype(np.float32))
    squared = list(rng.uniform(0, 3, (count, box, box, box // 2 + 1)).astype(np.float32))
    squared[0][3:6] = 0
    volume = fourier_volume(rng.normal(size=(box,) * 3).astype(np.float32), size, PADDING)
    settings = parameters(local=True, current_size=size, coarse_size=8, screening_size=6)
    settings = replace(settings, sigma2_noise=np.full((1, box // 2 + 1), 0.05))
    expected = expectation(chunk, raw, volume, settings, squared)
    found = expectation(chunk, raw, volume, replace(settings, device="gpu:0"), squared)
    for name, difference in differences(expected, found).items():
        assert difference < 2e-4, name


@pytest.mark.parametrize("memory", [0, 400_000], ids=["none is kept", "some are kept"])
@pytest.mark.parametrize("local", [False, True])
def test_slices_made_few_at_a_time(particles, volume, monkeypatch, local, memory):
    """How many slices are made at a time, and kept for the sums, changes nothing but the order of sums."""
    expected = expectation(*particles, volume, parameters(local))
    monkeypatch.setattr(ProcessorOperations, "memory", memory)
    monkeypatch.setattr(ProcessorOperations, "slice_memory", 0)
    found = expectation(*particles, volume, parameters(local))
    for name, difference in differences(expected, found).items():
        assert difference < 1e-5, name


def test_too_little_memory_splits_the_chunk(stand_in, particles, volume, monkeypatch):
    """Halves of halves of the chunk are compared one after the other; it comes to the same."""
    settings = parameters(local=False, device="gpu:0")
    expected = expectation(*particles, volume, settings)
    stand_in.largest = 2_200_000  # the volumes fit
    counted = []
    compare = expectation_module._compare

    def count(chunk, *rest):
        counted.append(len(chunk))
        return compare(chunk, *rest)

    monkeypatch.setattr(expectation_module, "_compare", count)
    found = expectation(*particles, volume, settings)
    assert counted[0] == COUNT
    assert 0 < counted[-1] < COUNT
    for name, difference in differences(expected, found).items():
        assert difference < 1e-5, name


def test_hopelessly_little_memory_leaves_it_to_the_processor(stand_in, particles, volume):
    settings = parameters(local=True)
    expected = expectation(*particles, volume, settings)
    stand_in.largest = 2**10
    with pytest.warns(UserWarningMessage, match="memory is too small for particles of 32 pixels"):
        found = expectation(*particles, volume, replace(settings, device="gpu:0"))
    for name, difference in differences(expected, found).items():
        assert difference < 1e-5, name
