"""Every mistake in the input of Refine3D ends in one sentence, and nothing is left behind."""

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_map, write_stack
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import finish, refine3d

BOX, PIXEL, COUNT = 32, 4.0, 12


@pytest.fixture
def project(tmp_path, monkeypatch, rng):
    """A folder with a small particle stack, its STAR file and a reference; the current directory."""
    monkeypatch.chdir(tmp_path)
    images = rng.normal(size=(COUNT, BOX, BOX)).astype(np.float32)
    write_stack("images.mrcs", images, PIXEL)
    axis = np.arange(BOX) - BOX // 2
    blob = np.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / 30)
    write_map("reference.mrc", blob, PIXEL)
    save(particles())
    return tmp_path


def particles():
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["g1"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImagePixelSize": [PIXEL],
            "rlnImageSize": [BOX],
            "rlnImageDimensionality": [2],
        }
    )
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@images.mrcs" for i in range(COUNT)],
            "rlnMicrographName": "mic.mrc",
            "rlnOpticsGroup": 1,
            "rlnDefocusU": 10000.0,
            "rlnDefocusV": 10000.0,
            "rlnDefocusAngle": 0.0,
        }
    )
    return {"optics": optics, "particles": table}


def save(tables):
    write_star("particles.star", tables)


def attempt(**changes):
    options = {
        "particles": "particles.star",
        "reference": "reference.mrc",
        "output": "Refine3D/job001",
        "mask_diameter": 100.0,
        "initial_lowpass": 30.0,
        "threads": 1,
    } | changes
    return finish(refine3d.run(refine3d.Options(**options)))


def refused(*words, **changes):
    with pytest.raises(UserError) as error:
        attempt(**changes)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence
    from pathlib import Path

    assert not Path("Refine3D").exists()


@pytest.mark.parametrize("column", ["rlnImageName", "rlnDefocusU"])
def test_missing_column(project, column):
    tables = particles()
    tables["particles"] = tables["particles"].drop(columns=column)
    save(tables)
    refused("particles.star", column)


@pytest.mark.parametrize("column", ["rlnVoltage", "rlnImagePixelSize"])
def test_missing_optics_column(project, column):
    tables = particles()
    tables["optics"] = tables["optics"].drop(columns=column)
    save(tables)
    refused("particles.star", column)


@pytest.mark.parametrize("option", ["particles", "reference", "reference_mask"])
def test_missing_file(project, option):
    refused("nowhere.mrc", "does not exist", **{option: "nowhere.mrc"})


def test_missing_stack(project):
    tables = particles()
    tables["particles"]["rlnImageName"] = [f"{i + 1:06d}@gone.mrcs" for i in range(COUNT)]
    save(tables)
    refused("gone.mrcs")


def test_image_outside_its_stack(project):
    tables = particles()
    tables["particles"].loc[4, "rlnImageName"] = "000099@images.mrcs"
    save(tables)
    refused("000099@images.mrcs", str(COUNT))


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (0.0, "empty")])
def test_broken_image_is_named(project, rng, value, word):
    images = rng.normal(size=(COUNT, BOX, BOX)).astype(np.float32)
    images[7] = value
    write_stack("images.mrcs", images, PIXEL)
    refused("000008@images.mrcs", word)


def test_images_that_are_not_normalised_are_warned_about(project, rng):
    write_stack("images.mrcs", 50 + 9 * rng.normal(size=(COUNT, BOX, BOX)), PIXEL)
    options = refine3d.Options(
        particles="particles.star", reference="reference.mrc", output="Refine3D/job001", mask_diameter=100.0
    )
    run = refine3d.run(options)
    for event in run:
        if getattr(event, "warning", False):
            assert "not normalised" in event.message
            break
    else:
        pytest.fail("no warning")
    run.close()


def test_particles_all_in_one_half(project):
    tables = particles()
    tables["particles"]["rlnRandomSubset"] = 1
    save(tables)
    refused("particles.star", "half set 1", "rlnRandomSubset")


