"""CtfRefine writes what was fitted, leaves the rest as it was, and refuses what it cannot use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from tests.jobs.ctf_refine_project import (
    BOX,
    COUNT,
    PIXEL,
    SHIFT,
    invented,
    postprocess,
    tables,
    tables_of_relion30,
    write_project,
)

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.mrc import read_map, write_map, write_stack
from cryorefine.io.particles import parse_vector, read_particles
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import ctf_refine, finish
from cryorefine.jobs.base import Figures, Notice, Product, Progress
from cryorefine.jobs.ctf_refine_images import groups_in, read_pictures
from cryorefine.jobs.ctf_refine_tables import micrograph_path
from cryorefine.jobs.folder import status

FOLDER = Path("CtfRefine/job024")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in the current folder; fits have a known outcome."""
    from cryorefine.jobs import ctf_refine_session

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ctf_refine_session, "refine_ctf", invented)
    write_project(tmp_path)
    return tmp_path


def options(**changes):
    return ctf_refine.Options(
        **{
            "particles": Path("particles.star"),
            "postprocess": Path("postprocess.star"),
            "output": FOLDER,
            "fit_defocus": "per-particle",
            "threads": 1,
        }
        | changes
    )


def attempt(**changes):
    """Run a job; return its result and its events."""
    running = ctf_refine.run(options(**changes))
    events = []
    while True:
        try:
            events.append(next(running))
        except StopIteration as stop:
            return stop.value, events


def refused(*words, **changes):
    with pytest.raises(UserError) as error:
        attempt(**changes)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence
    assert not FOLDER.exists()


def test_fitted_values_are_written_exactly_and_nothing_else_is_touched(project):
    before = read_particles("particles.star").particles
    result, _ = attempt()
    after = read_particles(result.particles).particles
    change = np.full(COUNT, SHIFT)
    change[-1] *= 10
    np.testing.assert_array_equal(after["rlnDefocusU"], before["rlnDefocusU"] + change)
    np.testing.assert_array_equal(after["rlnDefocusV"], before["rlnDefocusV"] + change)
    np.testing.assert_allclose(after["cryorefineDefocusChange"], change, rtol=1e-9)
    np.testing.assert_array_equal(after["cryorefineDefocusUncertainty"], np.linspace(10, 20, COUNT))
    same = [label for label in before if label not in ("rlnDefocusU", "rlnDefocusV")]
    assert after[same].equals(before[same])
    assert "rlnPhaseShift" not in after
    assert "rlnCtfBfactor" not in after
    assert "rlnBeamTiltX" not in read_particles(result.particles).optics
    assert result.defocus_change == pytest.approx(np.sqrt(np.mean(change**2)))


def test_a_fit_of_the_optics_leaves_the_particles_alone(project):
    result, events = attempt(fit_defocus="no", fit_beamtilt=True)
    file = read_particles(result.particles)
    assert file.particles.equals(read_particles("particles.star").particles)
    assert file.optics["rlnBeamTiltX"].tolist() == [1.2]
    assert file.optics["cryorefineBeamTiltYUncertainty"].tolist() == [0.04]
    assert "rlnOddZernike" not in file.optics
    assert (FOLDER / "beamtilt_0.txt").read_text().splitlines()[1:3] == [
        "beamtilt_x = 1.2",
        "beamtilt_y = -0.7",
    ]
    figures = next(event for event in events if isinstance(event, Figures))
    assert figures.values["beam tilt x of g1 (mrad)"] == "1.200 ± 0.030"


def test_every_optics_group_has_its_own_values(project):
    write_star("particles.star", tables(groups=2))
    result, _ = attempt(
        fit_beamtilt=True, fit_trefoil=True, fit_fourth_order=True, fit_anisotropic_magnification=True
    )
    optics = read_particles(result.particles).optics
    assert optics["rlnBeamTiltX"].tolist() == [1.2, 2.2]
    np.testing.assert_array_equal(parse_vector(optics["rlnOddZernike"][1]), np.arange(6) / 3)
    np.testing.assert_array_equal(parse_vector(optics["rlnEvenZernike"][0]), np.arange(9) / 7)
    np.testing.assert_array_equal(parse_vector(optics["cryorefineEvenZernikeUncertainty"][0]), [0.2] * 9)
    assert optics["rlnMagMat10"].tolist() == [0.003, 0.003]
    assert (FOLDER / "beamtilt_1.txt").is_file()
    pictures = [picture for group in groups_in(FOLDER) for picture in read_pictures(FOLDER, group)]
    titles = [(picture.title, picture.group) for picture in pictures]
    kinds = ["odd aberrations", "even aberrations", "magnification along x", "magnification along y"]
    assert titles == [(kind, group) for group in (1, 2) for kind in kinds]


