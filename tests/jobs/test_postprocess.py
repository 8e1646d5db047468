"""PostProcess as a job: its files, what RELION makes of them, its warnings, and what it refuses."""

import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.star import read_star
from cryorefine.jobs import postprocess
from cryorefine.jobs.base import Curve, Notice, Product, finish
from cryorefine.maps import filters, fsc, sharpen
from cryorefine.maps.masks import soft_sphere
from cryorefine.maps.shells import radius_table

SIZE, PIXEL = 32, 2.0
PARTICLE = 9


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


def write_halves(folder, rng, signal=30.0, decay=4.5, noise=1.0):
    """Two half maps of a smooth particle with noise of their own."""
    gain = np.exp(-((radius_table(SIZE) / decay) ** 2))
    structure = rng.standard_normal((SIZE,) * 3) * soft_sphere((SIZE,) * 3, PARTICLE - 3, 3)
    structure = signal * filters.apply_filter(structure, gain)
    for half in (1, 2):
        volume = structure + noise * rng.standard_normal(structure.shape)
        write_map(folder / f"run_half{half}_class001_unfil.mrc", volume.astype(np.float32), PIXEL)
    return folder / "run_half1_class001_unfil.mrc"


@pytest.fixture
def half_map(tmp_path, rng):
    return write_halves(tmp_path, rng)


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "mask.mrc"
    write_map(path, soft_sphere((SIZE,) * 3, PARTICLE, 4), PIXEL)
    return path


@pytest.fixture
def settings(half_map, mask, tmp_path):
    """Options that work; a test changes what it is about."""
    return {"half_map": half_map, "mask": mask, "output": tmp_path / "out", "autob_lowest_resolution": 20.0}


def test_all_files_are_there_and_agree(settings):
    events, result = events_of(postprocess.run(postprocess.Options(**settings)))
    folder = settings["output"]
    names = "postprocess.mrc postprocess_masked.mrc postprocess.star postprocess_fsc.xml postprocess_fsc.dat"
    for name in [*names.split(), "logfile.pdf"]:
        assert (folder / name).stat().st_size > 0
    assert (folder / "logfile.pdf").read_bytes().startswith(b"%PDF")
    star = read_star(result.star)
    general, table = star["general"], star["fsc"]
    assert general["rlnFinalResolution"] == pytest.approx(result.resolution)
    assert general["rlnBfactorUsedForSharpening"] == pytest.approx(result.b_factor)
    assert general["rlnBfactorUsedForSharpening"] == pytest.approx(4 * general["rlnFittedSlopeGuinierPlot"])
    corrected = table["rlnFourierShellCorrelationCorrected"].to_numpy()
    assert fsc.resolution(corrected, SIZE, PIXEL) == pytest.approx(result.resolution)
    assert table["rlnAngstromResolution"].iloc[[0, 1, 16]].tolist() == pytest.approx([999, 64, 4])
    assert table["rlnResolution"].iloc[0] == pytest.approx(1 / 999)
    columns = np.loadtxt(folder / "postprocess_fsc.dat")
    np.testing.assert_allclose(columns[:, 1], corrected, atol=1e-6)
    points = ElementTree.parse(folder / "postprocess_fsc.xml").findall("coordinate")
    np.testing.assert_allclose([float(point.findtext("y")) for point in points], corrected, atol=1e-5)
    masked = read_map(result.map).data * read_map(settings["mask"]).data
    np.testing.assert_allclose(read_map(result.masked_map).data, masked, rtol=1e-6)
    assert read_map(result.map).pixel_size == PIXEL
    curves = {event.name: event for event in events if isinstance(event, Curve)}
    assert curves["FSC"].values["corrected"] == pytest.approx(corrected)
    assert {"original", "FSC-weighted", "sharpened", "fit"} == set(curves["Guinier"].values)
    assert [event.path for event in events if isinstance(event, Product)] == [result.map, result.masked_map]
    assert not warnings_of(events)


@pytest.mark.parametrize("phases", ["averaged", "drawn"])
def test_large_maps_come_out_the_same_without_their_transforms_in_memory(
    settings, tmp_path, monkeypatch, phases
):
    settings |= {"random_phases": phases, "half_maps": True}
    kept = finish(postprocess.run(postprocess.Options(**settings)))
    monkeypatch.setattr(postprocess, "_LARGEST_KEPT", SIZE - 1)
    settings["output"] = tmp_path / "large"
    large = finish(postprocess.run(postprocess.Options(**settings)))
    assert kept.b_factor == large.b_factor
    for path in kept.output.glob("postprocess*.mrc"):
        np.testing.assert_array_equal(read_map(path).data, read_map(large.output / path.name).data)


