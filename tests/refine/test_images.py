"""Images made ready for comparison: moved, masked and transformed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.refine.half_plane import half_plane, pixels_per_shell
from cryorefine.refine.images import mask_images, prepare_images
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.whole_pixels import shift_whole_pixels

BOX, PIXEL = 32, 4.0
SHELLS = BOX // 2 + 1


def prepared(images, sigma2, **choices):
    count = len(images)
    return prepare_images(
        images,
        optics=optics(),
        box=BOX,
        pixel_size=PIXEL,
        size=BOX,
        model=ImageModel(mask_diameter=60.0, **choices),
        gain=np.ones(count),
        shifts=np.zeros((count, 2), int),
        sigma2=sigma2,
        seeds=np.arange(count),
    )


def real(spectrum, plane):
    """Image, with its centre at index box // 2, of a half plane of FFT / box^2."""
    half = np.zeros(BOX * (BOX // 2 + 1), complex)
    half[plane.source] = spectrum
    half = half.reshape(BOX, -1)
    half[BOX // 2 + 1 :, 0] = half[1 : BOX // 2, 0][::-1].conj()
    return np.fft.fftshift(np.fft.irfft2(half, s=(BOX, BOX))) * BOX**2


def radius():
    axis = np.arange(BOX) - BOX // 2
    return np.hypot(axis[:, None], axis)


def test_a_shift_moves_content_and_uncovers_zeros(rng):
    images = rng.normal(size=(2, 8, 8)).astype(np.float32)
    moved = shift_whole_pixels(images, np.array([[2, -1], [0, 9]]))
    np.testing.assert_array_equal(moved[0, :7, 2:], images[0, 1:, :6])
    assert not moved[0, 7].any()
    assert not moved[0, :, :2].any()
    assert not moved[1].any()


def test_outside_of_the_mask_is_the_mean_of_the_background(rng):
    images = rng.normal(3.0, 1.0, size=(2, BOX, BOX)).astype(np.float32)
    masked = mask_images(images, 15.0, 5.0, None)
    outside, inside = radius() > 12.6, radius() < 7.4
    for before, after in zip(images, masked, strict=True):
        assert np.ptp(after[outside]) < 1e-5
        assert after[outside][0] == pytest.approx(before[outside].mean(), abs=0.1)
        np.testing.assert_array_equal(after[inside], before[inside])


@pytest.mark.parametrize("fall", [0.0, 2.0])
def test_noise_outside_of_the_mask_has_the_spectrum_of_the_data(fall):
    sigma2 = 2.0 ** -np.linspace(0, fall, SHELLS) / (2 * BOX**2)
    empty = np.zeros((400, BOX, BOX), np.float32)
    masked = prepared(empty, sigma2, zero_mask=False)
    found = masked.power.mean(axis=0) / pixels_per_shell(half_plane(BOX, BOX), SHELLS) / 2
    # The disc, and half of its soft edge, hold none of it.
    noisy = 1 - np.pi * 10**2 / BOX**2
    np.testing.assert_allclose(found[3:-1] / sigma2[3:-1], noisy, rtol=0.15)


def test_noise_is_the_same_for_the_same_particle(rng):
    images = rng.normal(size=(3, BOX, BOX)).astype(np.float32)
    sigma2 = np.full(SHELLS, 1 / (2 * BOX**2))
    one, again = (prepared(images, sigma2, zero_mask=False).masked for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one[0] - one[1]).max() > 0


def test_spectra_are_about_the_centre(rng):
    images = rng.normal(size=(1, BOX, BOX)).astype(np.float32)
    result = prepared(images, np.ones(SHELLS))
    picture = real(result.unmasked[0], result.plane)
    # Corners beyond the plane's circle are lost.
    low = np.fft.rfft2(np.fft.ifftshift(images[0])).ravel()
    expected = real(low[result.plane.source] / BOX**2, result.plane)
    np.testing.assert_allclose(picture, expected, atol=1e-4)
    assert np.corrcoef(picture.ravel(), images[0].ravel())[0, 1] > 0.85