def test_halves_that_are_neither_one_nor_two(project):
    tables = particles()
    tables["particles"]["rlnRandomSubset"] = [1, 2, 0] * (COUNT // 3)
    save(tables)
    refused("rlnRandomSubset 0")


@pytest.mark.parametrize("symmetry", ["Q7", "I5", "C0", "D2h"])
def test_unknown_symmetry(project, symmetry):
    refused(symmetry.upper(), symmetry=symmetry)


def test_mask_larger_than_the_images(project):
    refused("128", "200", mask_diameter=200.0)


def test_reference_that_is_no_cube(project, rng):
    write_map("reference.mrc", rng.normal(size=(BOX, BOX, BOX - 2)), PIXEL)
    refused("reference.mrc", "30 x 32 x 32", "cube")


def test_half_map_without_its_partner(project):
    (project / "reference.mrc").rename("run_half1.mrc")
    refused("run_half2.mrc", reference="run_half1.mrc")


def test_mask_outside_zero_to_one(project, rng):
    write_map("mask.mrc", 3 * rng.random((BOX, BOX, BOX)), PIXEL)
    refused("mask.mrc", "between 0 and 1", reference_mask="mask.mrc")


def test_truncated_reference(project):
    data = (project / "reference.mrc").read_bytes()
    (project / "reference.mrc").write_bytes(data[:5000])
    refused("reference.mrc")


def test_foreign_files(project):
    (project / "words.star").write_bytes(b"\x00\x01 no star file")
    refused("words.star", particles="words.star")
    (project / "words.mrc").write_text("no map")
    refused("words.mrc", reference="words.mrc")


def test_star_file_without_particles(project):
    write_star("fsc.star", {"fsc": pd.DataFrame({"rlnSpectralIndex": [0, 1]})})
    refused("fsc.star", particles="fsc.star")


def test_no_permission(project):
    (project / "locked").mkdir()
    (project / "locked").chmod(0o500)
    try:
        (project / "locked" / "probe").touch()
    except PermissionError:
        with pytest.raises(UserError, match="locked"):
            attempt(output="locked/Refine3D/job001")
    else:
        pytest.skip("the superuser may write everywhere")


def test_folder_that_holds_a_finished_job(project):
    folder = project / "Refine3D/job001"
    folder.mkdir(parents=True)
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()
    with pytest.raises(UserError, match="already holds a finished job"):
        attempt()
    assert [p.name for p in folder.iterdir()] == ["RELION_JOB_EXIT_SUCCESS"]


def test_nothing_to_continue(project):
    (project / "Refine3D/job001").mkdir(parents=True)
    with pytest.raises(UserError, match="no Refine3D job that can go on"):
        finish(refine3d.run(refine3d.Options(continue_from="Refine3D/job001")))


def test_gpu_without_a_gpu(project):
    from cryorefine.compute.array_module import array_module

    if array_module("auto").__name__ == "cupy":
        pytest.skip("this machine has a GPU")
    refused("gpu:0", "--device cpu", device="gpu:0")


def test_reference_on_another_grid_is_rescaled_with_a_notice(project):
    size, pixel = 40, 2.6
    axis = (np.arange(size) - size // 2) * pixel
    blob = np.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / (30 * PIXEL**2))
    write_map("other.mrc", blob, pixel)
    from cryorefine.io.mrc import read_map
    from cryorefine.refine.particle_set import OpticsGroup
    from cryorefine.refine.references import load_references

    references = load_references((project / "other.mrc",), OpticsGroup("g", PIXEL, BOX, 300, 2.7, 0.1))
    assert "other.mrc" in references.notices[0]
    expected = read_map("reference.mrc").data
    np.testing.assert_allclose(references.maps[0], expected, atol=0.01)


@pytest.mark.parametrize(
    ("header", "told"), [(0.0, ""), (1.0, "forgotten"), (2 * PIXEL, "brought to the particles' grid")]
)
def test_a_mask_without_a_pixel_size_is_taken_as_it_is(project, header, told):
    import mrcfile

    from cryorefine.maps.masks import soft_sphere
    from cryorefine.refine.particle_set import OpticsGroup
    from cryorefine.refine.references import load_mask

    given = soft_sphere((BOX,) * 3, BOX / 4, 2)
    write_map("mask.mrc", given, PIXEL)
    with mrcfile.open("mask.mrc", mode="r+") as map_:
        map_.voxel_size = header
    mask, notice = load_mask(project / "mask.mrc", OpticsGroup("g", PIXEL, BOX, 300, 2.7, 0.1))
    assert told in notice
    assert bool(notice) == bool(told)
    assert np.allclose(mask, given) == (header != 2 * PIXEL)


def test_halves_are_drawn_equal_and_by_the_seed(project):
    from cryorefine.io.particles import read_particles
    from cryorefine.refine.loading import load_particles

    file = read_particles("particles.star")
    first, again, other = (
        load_particles(file, project / "particles.star", seed=seed, ctf_correction=True)[1].half
        for seed in (1, 1, 2)
    )
    assert sorted(first) == [1] * (COUNT // 2) + [2] * (COUNT // 2)
    assert list(first) == list(again)
    assert list(first) != list(other)
    assert "rlnRandomSubset" not in read_star("particles.star")["particles"]
