"""The compiled kernels do what the plain NumPy reference does."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryorefine.refine import interpolation, kernels, oracle
from cryorefine.refine.half_plane import half_plane, shift_phases
from cryorefine.refine.slicing import slices
from cryorefine.refine.volume import empty_volume

BOX, SIZE, PADDING = 16, 12, 2.0


@pytest.fixture(params=[2, 3], ids=["images", "volumes"])
def plane(request):
    # Smaller volumes, so that they have about as many voxels as an image has pixels.
    return half_plane(BOX, SIZE if request.param == 2 else 6, dimensions=request.param)


@pytest.fixture
def volume(rng):
    shape = empty_volume(SIZE, PADDING)[0].shape
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def matrices(count):
    return Rotation.random(count, random_state=3).as_matrix()


def split(values):
    return np.ascontiguousarray(values.real, np.float32), np.ascontiguousarray(values.imag, np.float32)


def images(rng, count, pixels):
    return (rng.normal(size=(count, pixels)) + 1j * rng.normal(size=(count, pixels))).astype(np.complex64)


def test_slices_are_the_interpolated_volume(volume, plane):
    rotations = matrices(5)
    re, im = slices(volume, rotations, plane, PADDING)
    for o, matrix in enumerate(rotations):
        expected = oracle.slice_volume(volume, matrix, plane.indices, PADDING)
        np.testing.assert_allclose(re[o] + 1j * im[o], expected, atol=2e-4)


def test_insertion_spreads_as_the_reference_does(volume, plane, rng):
    rotations = matrices(3)
    data = images(rng, 3, plane.pixels)
    weights = rng.random((3, plane.pixels)).astype(np.float32)
    numerator, weight = empty_volume(SIZE, PADDING)
    interpolation.insert_slices(
        numerator,
        weight,
        rotations.astype(np.float32),
        plane.kx,
        plane.ky,
        plane.kz,
        PADDING,
        *split(data),
        weights,
    )
    expected, expected_weight = (np.zeros(numerator.shape, t) for t in (complex, float))
    for o in range(3):
        oracle.insert_slice(
            expected, expected_weight, rotations[o], plane.indices, PADDING, data[o], weights[o]
        )
    np.testing.assert_allclose(numerator, expected, atol=1e-4)
    np.testing.assert_allclose(weight, expected_weight, atol=1e-4)


def test_insertion_is_the_transpose_of_slicing(volume, plane, rng):
    """<slice(V), X> = <V, insert(X)>: what makes the M-step the gradient of the E-step's score."""
    rotations = matrices(4)
    data = images(rng, 4, plane.pixels)
    ones = np.ones((4, plane.pixels), np.float32)
    re, im = slices(volume, rotations, plane, PADDING)
    numerator, weight = empty_volume(SIZE, PADDING)
    interpolation.insert_slices(
        numerator,
        weight,
        rotations.astype(np.float32),
        plane.kx,
        plane.ky,
        plane.kz,
        PADDING,
        *split(data),
        ones,
    )
    left = np.sum((re - 1j * im) * data).real
    right = np.sum(np.conj(volume.astype(complex)) * numerator).real
    assert left == pytest.approx(right, rel=1e-4)


def entries(blocks, count, shift_blocks):
    grid = np.meshgrid(np.arange(blocks), np.arange(count), np.arange(shift_blocks), indexing="ij")
    return [axis.ravel().astype(np.int32) for axis in grid]


