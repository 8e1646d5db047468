"""MaskCreate as a job: its file, its warnings, and what it refuses."""

import re
import subprocess

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map
from cryorefine.jobs import mask_create
from cryorefine.jobs.base import Notice, Product, finish
from cryorefine.maps.masks import soft_sphere


def events_of(running):
    """All events of a job, and its result."""
    events = []
    while True:
        try:
            events.append(next(running))
        except StopIteration as stop:
            return events, stop.value


def warnings_of(events):
    return [event.message for event in events if isinstance(event, Notice) and event.warning]


@pytest.fixture
def ball(tmp_path):
    path = tmp_path / "ball.mrc"
    write_map(path, soft_sphere((32, 32, 32), 8, 3), 2.5)
    return path


def test_mask_of_a_ball_is_a_larger_ball_with_the_maps_pixel_size(ball, tmp_path):
    options = mask_create.Options(input=ball, output=tmp_path / "m", lowpass=-1, threshold=0.5, extend=2)
    events, result = events_of(mask_create.run(options))
    mask = read_map(result.mask)
    assert result.mask == tmp_path / "m" / "mask.mrc"
    assert mask.pixel_size == 2.5
    line = mask.data[16, 16, 16:]
    # 9.5 px of density above one half, less than 2 px more, and an edge of 3 px
    np.testing.assert_allclose(line[:14], [1] * 11 + [0.75, 0.25, 0], atol=1e-6)
    assert result.fraction == pytest.approx((mask.data > 0.5).mean())
    assert Product("mask", result.mask, "mask") in events
    assert not warnings_of(events)


def test_inverted_mask_is_one_minus_the_mask(ball, tmp_path):
    one = finish(mask_create.run(mask_create.Options(input=ball, output=tmp_path / "a")))
    other = finish(mask_create.run(mask_create.Options(input=ball, output=tmp_path / "b", invert=True)))
    np.testing.assert_allclose(read_map(one.mask).data + read_map(other.mask).data, 1.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threshold": 2.0}, r"is empty: no voxel reaches 2, the highest is 1\.\d+ after filtering"),
        ({"threshold": 0.5, "extend": -20}, "shrinks it to nothing"),
        ({"extend": 12}, "reaches the edge of the box"),
    ],
)
def test_a_mask_of_no_use_is_warned_of(ball, tmp_path, changes, sentence):
    settings = {"lowpass": 10.0, "threshold": 0.3} | changes
    events, _ = events_of(mask_create.run(mask_create.Options(input=ball, output=tmp_path / "m", **settings)))
    assert len(warnings_of(events)) == 1
    assert re.search(sentence, warnings_of(events)[0])


def test_given_pixel_size_decides_the_filter_and_the_header(ball, tmp_path):
    kwargs = {"input": ball, "threshold": 0.3, "lowpass": 20.0}
    one = finish(mask_create.run(mask_create.Options(output=tmp_path / "a", pixel_size=5.0, **kwargs)))
    header = finish(mask_create.run(mask_create.Options(output=tmp_path / "b", pixel_size=-1, **kwargs)))
    assert read_map(one.mask).pixel_size == 5.0
    assert read_map(header.mask).pixel_size == 2.5
    assert not np.array_equal(read_map(one.mask).data, read_map(header.mask).data)


@pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")
def test_bad_input_is_refused_and_leaves_no_folder(ball, tmp_path):
    write_map(tmp_path / "flat.mrc", np.zeros((8, 8, 10)), 1.0)
    holed = np.ones((8, 8, 8), dtype=np.float32)
    holed[0, 0, 0] = np.nan
    write_map(tmp_path / "nan.mrc", holed, 1.0)
    (tmp_path / "short.mrc").write_bytes(ball.read_bytes()[:5000])
    (tmp_path / "note.mrc").write_text("not a map")
    for name, sentence in {
        "missing.mrc": "does not exist",
        "flat.mrc": "10 x 8 x 8 px; a map has to be a cube",
        "nan.mrc": "NaN",
        "short.mrc": "truncated",
        "note.mrc": "not an MRC file",
    }.items():
        options = mask_create.Options(input=tmp_path / name, output=tmp_path / "out")
        with pytest.raises(UserError, match=sentence) as error:
            finish(mask_create.run(options))
        assert name in str(error.value)
        assert not (tmp_path / "out").exists()


def test_relion_makes_the_same_mask_of_real_density(relion, betagal, tmp_path):
    source = betagal / "relion5_refine3d" / "run_class001.mrc"
    words = [
        "--lowpass",
        "17.3",
        "--ini_threshold",
        "0.0173",
        "--extend_inimask",
        "-1",
        "--width_soft_edge",
        "7",
    ]
    command = [relion("mask_create"), "--i", str(source), "--o", "theirs.mrc", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    options = mask_create.Options(
        input=source, output=tmp_path / "m", lowpass=17.3, threshold=0.0173, extend=-1, soft_edge=7
    )
    ours = read_map(finish(mask_create.run(options)).mask)
    theirs = read_map(tmp_path / "theirs.mrc")
    assert 0.02 < ours.data.mean() < 0.5
    np.testing.assert_allclose(ours.data, theirs.data, atol=1e-5)
    assert ours.pixel_size == theirs.pixel_size