def test_a_table_of_relion_30_keeps_its_style_and_has_the_tilt_in_every_row(project):
    write_star("particles.star", tables_of_relion30())
    before = read_star("particles.star")[""]
    result, _ = attempt(fit_beamtilt=True)
    blocks = read_star(result.particles)
    assert list(blocks) == [""]
    after = blocks[""]
    assert after["rlnBeamTiltX"].tolist() == [1.2] * COUNT
    assert after["rlnBeamTiltY"].tolist() == [-0.7] * COUNT
    same = [label for label in before if label not in ("rlnDefocusU", "rlnDefocusV")]
    assert after[same].equals(before[same])
    assert after["rlnDefocusU"][0] == before["rlnDefocusU"][0] + SHIFT


def test_what_a_table_of_relion_30_cannot_hold_is_written_with_optics_groups(project):
    write_star("particles.star", tables_of_relion30())
    result, events = attempt(fit_fourth_order=True)
    assert "rlnEvenZernike" in read_particles(result.particles).optics
    assert any("RELION 3.0" in event.message for event in events if isinstance(event, Notice))


def test_each_micrograph_has_a_file_as_soon_as_it_is_known(project):
    _, events = attempt()
    products = [event for event in events if isinstance(event, Product)]
    assert [product.kind for product in products[:4]] == ["ctf_particles", *["defocus_fit"] * 3]
    assert products[1].path == FOLDER / "Movies/mic0_defocus_fit.star"
    (block,) = read_star(products[2].path).values()
    assert block["rlnMicrographName"].unique().tolist() == ["MotionCorr/job002/Movies/mic1.mrc"]
    assert block["rlnDefocusU"].tolist() == [11000 + SHIFT] * 20


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("MotionCorr/job002/Movies/a.b.mrc", "Movies/a.b_fit"),
        ("mic.mrc", "mic_fit"),
        ("/data/job/mic.tiff", "data/job/mic_fit"),
        ("../other/mic.mrc", "other/mic_fit"),
    ],
)
def test_files_of_a_micrograph_stay_inside_the_folder(name, path):
    assert micrograph_path(name, "_fit") == Path(path)


def test_images_have_relions_names_and_the_particles_pixels(project):
    attempt(fit_defocus="no", fit_beamtilt=True, fit_trefoil=True, fit_anisotropic_magnification=True)
    fitted = read_map(FOLDER / "beamtilt_delta-phase_iter-fit_optics-group_1_N-3.mrc")
    assert fitted.pixel_size == PIXEL
    axis = np.arange(BOX) - BOX // 2
    np.testing.assert_allclose(np.squeeze(fitted.data), np.tile(0.02 * axis, (BOX, 1)), atol=1e-6)
    assert (FOLDER / "beamtilt_delta-phase_per-pixel_optics-group_1.mrc").is_file()
    assert (FOLDER / "mag_disp_y_fit_optics-group_1.mrc").is_file()


def test_neighbouring_phases_are_averaged_across_the_jump(project):
    from cryorefine.jobs.ctf_refine_images import averaged

    phases = np.where(np.arange(32) % 2, 3.1, -3.1) * np.ones((32, 1))
    seen = averaged(phases, np.ones((32, 32)), circular=True)
    assert np.abs(seen).min() > 3.0
    assert np.isnan(averaged(phases, np.zeros((32, 32)), circular=True)).all()


def test_a_fit_beyond_half_a_turn_is_shown_as_it_is_seen(project):
    attempt(fit_defocus="no", fit_beamtilt=True)
    path = FOLDER / "beamtilt_delta-phase_iter-fit_optics-group_1.mrc"
    write_map(path, np.squeeze(read_map(path).data) + np.float32(2 * np.pi), PIXEL)
    (picture,) = read_pictures(FOLDER, 1)
    axis = np.arange(BOX) - BOX // 2
    np.testing.assert_allclose(picture.fitted, np.tile(0.02 * axis, (BOX, 1)), atol=1e-5)


