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


@pytest.mark.parametrize("combination", ["and", "or", "and_not", "or_not"])
def test_relion_combines_two_maps_in_the_same_way(relion, betagal, tmp_path, combination):
    first = betagal / "reference_5a1a_64_3.54A.mrc"
    second = betagal / "relion5_refine3d" / "run_class001.mrc"
    words = ["--lowpass", "20", "--ini_threshold", "0.015", "--extend_inimask", "1", "--width_soft_edge", "5"]
    command = [relion("mask_create"), "--i", str(first), f"--{combination}", str(second), *words, "--invert"]
    subprocess.run([*command, "--o", "theirs.mrc"], cwd=tmp_path, check=True, capture_output=True)
    options = mask_create.Options(
        input=first,
        second_map=second,
        combination=combination.replace("_", "-"),
        output=tmp_path / "m",
        lowpass=20.0,
        threshold=0.015,
        extend=1,
        soft_edge=5,
        invert=True,
    )
    ours = read_map(finish(mask_create.run(options)).mask).data
    assert ours.std() > 0.005
    np.testing.assert_allclose(ours, read_map(tmp_path / "theirs.mrc").data, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["--helix", "--z_percentage", "0.37"], {"helix": True, "helix_length": 37.0, "extend": 3.0}),
        (["--helix", "--extend_inimask", "-2"], {"helix": True, "extend": -2.0}),
        (["--extend_inimask", "2.6"], {"extend": 2.6}),
    ],
)
def test_relion_makes_the_same_helix_and_fractional_extension(relion, betagal, tmp_path, theirs, ours):
    source = betagal / "relion5_refine3d" / "run_class001.mrc"
    if "extend" in ours and "--extend_inimask" not in theirs:
        theirs = [*theirs, "--extend_inimask", "3"]
    words = ["--ini_threshold", "0.0213", "--width_soft_edge", "4", *theirs]
    command = [relion("mask_create"), "--i", str(source), "--o", "theirs.mrc", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    options = mask_create.Options(
        input=source, output=tmp_path / "m", lowpass=-1, threshold=0.0213, soft_edge=4, **ours
    )
    made = read_map(finish(mask_create.run(options)).mask).data
    np.testing.assert_allclose(made, read_map(tmp_path / "theirs.mrc").data, atol=1e-5)


def test_relion_draws_the_same_shell(relion, tmp_path):
    words = ["--denovo", "--box_size", "42", "--inner_radius", "5", "--outer_radius", "12.5"]
    words += ["--center_x", "3", "--center_y", "-2", "--center_z", "1", "--width_soft_edge", "4"]
    command = [relion("mask_create"), *words, "--o", "theirs.mrc", "--angpix", "1.5"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    options = mask_create.Options(
        output=tmp_path / "m",
        new_box=42,
        inner_radius=5,
        outer_radius=12.5,
        centre_x=3,
        centre_y=-2,
        centre_z=1,
        soft_edge=4,
        pixel_size=1.5,
    )
    ours = read_map(finish(mask_create.run(options)).mask)
    np.testing.assert_allclose(ours.data, read_map(tmp_path / "theirs.mrc").data, atol=1e-5)
    assert ours.pixel_size == 1.5


def test_a_map_made_by_slabs_gives_the_same_file(betagal, tmp_path):
    source = betagal / "relion5_refine3d" / "run_class001.mrc"
    kwargs = {"input": source, "lowpass": 16.0, "threshold": 0.0173, "extend": 2.5, "soft_edge": 5}
    whole = finish(mask_create.run(mask_create.Options(output=tmp_path / "a", **kwargs)))
    slabs = finish(mask_create.run(mask_create.Options(output=tmp_path / "b", slab=5, **kwargs)))
    np.testing.assert_array_equal(read_map(whole.mask).data, read_map(slabs.mask).data)
    assert whole.volume == slabs.volume
    assert whole.fraction == slabs.fraction


def test_the_map_may_choose_the_threshold_and_islands_go(tmp_path, rng):
    particle = soft_sphere((40, 40, 40), 9, 2)
    particle[2:5, 2:5, 2:5] = 1
    write_map(tmp_path / "p.mrc", particle + 0.1 * rng.standard_normal(particle.shape), 2.0)
    settings = {"input": tmp_path / "p.mrc", "lowpass": 8.0, "extend": 0, "keep_largest": 1}
    options = mask_create.Options(output=tmp_path / "a", threshold_from="solvent", **settings)
    events, solvent = events_of(mask_create.run(options))
    said = [event.message for event in events if isinstance(event, Notice) and not event.warning]
    assert any("standard deviations of the solvent" in text for text in said)
    assert read_map(solvent.mask).data[3, 3, 3] == 0
    assert read_map(solvent.mask).data[20, 20, 20] == 1
    options = mask_create.Options(output=tmp_path / "b", threshold_from="mass", mass=20.0, **settings)
    mass = finish(mask_create.run(options))
    core = read_map(mass.mask).data == 1
    # 20 kDa, less the specks of noise and the island that were removed
    assert core.sum() * 8 * 0.81 / 1000 == pytest.approx(20, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "either from a map or as a sphere"),
        ({"new_box": 20, "outer_radius": 5.0}, "give --pixel-size"),
        ({"new_box": 20, "outer_radius": 5.0, "inner_radius": 6.0}, "give a larger outer radius"),
        ({"input": "ball.mrc", "threshold_from": "mass"}, "give --mass in kDa"),
        ({"input": "ball.mrc", "threshold_from": "mass", "mass": 1e9}, "--mass does not fit"),
        ({"input": "ball.mrc", "second_map": "small.mrc"}, "give a second map in the same box"),
    ],
)
def test_options_that_do_not_go_together_are_refused(ball, tmp_path, settings, sentence):
    write_map(tmp_path / "small.mrc", np.ones((8, 8, 8)), 2.5)
    settings = {key: tmp_path / v if isinstance(v, str) and "." in v else v for key, v in settings.items()}
    with pytest.raises(UserError, match=sentence):
        finish(mask_create.run(mask_create.Options(output=tmp_path / "out", **settings)))
    assert not (tmp_path / "out").exists()
