"""Image handler: order of the operations, headers, stacks, and RELION's result of the same command."""

import subprocess

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map, write_stack
from cryorefine.jobs import image_handler
from cryorefine.jobs.base import Notice, finish
from cryorefine.maps import filters, fourier


@pytest.fixture
def noise(rng, tmp_path):
    path = tmp_path / "in.mrc"
    write_map(path, rng.standard_normal((32, 32, 32)).astype(np.float32), 3.0)
    return path


def handle(path, out, **settings):
    return finish(image_handler.run(image_handler.Options(input=path, output=out, **settings)))


def test_operations_work_on_the_running_result_in_order(noise, tmp_path):
    settings = {"multiply_constant": 2.0, "add_constant": 1.0, "lowpass": 12.0, "invert_hand": True}
    result = handle(noise, tmp_path / "o.mrc", rescale_pixel_size=4.0, new_box=30, **settings)
    volume = read_map(noise).data * 2 + 1
    volume = fourier.mirror_x(filters.lowpass(volume, 3.0, 12.0))
    expected = fourier.new_box(fourier.rescale(volume, 24), 30)
    np.testing.assert_allclose(read_map(result.output).data, expected, atol=1e-5)
    assert (result.pixel_size, result.box) == (4.0, 30)


def test_true_pixel_size_is_written_and_told(noise, tmp_path):
    options = image_handler.Options(input=noise, output=tmp_path / "o.mrc", rescale_pixel_size=3.5)
    notices = [event for event in image_handler.run(options) if isinstance(event, Notice)]
    # 32 * 3 / 3.5 = 27.4, rounded to 27, down to 26: 96 / 26 A
    assert read_map(tmp_path / "o.mrc").pixel_size == pytest.approx(96 / 26, rel=1e-5)
    assert [notice.warning for notice in notices] == [True]
    assert "3.69231 A instead of the 3.5 A" in notices[0].message


def test_each_image_of_a_stack_is_treated_alone(rng, tmp_path):
    stack = rng.standard_normal((3, 16, 16)).astype(np.float32)
    write_stack(tmp_path / "s.mrcs", stack, 2.0)
    result = handle(tmp_path / "s.mrcs", tmp_path / "o.mrcs", rescale_pixel_size=4.0)
    done = read_map(result.output).data
    assert done.shape == (3, 8, 8)
    for image, expected in zip(done, stack, strict=True):
        np.testing.assert_allclose(image, fourier.rescale(expected, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rescale_pixel_size": 300.0}, "--rescale-pixel-size 300 is too coarse"),
        ({"output": "o.mrcs"}, "is a map but .*o.mrcs is named as a stack"),
        ({"output": "in.mrc"}, "is the input itself"),
        ({"output": "nowhere/o.mrc"}, "the folder .*nowhere does not exist"),
        ({"input": "none.mrc"}, "none.mrc does not exist"),
        ({"input": "flat.mrc", "lowpass": 10.0}, "10 x 8 x 8 px; filters and rescaling need a cubic map"),
        ({"lowpass": -3.0}, "too small"),
    ],
)
def test_bad_input_ends_in_one_sentence(noise, tmp_path, settings, sentence):
    write_map(tmp_path / "flat.mrc", np.zeros((8, 8, 10)), 1.0)
    given = {"input": "in.mrc", "output": "o.mrc"} | settings
    given |= {key: tmp_path / given[key] for key in ("input", "output")}
    before = noise.read_bytes()
    with pytest.raises(UserError, match=sentence):
        finish(image_handler.run(image_handler.Options(**given)))
    assert noise.read_bytes() == before
    assert not (tmp_path / "o.mrc").exists()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"rescale_pixel_size": 1.244, "new_box": 96}, ["--rescale_angpix", "1.244", "--new_box", "96"]),
        ({"rescale_pixel_size": 5.0}, ["--rescale_angpix", "5"]),
        ({"lowpass": 14.0, "new_box": 40}, ["--lowpass", "14", "--new_box", "40"]),
        ({"bfactor": 90.0, "highpass": 60.0}, ["--bfactor", "90", "--highpass", "60"]),
        ({"invert_hand": True}, ["--invert_hand"]),
        ({"multiply_constant": -1.5}, ["--multiply_constant", "-1.5"]),
    ],
)
def test_relion_does_the_same(relion, betagal, tmp_path, ours, theirs):
    source = betagal / "reference_5a1a_64_3.54A.mrc"
    command = [relion("image_handler"), "--i", str(source), "--o", "theirs.mrc", *theirs]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    result = read_map(handle(source, tmp_path / "ours.mrc", **ours).output)
    expected = read_map(tmp_path / "theirs.mrc")
    assert result.pixel_size == pytest.approx(expected.pixel_size, rel=1e-6)
    scale = np.abs(expected.data).max()
    np.testing.assert_allclose(result.data, expected.data, atol=1e-6 * scale)