def test_what_was_found_is_said_once_and_kept_in_the_logfile(project):
    result, events = attempt(fit_beamtilt=True)
    said = [event.message for event in events if isinstance(event, Notice)]
    assert said == [
        "The beam tilt is (1.20 ± 0.03, -0.70 ± 0.04) mrad.",
        "The astigmatism was left alone: too few particles.",
    ]
    assert result.logfile.read_bytes().startswith(b"%PDF")
    # one page of aberrations, one of three micrographs, one of words
    assert result.logfile.read_bytes().count(b"/Type /Page ") == 3


def test_of_many_optics_groups_little_is_said_and_all_is_written(project, monkeypatch):
    from cryorefine.jobs import ctf_refine_input

    monkeypatch.setattr(ctf_refine_input, "FEWEST", 5)
    write_star("particles.star", tables(groups=10))
    _, events = attempt(fit_defocus="no", fit_beamtilt=True)
    said = [event.message for event in events if isinstance(event, Notice)]
    assert len(said) == 6
    assert said[-1] == "7 more sentences about other optics groups are in logfile.pdf."
    (figures,) = [event for event in events if isinstance(event, Figures)]
    assert figures.values["beam tilt x of 10 optics groups (mrad)"] == "1.200 to 10.200, mostly ± 0.030"
    assert len(list(FOLDER.glob("beamtilt_?.txt"))) == 10


def test_particles_without_coordinates_are_fitted_all_the_same(project):
    new = tables()
    new["particles"] = new["particles"].drop(columns=["rlnCoordinateX", "rlnCoordinateY"])
    write_star("particles.star", new)
    result, _ = attempt()
    assert result.logfile.is_file()


def test_images_that_are_there_twice_are_warned_of(project):
    file = read_particles("particles.star")
    names = file.particles["rlnImageName"].to_list()
    names[3] = names[2]
    blocks = read_star("particles.star")
    blocks["particles"] = blocks["particles"].assign(rlnImageName=names)
    write_star("particles.star", blocks)
    _, events = attempt()
    (warning,) = (
        event for event in events if isinstance(event, Notice) and "more than once" in event.message
    )
    assert warning.warning
    assert f"1 of the {COUNT} images" in warning.message


def test_nothing_selected_is_refused(project):
    refused("Nothing is selected", fit_defocus="no")
    refused("add --fit-beamtilt", fit_trefoil=True)


def test_a_postprocessing_without_mask_is_refused(project):
    new = postprocess()
    del new["general"]["rlnMaskName"]
    write_star("postprocess.star", new)
    refused("postprocess.star", "without a mask", "run PostProcess")


@pytest.mark.parametrize("name", ["run_half2_class001_unfil.mrc", "mask.mrc"])
def test_missing_maps_are_named(project, name):
    Path(name).unlink()
    refused("postprocess.star", name, "missing")


def test_one_half_map_is_no_pair(project):
    new = postprocess()
    new["general"]["rlnUnfilteredMapHalf2"] = new["general"]["rlnUnfilteredMapHalf1"]
    write_star("postprocess.star", new)
    refused("postprocess.star", "run_half1_class001_unfil.mrc as both half maps")


@pytest.mark.parametrize(
    ("values", "words"),
    [(0.0, ["do not agree anywhere"]), (np.nan, ["do not agree anywhere"]), ("high", ["no numbers"])],
)
def test_an_fsc_that_says_nothing_is_refused(project, values, words):
    new = postprocess()
    new["fsc"] = new["fsc"].assign(rlnFourierShellCorrelationCorrected=values)
    write_star("postprocess.star", new)
    refused("postprocess.star", *words)


def test_a_resolution_that_leaves_nothing_to_compare_is_refused(project):
    refused("agree down to 6.55 A", "--minimum-resolution 6.5 A", minimum_resolution=6.5)


def test_another_star_file_is_no_postprocessing(project):
    refused("particles.star", "no result of PostProcess", postprocess=Path("particles.star"))


@pytest.mark.parametrize(
    ("column", "word"),
    [("rlnAngleTilt", "no poses"), ("rlnOriginXAngst", "no poses"), ("rlnRandomSubset", "half set")],
)
def test_particles_that_were_not_refined_are_refused(project, column, word):
    new = tables()
    new["particles"] = new["particles"].drop(columns=column)
    write_star("particles.star", new)
    refused("particles.star", word, "Refine3D")


