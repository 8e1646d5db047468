"""A whole CtfRefine job: simulated images against the truth, and noise of which nothing can be made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.jobs.ctf_refine_project import write_project

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_layout
from cryorefine.io.particles import column, read_particles
from cryorefine.jobs import ctf_refine, finish
from cryorefine.jobs.base import Notice
from cryorefine.jobs.particle_places import mean_defocus

TILT = (1.2, -0.7)


@pytest.fixture(scope="module")
def simulated(shared):
    """Folder of simulated particles with a beam tilt and wrong defocus values."""
    folder = shared / "data/sim_betagal_ctf"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="module")
def result(simulated, tmp_path_factory):
    """Result of one job."""
    options = ctf_refine.Options(
        particles=simulated / "refined.star",
        postprocess=simulated / "relion5/post.star",
        output=tmp_path_factory.mktemp("ctf") / "CtfRefine/job001",
        fit_defocus="per-particle",
        fit_beamtilt=True,
        symmetry="D2",
        threads=2,
    )
    return finish(ctf_refine.run(options))


@pytest.mark.slow
def test_one_job_finds_tilt_and_defocus_nearer_the_truth_than_relion(result, simulated):
    file, truth = read_particles(result.particles), read_particles(simulated / "truth.star")
    found = [file.optics[f"rlnBeamTilt{axis}"][0] for axis in "XY"]
    np.testing.assert_allclose(found, TILT, rtol=0.1)
    error = mean_defocus(file) - mean_defocus(truth)
    assert np.sqrt(np.mean(error**2)) < 25  # RELION 37.4
    relion = read_particles(simulated / "relion5/particles_beamtilt_defocus.star")
    assert np.sqrt(np.mean(error**2)) < np.sqrt(np.mean((mean_defocus(relion) - mean_defocus(truth)) ** 2))


@pytest.mark.slow
def test_uncertainties_in_the_file_are_those_of_the_errors(result, simulated):
    file, truth = read_particles(result.particles), read_particles(simulated / "truth.star")
    error = mean_defocus(file) - mean_defocus(truth)
    ratio = error / column(file, "cryorefineDefocusUncertainty")
    assert 0.75 < np.sqrt(np.mean(ratio**2)) < 1.25
    for axis, true in zip("XY", TILT, strict=True):
        sigma = file.optics[f"cryorefineBeamTilt{axis}Uncertainty"][0]
        assert abs(file.optics[f"rlnBeamTilt{axis}"][0] - true) < 4 * sigma


@pytest.mark.slow
def test_relion_prints_the_fitted_values(result, relion):
    words = [relion("star_printtable"), str(result.particles), "data_optics", "rlnBeamTiltX"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert float(printed) == pytest.approx(read_particles(result.particles).optics["rlnBeamTiltX"][0])


def noise(**changes):
    return ctf_refine.Options(
        **{
            "particles": Path("particles.star"),
            "postprocess": Path("postprocess.star"),
            "output": Path("CtfRefine/job001"),
            "fit_defocus": "per-particle",
            "fit_beamtilt": True,
            "threads": 1,
        }
        | changes
    )


def test_nothing_is_made_of_noise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    events = list(ctf_refine.run(noise(fit_fourth_order=True)))
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "left alone" in said
    before, after = (
        read_particles("particles.star"),
        read_particles("CtfRefine/job001/particles_ctf_refine.star"),
    )
    np.testing.assert_allclose(mean_defocus(after), mean_defocus(before), atol=1.0)
    assert abs(after.optics["rlnBeamTiltX"][0]) < 1e-6


def test_uncertainties_of_what_noise_does_not_tell_are_infinite(tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    fits = {"fit_defocus": "no", "fit_trefoil": True, "fit_fourth_order": True}
    events = list(ctf_refine.run(noise(**fits, fit_anisotropic_magnification=True)))
    said = [event.message for event in events if isinstance(event, Notice)]
    assert sum("hold nothing of the map" in sentence for sentence in said) == 3
    optics = read_particles("CtfRefine/job001/particles_ctf_refine.star").optics
    assert optics["rlnBeamTiltX"][0] == 0
    for label in ("BeamTiltX", "MagMat00"):
        assert float(optics[f"cryorefine{label}Uncertainty"][0]) == np.inf
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_an_empty_image_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    layout = read_layout("images.mrcs")
    images = np.memmap("images.mrcs", layout.dtype, "r+", layout.offset, layout.shape)
    images[7] = 0.5
    images.flush()
    with pytest.raises(UserError, match=r"000008@images.mrcs is empty"):
        finish(ctf_refine.run(noise()))
    assert not Path("CtfRefine").exists()


def test_an_image_that_is_no_number_is_named_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    layout = read_layout("images.mrcs")
    images = np.memmap("images.mrcs", layout.dtype, "r+", layout.offset, layout.shape)
    images[7, 3, 3] = np.nan
    images.flush()
    with pytest.raises(UserError, match=r"000008@images.mrcs holds NaN") as error:
        finish(ctf_refine.run(noise()))
    assert str(error.value).endswith(".")
    assert not Path("CtfRefine").exists()
