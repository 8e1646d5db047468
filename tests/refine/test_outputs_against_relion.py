"""What RELION 3.1's own programs make of the files of a refinement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryorefine.geometry.euler import matrices
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import angular_distance, point_group
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.particles import ParticleFile, read_particles
from cryorefine.io.star import read_star, write_star
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.engine import IterationDone, Settings
from cryorefine.refine.initial import initial_model
from cryorefine.refine.loading import load_particles
from cryorefine.refine.maximisation import MaximisationResult
from cryorefine.refine.outputs import write_final, write_iteration
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet
from cryorefine.refine.schedule import Schedule
from cryorefine.refine.simulation import simulate_particles
from cryorefine.refine.state import PoseTable, State

BOX, PIXEL, COUNT, ORDER = 32, 4.0, 100, 1
FOLDER = "Refine3D/job001"


@dataclass(frozen=True)
class Job:
    """A project with simulated particles, and the files of an iteration with their true poses."""

    project: Path
    state: State
    maps: tuple[np.ndarray, np.ndarray]
    iteration: dict[str, Path]
    final: dict[str, Path]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    project = tmp_path_factory.mktemp("project")
    atoms = random_protein(300, radius=40.0, sigma=3.0)
    # A name of one word: RELION 3.1 reads no quoted ones.
    optics = OpticsGroup("simulated", PIXEL, BOX, 300.0, 2.7, 0.1)
    simulated = simulate_particles(project, atoms, [optics], COUNT, snr=1.0, micrographs=2)
    file, particles = load_particles(
        read_particles(simulated.particles), simulated.particles, seed=1, ctf_correction=True
    )
    truth = read_map(simulated.map).data
    return _written(project, file, particles, truth, simulated.poses, simulated.offsets)


def _written(
    project: Path,
    file: ParticleFile,
    particles: ParticleSet,
    truth: np.ndarray,
    poses: np.ndarray,
    offsets: np.ndarray,
) -> Job:
    rng = np.random.default_rng(1)
    # White noise of deviation 1: what a real or imaginary part of FFT / box^2 has of it.
    noise = np.full((1, BOX // 2 + 1), 0.5 / BOX**2)
    grid = SamplingGrid(ORDER, "C1")
    model = initial_model(
        truth, noise, lowpass=0, pixel_size=PIXEL, grid=grid, groups=2, particles=COUNT // 2, sigma_offset=4.0
    )
    table = PoseTable(
        poses, offsets, np.ones(COUNT), np.ones(COUNT), np.full(COUNT, 0.5), np.ones(COUNT, np.int64)
    )
    schedule = Schedule(
        ORDER, 4, offset_range=4.0, offset_step=4.0, resolution=10 / (BOX * PIXEL), change_angle=5.0
    )
    fsc = np.linspace(1, 0.2, BOX // 2 + 1)
    state = State(1, PIXEL, (model, model), table, particles.half, fsc, schedule)
    spread = 0.5 * truth.std()
    maps = tuple((truth + rng.normal(0, spread, truth.shape)).astype(np.float32) for _ in range(2))
    settings = Settings(
        images=ImageModel(mask_diameter=100.0), symmetry="C1", relax_symmetry="", padding=2.0, mask=None,
        solvent_fsc=False, first_by_correlation=True, initial_lowpass=0.0, finer_faster=False, seed=1,
        correct_norm=True, device="cpu", scratch=project,
    )  # fmt: skip
    folder = project / FOLDER
    folder.mkdir(parents=True)
    outcome = IterationDone(state, MaximisationResult((model, model), fsc, None, None, ()), 30, 16, (), 1.0)
    about = (file, particles, settings, "cryorefine refine3d")
    iteration = write_iteration(folder, outcome, *about)
    joined = MaximisationResult((model, model), fsc, maps, truth, ())
    final = write_final(folder, replace(outcome, result=joined), *about)
    return Job(project, state, maps, iteration, final)


def call(words: list[str], where: Path, check: bool = True) -> str:
    """Run a program in a folder and return what it printed."""
    alone = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        words, cwd=where, capture_output=True, text=True, timeout=180, env=os.environ | alone
    )
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def in_our_order(path: Path, job: Job) -> pd.DataFrame:
    """Read particles that RELION has written, sorted by micrograph, in the order of ours."""
    names = read_particles(job.final["data"]).particles["rlnImageName"]
    return read_particles(path).particles.set_index("rlnImageName").loc[names].reset_index()


@pytest.mark.parametrize("name", ["iteration", "final"])
def test_every_star_file_is_read(job, relion, name):
    files = getattr(job, name)

    def printed(file: str, *words: str) -> list[str]:
        return call([relion("star_printtable"), str(files[file]), *words], job.project).split()

    tilt = np.array(printed("data", "data_particles", "_rlnAngleTilt"), float)
    np.testing.assert_allclose(tilt, read_particles(files["data"]).particles["rlnAngleTilt"], atol=1e-5)
    assert printed("data", "data_optics", "_rlnVoltage") == ["300.000000"]
    for model in [file for file in files if file.startswith("model")]:
        assert len(printed(model, "data_model_class_1", "_rlnSsnrMap", "_rlnReferenceTau2")) == BOX + 2
        assert len(printed(model, "data_model_optics_group_1", "_rlnSigma2Noise")) == BOX // 2 + 1
        assert len(printed(model, "data_model_groups", "_rlnGroupName")) == 2
    assert len(printed("sampling", "data_sampling_directions", "_rlnAngleRot")) == 12 * 4**ORDER


def test_particles_reconstruct_to_the_map(job, relion):
    whole = [relion("reconstruct"), "--i", f"{FOLDER}/run_data.star", "--ctf", "--o"]
    for name, options in {"all": [], "first": ["--subset", "1"], "second": ["--subset", "2"]}.items():
        call([*whole, f"{name}.mrc", *options], job.project)
    found = {name: read_map(job.project / f"{name}.mrc").data for name in ("all", "first", "second")}
    truth = read_map(job.final["map"]).data
    shells = slice(1, BOX // 4)
    agreement = {name: fourier_shell_correlation(data, truth)[shells].mean() for name, data in found.items()}
    assert agreement["all"] > 0.9
    # Half the particles each, and not the same ones.
    assert max(agreement["first"], agreement["second"]) < agreement["all"]
    assert fourier_shell_correlation(found["first"], found["second"])[shells].mean() < agreement["first"]


@pytest.fixture
def postprocessed(job, relion) -> Path:
    """Post-processing by RELION of the half maps; it fails in its report where Ghostscript is absent."""
    path = job.project / "post.star"
    if not path.exists():
        write_map(job.project / "mask.mrc", soft_sphere((BOX,) * 3, 12.0, 4.0), PIXEL)
        words = ["--i", f"{FOLDER}/run_half1_class001_unfil.mrc", "--mask", "mask.mrc", "--o", "post"]
        call([relion("postprocess"), *words], job.project, check=False)
    return path


def test_half_maps_are_post_processed(job, postprocessed):
    table = read_star(postprocessed)["fsc"]
    expected = fourier_shell_correlation(*job.maps)
    np.testing.assert_allclose(table["rlnFourierShellCorrelationUnmaskedMaps"], expected, atol=1e-4)
    # The pixel size comes from the maps.
    np.testing.assert_allclose(table["rlnAngstromResolution"][1], BOX * PIXEL, rtol=1e-4)


def test_the_ctf_is_refined_from_the_final_files(job, postprocessed, relion):
    (job.project / "ctf").mkdir(exist_ok=True)
    words = ["--i", f"{FOLDER}/run_data.star", "--f", postprocessed.name, "--o", "ctf/", "--fit_defocus"]
    options = ["--fit_mode", "fpfff", "--kmin_defocus", "40", "--range", "500", "--j", "1"]
    call([relion("ctf_refine"), *words, *options], job.project, check=False)
    before = read_particles(job.final["data"]).particles
    after = in_our_order(job.project / "ctf" / "particles_ctf_refine.star", job)
    assert set(before.columns) <= set(after.columns)
    np.testing.assert_allclose(after["rlnOriginXAngst"], before["rlnOriginXAngst"], atol=1e-4)
    # The simulated defocus is right, and coarse pixels move it little.
    moved = np.abs(after["rlnDefocusU"] - before["rlnDefocusU"])
    assert 0 < np.median(moved) < 1000


@pytest.fixture
def mpirun() -> str:
    path = shutil.which("mpirun")
    if path is None:
        pytest.skip("mpirun is not installed (Debian package openmpi-bin)")
    return path


def test_relion_goes_on_from_an_iteration(job, relion, mpirun):
    optimiser = read_star(job.iteration["optimiser"])
    general = optimiser["optimiser_general"]
    # RELION 3.1 keeps the noise of each group of micrographs; 4 and later of each optics group, as here.
    for label in ("rlnModelStarFile", "rlnModelStarFile2"):
        model = read_star(job.project / general[label])
        groups = {f"model_group_{g}": model["model_optics_group_1"] for g in (1, 2)}
        general[label] = f"{label}_it001_model.star"
        write_star(job.project / general[label], model | groups)
    write_star(job.project / "old_it001_optimiser.star", optimiser)
    (job.project / "next").mkdir()
    processes = [mpirun, "--oversubscribe", "-n", "3", relion("refine_mpi")]
    words = ["--continue", "old_it001_optimiser.star", "--o", "next/run", "--auto_iter_max", "2", "--j", "1"]
    printed = call([*processes, *words], job.project)
    assert re.search(r"Auto-refine: Iteration= 2", printed)
    # What it read is what was written.
    again = read_star(job.project / "next" / "run_it001_half1_model.star")
    ours = read_star(job.iteration["model1"])
    for label, value in again["model_general"].items():
        if label in ours["model_general"]:
            assert value == pytest.approx(ours["model_general"][label], rel=1e-5)
    # Its next iteration finds poses near the true ones, on a grid of 15 degrees.
    after = in_our_order(job.project / "next" / "run_it002_data.star", job)
    found = matrices(*(after[f"rlnAngle{a}"].to_numpy(float) for a in ("Rot", "Tilt", "Psi")))
    error = angular_distance(found, job.state.table.poses, point_group("C1"))
    assert np.median(error) < 15
    shift = after[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() - job.state.table.offsets
    assert np.median(np.abs(shift)) < 2