def test_poses_of_zeros_are_none(project):
    new = tables()
    new["particles"] = new["particles"].assign(rlnAngleRot=0.0, rlnAngleTilt=0.0, rlnAnglePsi=0.0)
    write_star("particles.star", new)
    refused("particles.star", "all angles are 0")


@pytest.mark.parametrize(("label", "value"), [("rlnImagePixelSize", 2.5), ("rlnImageSize", 48)])
def test_another_grid_is_refused(project, label, value):
    new = tables()
    new["optics"] = new["optics"].assign(**{label: value})
    if label == "rlnImageSize":
        write_stack("images.mrcs", np.ones((COUNT, value, value), np.float32), PIXEL)
    write_star("particles.star", new)
    refused("particles.star", "run_half1_class001_unfil.mrc", str(value))


def test_the_grid_of_the_maps_may_be_that_of_any_optics_group(project):
    new = tables(groups=2)
    new["optics"]["rlnImagePixelSize"] = [2.5, PIXEL]
    write_star("particles.star", new)
    attempt()


def test_a_small_optics_group_is_refused_only_where_its_optics_are_fitted(project):
    new = tables(groups=2)
    new["particles"]["rlnOpticsGroup"] = [2] * 5 + [1] * (COUNT - 5)
    write_star("particles.star", new)
    refused("g2", "5 particles", "too few", fit_beamtilt=True)
    attempt()


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("rlnVoltage", 300000.0),
        ("rlnSphericalAberration", -2.7),
        ("rlnAmplitudeContrast", 7.0),
        ("rlnImagePixelSize", 0.0),
        ("rlnMagMat00", 0.0),
    ],
)
def test_a_microscope_that_cannot_be_is_refused(project, label, value):
    new = tables()
    new["optics"] = new["optics"].assign(**{label: value})
    write_star("particles.star", new)
    shown = "[0, 0; 0, 1]" if label == "rlnMagMat00" else f"{value:g}"
    refused("particles.star", f"{label[:9]}", shown, "optics group g1")


@pytest.mark.parametrize(
    ("label", "value"),
    [("rlnVoltage", 60.0), ("rlnSphericalAberration", 0.001), ("rlnAmplitudeContrast", 1.0)],
)
def test_an_unusual_microscope_may_be(project, label, value):
    new = tables()
    new["optics"] = new["optics"].assign(**{label: value})
    write_star("particles.star", new)
    attempt()


def with_header(path, pixel_size):
    """Write another pixel size into the header of a map."""
    with mrcfile.open(path, mode="r+") as map_:
        map_.voxel_size = pixel_size


def test_maps_of_other_pixel_sizes_are_refused(project):
    half, mask = "run_half2_class001_unfil.mrc", "mask.mrc"
    with_header(half, 1.2 * PIXEL)
    refused(half, f"{1.2 * PIXEL:.6g} A/px", f"{PIXEL:g} A/px", "two half maps of one refinement")
    with_header(half, PIXEL)
    with_header(mask, 0.8 * PIXEL)
    refused(mask, f"{0.8 * PIXEL:.6g} A/px", "make the mask from that map")


def test_a_mask_that_tells_no_pixel_size_is_taken(project):
    with_header("mask.mrc", 0.0)
    attempt()


def test_a_header_of_one_angstrom_is_only_warned_of(project):
    with_header("mask.mrc", 1.0)
    with pytest.warns(UserWarningMessage, match=r"mask.mrc has 1 A/px .* forgotten header"):
        attempt()


def test_half_maps_that_are_named_as_each_other_are_warned_of(project):
    new = postprocess()
    general = new["general"]
    one, two = "rlnUnfilteredMapHalf1", "rlnUnfilteredMapHalf2"
    general[one], general[two] = general[two], general[one]
    write_star("postprocess.star", new)
    with pytest.warns(UserWarningMessage, match=r"swapped"):
        attempt()


def test_a_beam_tilt_needs_spherical_aberration(project):
    new = tables()
    new["optics"] = new["optics"].assign(rlnSphericalAberration=0.0)
    write_star("particles.star", new)
    refused("g1", "spherical aberration of 0", "0.01", fit_beamtilt=True)
    attempt()


def test_coordinates_are_looked_at_before_anything_is_fitted(project):
    new = tables()
    new["particles"] = new["particles"].assign(rlnCoordinateX="left")
    write_star("particles.star", new)
    refused("rlnCoordinateX", "no numbers")
    assert not FOLDER.exists()


