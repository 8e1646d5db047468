"""Image handler: order of the operations, headers, stacks, and RELION's result of the same command."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map, write_map, write_stack
from cryorefine.io.particles import read_particles
from cryorefine.jobs import image_handler
from cryorefine.jobs.base import Curve, Notice, finish
from cryorefine.maps import filters, fourier, fsc


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
        ({"output": "o.mrcs"}, "gives a map but .*o.mrcs is named as a stack"),
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


OTHER = "relion5_refine3d/run_class001.mrc"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"divide_constant": 2.5}, ["--divide_constant", "2.5"]),
        ({"subtract_constant": 0.1}, ["--subtract_constant", "0.1"]),
        ({"multiply": OTHER}, ["--multiply", OTHER]),
        ({"divide": OTHER}, ["--divide", OTHER]),
        ({"add": OTHER}, ["--add", OTHER]),
        ({"subtract": OTHER}, ["--subtract", OTHER]),
        (
            {"subtract": OTHER, "optimise_scale_subtract": True},
            ["--subtract", OTHER, "--optimise_scale_subtract"],
        ),
        (
            {"subtract": OTHER, "optimise_bfactor_subtract": 60.0},
            ["--subtract", OTHER, "--optimise_scale_subtract", "--optimise_bfactor_subtract", "60"],
        ),
        ({"adjust_power": OTHER}, ["--adjust_power", OTHER]),
        ({"log_diameter": 60.0}, ["--LoG", "60"]),
        (
            {"lowpass": 12.0, "filter_edge_width": 5, "directional": "Y"},
            ["--lowpass", "12", "--filter_edge_width", "5", "--directional", "Y"],
        ),
        ({"flip_x": True}, ["--flipX"]),
        ({"flip_y": True}, ["--flipY"]),
        ({"flip_z": True}, ["--flipZ"]),
        (
            {"shift_x": 1.3, "shift_y": -2.0, "shift_z": 0.5},
            ["--shift_x=1.3", "--shift_y=-2", "--shift_z=0.5"],
        ),
        ({"shift_com": True}, ["--shift_com"]),
        ({"sym": "C3"}, ["--sym", "C3"]),
        ({"sym": "O"}, ["--sym", "O"]),
        (
            {"threshold_above": 0.05, "threshold_below": -0.01},
            ["--threshold_above", "0.05", "--threshold_below", "-0.01"],
        ),
        ({"force_header_pixel_size": 2.2}, ["--force_header_angpix", "2.2"]),
        (
            {"bfactor": 50.0, "rescale_pixel_size": 5.0, "new_box": 60, "sym": "C2", "threshold_below": 0.0},
            "--bfactor 50 --rescale_angpix 5 --new_box 60 --sym C2 --threshold_below 0".split(),
        ),
    ],
)
def test_relion_does_the_same_with_maps(relion, betagal, tmp_path, ours, theirs):
    source = betagal / "reference_5a1a_64_3.54A.mrc"
    ours = {key: betagal / value if value == OTHER else value for key, value in ours.items()}
    theirs = [str(betagal / word) if word == OTHER else word for word in theirs]
    theirs = [part for word in theirs for part in (word.split("=") if word.startswith("--shift") else [word])]
    command = [relion("image_handler"), "--i", str(source), "--o", "theirs.mrc", "--angpix", "3.54", *theirs]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    result = read_map(handle(source, tmp_path / "ours.mrc", pixel_size=3.54, **ours).output)
    expected = read_map(tmp_path / "theirs.mrc")
    assert result.pixel_size == pytest.approx(expected.pixel_size, rel=1e-6)
    scale = np.abs(expected.data).max()
    np.testing.assert_allclose(result.data, expected.data, atol=2e-6 * scale)


def test_random_phases_keep_the_spectrum_and_the_coarse_part(noise, tmp_path):
    result = read_map(handle(noise, tmp_path / "o.mrc", phase_randomise=12.0).output).data
    before, after = fourier.forward(read_map(noise).data), fourier.forward(result)
    curve = fsc.fourier_shell_correlation(read_map(noise).data, result)
    assert curve[: int(32 * 3 / 12) - 1].min() > 0.99
    assert abs(curve[10:].mean()) < 0.1
    np.testing.assert_allclose(np.abs(before).sum(), np.abs(after).sum(), rtol=1e-4)


def test_flip_after_filter_keeps_the_filter(noise, tmp_path):
    """RELION loses it."""
    result = read_map(handle(noise, tmp_path / "o.mrc", lowpass=12.0, flip_y=True).output).data
    expected = filters.lowpass(read_map(noise).data, 3.0, 12.0)[:, ::-1]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_what_is_measured_is_told_and_nothing_written(
    relion, betagal, tmp_path, tmp_path_factory, monkeypatch
):
    # RELION leaves an empty file named .spi where it runs.
    elsewhere = tmp_path_factory.mktemp("relion")
    monkeypatch.chdir(tmp_path)
    source = betagal / OTHER
    settings = {"stats": True, "com": True, "fsc": betagal / "reference_5a1a_64_3.54A.mrc", "power": True}
    options = image_handler.Options(input=source, guinier=True, **settings)
    events = list(image_handler.run(options))
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    command = [relion("image_handler"), "--i", str(source)]
    for flag, label in (("--stats", "stddev="), ("--com", " x ")):
        output = subprocess.run(
            [*command, flag], cwd=elsewhere, capture_output=True, text=True, check=True
        ).stdout
        value = float(output.split(label)[1].split()[0])
        number = "standard deviation " if flag == "--stats" else "mass lies at x "
        assert float(said.split(number)[1].split(",")[0].split()[0]) == pytest.approx(value, rel=1e-3)
    curves = {event.name: event for event in events if isinstance(event, Curve)}
    for flag, name in ((["--fsc", str(settings["fsc"])], "FSC"), (["--power"], "power")):
        output = subprocess.run(
            [*command, *flag], cwd=elsewhere, capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split() for line in output.splitlines() if line.split() and line.split()[0].isdigit()]
        theirs = np.array([float(row[3]) for row in rows])
        np.testing.assert_allclose(
            next(iter(curves[name].values.values())), theirs[:33], rtol=1e-3, atol=1e-5
        )
    assert not list(tmp_path.iterdir())


def test_images_of_a_star_file_become_stacks_and_a_star_file(relion, rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_stack(tmp_path / f"{name}.mrcs", rng.standard_normal((3, 16, 16)), 2.0)
    rows = "".join(f"{n:06d}@{name}.mrcs 1 a.mrc\n" for name in "ba" for n in (1, 3))
    text = "data_optics\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnImagePixelSize #3\n"
    text += "_rlnImageSize #4\n_rlnImageDimensionality #5\n_rlnVoltage #6\n_rlnSphericalAberration #7\n"
    text += "1 one 2.0 16 2 300 2.7\n\ndata_particles\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
    (tmp_path / "p.star").write_text(text + "_rlnMicrographName #3\n" + rows)
    images = [read_map(f"{name}.mrcs").data[n] for name in "ba" for n in (0, 2)]

    one = handle(tmp_path / "p.star", tmp_path / "all.mrcs", rescale_pixel_size=4.0)
    table = read_particles(one.output)
    assert one.output == tmp_path / "all.star"
    assert table.optics["rlnImagePixelSize"].tolist() == [4.0]
    assert table.optics["rlnImageSize"].tolist() == [8]
    expected = np.stack([fourier.rescale(image, 8) for image in images])
    np.testing.assert_allclose(ImageReader(".").read(table.particles["rlnImageName"]), expected, atol=1e-6)

    marked = handle(tmp_path / "p.star", Path("small"), rescale_pixel_size=4.0)
    table = read_particles(marked.output)
    assert [str(name).split("@")[1] for name in table.particles["rlnImageName"]] == (
        ["b_small.mrcs"] * 2 + ["a_small.mrcs"] * 2
    )
    np.testing.assert_allclose(ImageReader(".").read(table.particles["rlnImageName"]), expected, atol=1e-6)

    command = [relion("image_handler"), "--i", "p.star", "--o", "theirs.mrcs", "--rescale_angpix", "4"]
    subprocess.run([*command, "--angpix", "2"], check=True, capture_output=True)
    np.testing.assert_allclose(ImageReader(".").read_stack("theirs.mrcs"), expected, atol=1e-5)


def test_a_stack_may_be_averaged_and_mended(rng, tmp_path):
    stack = rng.standard_normal((3, 8, 8)).astype(np.float32)
    write_stack(tmp_path / "s.mrcs", stack, 2.0)
    mean = read_map(handle(tmp_path / "s.mrcs", tmp_path / "m.mrc", average=True).output).data[0]
    np.testing.assert_allclose(mean, stack.mean(axis=0), atol=1e-6)
    small = handle(tmp_path / "s.mrcs", tmp_path / "h.mrcs", flip_xy=True, half_precision=True).output
    assert small.stat().st_size == 1024 + stack.size * 2
    np.testing.assert_allclose(read_map(small).data, stack.transpose(0, 2, 1), rtol=1e-3)
    raw = (tmp_path / "s.mrcs").read_bytes()
    (tmp_path / "nan.mrcs").write_bytes(raw[:1024] + np.float32(np.nan).tobytes() + raw[1028:])
    mended = handle(tmp_path / "nan.mrcs", tmp_path / "n.mrcs", remove_nan=True, replace_nan=7.0)
    assert read_map(mended.output).data[0, 0, 0] == 7


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"output": None}, "nothing to do"),
        ({"sym": "Q7"}, "Symmetry 'Q7' is not one of Cn, Dn"),
        ({"flip_xy": True}, "--flip-xy needs images"),
        ({"add": "small.mrc"}, "8 x 8 x 8 px but the input is 32 x 32 x 32 px"),
    ],
)
def test_what_does_not_fit_is_refused(noise, tmp_path, settings, sentence):
    write_map(tmp_path / "small.mrc", np.ones((8, 8, 8)), 1.0)
    settings = {key: tmp_path / v if str(v).endswith(".mrc") else v for key, v in settings.items()}
    with pytest.raises(UserError, match=sentence):
        handle(noise, settings.pop("output", tmp_path / "o.mrc"), **settings)