def test_scores_are_log_likelihoods(volume, plane, rng):
    """dot - norm differs from -1/2 |X shift - CTF V|^2 / sigma2 by the same constant for every pose."""
    count, blocks = 3, 2
    rotations = matrices(4 * blocks)
    re, im = slices(volume, rotations, plane, PADDING)
    x = images(rng, count, plane.pixels)
    ctf = rng.uniform(-1, 1, (count, plane.pixels)).astype(np.float32)
    sigma2 = rng.uniform(0.5, 2, plane.pixels).astype(np.float32)
    shifts = rng.uniform(-3, 3, (2, 4, plane.dimensions))
    phases = shift_phases(plane, shifts)
    block, image, shift = entries(blocks, count, 2)
    four = rng.permutation(4 * blocks).reshape(-1, 4).astype(np.int32)
    dots = np.zeros((len(block), 4, 4), np.float32)
    norms = np.zeros((len(block), 4), np.float32)
    kernels.score_entries(
        re,
        im,
        *split(x * ctf / sigma2),
        0.5 * ctf**2 / sigma2,
        *split(phases),
        four,
        block,
        image,
        shift,
        dots,
        norms,
    )
    for e in range(len(block)):
        n = image[e]
        constant = 0.5 * np.sum(np.abs(x[n]) ** 2 / sigma2)
        for c, s in np.ndindex(4, 4):
            row = four[block[e], c]
            difference = oracle.squared_difference(
                x[n], phases[shift[e], s], ctf[n], re[row] + 1j * im[row], sigma2
            )
            assert dots[e, c, s] - norms[e, c] == pytest.approx(constant - difference, abs=5e-3)


def test_weighted_sums_and_spectra(volume, plane, rng):
    count, blocks, shells = 2, 2, SIZE // 2 + 1
    re, im = slices(volume, matrices(4 * blocks), plane, PADDING)
    x, y = images(rng, count, plane.pixels), images(rng, count, plane.pixels)
    ctf = rng.uniform(-1, 1, (count, plane.pixels)).astype(np.float32)
    y_weight = rng.random((count, plane.pixels)).astype(np.float32)
    phases = shift_phases(plane, rng.uniform(-3, 3, (2, 4, plane.dimensions)))
    block, image, shift = entries(blocks, count, 2)
    weights = rng.random((len(block), 4, 4)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.3] = 0
    sums = [np.zeros_like(re) for _ in range(3)]
    cross, power = np.zeros((count, shells)), np.zeros((count, shells))
    prepared = (*split(x), ctf, *split(y), y_weight, *split(phases), plane.shell)
    kernels.sum_entries(re, im, *prepared, block, image, shift, weights, *sums, cross, power)
    expected = np.zeros(re.shape, complex)
    expected_weight = np.zeros(re.shape)
    expected_cross, expected_power = np.zeros_like(cross), np.zeros_like(power)
    for e in range(len(block)):
        n = image[e]
        for c, s in np.ndindex(4, 4):
            row, w = 4 * block[e] + c, weights[e, c, s]
            expected[row] += w * y[n] * phases[shift[e], s]
            expected_weight[row] += w * y_weight[n]
            model = ctf[n] * (re[row] + 1j * im[row])
            np.add.at(expected_cross[n], plane.shell, w * (np.conj(model) * x[n] * phases[shift[e], s]).real)
            np.add.at(expected_power[n], plane.shell, w * np.abs(model) ** 2)
    np.testing.assert_allclose(sums[0] + 1j * sums[1], expected, atol=2e-4)
    np.testing.assert_allclose(sums[2], expected_weight, atol=1e-4)
    np.testing.assert_allclose(cross, expected_cross, atol=1e-2)
    np.testing.assert_allclose(power, expected_power, rtol=1e-4)


def test_half_plane_counts_each_pair_of_friedel_mates_once(plane):
    full = {tuple(int(k) for k in index) for index in plane.indices}
    assert len(full) == plane.pixels
    assert all(tuple(-k for k in index) not in full for index in full if any(index))
    axes = [np.arange(-BOX // 2, BOX // 2 + 1)] * plane.dimensions
    radius2 = sum(axis * axis for axis in np.meshgrid(*axes))
    assert 2 * plane.pixels - 1 == np.sum(radius2 <= (plane.size / 2) ** 2)


@pytest.mark.parametrize("shift", [(2, -3), (2, -3, 1)], ids=["image", "volume"])
def test_shift_phases_move_content_by_plus_shift(shift):
    plane = half_plane(BOX, BOX, dimensions=len(shift))
    images = np.zeros((2, *[BOX] * len(shift)))
    images[0][(6,) * len(shift)] = 1
    images[1][tuple(6 + s for s in shift[::-1])] = 1
    phases = shift_phases(plane, np.array(shift, float))
    spectra = [np.fft.rfftn(image).ravel()[plane.source] for image in images]
    np.testing.assert_allclose(spectra[0] * phases, spectra[1], atol=1e-5)