def test_premultiplied_images_are_refused(project):
    new = tables()
    new["optics"] = new["optics"].assign(rlnCtfDataAreCtfPremultiplied=1)
    write_star("particles.star", new)
    refused("g1", "multiplied by their CTF")


def test_half_maps_of_two_boxes_are_refused(project):
    write_map("run_half2_class001_unfil.mrc", np.random.default_rng(1).normal(size=(16,) * 3), PIXEL)
    refused("run_half2_class001_unfil.mrc", "16 px")


def test_relion_reads_the_result(project, relion):
    write_star("particles.star", tables(groups=2))
    result, _ = attempt(
        fit_bfactor="per-particle",
        fit_beamtilt=True,
        fit_trefoil=True,
        fit_fourth_order=True,
        fit_anisotropic_magnification=True,
    )
    words = [relion("reconstruct"), "--i", str(result.particles), "--o", "map.mrc", "--ctf", "--j", "1"]
    subprocess.run(words, check=True, capture_output=True)
    assert read_map("map.mrc", pixel_size=PIXEL).data.std() > 0
    words = [relion("star_printtable"), str(result.particles), "data_particles", "rlnDefocusU"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    assert float(printed[0]) == pytest.approx(10000 + SHIFT, abs=1e-3)


def test_the_result_is_the_input_of_another_job(project):
    result, _ = attempt(fit_beamtilt=True)
    again = finish(ctf_refine.run(options(particles=result.particles, output=Path("CtfRefine/job025"))))
    after = read_particles(again.particles).particles
    assert after["rlnDefocusU"][0] == pytest.approx(10000 + 2 * SHIFT)
    assert after["cryorefineDefocusChange"][0] == pytest.approx(SHIFT)


def stopped_in_round_2(**changes):
    """Run a job until its second round begins, and kill it."""
    running = ctf_refine.run(options(**changes))
    for event in running:
        if isinstance(event, Progress) and event.stage.startswith("Round 2"):
            break
    running.close()


def test_a_job_that_was_stopped_goes_on_after_its_last_whole_round(project, monkeypatch):
    from cryorefine.jobs import ctf_refine_session

    stopped_in_round_2(fit_beamtilt=True, fit_trefoil=True)
    assert not (FOLDER / "particles_ctf_refine.star").exists()
    given = []

    def spied(particles, micrograph, maps, fit, executor, device):
        given.append((particles, fit))
        return (yield from invented(particles, micrograph, maps, fit, executor, device))

    monkeypatch.setattr(ctf_refine_session, "refine_ctf", spied)
    events = list(ctf_refine.run(ctf_refine.Options(continue_from=FOLDER)))
    particles, fit = given[0]
    assert particles.ctf.column("defocus_u")[0] == 10000 + SHIFT
    assert particles.optics[0].beam_tilt == (1.2, -0.7)
    np.testing.assert_array_equal(particles.optics[0].odd_aberrations, np.arange(6) / 3)
    assert (fit.rounds, fit.trefoil) == (3, True)
    assert "Going on after round 1." in [event.message for event in events if isinstance(event, Notice)]
    # the change is that against the input, not against where the job was stopped
    after = read_particles(FOLDER / "particles_ctf_refine.star").particles
    np.testing.assert_allclose(after["cryorefineDefocusChange"][0], 2 * SHIFT)
    assert status(FOLDER) == "succeeded"
    assert not list(FOLDER.glob("*.npz"))


def test_a_job_that_was_stopped_too_early_begins_anew(project):
    stopped_in_round_2()
    (checkpoint,) = FOLDER.glob("*.npz")
    checkpoint.unlink()
    events = list(ctf_refine.run(ctf_refine.Options(continue_from=FOLDER)))
    assert any("begin anew" in event.message for event in events if isinstance(event, Notice))


def test_a_continued_job_keeps_its_options_and_its_particles(project):
    stopped_in_round_2()
    with pytest.raises(UserError, match=r"--defocus-range 500.0 differs from 2000"):
        finish(ctf_refine.run(ctf_refine.Options(continue_from=FOLDER, defocus_range=500.0)))
    new = tables()
    new["particles"] = new["particles"][:-1]
    write_star("particles.star", new)
    with pytest.raises(UserError, match="about 60 particles"):
        finish(ctf_refine.run(ctf_refine.Options(continue_from=FOLDER)))


def test_what_is_needed_is_said(project):
    refused("needs --postprocess", postprocess=None)
