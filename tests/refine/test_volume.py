"""Fourier volumes: slices of a map are its projections, and maps come back from their slices."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cryorefine.geometry.symmetry import point_group
from cryorefine.refine import interpolation
from cryorefine.refine.half_plane import half_plane
from cryorefine.refine.reconstruct import join_low_resolution, prior_from_fsc, reconstruct
from cryorefine.refine.slicing import slices
from cryorefine.refine.volume import (
    empty_volume,
    enforce_friedel,
    fourier_volume,
    half_volume_correlation,
    interpolation_falloff,
    map_from_fourier,
    shell_means,
    symmetrise,
)

BOX, PADDING = 24, 2.0


@pytest.fixture
def density(rng):
    """A smooth, compact, lopsided blob."""
    density = np.zeros((BOX, BOX, BOX), np.float32)
    density[8:16, 9:17, 8:17] = rng.random((8, 8, 9))
    return gaussian_filter(density, 1.5)


def image_of(spectrum, plane):
    """Real image from its half plane (FFT / box^2), origin at the centre."""
    half = np.zeros((BOX, BOX // 2 + 1), complex)
    half.ravel()[plane.source] = spectrum
    for y in range(1, BOX // 2):
        half[-y, 0] = np.conj(half[y, 0])
    return np.fft.fftshift(np.fft.irfft2(half * BOX**2, s=(BOX, BOX)))


def test_slice_along_z_is_the_projection(density):
    plane = half_plane(BOX, BOX)
    volume = fourier_volume(density, BOX, PADDING)
    re, im = slices(volume, np.eye(3)[None], plane, PADDING)
    projection = image_of(re[0] + 1j * im[0], plane)
    np.testing.assert_allclose(projection, density.sum(axis=0), atol=0.03 * density.sum(axis=0).max())


def test_slice_of_a_quarter_turn_is_the_turned_projection(density):
    """A maps reference to view: with A = R_x(90), view x, y are reference x, and -z or z."""
    plane = half_plane(BOX, BOX)
    volume = fourier_volume(density, BOX, PADDING)
    matrix = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)
    re, im = slices(volume, matrix[None], plane, PADDING)
    projection = image_of(re[0] + 1j * im[0], plane)
    np.testing.assert_allclose(projection, density.sum(axis=1), atol=0.03 * density.sum(axis=1).max())


def test_map_comes_back_from_its_fourier_volume(density):
    volume = fourier_volume(density, BOX, PADDING)
    again = map_from_fourier(volume, BOX, PADDING) * interpolation_falloff(BOX, PADDING)
    assert np.corrcoef(again.ravel(), density.ravel())[0, 1] > 0.999


def insert(density, rotations, size=BOX, noise=0.0, rng=None):
    plane = half_plane(BOX, size)
    volume = fourier_volume(density, size, PADDING)
    re, im = slices(volume, rotations, plane, PADDING)
    if noise:
        re = (re + rng.normal(scale=noise, size=re.shape)).astype(np.float32)
        im = (im + rng.normal(scale=noise, size=im.shape)).astype(np.float32)
    numerator, weight = empty_volume(size, PADDING)
    ones = np.ones_like(re)
    interpolation.insert_slices(
        numerator, weight, rotations.astype(np.float32), plane.kx, plane.ky, plane.kz, PADDING, re, im, ones
    )
    enforce_friedel(numerator, weight)
    return numerator, weight


def test_map_is_reconstructed_from_its_slices(density):
    rotations = Rotation.random(2000, random_state=1).as_matrix()
    accumulated = insert(density, rotations)
    again = reconstruct(*accumulated, box=BOX, size=BOX, padding=PADDING, prior=None)
    scale = np.sum(again * density) / np.sum(density**2)
    assert np.corrcoef(again.ravel(), density.ravel())[0, 1] > 0.99
    assert scale == pytest.approx(1, abs=0.03)


def test_a_group_makes_a_lopsided_map_symmetric(density):
    rotations = Rotation.random(1500, random_state=2).as_matrix()
    group = point_group("D2")
    accumulated = symmetrise(*insert(density, rotations), group.operators, BOX, PADDING)
    again = reconstruct(*accumulated, box=BOX, size=BOX, padding=PADDING, prior=None)
    inner = slice(1, None)  # mates about index box/2
    core = again[inner, inner, inner]
    np.testing.assert_allclose(core, core[:, ::-1, ::-1], atol=0.02 * core.max())
    np.testing.assert_allclose(core, core[::-1, :, ::-1], atol=0.02 * core.max())


def test_operators_that_keep_the_grid_do_not_blur(density):
    rotations = Rotation.random(300, random_state=2).as_matrix()
    numerator, weight = insert(density, rotations)
    twofold = np.stack([np.eye(3), np.diag([-1.0, -1.0, 1.0])])
    total, total_weight = symmetrise(numerator, weight, twofold, BOX, PADDING)
    limit = numerator.shape[0] // 2
    # (x, y, z) -> (-x, -y, z): for x = 0 the copy is at (0, -y, z).
    index = np.arange(-limit, limit + 1)
    inside = index[:, None] ** 2 + index**2 <= (PADDING * BOX / 2) ** 2
    expected = weight + weight[:, ::-1]
    np.testing.assert_allclose(total_weight[..., 0][inside], expected[..., 0][inside], rtol=1e-4)
    expected = numerator[..., 0] + numerator[:, ::-1, 0]
    np.testing.assert_allclose(total[..., 0][inside], expected[inside], rtol=1e-4, atol=1e-6)


def test_identical_halves_correlate_fully_and_noise_does_not(density, rng):
    rotations = Rotation.random(800, random_state=4).as_matrix()
    accumulated = insert(density, rotations)
    shells = BOX // 2 + 1
    same = half_volume_correlation(accumulated, accumulated, BOX, shells, PADDING)
    np.testing.assert_allclose(same, 1, atol=1e-6)
    noise = [insert(density * 0, rotations, noise=1.0, rng=rng) for _ in range(2)]
    apart = half_volume_correlation(noise[0], noise[1], BOX, shells, PADDING)
    assert np.abs(apart[4:]).max() < 0.35


def test_joining_makes_low_resolutions_equal_and_leaves_the_rest(density, rng):
    rotations = Rotation.random(100, random_state=5).as_matrix()
    halves = [insert(density, rotations, noise=0.01, rng=rng) for _ in range(2)]
    before = [half[0].copy() for half in halves]
    join_low_resolution(*halves, shell=4, padding=PADDING)
    limit = before[0].shape[0] // 2
    at = (limit, limit, 6)
    assert halves[0][0][at] == halves[1][0][at] == pytest.approx((before[0][at] + before[1][at]) / 2)
    beyond = (limit, limit, 9)
    assert halves[0][0][beyond] == before[0][beyond]


def test_ssnr_follows_from_the_fsc():
    weight = np.ones(empty_volume(BOX, PADDING)[1].shape, np.float32)
    fsc = np.linspace(1, -0.1, BOX // 2 + 1)
    half = prior_from_fsc(fsc, weight, size=BOX, padding=PADDING, joined=False)
    both = prior_from_fsc(fsc, weight, size=BOX, padding=PADDING, joined=True)
    middle = len(fsc) // 2
    assert half.ssnr[middle] == pytest.approx(fsc[middle] / (1 - fsc[middle]))
    assert half.ssnr[0] == pytest.approx(999)
    joined = np.sqrt(2 * fsc[middle] / (1 + fsc[middle]))
    assert both.ssnr[middle] == pytest.approx(joined / (1 - joined))
    assert half.sigma2[3] == pytest.approx(1 / PADDING**3)


def test_regularisation_damps_shells_without_signal(density, rng):
    rotations = Rotation.random(600, random_state=6).as_matrix()
    accumulated = insert(density, rotations, noise=0.002, rng=rng)
    fsc = np.where(np.arange(BOX // 2 + 1) < 8, 0.9, 0.0)
    prior = prior_from_fsc(fsc, accumulated[1], size=BOX, padding=PADDING, joined=False)
    plain, damped = (
        np.abs(np.fft.fftn(reconstruct(*accumulated, box=BOX, size=BOX, padding=PADDING, prior=p)))
        for p in (None, prior)
    )
    index = np.fft.fftfreq(BOX, 1 / BOX)
    r = np.sqrt(index[:, None, None] ** 2 + index[:, None] ** 2 + index**2)
    beyond = (r > 10) & (r < 12)
    assert np.sum(damped[beyond] ** 2) < 0.05 * np.sum(plain[beyond] ** 2)
    assert damped[0, 0, 6] == pytest.approx(0.9 * plain[0, 0, 6], rel=0.15)


def test_shell_means_of_a_constant():
    weight = np.full(empty_volume(BOX, PADDING)[1].shape, 3.0, np.float32)
    np.testing.assert_allclose(shell_means(weight, PADDING, BOX // 2 + 1), 3.0)
