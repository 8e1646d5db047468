"""Tomograms, optimisation sets and trajectories as files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.optimisation_set import (
    OptimisationSet,
    read_optimisation_set,
    write_optimisation_set,
)
from cryorefine.io.star import read_star, write_star
from cryorefine.io.tomograms import read_tomograms
from cryorefine.io.trajectories import read_trajectories, write_trajectories
from cryorefine.tomo.particles import doubtful_coordinates, read_subtomograms


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_optimisation_set_and_its_files_are_read(sim_hiv, hiv_tutorial, warp_stacks):
    for path, tilts in (
        (sim_hiv / "particles_optimisation_set.star", 41),
        (hiv_tutorial / "Extract/job020/optimisation_set.star", 40),
        (warp_stacks, 37),
    ):
        entries = read_optimisation_set(path)
        tomograms = read_tomograms(entries.tomograms, images=False)
        particles = read_subtomograms(entries.particles, tomograms)
        assert len(next(iter(tomograms.values()))) == tilts
        assert {len(s) for s, _ in particles.by_tomogram()} <= {37, 40, 41}


def test_an_optimisation_set_may_be_a_table(hiv_tutorial):
    entries = read_optimisation_set(hiv_tutorial / "Picks/job009/optimisation_set.star", check=False)
    assert entries.particles == Path("Picks/job009/particles.star")


def test_every_entry_of_an_optimisation_set_survives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "particles": "p.star",
        "tomograms": "t.star",
        "trajectories": "m.star",
        "manifolds": "f.star",
        "reference_half1": "half1.mrc",
        "reference_half2": "half2.mrc",
        "reference_mask": "mask.mrc",
        "reference_fsc": "postprocess.star",
    }
    for name in names.values():
        (tmp_path / name).touch()
    given = OptimisationSet(**{k: tmp_path / v for k, v in names.items()}, others={"rlnSomething": "7"})
    write_optimisation_set("set.star", given)
    assert "rlnTomoReferenceMap2File" in Path("set.star").read_text()
    again = read_optimisation_set("set.star")
    assert {k: str(getattr(again, k)) for k in names} == names
    assert again.others == {"rlnSomething": "7"}
    assert again.with_entries(particles=Path("new.star"), reference_mask=None).reference_mask is not None


def test_a_dead_path_of_an_optimisation_set_is_named(tmp_path):
    path = write(
        tmp_path / "s.star", "data_\n\n_rlnTomoParticlesFile gone.star\n_rlnTomoTomogramsFile t.star\n"
    )
    with pytest.raises(UserError, match=r"s\.star names gone\.star as rlnTomoParticlesFile"):
        read_optimisation_set(path)
    with pytest.raises(UserError, match="no optimisation set"):
        read_optimisation_set(write(tmp_path / "x.star", "data_\n\n_rlnA b\n"))


def test_projection_rows_of_relion_4_are_used_as_they_are(warp_stacks):
    series = read_tomograms(read_optimisation_set(warp_stacks).tomograms, images=False)["Unt_083.tomostar"]
    assert np.allclose(series.projections[0, 0, :3], [0.10915412, -0.99366254, 0.026835253])
    assert np.allclose(series.projections[0, 2, :3], [-0.73251, -0.062158454, 0.6779126])
    assert np.allclose(series.projections[:, 3], [0, 0, 0, 1])
    assert series.image_names[2] == "000003@dummy_tiltseries.mrc"


def test_missing_things_are_named(tmp_path, sim_hiv, warp_stacks):
    with pytest.raises(UserError, match=r"tilt images of Unt_083\.tomostar are missing"):
        read_tomograms(read_optimisation_set(warp_stacks).tomograms)["Unt_083.tomostar"]
    tomograms = read_tomograms(sim_hiv / "tomograms.star")
    with pytest.raises(UserError, match=r"tomograms\.star has no tomogram TS_99"):
        tomograms["TS_99"]
    with pytest.raises(UserError, match="no table data_global"):
        read_tomograms(sim_hiv / "particles.star")
    blocks = read_star(sim_hiv / "tomograms.star")
    write_star(tmp_path / "t.star", {"global": blocks["global"].drop(columns="rlnTomoSizeZ")})
    with pytest.raises(UserError, match="lacks the column rlnTomoSizeZ"):
        read_tomograms(tmp_path / "t.star")


def test_particles_of_unknown_tomograms_and_of_other_pixels_are_refused(tmp_path, sim_hiv):
    tomograms = read_tomograms(sim_hiv / "tomograms.star")
    blocks = read_star(sim_hiv / "particles.star")
    other = {**blocks, "particles": blocks["particles"].assign(rlnTomoName="TS_07")}
    write_star(tmp_path / "p.star", other)
    with pytest.raises(UserError, match="has no tomogram TS_07"):
        read_subtomograms(tmp_path / "p.star", tomograms)
    mixed = {**blocks, "optics": blocks["optics"].assign(rlnTomoTiltSeriesPixelSize=1.35)}
    write_star(tmp_path / "q.star", mixed)
    with pytest.raises(UserError, match=r"a tilt-series pixel of 1\.35 A, but tomogram TS_01"):
        read_subtomograms(tmp_path / "q.star", tomograms)
    bare = blocks["particles"].drop(columns=[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"])
    write_star(tmp_path / "r.star", {**blocks, "particles": bare})
    with pytest.raises(UserError, match="add the coordinates"):
        read_subtomograms(tmp_path / "r.star", tomograms)


def test_picked_particles_get_optics_groups_and_names(tmp_path, sim_hiv):
    tomograms = read_tomograms(sim_hiv / "tomograms.star")
    table = read_star(sim_hiv / "particles.star")["particles"]
    keep = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")]
    write_star(tmp_path / "p.star", {"particles": table[keep]})
    particles = read_subtomograms(tmp_path / "p.star", tomograms)
    assert particles.names[60] == "TS_02/1"
    assert particles.file.optics["rlnOpticsGroupName"].tolist() == ["optics1"]
    assert particles.file.optics["rlnTomoTiltSeriesPixelSize"].tolist() == [2.7]
    assert (particles.half == 0).all()


def test_corner_coordinates_of_relion_4_mean_the_same_place(tmp_path, sim_hiv):
    tomograms = read_tomograms(sim_hiv / "tomograms.star")
    blocks = read_star(sim_hiv / "particles.star")
    table = blocks["particles"]
    for axis, size in zip("XYZ", (512, 512, 220), strict=True):
        centred = table[f"rlnCenteredCoordinate{axis}Angst"]
        table[f"rlnCoordinate{axis}"] = centred / 2.7 + size / 2
    table = table.drop(columns=[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"])
    write_star(tmp_path / "p.star", {**blocks, "particles": table})
    new, old = (
        read_subtomograms(path, tomograms) for path in (tmp_path / "p.star", sim_hiv / "particles.star")
    )
    assert np.allclose(new.centred, old.centred, atol=1e-9)
    assert doubtful_coordinates(new) == ""


def test_binned_corner_coordinates_are_doubted(warp_stacks):
    entries = read_optimisation_set(warp_stacks)
    particles = read_subtomograms(entries.particles, read_tomograms(entries.tomograms, images=False))
    assert "binned 7.19856 times" in doubtful_coordinates(particles)


def test_visible_frames_must_fit_the_tilt_series(tmp_path, warp_stacks):
    entries = read_optimisation_set(warp_stacks)
    tomograms = read_tomograms(entries.tomograms, images=False)
    particles = read_subtomograms(entries.particles, tomograms)
    series, rows = next(particles.by_tomogram())
    assert particles.visible_frames(series, rows).sum(axis=1).tolist() == [34] * 10
    blocks = read_star(entries.particles)
    blocks["particles"]["rlnTomoVisibleFrames"] = "[1,0,1]"
    write_star(tmp_path / "p.star", blocks)
    wrong = read_subtomograms(tmp_path / "p.star", tomograms)
    with pytest.raises(UserError, match=r"lists 3 images in rlnTomoVisibleFrames of Unt_083/1.*has 37"):
        wrong.visible_frames(series, rows)


def test_trajectories_come_back_and_move_the_particles(tmp_path, sim_hiv, rng):
    tomograms = read_tomograms(sim_hiv / "tomograms.star")
    still = read_subtomograms(sim_hiv / "particles.star", tomograms)
    shifts = {str(name): rng.normal(size=(41, 3)) for name in still.names}
    write_trajectories(tmp_path / "motion.star", shifts)
    assert read_star(tmp_path / "motion.star")["general"] == {"rlnParticleNumber": 120}
    again = read_trajectories(tmp_path / "motion.star")
    assert all(np.array_equal(again[name], shifts[name]) for name in shifts)
    moving = read_subtomograms(sim_hiv / "particles.star", tomograms, tmp_path / "motion.star")
    series, rows = next(moving.by_tomogram())
    difference = moving.positions(series, rows) - still.positions(series, rows)[:, None]
    assert np.allclose(difference * 2.7, [shifts[name] for name in moving.names[rows]])
    write_trajectories(tmp_path / "few.star", {"TS_01/1": shifts["TS_01/1"]})
    few = read_subtomograms(sim_hiv / "particles.star", tomograms, tmp_path / "few.star")
    with pytest.raises(UserError, match="TS_01/2 without a trajectory"):
        few.positions(series, rows)


def test_odd_deformations_are_refused(tmp_path, sim_hiv):
    shutil.copytree(sim_hiv / "tilt_series", tmp_path / "tilt_series")
    blocks = read_star(tmp_path / "tilt_series/TS_01.star")
    blocks["TS_01"]["rlnTomoDeformationCoefficients"] = "[0.1,0.2,0.3]"
    write_star(tmp_path / "tilt_series/TS_01.star", blocks)
    table = read_star(sim_hiv / "tomograms.star")["global"]
    write_star(tmp_path / "t.star", {"global": table.assign(rlnTomoDeformationType="linear")})
    deformation = read_tomograms(tmp_path / "t.star")["TS_01"].deformation
    assert deformation.coefficients.shape == (41, 3)
    grid = {"rlnTomoDeformationGridSizeX": 2, "rlnTomoDeformationGridSizeY": 2}
    write_star(tmp_path / "t.star", {"global": table.assign(rlnTomoDeformationType="spline", **grid)})
    with pytest.raises(UserError, match=r"3 deformation coefficients .* has 32"):
        read_tomograms(tmp_path / "t.star")["TS_01"]
