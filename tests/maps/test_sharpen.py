"""Sharpening: B-factors are recovered, weights follow the FSC, the MTF is divided out."""

import numpy as np
import pytest

from cryorefine.maps import filters, fourier, sharpen
from cryorefine.maps.shells import radius_table, shell_frequencies, shell_index

SIZE, PIXEL = 48, 1.5


def test_guinier_points_are_the_log_of_the_mean_amplitude(rng):
    spectrum = fourier.forward(rng.standard_normal((SIZE,) * 3))
    index, amplitude = shell_index((SIZE,) * 3), np.abs(spectrum)
    expected = [np.log(amplitude[index == i].mean()) for i in range(SIZE // 2 + 1)]
    np.testing.assert_allclose(sharpen.Amplitudes(spectrum).guinier(), expected, rtol=1e-10)


def test_guinier_points_after_a_gain_are_those_of_the_filtered_map(rng):
    volume = rng.standard_normal((SIZE,) * 3)
    gain = filters.bfactor_gain(radius_table(SIZE), SIZE, PIXEL, 60.0)
    filtered = sharpen.Amplitudes(fourier.forward(filters.apply_filter(volume, gain)))
    predicted = sharpen.Amplitudes(fourier.forward(volume)).guinier(gain)
    # Shell 24 reaches beyond the sphere at Nyquist, where the gain is zero.
    np.testing.assert_allclose(predicted, filtered.guinier(), rtol=1e-8)


def test_shells_without_amplitude_are_marked(rng):
    amplitudes = sharpen.Amplitudes(fourier.forward(rng.standard_normal((16,) * 3)))
    points = amplitudes.guinier(np.where(radius_table(16) < 4, 1.0, 0.0))
    assert (points[5:] == sharpen.NO_AMPLITUDE).all()
    assert (points[:4] > -10).all()


def test_the_bfactor_put_into_noise_is_found(rng):
    damped = filters.apply_bfactor(rng.standard_normal((SIZE,) * 3), PIXEL, 120.0)
    points = sharpen.Amplitudes(fourier.forward(damped)).guinier()[:-1]
    fit = sharpen.fit_guinier(shell_frequencies(SIZE, PIXEL)[:-1] ** 2, points, 15.0)
    # Amplitudes fall by exp(-B s^2 / 4), so the factor that restores them is -B.
    assert fit.b_factor == pytest.approx(-120.0, abs=3.0)
    assert fit.correlation > 0.99


def test_fit_of_a_straight_line_is_exact_and_heeds_its_range():
    x = np.linspace(0, 0.1, 21)
    y = 2.0 - 30.0 * x
    y[0] += 5.0  # at zero frequency, outside any range
    y[-1] = sharpen.NO_AMPLITUDE
    fit = sharpen.fit_guinier(x, y, 100.0)
    assert (fit.slope, fit.intercept, fit.correlation) == pytest.approx((-30.0, 2.0, 1.0))
    assert sharpen.fit_guinier(x, y, 3.3) is None  # a single point finer than 3.3 A


def test_weights_stop_where_the_fsc_first_vanishes():
    weights = sharpen.fsc_weights(np.array([1.0, 0.5, 0.00009, 0.5, 0.2]))
    np.testing.assert_allclose(weights, [1.0, np.sqrt(2 / 3), 0, 0, 0])
    np.testing.assert_allclose(sharpen.fsc_weights(np.array([1.0, 0.5])), [1.0, np.sqrt(2 / 3)])


def test_shell_weights_reach_every_voxel_of_their_shell():
    weights = np.arange(9.0)
    gain = sharpen.shell_gain(weights, 16)
    index = np.floor(radius_table(16) + 0.5)
    assert (gain[index <= 8] == index[index <= 8]).all()
    assert (gain[index > 8] == 0).all()


def test_mtf_is_interpolated_at_the_detectors_frequency():
    frequency, value = np.array([0.0, 0.25, 0.5]), np.array([1.0, 0.8, 0.4])
    gain = sharpen.mtf_gain(frequency, value, 1.0, 32, 2.0)
    # Radius 8 of 32 px of 2 A is 1/8 A, which is 1/8 per detector pixel of 1 A: between 1 and 0.8.
    assert gain[64] == pytest.approx(1 / 0.9)
    assert gain[0] == 1.0
    assert gain[16**2] == 1.0  # at Nyquist and beyond
