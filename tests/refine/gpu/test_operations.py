"""The CUDA kernels do what the compiled ones of the processor do, which are tested against plain NumPy."""

import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryorefine.ctf import CtfParameters, ctf
from cryorefine.refine import interpolation, kernels, posterior
from cryorefine.refine.gpu.insertion import GpuInsertion
from cryorefine.refine.gpu.operations import GpuOperations
from cryorefine.refine.half_plane import half_plane, shift_phases
from cryorefine.refine.insertion import Insertion
from cryorefine.refine.volume import empty_volume
from cryorefine.refine.whole_pixels import shift_whole_pixels

BOX, SIZE, PADDING = 16, 12, 2.0
COUNT, BLOCKS, SHIFT_BLOCKS = 3, 5, 2


@pytest.fixture
def gpu(cupy):
    return GpuOperations(cupy, 2**20, cupy.asarray)


@pytest.fixture(params=[2, 3], ids=["images", "volumes"])
def plane(request):
    return half_plane(BOX, SIZE if request.param == 2 else 6, dimensions=request.param)


def split(values):
    return np.ascontiguousarray(values.real, np.float32), np.ascontiguousarray(values.imag, np.float32)


def complex_normal(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def entries(rng):
    """Some of all pairings of block, image and shifts, in order; the fourth block has none."""
    grid = np.meshgrid(np.arange(BLOCKS), np.arange(COUNT), np.arange(SHIFT_BLOCKS), indexing="ij")
    block, image, shift = (axis.ravel().astype(np.int32) for axis in grid)
    some = (rng.random(len(block)) < 0.7) & (block != 3)
    return block[some], image[some], shift[some]


def both(gpu, name, arguments, results):
    """Call an operation on the processor and on the GPU, and return what both wrote into the results.

    Arrays of indices stay on the processor in either case.
    """
    module = kernels if hasattr(kernels, name) else posterior
    here = [each.copy() for each in results]
    there = [gpu.array(each) for each in results]
    moved = [
        gpu.array(each) if isinstance(each, np.ndarray) and each.dtype != np.int32 else each
        for each in arguments
    ]
    position = 0 if module is posterior else len(arguments)
    first = getattr(module, name)(*arguments[:position], *here, *arguments[position:])
    second = getattr(gpu, name)(*moved[:position], *there, *moved[position:])
    return (here, first), ([gpu.host(each) for each in there], second)


def test_slices(gpu, plane, rng):
    volume = complex_normal(rng, *empty_volume(SIZE, PADDING)[0].shape)
    matrices = Rotation.random(70, random_state=3).as_matrix().astype(np.float32)
    where = (matrices, plane.kx, plane.ky, plane.kz, PADDING)
    expected = [np.empty((70, plane.pixels), np.float32) for _ in range(2)]
    found = [gpu.zeros((70, plane.pixels), np.float32) for _ in range(2)]
    interpolation.slice_volume(volume.view(np.float32), *where, *expected)
    gpu.slice_volume(gpu.array(volume), *where, *found)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(gpu.host(b), a, atol=3e-4)


def test_insertion(gpu, plane, rng):
    matrices = Rotation.random(7, random_state=3).as_matrix().astype(np.float32)
    where = (matrices, plane.kx, plane.ky, plane.kz, PADDING)
    weights = rng.random((7, plane.pixels)).astype(np.float32)
    weights[2] = 0
    data = (*split(complex_normal(rng, 7, plane.pixels)), weights)
    expected = empty_volume(SIZE, PADDING)
    interpolation.insert_slices(*expected, *where, *data)
    there = [gpu.array(each) for each in data]
    found = gpu.insertion(expected[0].shape, [there])
    found.add(*where, *there)
    for a, b in zip(expected, found.volumes(), strict=True):
        assert np.abs(a).max() > 1
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_insertion_does_not_depend_on_the_order(gpu, rng):
    plane = half_plane(BOX, SIZE)
    matrices = Rotation.random(200, random_state=3).as_matrix().astype(np.float32)
    data = (
        *split(complex_normal(rng, 200, plane.pixels)),
        rng.random((200, plane.pixels)).astype(np.float32),
    )
    results = []
    for order in (np.arange(200), rng.permutation(200)):
        there = [gpu.array(each[order]) for each in data]
        sums = gpu.insertion(empty_volume(SIZE, PADDING)[0].shape, [there])
        sums.add(matrices[order], plane.kx, plane.ky, plane.kz, PADDING, *there)
        results.append(sums.volumes())
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sums_of_chunks_are_added_on_the_gpu(gpu, rng):
    """In any order and grouping, to the same bits; what exceeds its share is added on the processor."""
    plane = half_plane(BOX, SIZE)
    shape = empty_volume(SIZE, PADDING)[0].shape
    matrices = Rotation.random(30, random_state=3).as_matrix().astype(np.float32)
    weights = rng.random((30, plane.pixels)).astype(np.float32)
    data = (*split(complex_normal(rng, 30, plane.pixels)), weights)
    whole = empty_volume(SIZE, PADDING)
    interpolation.insert_slices(*whole, matrices, plane.kx, plane.ky, plane.kz, PADDING, *data)

    def summed(expected, chunks):
        total = None
        for chunk in chunks:
            there = [gpu.array(each[chunk]) for each in data]
            part = gpu.insertion(shape, [there], expected)
            part.add(matrices[chunk], plane.kx, plane.ky, plane.kz, PADDING, *there)
            part = part.kept()
            total = part if total is None else total.plus(part)
        return total

    order = np.arange(30)
    found = [
        summed((30, 2.0**14, 2.0**10), chunks)
        for chunks in (np.split(order, 3), np.split(order[::-1], 5), [order[:1], order[1:]])
    ]
    assert {type(each) for each in found} == {GpuInsertion}
    for each in found[1:]:
        for a, b in zip(found[0].volumes(), each.volumes(), strict=True):
            np.testing.assert_array_equal(a, b)
    surprising = summed((30, 1.0, 2.0**10), np.split(order, 3))
    settled = pickle.loads(pickle.dumps(found[0]))
    assert type(surprising) is type(settled) is Insertion
    there = [gpu.host(each) for each in found[0].volumes_on(gpu.xp)]
    for each in (found[0].volumes(), surprising.volumes(), settled.volumes(), there):
        for a, b in zip(whole, each, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5)


def test_sums_leave_a_gpu_that_has_no_room_for_many(gpu, monkeypatch):
    shape = empty_volume(SIZE, PADDING)[0].shape
    image = [gpu.array(np.ones((1, 3), np.float32))] * 3
    sums = gpu.insertion(shape, [image])
    assert sums.kept() is sums
    monkeypatch.setattr(GpuInsertion, "WAITING", 2**40)
    assert type(sums.kept()) is Insertion


def test_the_largest_sum_that_there_can_be_fits(gpu):
    """All images are put in the same place."""
    plane = half_plane(BOX, SIZE)
    data = [np.full((300, plane.pixels), value, np.float32) for value in (-1e3, 1e-3, 1e5)]
    there = [gpu.array(each) for each in data]
    expected = empty_volume(SIZE, 1.0)
    where = (np.tile(np.eye(3, dtype=np.float32), (300, 1, 1)), plane.kx, plane.ky, plane.kz, 1.0)
    sums = gpu.insertion(expected[0].shape, [there])
    sums.add(*where, *there)
    interpolation.insert_slices(*expected, *where, *data)
    for a, b in zip(expected, sums.volumes(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-4)


def test_scores(gpu, plane, rng):
    pixels = plane.pixels
    prepared = (
        *split(complex_normal(rng, 4 * BLOCKS, pixels)),
        *split(complex_normal(rng, COUNT, pixels)),
        rng.random((COUNT, pixels)).astype(np.float32),
        *split(shift_phases(plane, rng.uniform(-3, 3, (SHIFT_BLOCKS, 4, plane.dimensions)))),
    )
    lists = entries(rng)
    four = rng.permutation(4 * BLOCKS).reshape(-1, 4).astype(np.int32)
    results = [rng.random((len(lists[0]), *shape)).astype(np.float32) for shape in ((4, 4), (4,))]
    (here, _), (there, _) = both(gpu, "score_entries", (*prepared, four, *lists), results)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-3)


def test_weighted_sums_and_spectra(gpu, plane, rng):
    pixels, shells = plane.pixels, SIZE // 2 + 1
    lists = entries(rng)
    weights = rng.random((len(lists[0]), 4, 4)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.3] = 0
    prepared = (
        *split(complex_normal(rng, 4 * BLOCKS, pixels)),
        *split(complex_normal(rng, COUNT, pixels)),
        rng.uniform(-1, 1, (COUNT, pixels)).astype(np.float32),
        *split(complex_normal(rng, COUNT, pixels)),
        rng.random((COUNT, pixels)).astype(np.float32),
        *split(shift_phases(plane, rng.uniform(-3, 3, (SHIFT_BLOCKS, 4, plane.dimensions)))),
    )
    results = [rng.random((4 * BLOCKS, pixels)).astype(np.float32) for _ in range(3)]
    results += [rng.random((COUNT, shells)) for _ in range(2)]
    arguments = (*prepared, plane.shell, *lists, weights)
    (here, _), (there, _) = both(gpu, "sum_entries", arguments, results)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=2e-3)


