"""Image handler: order of the operations, headers, stacks, and RELION's result of the same command."""

import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map, write_map, write_stack
from cryorefine.io.particles import read_particles
from cryorefine.jobs import image_handler, image_handler_files
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


@pytest.mark.parametrize("settings", [{"phase_randomise": 8.0}, {"lowpass": 9.0, "new_box": 12}])
def test_threads_share_the_images_of_a_stack_and_change_nothing(rng, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(image_handler_files, "BATCH", 7)
    stack = rng.standard_normal((40, 16, 16)).astype(np.float32)
    write_stack(tmp_path / "s.mrcs", stack, 2.0)
    for threads in (1, 3):
        handle(tmp_path / "s.mrcs", tmp_path / f"{threads}.mrcs", threads=threads, **settings)
    assert (tmp_path / "1.mrcs").read_bytes() == (tmp_path / "3.mrcs").read_bytes()
    assert not np.allclose(read_map(tmp_path / "1.mrcs").data[7], read_map(tmp_path / "1.mrcs").data[0])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rescale_pixel_size": 300.0}, "--rescale-pixel-size 300 is too coarse"),
        ({"output": "o.mrcs"}, "gives a map but .*o.mrcs is named as a stack"),
        ({"output": "in.mrc"}, "is the input itself"),
        ({"output": "nowhere/o.mrc"}, "the folder .*nowhere does not exist"),
        ({"input": "none.mrc"}, "none.mrc does not exist"),
        ({"input": "flat.mrc", "lowpass": 10.0}, "10 x 8 x 8 px; --lowpass needs a cubic map"),
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
        ({"add_edge": True}, "--add-edge needs images"),
        ({"avg_ampl": True, "avg_ampl2": True}, "--avg-ampl and --avg-ampl2 cannot"),
        ({"avg_first": 3, "avg_last": 2}, "--avg-first 3 comes after --avg-last 2"),
        ({"output": "o.png"}, "is to be a picture, but .* gives no image"),
        ({"average_all_movie_frames": True}, "needs a STAR file of movies"),
        ({"fourier_filter": "small.mrc"}, "8 x 8 x 8 px but the input is 32 x 32 x 32 px"),
        ({"add": "small.mrc"}, "8 x 8 x 8 px but the input is 32 x 32 x 32 px"),
    ],
)
def test_what_does_not_fit_is_refused(noise, tmp_path, settings, sentence):
    write_map(tmp_path / "small.mrc", np.ones((8, 8, 8)), 1.0)
    settings = {key: tmp_path / v if str(v).endswith((".mrc", ".png")) else v for key, v in settings.items()}
    with pytest.raises(UserError, match=sentence):
        handle(noise, settings.pop("output", tmp_path / "o.mrc"), **settings)


@pytest.fixture
def stacks(rng, tmp_path):
    """Five square and five rectangular images, and others that belong to them."""
    write_stack(tmp_path / "square.mrcs", rng.standard_normal((5, 12, 12)), 2.0)
    write_stack(tmp_path / "wide.mrcs", rng.standard_normal((5, 10, 14)) + 3, 2.0)
    write_stack(tmp_path / "high.mrcs", rng.standard_normal((5, 14, 9)), 2.0)
    amplitudes = rng.random((12, 7)) + 0.5
    for column in (0, 6):  # mates have one amplitude
        amplitudes[1:, column] += amplitudes[:0:-1, column].copy()
    write_map(tmp_path / "amplitudes.mrc", amplitudes, 1.0)
    half = rng.random((12, 12)) + 0.5
    half[0] = half[:, 0] = 0  # RELION drops these components, which have no mate in the image
    half[1:, 1:] += half[:0:-1, :0:-1].copy()
    write_map(tmp_path / "filter.mrc", half, 1.0)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output", "ours", "theirs"),
    [
        (
            "square.mrcs",
            "o.mrcs",
            {"add_edge": True, "edge_x0": 2, "edge_y0": 3, "edge_xf": 8, "edge_yf": 9, "add_constant": 1.0},
            "--add_edge --edge_x0 2 --edge_y0 3 --edge_xF 8 --edge_yF 9 --add_constant 1",
        ),
        ("square.mrcs", "o.mrcs", {"flip_xy": True, "lowpass": 8.0}, "--flipXY --lowpass 8"),
        ("square.mrcs", "o.mrcs", {"flip_mxy": True}, "--flipmXY"),
        ("square.mrcs", "o.mrc", {"average": True}, "--average"),
        ("square.mrcs", "o.mrcs", {"avg_bin": 2}, "--avg_bin 2"),
        ("square.mrcs", "o.mrc", {"avg_first": 2, "avg_last": 4}, "--avg_first 2 --avg_last 4"),
        ("square.mrcs", "o.mrc", {"avg_ampl": True}, "--avg_ampl"),
        ("square.mrcs", "o.mrc", {"avg_ampl2": True}, "--avg_ampl2"),
        (
            "square.mrcs",
            "o.mrcs",
            {"correct_avg_ampl": "amplitudes.mrc"},
            "--correct_avg_ampl amplitudes.mrc",
        ),
        (
            "square.mrcs",
            "o.mrcs",
            {"correct_avg_ampl": "amplitudes.mrc", "minr_ampl_corr": 3},
            "--correct_avg_ampl amplitudes.mrc --minr_ampl_corr 3",
        ),
        ("square.mrcs", "o.mrcs", {"fourier_filter": "filter.mrc"}, "--fourier_filter filter.mrc"),
        ("wide.mrcs", "o.mrcs", {"rescale_pixel_size": 3.0}, "--rescale_angpix 3"),
        ("wide.mrcs", "o.mrcs", {"rescale_pixel_size": 1.3}, "--rescale_angpix 1.3"),
        (
            "high.mrcs",
            "o.mrcs",
            {"rescale_pixel_size": 2.7, "threshold_below": 0.0},
            "--rescale_angpix 2.7 --threshold_below 0",
        ),
        ("wide.mrcs", "o.mrcs", {"new_box": 12}, "--new_box 12"),
    ],
)
def test_relion_does_the_same_with_stacks(relion, stacks, monkeypatch, source, output, ours, theirs):
    monkeypatch.chdir(stacks)
    command = [relion("image_handler"), "--i", source, "--o", f"theirs{output[1:]}", "--angpix", "2"]
    subprocess.run([*command, *theirs.split()], check=True, capture_output=True)
    ours = {key: Path(value) if str(value).endswith(".mrc") else value for key, value in ours.items()}
    result = read_map(handle(Path(source), Path("ours" + output[1:]), **ours).output, pixel_size=1.0).data
    expected = read_map(f"theirs{output[1:]}", pixel_size=1.0).data
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=3e-6 * np.abs(expected).max())


