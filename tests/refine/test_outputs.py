"""Files of a refinement: right values under RELION's names, whole or not there at all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cryorefine.ctf.ctf import CtfParameters
from cryorefine.geometry.euler import matrices
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import ParticleFile, read_particles
from cryorefine.io.star import read_star
from cryorefine.refine import outputs
from cryorefine.refine.angular_distribution import bild, distribution_of_poses
from cryorefine.refine.checkpoints import (
    checkpoint_of,
    discard_checkpoints,
    iterations_to_continue,
    latest_checkpoint,
)
from cryorefine.refine.engine import IterationDone, Settings
from cryorefine.refine.maximisation import MaximisationResult
from cryorefine.refine.outputs import write_final, write_iteration
from cryorefine.refine.parameters import ImageModel
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet, single_particles
from cryorefine.refine.schedule import Schedule
from cryorefine.refine.state import HalfModel, PoseTable, State, load_state

BOX, PIXEL, COUNT = 16, 2.5, 60
SHELLS = BOX // 2 + 1
COMMAND = "cryorefine refine3d --particles particles.star"
About = tuple[ParticleFile, ParticleSet, Settings, str]


def make_particles(rng: np.random.Generator, root: Path) -> tuple[ParticleFile, ParticleSet]:
    half = 1 + np.arange(COUNT) % 2
    optics_index = np.arange(COUNT) // 40
    # The first group is in half set 1 only, the second in half set 2 only.
    group = np.minimum(np.arange(COUNT) % 6, 2)
    names = [f"{i + 1:06d}@stack.mrcs" for i in range(COUNT)]
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["gridOne", "gridTwo"],
            "rlnOpticsGroup": [1, 2],
            "rlnVoltage": [300.0, 200.0],
            "rlnSphericalAberration": [2.7, 1.4],
            "rlnAmplitudeContrast": [0.1, 0.07],
            "rlnImagePixelSize": PIXEL,
            "rlnImageSize": BOX,
            "rlnImageDimensionality": 2,
        }
    )
    table = pd.DataFrame(
        {
            "rlnCoordinateX": rng.normal(size=COUNT),
            "rlnImageName": names,
            "rlnMicrographName": [f"m{g}.mrc" for g in group],
            "rlnOpticsGroup": optics_index + 1,
            "rlnAnglePsi": 0.0,
            "rlnClassNumber": 7,
            "somebodysColumn": [f"value{i}" for i in range(COUNT)],
        }
    )
    groups = [OpticsGroup(f"grid{k}", PIXEL, BOX, 300.0, 2.7, 0.1) for k in range(2)]
    particles = single_particles(
        root=root,
        optics=groups,
        optics_index=optics_index,
        groups=["m0.mrc", "m1.mrc", "m2.mrc"],
        group=group,
        image_names=names,
        ctf=CtfParameters(300.0, 2.7, 0.1, np.full(COUNT, 1e4), np.full(COUNT, 1e4)),
        half=half,
        angles=np.zeros((COUNT, 3)),
        offsets=np.zeros((COUNT, 2)),
        offset_priors=np.zeros((COUNT, 2)),
        norm=np.ones(COUNT),
    )
    return ParticleFile(optics, table, None, None), particles


def make_settings(scratch: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "images": ImageModel(mask_diameter=30.0),
        "symmetry": "D2",
        "relax_symmetry": "",
        "padding": 2.0,
        "mask": None,
        "solvent_fsc": False,
        "first_by_correlation": True,
        "initial_lowpass": 10.0,
        "finer_faster": False,
        "seed": 5,
        "correct_norm": True,
        "device": "cpu",
        "scratch": scratch,
    }
    return Settings(**(values | changes))


def make_outcome(
    rng: np.random.Generator, *, iteration: int = 3, order: int = 1, last: bool = False, symmetry: str = "D2"
) -> IterationDone:
    schedule = Schedule(
        order=order, local_order=2, offset_range=12.5, offset_step=5.0, perturbation=0.3,
        resolution=5 / (BOX * PIXEL), best_resolution=6 / (BOX * PIXEL), increment=11,
        accuracy_angle=2.5, accuracy_shift=1.25,
        change_angle=4.0, change_offset=1.5, smallest_angle=3.0, smallest_offset=1.0, converged=last,
    )  # fmt: skip
    directions = 0 if schedule.is_local else SamplingGrid(order, symmetry).n_directions
    joined = rng.normal(size=(BOX,) * 3).astype(np.float32)
    halves = []
    for h in (1, 2):
        prior = rng.random(directions)
        halves.append(
            HalfModel(
                reference=joined if last else rng.normal(size=(BOX,) * 3).astype(np.float32),
                sigma2_noise=rng.random((2, SHELLS)) * 1e-4,
                direction_prior=prior / prior.sum() if directions else prior,
                scale=np.array([0.9, 1.0, 1.1]) + 0.01 * h,
                ssnr=np.linspace(100, 0.1, SHELLS),
                sigma2=rng.random(SHELLS) * 1e-6,
                tau2=rng.random(SHELLS) * 1e-5,
                sigma_offset=3.0 + h,
                mean_norm=0.8 + 0.1 * h,
                mean_largest_weight=0.4 + 0.1 * h,
                log_likelihood=1000.0 * h,
            )
        )
    rot, psi = rng.uniform(-180, 180, (2, COUNT))
    table = PoseTable(
        poses=matrices(rot, rng.uniform(5, 175, COUNT), psi),
        offsets=rng.normal(0, 3, (COUNT, 2)),
        norm=rng.uniform(0.8, 1.2, COUNT),
        log_likelihood=rng.uniform(1000, 2000, COUNT),
        largest_weight=rng.random(COUNT),
        significant=rng.integers(1, 50, COUNT),
    )
    half = 1 + np.arange(COUNT) % 2
    state = State(
        iteration, PIXEL, (halves[0], halves[1]), table, half, np.linspace(1, 0.1, SHELLS), schedule
    )
    unfiltered = tuple(rng.normal(size=(BOX,) * 3).astype(np.float32) for _ in range(2)) if last else None
    result = MaximisationResult(state.halves, state.fsc, unfiltered, joined if last else None, ())
    return IterationDone(state, result, current_size=14, coarse_size=8, notices=(), seconds=1.0)


@pytest.fixture
def about(rng: np.random.Generator, tmp_path: Path) -> About:
    """Particles, settings and command of a refinement whose project is tmp_path."""
    return (*make_particles(rng, tmp_path), make_settings(tmp_path), COMMAND)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Refine3D" / "job001"
    path.mkdir(parents=True)
    return path


def pose_columns(table: pd.DataFrame) -> np.ndarray:
    return matrices(*(table[f"rlnAngle{a}"].to_numpy(float) for a in ("Rot", "Tilt", "Psi")))


def test_an_iteration_leaves_the_files_of_relion(rng, about, folder):
    write_iteration(folder, make_outcome(rng, iteration=12), *about)
    halves = {
        f"run_it012_half{h}_{what}"
        for h in (1, 2)
        for what in ("class001.mrc", "class001_angdist.bild", "model.star")
    }
    common = {
        f"run_it012_{what}" for what in ("data.star", "optimiser.star", "sampling.star", "checkpoint.npz")
    }
    assert {p.name for p in folder.iterdir()} == halves | common


def test_the_solvent_fsc_adds_unfiltered_half_maps(rng, about, folder):
    outcome = make_outcome(rng)
    maps = tuple(rng.normal(size=(BOX,) * 3).astype(np.float32) for _ in range(2))
    outcome = dataclasses.replace(outcome, result=dataclasses.replace(outcome.result, unfiltered=maps))
    files = write_iteration(folder, outcome, *about)
    for h in (1, 2):
        assert files[f"unfil{h}"].name == f"run_it003_half{h}_class001_unfil.mrc"
        np.testing.assert_array_equal(read_map(files[f"unfil{h}"]).data, maps[h - 1])
        np.testing.assert_array_equal(read_map(files[f"half{h}"]).data, outcome.state.halves[h - 1].reference)


def test_particles_get_their_poses_and_keep_everything_else(rng, about, folder):
    outcome = make_outcome(rng)
    before, table = about[0], outcome.state.table
    after = read_particles(write_iteration(folder, outcome, *about)["data"])
    np.testing.assert_allclose(pose_columns(after.particles), table.poses, atol=1e-7)
    offsets = after.particles[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()
    np.testing.assert_allclose(offsets, table.offsets, atol=1e-6)
    np.testing.assert_allclose(after.particles["rlnNormCorrection"], table.norm, atol=1e-6)
    np.testing.assert_allclose(
        after.particles["rlnMaxValueProbDistribution"], table.largest_weight, atol=1e-6
    )
    np.testing.assert_allclose(after.particles["rlnLogLikeliContribution"], table.log_likelihood, atol=1e-6)
    assert after.particles["rlnNrOfSignificantSamples"].tolist() == table.significant.tolist()
    assert after.particles["rlnRandomSubset"].tolist() == outcome.state.half.tolist()
    assert after.particles["rlnGroupNumber"].tolist() == (about[1].group + 1).tolist()
    assert set(after.particles["rlnClassNumber"]) == {1}
    kept = ["rlnCoordinateX", "rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "somebodysColumn"]
    for label in kept:
        assert after.particles[label].tolist() == before.particles[label].tolist()
    # Columns that were there stay in their places.
    assert list(after.particles.columns)[: before.particles.shape[1]] == list(before.particles.columns)
    pd.testing.assert_frame_equal(after.optics, before.optics)
    assert "rlnNormCorrection" not in before.particles


def test_offsets_of_subtomograms_have_a_third_axis(rng, about, folder):
    outcome = make_outcome(rng)
    offsets = rng.normal(size=(COUNT, 3))
    table = dataclasses.replace(outcome.state.table, offsets=offsets)
    outcome = dataclasses.replace(outcome, state=dataclasses.replace(outcome.state, table=table))
    files = write_iteration(folder, outcome, *about)
    after = read_particles(files["data"]).particles
    np.testing.assert_allclose(after["rlnOriginZAngst"], offsets[:, 2], atol=1e-6)
    assert read_star(files["sampling"])["sampling_general"]["rlnIs3DTranslationalSampling"] == 1


def test_each_half_has_its_own_model(rng, about, folder):
    outcome = make_outcome(rng)
    files = write_iteration(folder, outcome, *about)
    state = outcome.state
    for h, model in enumerate(state.halves, start=1):
        blocks = read_star(files[f"model{h}"])
        general, spectra = blocks["model_general"], blocks["model_class_1"]
        assert general["rlnCurrentResolution"] == pytest.approx(8.0)  # A: shell 5 of 40 A
        assert general["rlnCurrentImageSize"] == 14
        assert general["rlnSigmaOffsetsAngst"] == pytest.approx(3.0 + h)
        assert general["rlnNormCorrectionAverage"] == pytest.approx(0.8 + 0.1 * h)
        assert general["rlnAveragePmax"] == pytest.approx(0.4 + 0.1 * h)
        assert general["rlnLogLikelihood"] == pytest.approx(1000 * h)
        for label, values in (
            ("rlnSsnrMap", model.ssnr), ("rlnReferenceSigma2", model.sigma2),
            ("rlnReferenceTau2", model.tau2), ("rlnGoldStandardFsc", state.fsc),
        ):  # fmt: skip
            np.testing.assert_allclose(spectra[label], values, rtol=1e-8)
        shells = np.arange(SHELLS)
        np.testing.assert_allclose(spectra["rlnResolution"], shells / (BOX * PIXEL), atol=1e-6)
        np.testing.assert_allclose(spectra["rlnAngstromResolution"][1:], BOX * PIXEL / shells[1:], atol=1e-6)
        assert spectra["rlnAngstromResolution"][0] == 999
        for k in (1, 2):
            noise = blocks[f"model_optics_group_{k}"]["rlnSigma2Noise"]
            np.testing.assert_allclose(noise, model.sigma2_noise[k - 1], rtol=1e-8)
        groups = blocks["model_groups"]
        counts = np.bincount(about[1].group[state.half == h], minlength=3)
        assert groups["rlnGroupNrParticles"].tolist() == counts.tolist()
        np.testing.assert_allclose(groups["rlnGroupScaleCorrection"], model.scale, atol=1e-6)
        np.testing.assert_allclose(
            blocks["model_pdf_orient_class_1"]["rlnOrientationDistribution"], model.direction_prior, rtol=1e-8
        )
        classes = blocks["model_classes"].iloc[0]
        assert classes["rlnReferenceImage"] == f"Refine3D/job001/run_it003_half{h}_class001.mrc"
        assert classes["rlnAccuracyRotations"] == 2.5
        assert classes["rlnAccuracyTranslationsAngst"] == 1.25


def test_the_estimated_resolution_ends_where_signal_first_falls_below_noise(rng, about, folder):
    outcome = make_outcome(rng)
    ssnr = np.array([99, 50, 9, 5, 0.9, 2, 0.5, 0.1, 0.0])
    halves = tuple(dataclasses.replace(m, ssnr=ssnr) for m in outcome.state.halves)
    outcome = dataclasses.replace(outcome, state=dataclasses.replace(outcome.state, halves=halves))
    classes = read_star(write_iteration(folder, outcome, *about)["model1"])["model_classes"]
    assert classes["rlnEstimatedResolution"][0] == pytest.approx(BOX * PIXEL / 3, abs=1e-6)


def test_sampling_and_optimiser_say_where_the_refinement_stands(rng, about, folder):
    outcome = make_outcome(rng)
    files = write_iteration(folder, outcome, *about)
    blocks = read_star(files["sampling"])
    sampling = blocks["sampling_general"]
    assert sampling["rlnHealpixOrder"] == 1
    assert sampling["rlnSymmetryGroup"] == "D2"
    assert (sampling["rlnOffsetRange"], sampling["rlnOffsetStep"]) == (12.5, 5.0)
    assert (sampling["rlnPsiStep"], sampling["rlnSamplingPerturbInstance"]) == (30.0, 0.3)
    directions = blocks["sampling_directions"]
    rot, tilt = SamplingGrid(1, "D2").directions
    np.testing.assert_allclose(directions["rlnAngleRot"], rot, atol=1e-6)
    np.testing.assert_allclose(directions["rlnAngleTilt"], tilt, atol=1e-6)
    assert files["optimiser"].read_text().splitlines()[1] == f"# {COMMAND}"
    optimiser = read_star(files["optimiser"])["optimiser_general"]
    expected = {
        "rlnOutputRootName": "Refine3D/job001/run",
        "rlnModelStarFile": "Refine3D/job001/run_it003_half1_model.star",
        "rlnModelStarFile2": "Refine3D/job001/run_it003_half2_model.star",
        "rlnExperimentalDataStarFile": "Refine3D/job001/run_it003_data.star",
        "rlnOrientSamplingStarFile": "Refine3D/job001/run_it003_sampling.star",
        "rlnCurrentIteration": 3, "rlnDoSplitRandomHalves": 1, "rlnParticleDiameter": 30.0,
        "rlnRandomSeed": 5, "rlnIncrementImageSize": 11, "rlnAutoLocalSearchesHealpixOrder": 2,
        "rlnBestResolutionThusFar": 0.15, "rlnOverallAccuracyRotations": 2.5,
        "rlnChangesOptimalOffsets": 1.5, "rlnSmallestChangesOrientations": 3.0, "rlnHasConverged": 0,
        "rlnSolventMaskName": "None",
    }  # fmt: skip
    assert {label: optimiser[label] for label in expected} == expected


def test_names_are_relative_to_the_project_and_else_absolute(rng, about, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    files = write_iteration(elsewhere, make_outcome(rng), *about)
    optimiser = read_star(files["optimiser"])["optimiser_general"]
    assert optimiser["rlnExperimentalDataStarFile"] == str(elsewhere / "run_it003_data.star")


def test_the_solvent_mask_is_kept_as_it_is_used(rng, about, folder):
    file, particles, settings, command = about
    for value in (0.5, 0.25):  # a continuation may bring another mask
        mask = np.full((BOX,) * 3, value, np.float32)
        masked = dataclasses.replace(settings, mask=mask)
        files = write_iteration(folder, make_outcome(rng), file, particles, masked, command)
        name = read_star(files["optimiser"])["optimiser_general"]["rlnSolventMaskName"]
        assert name == "Refine3D/job001/run_solvent_mask.mrc"
        np.testing.assert_array_equal(read_map(folder / "run_solvent_mask.mrc").data, mask)


def test_the_checkpoint_comes_last(rng, about, folder, monkeypatch):
    def killed(path: Path, state: State) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        write_iteration(folder, make_outcome(rng), *about)
    assert len(list(folder.iterdir())) == 9
    assert latest_checkpoint(folder) is None
    with pytest.raises(KeyboardInterrupt):
        write_final(folder, make_outcome(rng, last=True), *about)
    assert (folder / "run_optimiser.star").exists()
    assert (folder / "run_class001.mrc").exists()
    assert latest_checkpoint(folder) is None


def test_a_checkpoint_is_the_state(rng, about, folder):
    outcome = make_outcome(rng)
    write_iteration(folder, outcome, *about)
    again = load_state(latest_checkpoint(folder))
    assert again.iteration == 3
    np.testing.assert_array_equal(again.table.poses, outcome.state.table.poses)


def test_every_iteration_can_be_gone_on_from_and_old_checkpoints_are_small(rng, about, folder):
    outcomes = {number: make_outcome(rng, iteration=number) for number in (9, 998, 999, 1000)}
    for outcome in outcomes.values():
        write_iteration(folder, outcome, *about)
    assert latest_checkpoint(folder) == folder / "run_it1000_checkpoint.npz"
    assert iterations_to_continue(folder) == [9, 998, 999, 1000]
    size = {number: checkpoint_of(folder, number).stat().st_size for number in outcomes}
    maps = sum(half.reference.nbytes for half in outcomes[9].state.halves)
    assert max(size[9], size[998]) < size[999] - 0.99 * maps
    again = load_state(checkpoint_of(folder, 9))
    for now, then in zip(again.halves, outcomes[9].state.halves, strict=True):
        assert now.reference.tobytes() == then.reference.tobytes()
        assert now.sigma2_noise.tobytes() == then.sigma2_noise.tobytes()
    (folder / "run_it009_half2_class001.mrc").unlink()
    assert iterations_to_continue(folder) == [998, 999, 1000]


def test_a_damaged_old_checkpoint_stops_nothing(rng, about, folder):
    for iteration in (1, 2, 3):
        write_iteration(folder, make_outcome(rng, iteration=iteration), *about)
        checkpoint_of(folder, 1).write_bytes(b"not whole")
    assert checkpoint_of(folder, 1).read_bytes() == b"not whole"


def test_checkpoints_of_an_earlier_run_are_not_taken_for_this_ones(rng, about, folder):
    write_iteration(folder, make_outcome(rng, iteration=7), *about)
    discard_checkpoints(folder)
    assert latest_checkpoint(folder) is None
    write_iteration(folder, make_outcome(rng, iteration=1), *about)
    assert latest_checkpoint(folder) == folder / "run_it001_checkpoint.npz"


def test_the_final_files_hold_both_halves(rng, about, folder):
    outcome = make_outcome(rng, iteration=20, last=True)
    state = outcome.state
    files = write_final(folder, outcome, *about)
    assert {p.name for p in folder.iterdir()} == {
        "run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc",
        "run_class001_angdist.bild", "run_model.star", "run_data.star", "run_optimiser.star",
        "run_sampling.star", "run_it020_checkpoint.npz",
    }  # fmt: skip
    assert read_map(files["map"]).pixel_size == PIXEL
    np.testing.assert_array_equal(read_map(files["map"]).data, outcome.result.joined)
    for h in (1, 2):
        np.testing.assert_array_equal(read_map(files[f"half{h}"]).data, outcome.result.unfiltered[h - 1])
    blocks = read_star(files["model"])
    assert blocks["model_groups"]["rlnGroupNrParticles"].sum() == COUNT
    np.testing.assert_allclose(blocks["model_groups"]["rlnGroupScaleCorrection"], [0.91, 1.02, 1.115])
    assert blocks["model_general"]["rlnLogLikelihood"] == pytest.approx(3000)
    assert blocks["model_general"]["rlnAveragePmax"] == pytest.approx(0.55)
    noise = (state.halves[0].sigma2_noise[1] + state.halves[1].sigma2_noise[1]) / 2
    np.testing.assert_allclose(blocks["model_optics_group_2"]["rlnSigma2Noise"], noise, rtol=1e-8)
    optimiser = read_star(files["optimiser"])["optimiser_general"]
    assert optimiser["rlnHasConverged"] == 1
    assert optimiser["rlnModelStarFile"] == "Refine3D/job001/run_model.star"
    assert "rlnModelStarFile2" not in optimiser


def test_an_iteration_that_did_not_join_the_halves_is_not_final(rng, about, folder):
    with pytest.raises(ValueError, match="not joined"):
        write_final(folder, make_outcome(rng), *about)
    assert not list(folder.iterdir())


def test_half_maps_of_the_last_iteration_are_not_the_joined_map(rng, about, folder):
    outcome = make_outcome(rng, last=True)
    files = write_iteration(folder, outcome, *about)
    for h in (1, 2):
        np.testing.assert_array_equal(read_map(files[f"half{h}"]).data, outcome.result.unfiltered[h - 1])
    # A refinement that was killed here must still write its final files when it goes on.
    assert latest_checkpoint(folder) is None


@pytest.mark.parametrize("group", ["C1", "C5", "D2", "O"])
def test_mates_of_a_view_count_for_the_same_direction(rng, group):
    grid = SamplingGrid(2, group)
    rot, tilt = grid.directions
    seen = rng.choice(grid.n_directions, 30)
    poses = matrices(rot[seen], tilt[seen], rng.uniform(0, 360, 30))
    operators = point_group(group).operators
    mates = poses @ operators[rng.integers(0, len(operators), 30)]
    expected = np.bincount(seen, minlength=grid.n_directions) / 30
    np.testing.assert_allclose(distribution_of_poses(mates, grid), expected)


def test_local_searches_count_poses_over_the_asymmetric_unit(rng, about, folder):
    outcome = make_outcome(rng, order=2)
    assert len(outcome.state.halves[0].direction_prior) == 0
    files = write_iteration(folder, outcome, *about)
    blocks = read_star(files["model1"])
    shares = blocks["model_pdf_orient_class_1"]["rlnOrientationDistribution"].to_numpy()
    assert len(shares) == SamplingGrid(2, "D2").n_directions
    assert shares.sum() == pytest.approx(1)
    assert shares.max() >= 1 / 30
    assert blocks["model_general"]["rlnOrientationalPriorMode"] == 1
    assert blocks["model_general"]["rlnSigmaPriorRotAngle"] == pytest.approx(15.0)


def test_the_bild_file_is_that_of_relion():
    # Counts of 25 particles by direction, and the file that RELION 3.1.3 made of them (64 voxels of 1.5 A).
    counts = np.zeros(48)
    seen = [10, 11, 12, 14, 17, 18, 19, 32, 33, 35, 36, 38, 46, 47]
    counts[seen] = [2, 3, 1, 2, 1, 1, 2, 5, 1, 3, 1, 1, 1, 1]
    lines = bild(counts / 25, SamplingGrid(2, "D2"), extent=96.0).splitlines()
    assert len(lines) == 2 * 14
    expected = [
        ".color 0.408264 0 0.591736", ".cylinder 83.0896 54.9798 80 87.3004 55.8173 83.84 3.14159",
        ".color 0.571597 0 0.428403", ".cylinder 75.0287 55.2423 87 79.8938 56.5459 94.02 3.14159",
        ".color 0.244931 0 0.755069", ".cylinder 67.7864 67.7864 87 68.9735 68.9735 89.34 3.14159",
        ".color 0.408264 0 0.591736", ".cylinder 65.7231 55.3411 92 67.8499 56.2221 97.28 3.14159",
    ]  # fmt: skip
    for line, reference in zip(lines, expected, strict=False):
        assert line.split()[0] == reference.split()[0]
        numbers, references = ([float(w) for w in text.split()[1:]] for text in (line, reference))
        np.testing.assert_allclose(numbers, references, rtol=2e-5)


def test_even_views_are_one_colour_and_no_view_is_drawn_without_particles():
    grid = SamplingGrid(1, "C1")
    even = bild(np.full(48, 1 / 48), grid, extent=40.0)
    assert set(re.findall(r"\.color .*", even)) == {".color 0.166667 0 0.833333"}
    assert even.count(".cylinder") == 48
    single = np.zeros(48)
    single[7] = 1
    assert bild(single, grid, extent=40.0).count(".cylinder") == 1


def test_labels_are_those_of_relion_5(rng, about, folder, betagal):
    theirs = read_star(betagal / "relion5_refine3d" / "run_model.star")
    ours = read_star(write_final(folder, make_outcome(rng, last=True), *about)["model"])
    assert [name for name in ours if name != "model_optics_group_2"] == list(theirs)
    lacking = set()
    for name, block in theirs.items():
        assert set(ours[name]) <= set(block)
        lacking |= set(block) - set(ours[name])
    # How full Fourier space is and which shells orient the particles is not kept by the engine.
    assert lacking == {
        "rlnFourierCompleteness", "rlnOverallFourierCompleteness", "rlnSpectralOrientabilityContribution",
    }  # fmt: skip
    columns = read_particles(betagal / "relion5_refine3d" / "run_data.star").particles.columns
    written = read_particles(folder / "run_data.star").particles.columns
    given = read_particles(betagal / "particles_good997.star").particles.columns
    assert set(columns) - set(given) <= set(written)