def test_shifts_by_whole_pixels(gpu, rng):
    images = rng.normal(size=(4, 6, 6)).astype(np.float32)
    shifts = np.array([[0, 0], [2, -1], [-3, 5], [1, 6]])
    found = gpu.shift_whole_pixels(gpu.array(images), shifts)
    np.testing.assert_array_equal(gpu.host(found), shift_whole_pixels(images, shifts))


@pytest.mark.parametrize(
    "choices", [{}, {"intact_first_peak": True}, {"absolute": True}], ids=["plain", "first peak", "absolute"]
)
@pytest.mark.parametrize("even_rows", [0, 1, 4])
def test_contrast_transfer(gpu, rng, choices, even_rows):
    defocus = rng.uniform(5e3, 3e4, (2, 4))
    parameters = CtfParameters(
        300.0,
        2.7,
        np.array([0.07, 0.1, 0.1, 0.2]),
        *defocus,
        rng.uniform(0, 180, 4),
        phase_shift=np.array([0.0, 0, 90, 0]),
        b_factor=np.array([0.0, 100, 0, -20]),
        scale=np.array([1.0, 0.8, 1, 1]),
        dose=np.array([0.0, 3, 60, 0]),
    )
    x, y = rng.uniform(-0.25, 0.25, (2, 300))
    x[0] = y[0] = 0
    even = rng.normal(size=(even_rows, 300)) if even_rows else None
    expected = ctf(parameters, x, y, even=even, **choices)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(gpu.host(gpu.ctf(parameters, x, y, even=even, **choices)), expected, atol=2e-6)


