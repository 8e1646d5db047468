"""Particle sets of every RELION version come in one form."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_stack
from cryorefine.io.particles import (
    ParticleFile,
    column,
    group_index,
    parse_vector,
    project_root,
    read_particles,
    write_particles,
)
from cryorefine.io.star import read_star, write_star


@pytest.fixture
def optics():
    return pd.DataFrame(
        {
            "rlnOpticsGroup": [1, 2],
            "rlnOpticsGroupName": ["a", "b"],
            "rlnVoltage": [300.0, 200.0],
            "rlnImagePixelSize": [1.0, 2.0],
        }
    )


@pytest.fixture
def particles():
    return pd.DataFrame(
        {
            "rlnImageName": ["1@a.mrcs", "2@a.mrcs", "3@a.mrcs"],
            "rlnOpticsGroup": [2, 1, 2],
            "rlnAngleRot": [1.0, 2.0, 3.0],
        }
    )


@pytest.fixture
def old_table():
    """A table of RELION 3.0 with two microscopes; pixel sizes 1.4 and 0.7 A."""
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i}@stack.mrcs" for i in (1, 2, 3, 4)],
            "rlnVoltage": [300.0, 200.0, 300.0, 200.0],
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnDetectorPixelSize": 14.0,
            "rlnMagnification": [100000.0, 200000.0, 100000.0, 200000.0],
            "rlnOriginX": [1.0, 2.0, -3.0, 0.5],
            "rlnOriginY": [0.0, 1.0, 2.0, 3.0],
            "rlnOriginXPrior": 1.0,
            "rlnDefocusU": 1e4,
        }
    )


def write(tmp_path, **blocks):
    write_star(tmp_path / "p.star", blocks)
    return tmp_path / "p.star"


def test_optics_groups_become_1_to_n_in_the_order_of_their_table(tmp_path, optics, particles):
    path = write(
        tmp_path,
        optics=optics.assign(rlnOpticsGroup=[7, 3]),
        particles=particles.assign(rlnOpticsGroup=[3, 7, 3]),
    )
    file = read_particles(path)
    assert file.optics["rlnOpticsGroup"].tolist() == [1, 2]
    assert file.particles["rlnOpticsGroup"].tolist() == [2, 1, 2]
    assert group_index(file).tolist() == [1, 0, 1]
    assert column(file, "rlnVoltage").tolist() == [200.0, 300.0, 200.0]


def test_number_comes_from_particle_then_group_then_default(tmp_path, optics, particles):
    file = ParticleFile(optics, particles.assign(rlnVoltage=[100, 101, 102]))
    assert column(file, "rlnVoltage").tolist() == [100, 101, 102]
    assert column(file, "rlnVoltage").dtype == np.float64
    assert column(file, "rlnImagePixelSize").tolist() == [2, 1, 2]
    assert column(file, "rlnPhaseShift", 0).tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="rlnDefocusU"):
        column(file, "rlnDefocusU")
    with pytest.raises(UserError, match="rlnImageName that are no numbers"):
        column(file, "rlnImageName")


def test_mistakes_are_named(tmp_path, optics, particles):
    cases = [
        (
            {"optics": optics, "particles": particles.assign(rlnOpticsGroup=[1, 5, 2])},
            "no optics group 5.*particle 2",
        ),
        ({"optics": optics.assign(rlnOpticsGroup=1), "particles": particles}, "optics group 1 twice"),
        (
            {"optics": optics.drop(columns="rlnOpticsGroup"), "particles": particles},
            "rlnOpticsGroup in data_optics",
        ),
        (
            {"optics": optics, "particles": particles.drop(columns="rlnOpticsGroup")},
            "rlnOpticsGroup in data_particles",
        ),
        ({"optics": optics}, "no table of particles"),
        ({"optics": optics, "particles": particles[:0]}, "table is empty"),
        ({"particles": particles}, "neither data_optics nor the column rlnDetectorPixelSize"),
        ({"optics": optics, "particles": particles}, "lacks the column rlnDefocusU"),
        (
            {
                "optics": optics.drop(columns="rlnImagePixelSize"),
                "particles": particles.assign(rlnOriginX=1.0),
            },
            "rlnOriginX in pixels",
        ),
    ]
    for blocks, sentence in cases:
        path = write(tmp_path, **blocks)
        with pytest.raises(UserError, match=sentence) as error:
            read_particles(path, required=["rlnImageName", "rlnVoltage", "rlnDefocusU"])
        assert str(path) in str(error.value)


def test_relion_3_0_offsets_become_angstroms_and_microscopes_become_groups(tmp_path, old_table):
    write_stack(tmp_path / "stack.mrcs", np.zeros((4, 8, 8)), 1.4)
    write_star(tmp_path / "p.star", {"": old_table})
    file = read_particles(tmp_path / "p.star")
    assert file.optics["rlnVoltage"].tolist() == [300, 200]
    np.testing.assert_allclose(file.optics["rlnImagePixelSize"], [1.4, 0.7])
    assert file.optics["rlnImageSize"].tolist() == [8, 8]
    assert file.optics["rlnImageDimensionality"].tolist() == [2, 2]
    assert file.particles["rlnOpticsGroup"].tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(file.particles["rlnOriginXAngst"], [1.4, 1.4, -4.2, 0.35])
    np.testing.assert_allclose(file.particles["rlnOriginXPriorAngst"], [1.4, 0.7, 1.4, 0.7])
    for label in ("rlnOriginX", "rlnVoltage", "rlnMagnification", "rlnDetectorPixelSize"):
        assert label not in file.particles


def test_relion_3_0_table_can_be_looked_at_without_its_images(tmp_path, old_table):
    write_star(tmp_path / "p.star", {"images": old_table})
    file = read_particles(tmp_path / "p.star")
    assert len(file.particles) == 4
    assert "rlnImageSize" not in file.optics


def test_conversion_of_relion_3_0_files_agrees_with_relion(relion, tmp_path, old_table):
    write_stack(tmp_path / "stack.mrcs", np.zeros((4, 8, 8)), 1.4)
    write_star(tmp_path / "p.star", {"": old_table})
    # RELION takes a file for one of version 3.0 when it names no version.
    old_file = (tmp_path / "p.star").read_text().replace("# version 50001", "")
    (tmp_path / "p.star").write_text(old_file)
    command = [relion("convert_star"), "--i", "p.star", "--o", "relion.star"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    ours, theirs = read_particles(tmp_path / "p.star"), read_particles(tmp_path / "relion.star")
    assert set(ours.optics.columns) == set(theirs.optics.columns)
    assert set(ours.particles.columns) == set(theirs.particles.columns)
    for label in set(ours.particles.columns) - {"rlnImageName", "rlnOpticsGroup"}:
        np.testing.assert_allclose(column(ours, label), column(theirs, label), rtol=1e-5, err_msg=label)
    for label in ("rlnVoltage", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"):
        np.testing.assert_allclose(column(ours, label), column(theirs, label), rtol=1e-5, err_msg=label)


def test_particles_read_back_as_written(tmp_path, optics, particles):
    file = ParticleFile(optics, particles, {"rlnTomoSubTomosAre2DStacks": 1})
    write_particles(tmp_path / "p.star", file)
    back = read_particles(tmp_path / "p.star")
    pd.testing.assert_frame_equal(back.optics, optics)
    pd.testing.assert_frame_equal(back.particles, particles)
    assert back.general == file.general
    assert list(read_star(tmp_path / "p.star")) == ["general", "optics", "particles"]


def test_relion_reconstructs_from_our_particles_and_stack(relion, tmp_path, optics, rng):
    images = rng.normal(size=(6, 16, 16))
    write_stack(tmp_path / "a.mrcs", images, 2.0)
    table = pd.DataFrame({"rlnImageName": [f"{i:06d}@a.mrcs" for i in range(1, 7)], "rlnOpticsGroup": 1})
    for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
        table[label] = rng.uniform(0, 180, 6)
    microscope = {"rlnAmplitudeContrast": 0.1, "rlnSphericalAberration": 2.7, "rlnImageSize": 16}
    group = optics[1:].assign(rlnOpticsGroup=1, rlnImageDimensionality=2, **microscope)
    write_particles(tmp_path / "p.star", ParticleFile(group, table))
    command = [relion("reconstruct"), "--i", "p.star", "--o", "map.mrc"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "map.mrc").stat().st_size == 1024 + 4 * 16**3


def test_project_is_here_or_beside_or_above_the_star_file(tmp_path, monkeypatch):
    job = tmp_path / "Extract" / "job003"
    job.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write_stack(job / "a.mrcs", np.zeros((1, 4, 4)), 1)
    assert project_root(job / "p.star", "1@Extract/job003/a.mrcs") == tmp_path
    assert project_root(job / "p.star", "1@a.mrcs") == job
    write_stack(elsewhere / "b.mrcs", np.zeros((1, 4, 4)), 1)
    assert project_root(job / "p.star", "1@b.mrcs") == elsewhere
    with pytest.raises(UserError, match=r"c\.mrcs"):
        project_root(job / "p.star", "1@c.mrcs")


def test_jobs_of_the_same_name_in_two_projects_are_not_mixed_up(tmp_path, monkeypatch):
    for project in ("one", "two"):
        (tmp_path / project / "Extract/job001").mkdir(parents=True)
        write_stack(tmp_path / project / "Extract/job001/a.mrcs", np.zeros((1, 4, 4)), 1)
    monkeypatch.chdir(tmp_path / "one")
    name = "1@Extract/job001/a.mrcs"
    assert project_root("Extract/job001/p.star", name) == tmp_path / "one"
    assert project_root("../two/Extract/job001/p.star", name) == tmp_path / "two"
    assert project_root(tmp_path / "two/Extract/job001/p.star", name) == tmp_path / "two"


def test_vectors():
    assert parse_vector("[1,-2.5,1e-7]").tolist() == [1, -2.5, 1e-7]
    assert parse_vector("[]").tolist() == []
    for text in ("1,2", "[1,x]", "", "[1,2"):
        with pytest.raises(UserError, match="no vector"):
            parse_vector(text)


def test_real_sets_of_many_programs_are_read(shared):
    data = shared / "data"
    for name, count, groups in [
        ("betagal_empiar10204/particles_good997.star", 997, 1),
        ("betagal_empiar10204/relion5_refine3d/run_data.star", 997, 1),
        ("star_files/07_cryodrgn_testdata/relion31.6opticsgroups.star", 139, 6),
        ("star_files/08_aspire_testdata/sample_particles_relion30.star", 17, 2),
        ("warp_2d_stacks/warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star", 40, 4),
        ("sim_hiv_sta/particles.star", 120, 1),
    ]:
        file = read_particles(data / name)
        assert (len(file.particles), len(file.optics)) == (count, groups), name