def test_either_half_may_be_given_and_half1_is_named_first(settings, half_map):
    other = half_map.with_name("run_half2_class001_unfil.mrc")
    results = []
    for number, path in enumerate((half_map, other)):
        folder = settings["output"] / str(number)
        results.append(
            finish(postprocess.run(postprocess.Options(**{**settings, "half_map": path, "output": folder})))
        )
        general = read_star(results[-1].star)["general"]
        assert general["rlnUnfilteredMapHalf1"] == str(half_map)
        assert general["rlnUnfilteredMapHalf2"] == str(other)
    assert (read_map(results[0].map).data == read_map(results[1].map).data).all()


def test_sharpening_by_hand_is_the_bfactor_times_the_weights(settings, half_map):
    result = finish(postprocess.run(postprocess.Options(**settings, bfactor=-40.0)))
    assert result.b_factor == -40.0
    curve = read_star(result.star)["fsc"]["rlnFourierShellCorrelationCorrected"].to_numpy()
    halves = [read_map(half_map.with_name(f"run_half{i}_class001_unfil.mrc")).data for i in (1, 2)]
    gain = sharpen.shell_gain(sharpen.fsc_weights(curve), SIZE)
    gain = gain * filters.bfactor_gain(radius_table(SIZE), SIZE, PIXEL, -40.0)
    expected = filters.apply_filter((halves[0] + halves[1]) / 2, gain)
    np.testing.assert_allclose(read_map(result.map).data, expected, atol=1e-4)
    assert "rlnFittedSlopeGuinierPlot" not in read_star(result.star)["general"]


def test_lowpass_takes_the_place_of_the_weights(settings, half_map):
    options = postprocess.Options(**settings, bfactor=-20.0, skip_fsc_weighting=True, lowpass=9.0)
    result = finish(postprocess.run(options))
    halves = [read_map(half_map.with_name(f"run_half{i}_class001_unfil.mrc")).data for i in (1, 2)]
    expected = filters.apply_bfactor((halves[0] + halves[1]) / 2, PIXEL, -20.0)
    expected = filters.lowpass(expected, PIXEL, 9.0)
    np.testing.assert_allclose(read_map(result.map).data, expected, atol=1e-5)
    assert "rlnLogAmplitudesWeighted" not in read_star(result.star)["guinier"]


def test_without_a_mask_the_plain_fsc_counts(settings):
    events, result = events_of(postprocess.run(postprocess.Options(**{**settings, "mask": None})))
    assert result.masked_map is None
    assert not (settings["output"] / "postprocess_masked.mrc").exists()
    star = read_star(result.star)
    assert "rlnMaskName" not in star["general"]
    assert "rlnFourierShellCorrelationCorrected" not in star["fsc"]
    unmasked = star["fsc"]["rlnFourierShellCorrelationUnmaskedMaps"].to_numpy()
    assert fsc.resolution(unmasked, SIZE, PIXEL) == pytest.approx(result.resolution)
    assert [set(event.values) for event in events if isinstance(event, Curve) and event.name == "FSC"] == [
        {"unmasked"}
    ]


def test_the_seed_moves_only_phases_that_are_drawn(settings, tmp_path):
    files = {}
    for phases in ("averaged", "drawn"):
        for name, seed, threads in (("a", 5, 1), ("b", 5, 3), ("c", 6, 1)):
            folder = tmp_path / (name + phases)
            changes = {"output": folder, "random_seed": seed, "threads": threads, "random_phases": phases}
            finish(postprocess.run(postprocess.Options(**{**settings, **changes})))
            text = (folder / "postprocess.star").read_text().replace(f"/{folder.name}/", "/")
            files[name, phases] = text
    assert files["a", "averaged"] == files["b", "averaged"] == files["c", "averaged"]
    assert files["a", "drawn"] == files["b", "drawn"]
    assert files["a", "drawn"] != files["c", "drawn"]


def small_mask(folder):
    """A sharp mask of a corner without particle."""
    volume = np.zeros((SIZE,) * 3, dtype=np.float32)
    volume[1:5, 1:5, 1:5] = 1
    write_map(folder / "corner.mrc", volume, PIXEL)
    return folder / "corner.mrc"