def dense(rng, own):
    scores = (40 * rng.random((50, COUNT, 7))).astype(np.float32)
    norms = rng.random((50, COUNT)).astype(np.float32)
    prior = rng.normal(size=(50, COUNT if own else 1)).astype(np.float32)
    return scores, norms, prior, rng.normal(size=(COUNT, 7)).astype(np.float32)


@pytest.mark.parametrize("own", [False, True], ids=["one prior", "priors of particles"])
@pytest.mark.parametrize("single", [False, True], ids=["all", "best"])
@pytest.mark.parametrize("fraction", [0.999, 1 - 1e-6])  # where the margin, where the probability decides
def test_significant_samples_of_a_dense_search(gpu, rng, own, single, fraction):
    scores, *rest = dense(rng, own)
    there = gpu.array(scores)
    posterior.add_priors(scores, *rest)
    gpu.add_priors(there, gpu.array(rest[0]), *rest[1:])
    np.testing.assert_allclose(gpu.host(there), scores, atol=1e-5)
    expected = posterior.select_dense(scores, fraction, single)
    found = gpu.select_dense(gpu.array(scores), fraction, single)
    assert len(expected[0]) >= COUNT
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == a.dtype
        np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("single", [False, True], ids=["all", "best"])
def test_significant_samples_of_a_local_search(gpu, rng, single):
    pairs, shifts = 20, 6  # of 8: the rest of the last block is void
    particle = rng.integers(0, COUNT, pairs).astype(np.int32)
    prior = rng.normal(size=(pairs, 4)).astype(np.float32)
    prior[3, 2:] = -np.inf
    shift_prior = rng.normal(size=(COUNT, shifts)).astype(np.float32)
    dots = (40 * rng.random((pairs, 2, 4, 4))).astype(np.float32)
    norms = rng.random((pairs, 4)).astype(np.float32)
    sizes = (shifts, COUNT, 0.999, single)
    expected = posterior.select_sparse(dots.copy(), norms, particle, prior, shift_prior, *sizes)
    found = gpu.select_sparse(gpu.array(dots), gpu.array(norms), particle, prior, shift_prior, *sizes)
    assert (len(expected[0]) == len(np.unique(particle))) if single else (len(expected[0]) > COUNT)
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == a.dtype
        np.testing.assert_array_equal(b, a)