def test_frames_are_chosen_before_they_are_added_up(stacks):
    frames = read_map(stacks / "square.mrcs").data
    done = handle(stacks / "square.mrcs", stacks / "o.mrcs", avg_bin=2, avg_first=2, avg_last=5).output
    np.testing.assert_allclose(read_map(done).data, [frames[1] + frames[2], frames[3] + frames[4]], rtol=1e-6)
    mean = handle(stacks / "square.mrcs", stacks / "o.mrc", average=True, avg_first=4).output
    np.testing.assert_allclose(read_map(mean).data[0], (frames[3] + frames[4]) / 2, rtol=1e-6)
    with pytest.raises(UserError, match="holds 5 images, of which 2 are left"):
        handle(stacks / "square.mrcs", stacks / "o.mrcs", avg_bin=3, avg_first=4)


def test_all_movies_are_averaged_as_relion_does(relion, stacks, monkeypatch):
    monkeypatch.chdir(stacks)
    text = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n"
    text += "_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n"
    text += "_rlnAmplitudeContrast #6\n1 a 2.0 300 2.7 0.1\n\n"
    text += "data_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n"
    write_stack(stacks / "more.mrcs", np.ones((5, 12, 12)), 2.0)
    (stacks / "movies.star").write_text(text + "square.mrcs 1\nmore.mrcs 1\n")
    command = [relion("image_handler"), "--i", "movies.star", "--o", "theirs.mrc"]
    subprocess.run([*command, "--average_all_movie_frames"], check=True, capture_output=True)
    done = handle(Path("movies.star"), Path("ours.mrc"), average_all_movie_frames=True)
    np.testing.assert_allclose(
        read_map(done.output).data, read_map("theirs.mrc", pixel_size=2).data, atol=1e-6
    )
    assert done.pixel_size == 2.0


def test_a_filtered_rectangle_is_a_part_of_the_filtered_square(rng, stacks):
    """Framed by its mean, a constant offset passes a low-pass and not a high-pass filter."""
    wide = read_map(stacks / "wide.mrcs").data
    smooth = read_map(handle(stacks / "wide.mrcs", stacks / "o.mrcs", lowpass=9.0).output).data
    square = np.full((14, 14), wide[2].mean(), dtype=np.float32)
    square[2:12] = wide[2]
    np.testing.assert_allclose(smooth[2], filters.lowpass(square, 2.0, 9.0)[2:12], atol=1e-5)
    rough = read_map(handle(stacks / "wide.mrcs", stacks / "p.mrcs", highpass=9.0).output).data
    np.testing.assert_allclose(smooth + rough, wide, atol=1e-5)