def test_a_mask_that_makes_it_worse_is_not_used(settings, tmp_path):
    corner = small_mask(tmp_path)
    events, result = events_of(postprocess.run(postprocess.Options(**{**settings, "mask": corner})))
    assert any("better than with" in text and str(corner) in text for text in warnings_of(events))
    table = read_star(result.star)["fsc"]
    unmasked = table["rlnFourierShellCorrelationUnmaskedMaps"].to_numpy()
    assert fsc.resolution(unmasked, SIZE, PIXEL) == pytest.approx(result.resolution)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bfactor": 40.0}, "positive, so it dampens"),
        ({"auto_bfactor": False}, "not sharpened"),
        ({"lowpass": 7.0}, "--lowpass of 7 A is not applied"),
    ],
)
def test_doubtful_settings_are_warned_of(settings, changes, sentence):
    events, _ = events_of(postprocess.run(postprocess.Options(**{**settings, **changes})))
    assert any(sentence in text for text in warnings_of(events))


def test_a_bfactor_of_zero_that_is_asked_for_is_not_warned_of(settings):
    events, result = events_of(postprocess.run(postprocess.Options(**{**settings, "bfactor": 0.0})))
    assert result.b_factor == 0
    assert not any("sharpened" in text for text in warnings_of(events))


@pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")
def test_bad_input_is_refused_in_one_sentence_and_leaves_no_folder(settings, tmp_path, half_map):
    data = read_map(half_map).data
    write_map(tmp_path / "other.mrc", data, PIXEL)
    write_map(tmp_path / "alone_half1.mrc", data, PIXEL)
    write_map(tmp_path / "same_half1.mrc", data, PIXEL)
    write_map(tmp_path / "same_half2.mrc", data, PIXEL)
    write_map(tmp_path / "box_half1.mrc", data, PIXEL)
    write_map(tmp_path / "box_half2.mrc", data[4:-4, 4:-4, 4:-4], PIXEL)
    write_map(tmp_path / "flat_half1.mrc", data[4:], PIXEL)
    write_map(tmp_path / "flat_half2.mrc", data[4:], PIXEL)
    holed = data.copy()
    holed[3, 3, 3] = np.nan
    write_map(tmp_path / "nan_half1.mrc", holed, PIXEL)
    write_map(tmp_path / "nan_half2.mrc", data, PIXEL)
    (tmp_path / "short_half1.mrc").write_bytes(half_map.read_bytes()[:9000])
    write_map(tmp_path / "short_half2.mrc", data, PIXEL)
    for half in (1, 2):
        write_map(tmp_path / f"empty_half{half}.mrc", np.zeros_like(data), PIXEL)
    write_map(tmp_path / "loud_mask.mrc", np.full_like(data, 1.01), PIXEL)
    write_map(tmp_path / "small_mask.mrc", np.ones((16, 16, 16)), PIXEL)
    write_map(tmp_path / "zero_mask.mrc", np.zeros_like(data), PIXEL)
    (tmp_path / "mtf.star").write_text("data_\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 1\n0.5 0\n")
    cases = [
        ({"half_map": "none_half1.mrc"}, "none_half1.mrc does not exist"),
        ({"half_map": "other.mrc"}, "neither half1 nor half2"),
        ({"half_map": "alone_half1.mrc"}, "alone_half2.mrc does not exist"),
        ({"half_map": "same_half2.mrc"}, "copies of each other: their FSC never drops below 1"),
        ({"half_map": "box_half1.mrc"}, "32 px but .*box_half2.mrc one of 24 px"),
        ({"half_map": "flat_half1.mrc"}, "32 x 32 x 28 px; a map has to be a cube"),
        ({"half_map": "nan_half2.mrc"}, "nan_half1.mrc holds NaN"),
        ({"half_map": "short_half2.mrc"}, "short_half1.mrc is truncated"),
        ({"half_map": "empty_half1.mrc"}, "empty_half1.mrc is empty: every voxel is 0"),
        ({"mask": "loud_mask.mrc"}, "values from 1.01 to 1.01; a mask lies between 0 and 1"),
        ({"mask": "small_mask.mrc"}, "small_mask.mrc is 16 x 16 x 16 px but .* is 32 x 32 x 32 px"),
        ({"mask": "zero_mask.mrc"}, "zero everywhere"),
        ({"mask": "none.mrc"}, "none.mrc does not exist"),
        ({"mtf": "mtf.star"}, "mtf.star falls to 0"),
        ({"autob_lowest_resolution": 4.1}, "No B-factor can be fitted"),
    ]
    for changes, sentence in cases:
        changes = {
            key: tmp_path / name if key != "autob_lowest_resolution" else name
            for key, name in changes.items()
        }
        with pytest.raises(UserError) as error:
            finish(postprocess.run(postprocess.Options(**{**settings, **changes})))
        assert re.search(sentence, str(error.value)), (sentence, str(error.value))
        assert "\n" not in str(error.value)
        assert not settings["output"].exists(), changes


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(settings, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(UserError, match="locked"):
        finish(postprocess.run(postprocess.Options(**{**settings, "output": locked / "out"})))


def run_relion(program, words, cwd):
    """Run RELION's post-processing and return the tables it wrote.

    Its exit code says nothing: 3.1 stumbles over its plots after everything else is written.
    """
    subprocess.run([program, *words, "--o", "theirs"], cwd=cwd, check=False, capture_output=True)
    return read_star(cwd / "theirs.star"), read_map(cwd / "theirs.mrc").data


def test_relion_measures_the_same(relion, betagal, tmp_path):
    folder = betagal / "relion5_refine3d"
    half, mask = folder / "run_half1_class001_unfil.mrc", folder / "mask.mrc"
    words = ["--i", str(half), "--mask", str(mask), "--angpix", "3.6", "--autob_lowres", "14", "--auto_bfac"]
    words += ["--molweight", "465", "--mtf", str(betagal / "mtf_k2_200kV.star"), "--mtf_angpix", "0.9"]
    star, volume = run_relion(relion("postprocess"), words, tmp_path)
    options = postprocess.Options(
        half_map=half,
        mask=mask,
        output=tmp_path / "out",
        pixel_size=3.6,
        mtf=betagal / "mtf_k2_200kV.star",
        mtf_pixel_size=0.9,
        autob_lowest_resolution=14.0,
        bfactor_method="relion",
        molecular_weight=465.0,
    )
    result = finish(postprocess.run(options))
    ours = read_star(result.star)
    general = star["general"]
    assert result.resolution == pytest.approx(general["rlnFinalResolution"], abs=1e-5)
    for name in ("UnmaskedMaps", "MaskedMaps", "ParticleMaskFraction"):
        label = "rlnFourierShellCorrelation" + name
        np.testing.assert_allclose(ours["fsc"][label], star["fsc"][label], atol=1e-4)
    for name in ("Original", "MTFCorrected"):
        label = "rlnLogAmplitudes" + name
        np.testing.assert_allclose(ours["guinier"][label], star["guinier"][label], atol=1e-4)
    assert result.b_factor == pytest.approx(general["rlnBfactorUsedForSharpening"], rel=0.1)
    assert np.corrcoef(read_map(result.map).data.ravel(), volume.ravel())[0, 1] > 0.999
    assert list(ours["fsc"]) == list(star["fsc"])
    assert list(ours["guinier"]) == list(star["guinier"])
    # RELION 5 writes the names of the maps as well.
    assert set(general) <= set(ours["general"])


def test_relion_measures_the_same_without_a_mask(relion, betagal, tmp_path):
    half = betagal / "relion5_refine3d" / "run_half1_class001_unfil.mrc"
    words = ["--i", str(half), "--angpix", "3.54", "--auto_bfac", "--autob_lowres", "15"]
    star, volume = run_relion(relion("postprocess"), words, tmp_path)
    options = postprocess.Options(
        half_map=half, output=tmp_path / "out", autob_lowest_resolution=15.0, bfactor_method="relion"
    )
    result = finish(postprocess.run(options))
    general = star["general"]
    assert result.resolution == pytest.approx(general["rlnFinalResolution"], abs=1e-5)
    assert result.b_factor == pytest.approx(general["rlnBfactorUsedForSharpening"], rel=1e-3)
    np.testing.assert_allclose(read_map(result.map).data, volume, atol=1e-4 * np.abs(volume).max())


def test_relion_goes_on_from_our_files(relion, settings, tmp_path):
    """RELION's post-processing reads our half maps and mask, its table printer our STAR file."""
    result = finish(postprocess.run(postprocess.Options(**settings)))
    words = ["--i", str(settings["half_map"]), "--mask", str(settings["mask"])]
    star, _ = run_relion(relion("postprocess"), words, tmp_path)
    ours = read_star(result.star)["fsc"]["rlnFourierShellCorrelationMaskedMaps"]
    np.testing.assert_allclose(ours, star["fsc"]["rlnFourierShellCorrelationMaskedMaps"], atol=1e-4)
    labels = ["rlnAngstromResolution", "rlnFourierShellCorrelationCorrected"]
    command = [relion("star_printtable"), str(result.star), "data_fsc", *labels]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    table = np.array([line.split() for line in printed.splitlines() if line.strip()], dtype=float)
    np.testing.assert_allclose(table, read_star(result.star)["fsc"][labels], rtol=1e-5, atol=1e-6)