def test_weights_summed_over_shifts(gpu, rng):
    particle = rng.integers(0, COUNT, 20).astype(np.int32)
    shift_prior = rng.normal(size=(COUNT, 6)).astype(np.float32)  # of 8: the last two are void
    dots = (40 * rng.random((20, 2, 4, 4))).astype(np.float32)
    norms = rng.random((20, 4)).astype(np.float32)
    expected = posterior.sum_over_shifts(dots, norms, particle, shift_prior)
    found = gpu.sum_over_shifts(gpu.array(dots), gpu.array(norms), particle, shift_prior)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("single", [False, True], ids=["weights", "best"])
def test_posterior_weights(gpu, rng, single):
    """Also of a particle (the last) that has no samples."""
    block, particle, _ = entries(rng)
    scores = (30 * rng.random((len(block), 4, 4))).astype(np.float32)
    scores[4:6] = scores.max() + 1  # of two equal ones the first is the best
    norms = rng.random((len(block), 4)).astype(np.float32)
    norms[4:6] = 0
    prior = np.zeros(len(block), np.float32)
    sizes = (COUNT + 1, 0.999, single)
    here, there = scores.copy(), gpu.array(scores)
    expected = posterior.normalise(here, norms, particle, prior, *sizes)
    found = gpu.normalise(there, gpu.array(norms), particle, prior, *sizes)
    np.testing.assert_allclose(gpu.host(there), here, rtol=1e-5, atol=1e-9)
    log_sum, largest, best, used = (each[:COUNT] for each in expected)
    np.testing.assert_allclose(found[0][:COUNT], log_sum, rtol=1e-6)
    np.testing.assert_allclose(found[1][:COUNT], largest, rtol=1e-5)
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_allclose(found[3][:COUNT], used, rtol=1e-5)
    assert best.min() >= 0
    assert found[2][COUNT] == -1


def test_selection_counts_the_same_in_any_order(gpu, rng):
    """Thresholds come from whole numbers, so that threads which finish in another order change nothing."""
    scores = (30 * rng.random((400, 1, 5))).astype(np.float32)
    shuffled = scores[rng.permutation(400)]
    counts = [gpu.select_dense(gpu.array(each), 0.999, False)[3][0] for each in (scores, shuffled)]
    assert counts[0] == counts[1]
