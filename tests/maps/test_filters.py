"""Filters: their gains, and RELION's on the same map."""

import subprocess

import numpy as np
import pytest

from cryorefine.io.mrc import read_map, write_map
from cryorefine.maps import filters, fourier
from cryorefine.maps.shells import squared_radius

SIZE, PIXEL = 32, 2.0


def test_lowpass_falls_as_a_cosine_over_two_shells():
    # 32 * 2 / 8 = shell 8
    gain = filters.lowpass_gain(np.array([0, 6.9, 7, 7.5, 8, 8.5, 9, 9.1, 40]), SIZE, PIXEL, 8.0)
    expected = [1, 1, 1, 0.5 + np.sqrt(0.125), 0.5, 0.5 - np.sqrt(0.125), 0, 0, 0]
    np.testing.assert_allclose(gain, expected, atol=1e-12)


def test_lowpass_is_centred_on_the_nearest_shell_but_the_initial_one_is_not():
    resolution = SIZE * PIXEL / 8.4
    assert filters.lowpass_gain(np.array([8.0]), SIZE, PIXEL, resolution)[0] == pytest.approx(0.5)
    assert filters.initial_lowpass_gain(np.array([8.4]), SIZE, PIXEL, resolution)[0] == pytest.approx(0.5)


def test_lowpass_and_highpass_add_up_to_the_map(rng):
    volume = rng.standard_normal((SIZE,) * 3)
    both = filters.lowpass(volume, PIXEL, 9.0) + filters.highpass(volume, PIXEL, 9.0)
    np.testing.assert_allclose(both, volume, atol=1e-12)


@pytest.mark.parametrize("resolution", [30.0, 9.0, 4.1, 2.0])
@pytest.mark.parametrize("shape", [(SIZE,) * 3, (SIZE,) * 2])
def test_lowpass_of_a_cropped_transform_equals_that_of_the_whole(rng, resolution, shape):
    volume = rng.standard_normal(shape)
    radius = np.sqrt(squared_radius(shape))
    spectrum = fourier.forward(volume) * filters.lowpass_gain(radius, SIZE, PIXEL, resolution)
    expected = fourier.inverse(spectrum, SIZE)
    np.testing.assert_allclose(filters.lowpass(volume, PIXEL, resolution), expected, atol=1e-12)


def test_negative_bfactor_sharpens_and_stops_at_nyquist():
    radius = np.array([0.0, 8.0, 16.0, 16.01])
    gain = filters.bfactor_gain(radius, SIZE, PIXEL, -100.0)
    squared_frequency = (radius / (SIZE * PIXEL)) ** 2
    np.testing.assert_allclose(gain[:3], np.exp(25.0 * squared_frequency[:3]))
    assert gain[3] == 0


def test_a_huge_bfactor_does_not_overflow():
    with np.errstate(over="raise"):
        gain = filters.bfactor_gain(np.arange(28.0), SIZE, PIXEL, -40000.0)
    assert np.isfinite(gain).all()


def test_initial_lowpass_keeps_precision_and_mean(rng):
    volume = (rng.standard_normal((SIZE,) * 3) + 3).astype(np.float32)
    result = filters.initial_lowpass(volume, PIXEL, 20.0)
    assert result.dtype == np.float32
    assert result.mean() == pytest.approx(volume.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["--lowpass", "11"], lambda v: filters.lowpass(v, PIXEL, 11.0)),
        (["--highpass", "23"], lambda v: filters.highpass(v, PIXEL, 23.0)),
        (["--bfactor", "-50"], lambda v: filters.apply_bfactor(v, PIXEL, -50.0)),
        (["--lowpass", "4.3"], lambda v: filters.lowpass(v, PIXEL, 4.3)),
    ],
)
def test_filters_agree_with_relion(relion, rng, tmp_path, words, ours):
    volume = rng.standard_normal((SIZE,) * 3).astype(np.float32)
    write_map(tmp_path / "in.mrc", volume, PIXEL)
    command = [relion("image_handler"), "--i", "in.mrc", "--o", "out.mrc", "--angpix", str(PIXEL), *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(ours(volume), read_map(tmp_path / "out.mrc").data, atol=1e-5)