def test_aligned_images_are_turned_before_their_power_is_averaged(stacks, rng, monkeypatch):
    """A bar at any angle, turned by its angle, has the power of the bar that lies along x."""
    monkeypatch.chdir(stacks)
    y, x = np.mgrid[-16:16, -16:16]
    angles, bars = (0.0, 35.0, -80.0), []
    for psi in np.deg2rad(angles):
        along, across = x * np.cos(psi) - y * np.sin(psi), x * np.sin(psi) + y * np.cos(psi)
        bars.append(np.exp(-((along / 8) ** 2) - (across / 2) ** 2))
    write_stack("bars.mrcs", np.array(bars), 2.0)
    text = "data_optics\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnImagePixelSize #3\n"
    text += "_rlnImageSize #4\n_rlnImageDimensionality #5\n_rlnVoltage #6\n_rlnSphericalAberration #7\n"
    text += "1 one 2.0 32 2 300 2.7\n\ndata_particles\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
    rows = "".join(f"{n:06d}@bars.mrcs 1 {psi}\n" for n, psi in enumerate(angles, 1))
    Path("p.star").write_text(text + "_rlnAnglePsi #3\n" + rows)
    power = {}
    for name in ("avg_ampl2", "avg_ampl2_ali"):
        power[name] = read_map(handle(Path("p.star"), Path(f"{name}.mrc"), **{name: True}).output).data[0]
    alone = np.abs(fourier.forward(np.array(bars[0], dtype=np.float32))) ** 2
    np.testing.assert_allclose(power["avg_ampl2_ali"], alone, atol=0.06 * alone.max())
    assert np.abs(power["avg_ampl2"] - alone).max() > 0.15 * alone.max()


def test_images_of_a_star_file_are_averaged_and_mended(stacks, monkeypatch):
    monkeypatch.chdir(stacks)
    raw = Path("square.mrcs").read_bytes()
    Path("hole.mrcs").write_bytes(raw[:1024] + np.float32(np.nan).tobytes() + raw[1028:])
    text = "data_optics\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnImagePixelSize #3\n"
    text += "_rlnImageSize #4\n_rlnImageDimensionality #5\n_rlnVoltage #6\n_rlnSphericalAberration #7\n"
    text += "1 one 2.0 12 2 300 2.7\n\ndata_particles\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
    Path("p.star").write_text(text + "".join(f"{n:06d}@hole.mrcs 1\n" for n in (1, 2)))
    expected = read_map("square.mrcs").data[:2].copy()
    expected[0, 0, 0] = 5.0
    mended = {"remove_nan": True, "replace_nan": 5.0}
    handle(Path("p.star"), Path("all.mrcs"), **mended)
    np.testing.assert_allclose(read_map("all.mrcs").data, expected, rtol=1e-6)
    mean = handle(Path("p.star"), Path("mean.mrc"), average=True, **mended).output
    np.testing.assert_allclose(read_map(mean).data[0], expected.mean(axis=0), atol=1e-6)
    with pytest.raises(UserError, match=r"gives one image, so mean\.mrcs has to be named .mrc"):
        handle(Path("p.star"), Path("mean.mrcs"), average=True, **mended)


def test_cosine_of_the_phase_difference(noise, tmp_path):
    volume = read_map(noise).data
    write_map(tmp_path / "turned.mrc", -2 * volume, 3.0)
    for other, expected in ((noise, 1.0), (tmp_path / "turned.mrc", -1.0)):
        options = image_handler.Options(input=noise, cos_phase=other)
        (curve,) = (event for event in image_handler.run(options) if isinstance(event, Curve))
        np.testing.assert_allclose(curve.values["cosine of the phase difference"], expected, atol=1e-5)


def pixels_of(path):
    """Read a PNG without filters."""
    content = path.read_bytes()
    width, height, _, kind = struct.unpack_from(">LLBB", content, 16)
    length = struct.unpack_from(">L", content, 33)[0]
    rows = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape((height, width, 3) if kind == 2 else (height, width))


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [({}, 0, 255), ({"black": 1.0, "white": 2.0}, 0, 255), ({"sigma_contrast": 1.0}, 0, 255)],
)
def test_an_image_becomes_a_picture(tmp_path, settings, low, high):
    ramp = np.linspace(0.0, 3.0, 16 * 16).reshape(16, 16)
    write_map(tmp_path / "ramp.mrc", ramp, 1.0)
    handle(tmp_path / "ramp.mrc", tmp_path / "ramp.png", **settings)
    shown = pixels_of(tmp_path / "ramp.png").astype(int)
    assert (shown[0, 0], shown[-1, -1]) == (low, high)
    assert (np.diff(shown.ravel()) >= 0).all()
    if "black" in settings:
        assert (shown[ramp <= 1.0] == 0).all()
        assert (shown[ramp >= 2.0] == 255).all()
    if "sigma_contrast" in settings:
        assert (shown[ramp < ramp.mean() - 1.01 * ramp.std()] == 0).all()
        assert shown[ramp > ramp.mean() - 0.98 * ramp.std()].min() > 0


def test_pictures_in_colour_and_of_stacks(stacks):
    ramp = np.linspace(0.0, 1.0, 16).reshape(4, 4)
    write_map(stacks / "ramp.mrc", ramp, 1.0)
    handle(stacks / "ramp.mrc", stacks / "ice.png", colour="ice")
    shown = pixels_of(stacks / "ice.png")
    assert shown[0, 0].tolist() == [0, 0, 255]
    assert shown[1, 1].tolist() == [0, 0, 0]
    assert shown[-1, -1].tolist() == [255, 255, 255]
    handle(stacks / "square.mrcs", stacks / "s.png")
    assert sorted(path.name for path in stacks.glob("s*.png")) == [f"s_{n:06d}.png" for n in range(1, 6)]
