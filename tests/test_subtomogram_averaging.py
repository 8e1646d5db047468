"""Subtomogram averaging the whole way: tilt series go in, and the map of the particle comes out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cryorefine.geometry.euler import matrices
from cryorefine.geometry.symmetry import angular_distance, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.jobs import finish, pseudo_subtomo, reconstruct_particle, refine3d
from cryorefine.maps.filters import lowpass
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.tilt_project import Acquisition, simulate_project


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return scripts/demo_sta.py as a module."""
    path = Path(__file__).resolve().parents[1] / "scripts" / "demo_sta.py"
    spec = importlib.util.spec_from_file_location("demo_sta", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo_sta", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


SYMMETRY = "D2"
BOXES = {"box_size": 48, "crop_size": 32}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two short tilt series of a small particle, as the current project."""
    monkeypatch.chdir(tmp_path)
    return simulate_project(
        tmp_path,
        random_protein(60, radius=45, symmetry=SYMMETRY, sigma=3.0),
        Acquisition(pixel_size=5.0, image_size=160, tilts=9, tilt_step=10.0, thickness=300.0, dose=2.0),
        particles=12,
        box=32,
        snr=1.0,
        angle_error=6.0,
        position_error=3.0,
    )


def reconstruct(entries: Path, folder: str) -> reconstruct_particle.Result:
    options = reconstruct_particle.Options(
        optimisation_set=entries, output=Path(folder), symmetry=SYMMETRY, **BOXES
    )
    return finish(reconstruct_particle.run(options))


def test_true_poses_give_the_true_map(made):
    """Places, poses, defocus, contrast and grey scale mean to the jobs what they mean to the simulator."""
    found = read_map(reconstruct(made.truth_set, "Reconstruct/job001").merged)
    truth = read_map(made.map)
    assert found.pixel_size == truth.pixel_size
    assert fourier_shell_correlation(found.data, truth.data)[1:11].mean() > 0.93
    # A filter of what is sure, so that noise does not count.
    smooth, true = (lowpass(each.data, 5.0, 25.0) for each in (found, truth))
    inside = true > 0.2 * true.max()
    assert np.vdot(smooth[inside], true[inside]) / np.vdot(true[inside], true[inside]) == pytest.approx(
        1, abs=0.15
    )


def test_refined_particles_turn_towards_the_truth(made):
    """Reconstruct, extract and refine: poses and map are better than what was started from."""
    start = reconstruct(made.optimisation_set, "Reconstruct/job001")
    extracted = finish(
        pseudo_subtomo.run(
            pseudo_subtomo.Options(
                optimisation_set=start.optimisation_set, output=Path("Extract/job002"), **BOXES
            )
        )
    )
    refined = finish(
        refine3d.run(
            refine3d.Options(
                optimisation_set=extracted.optimisation_set,
                output=Path("Refine3D/job003"),
                absolute_greyscale=True,
                initial_lowpass=25,
                symmetry=SYMMETRY,
                mask_diameter=110,
                initial_angular_sampling=3.7,
                local_search_from=3.7,
                finer_sampling_faster=True,
            )
        )
    )
    truth = read_map(made.map).data
    fsc = [fourier_shell_correlation(read_map(each).data, truth) for each in (start.merged, refined.map)]
    assert fsc[1][1:13].mean() > fsc[0][1:13].mean() + 0.1
    wrong = [pose_error(path, made.poses) for path in (made.map.parent / "particles.star", refined.data)]
    assert np.median(wrong[1]) < 0.4 * np.median(wrong[0])


def pose_error(path: Path, truth: np.ndarray) -> np.ndarray:
    """Angle to the true pose in degrees of every particle, whatever the order of the file."""
    file = read_particles(path)
    found = matrices(*(column(file, f"rlnAngle{angle}") for angle in ("Rot", "Tilt", "Psi")))
    # TS_02/3 is the third particle of the second series.
    numbers = [name.removeprefix("TS_").split("/") for name in file.particles["rlnTomoParticleName"]]
    rows = [(int(series) - 1) * (len(truth) // 2) + int(number) - 1 for series, number in numbers]
    return angular_distance(found, truth[rows], point_group(SYMMETRY))


@pytest.mark.slow
def test_the_demo_reaches_its_resolution(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = list(demo.process(tmp_path / "demo"))
    names = [step.name for step in steps]
    assert names[-1] == "Reconstruct and PostProcess, bin 1"
    agreement = dict(zip(names, [step.mean_fsc for step in steps], strict=True))
    assert agreement["Refine3D, bin 2"] > agreement["Reconstruct, bin 2, as picked"] + 0.1
    assert agreement["Refine3D, bin 1"] > 0.88
    assert steps[-1].resolution < 8
    assert steps[-1].true_resolution < 7.5
