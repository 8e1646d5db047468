"""Transforms: rescaling, shifts and boxes of maps."""

import subprocess

import numpy as np
import pytest

from cryorefine.io.mrc import read_map, write_map
from cryorefine.maps import fourier
from cryorefine.maps.shells import squared_radius


def blob(size, centre=(0.0, 0.0, 0.0), width=3.0):
    """Gaussian at an offset (z, y, x) from the centre of the box."""
    axes = [np.arange(size) - size // 2 - c for c in centre]
    squared = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
    return np.exp(-squared / (2 * width**2))


def test_origin_of_fourier_space_holds_the_mean(rng):
    volume = rng.random((8, 8, 8))
    assert fourier.forward(volume)[0, 0, 0].real == pytest.approx(volume.mean())


@pytest.mark.parametrize("size", [12, 13])
def test_inverse_undoes_forward(rng, size):
    volume = rng.standard_normal((size, size, size))
    np.testing.assert_allclose(fourier.inverse(fourier.forward(volume), size), volume, atol=1e-12)


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 16)])
def test_cropping_axis_by_axis_equals_cropping_the_whole_transform(rng, shape):
    volume = rng.standard_normal(shape)
    keep = [0, 1, 2, 3, 4, 5, -4, -3, -2, -1]
    whole = fourier.forward(volume)
    expected = whole[np.ix_(*[keep] * (len(shape) - 1), range(6))]
    np.testing.assert_allclose(fourier.forward_cropped(volume, 10), expected, atol=1e-12)


def test_a_smooth_map_keeps_its_values_when_rescaled():
    coarse, fine = blob(32, width=3.0), blob(64, width=6.0)
    np.testing.assert_allclose(fourier.rescale(fine, 32), coarse, atol=1e-6)
    np.testing.assert_allclose(fourier.rescale(coarse, 64), fine, atol=1e-6)


def test_rescaling_up_and_down_again_returns_a_map_without_corners(rng):
    spectrum = fourier.forward(rng.standard_normal((16, 16, 16)))
    spectrum[squared_radius((16, 16, 16)) >= 64] = 0
    volume = fourier.inverse(spectrum, 16)
    np.testing.assert_allclose(fourier.rescale(fourier.rescale(volume, 30), 16), volume, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "old", "new", "expected"),
    [
        (256, 1.06, 2.0, (136, 1.995294)),
        (96, 5.4, 1.35, (384, 1.35)),
        (600, 1.04, 1.0, (624, 1.0)),
        (128, 3.435, 13.74, (32, 13.74)),
        (100, 1.0, 1.37, (72, 1.388889)),
    ],
)
def test_rescaled_box_is_even_and_pixel_size_true(size, old, new, expected):
    box, pixel_size = fourier.rescaled_size(size, old, new)
    assert box == expected[0]
    assert pixel_size == pytest.approx(expected[1], abs=1e-6)


def test_shift_moves_content_by_plus_the_offset():
    shifted = fourier.shift(blob(32, width=2.0), (1.5, -2.0, 3.25))
    np.testing.assert_allclose(shifted, blob(32, (1.5, -2.0, 3.25), width=2.0), atol=1e-5)


def test_whole_shift_is_a_roll(rng):
    volume = rng.standard_normal((10, 10, 10))
    rolled = np.roll(volume, (1, -3, 2), (0, 1, 2))
    np.testing.assert_allclose(fourier.shift(volume, (1, -3, 2)), rolled, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [(8, 12), (12, 8), (9, 12), (12, 7), (8, 8)])
def test_a_new_box_keeps_the_centre_voxel(old, new):
    volume = np.zeros((old, old, old))
    volume[old // 2, old // 2, old // 2] = 5.0
    result = fourier.new_box(volume, new, fill=1.0)
    assert result.shape == (new, new, new)
    assert result[new // 2, new // 2, new // 2] == 5.0
    assert (result == 1.0).sum() == max(new**3 - old**3, 0)


@pytest.mark.parametrize("size", [10, 9])
def test_mirror_keeps_the_centre_and_inverts_the_hand(rng, size):
    volume = rng.standard_normal((4, 4, size))
    mirrored = fourier.mirror_x(volume)
    centre = size // 2
    for distance in range(1, (size + 1) // 2):
        assert (mirrored[..., centre + distance] == volume[..., centre - distance]).all()
    assert (mirrored[..., centre] == volume[..., centre]).all()
    assert (fourier.mirror_x(mirrored) == volume).all()


@pytest.mark.parametrize(("new_pixel", "box"), [(1.7, None), (3.3, None), (5.1, 40), (2.0, 30)])
def test_rescaling_agrees_with_relion(relion, rng, tmp_path, new_pixel, box):
    size, pixel_size = 32, 3.0
    volume = rng.standard_normal((size, size, size)).astype(np.float32)
    write_map(tmp_path / "in.mrc", volume, pixel_size)
    words = [
        "--i",
        "in.mrc",
        "--o",
        "out.mrc",
        "--angpix",
        str(pixel_size),
        "--rescale_angpix",
        str(new_pixel),
    ]
    if box is not None:
        words += ["--new_box", str(box)]
    subprocess.run([relion("image_handler"), *words], cwd=tmp_path, check=True, capture_output=True)
    theirs = read_map(tmp_path / "out.mrc")
    new, true_pixel = fourier.rescaled_size(size, pixel_size, new_pixel)
    ours = fourier.rescale(volume, new)
    if box is not None:
        ours = fourier.new_box(ours, box)
    assert theirs.data.shape == ours.shape
    assert theirs.pixel_size == pytest.approx(true_pixel, rel=1e-5)
    np.testing.assert_allclose(ours, theirs.data, atol=1e-5)
