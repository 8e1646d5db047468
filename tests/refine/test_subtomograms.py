"""Refinement of pseudo-subtomograms: stacks of tilt images and volumes, from an optimisation set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError
from cryorefine.geometry import angles, angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map, write_map, write_stack
from cryorefine.io.optimisation_set import OptimisationSet, read_optimisation_set, write_optimisation_set
from cryorefine.io.particles import ParticleFile, column, read_particles, write_particles
from cryorefine.io.star import read_star
from cryorefine.jobs import pseudo_subtomo, refine3d
from cryorefine.jobs.base import Figures, Notice, finish
from cryorefine.jobs.folder import status
from cryorefine.jobs.refine3d_session import next_binning_of
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.simulation import random_rotations
from cryorefine.refine.subtomogram_loading import load_subtomograms
from cryorefine.refine.tilt_project import Acquisition, simulate_project

SYMMETRY, PIXEL, BOX = "D2", 4.0, 32
ACQUISITION = Acquisition(
    pixel_size=PIXEL, image_size=144, tilts=7, tilt_step=15.0, dose=6.0, thickness=160.0
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two tilt series of a particle whose poses are known to 8 degrees, given in frames of their own."""
    folder = tmp_path_factory.mktemp("project")
    atoms = random_protein(60, radius=40.0, symmetry=SYMMETRY)
    simulated = simulate_project(
        folder, atoms, ACQUISITION, particles=16, box=BOX, snr=2.0, angle_error=8.0, position_error=4.0
    )
    _in_own_frames(simulated.optimisation_set)
    return simulated


def _in_own_frames(path: Path) -> None:
    """Give every particle a random frame: total orientation and position stay what they were."""
    entries = read_optimisation_set(path)
    file = read_particles(entries.particles)
    frames = random_rotations(len(file.particles), np.random.default_rng(3))
    poses = np.swapaxes(frames, 1, 2) @ _total_poses(file)
    columns = dict(zip((f"rlnAngle{a}" for a in ("Rot", "Tilt", "Psi")), angles(poses), strict=True))
    columns |= dict(
        zip((f"rlnTomoSubtomogram{a}" for a in ("Rot", "Tilt", "Psi")), angles(frames), strict=True)
    )
    columns["rlnAngleTiltPrior"] = columns["rlnAngleTilt"]
    write_particles(
        entries.particles, ParticleFile(file.optics, file.particles.assign(**columns), file.general)
    )


def _total_poses(file: ParticleFile) -> np.ndarray:
    pose = matrices(*(column(file, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")))
    frame = matrices(*(column(file, f"rlnTomoSubtomogram{a}", 0.0) for a in ("Rot", "Tilt", "Psi")))
    return frame @ pose


def _places(file: ParticleFile) -> np.ndarray:
    """Positions in A from the tomogram's centre."""
    frame = matrices(*(column(file, f"rlnTomoSubtomogram{a}", 0.0) for a in ("Rot", "Tilt", "Psi")))
    centred = np.stack([column(file, f"rlnCenteredCoordinate{a}Angst") for a in "XYZ"], axis=1)
    offsets = np.stack([column(file, f"rlnOrigin{a}Angst", 0.0) for a in "XYZ"], axis=1)
    return centred - np.einsum("nij,nj->ni", frame, offsets)


def _errors(path: Path, project) -> tuple[float, float]:
    """Median errors of poses in degrees and of positions in A."""
    file, truth = read_particles(path), read_particles(read_optimisation_set(project.truth_set).particles)
    # A particle near the edge of the images may have been left out.
    order = {name: row for row, name in enumerate(truth.particles["rlnTomoParticleName"])}
    rows = [order[name] for name in file.particles["rlnTomoParticleName"]]
    angle = angular_distance(_total_poses(file), _total_poses(truth)[rows], point_group(SYMMETRY))
    distance = np.linalg.norm(_places(file) - _places(truth)[rows], axis=1)
    return float(np.median(angle)), float(np.median(distance))


@pytest.fixture(scope="module", params=[True, False], ids=["stacks", "volumes"])
def extracted(request, project, tmp_path_factory):
    output = tmp_path_factory.mktemp("Extract") / "job002"
    options = pseudo_subtomo.Options(
        optimisation_set=project.optimisation_set,
        output=output,
        binning=1.0,
        box_size=48,
        crop_size=BOX,
        stack_2d=request.param,
        float16=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.optimisation_set.parent)
        finish(pseudo_subtomo.run(options))
        yield output / "optimisation_set.star"


def options(extracted: Path, output: Path, **changes) -> refine3d.Options:
    values = {
        "optimisation_set": extracted,
        "output": output,
        "absolute_greyscale": False,
        "initial_lowpass": 20.0,
        "mask_diameter": 100.0,
        "initial_angular_sampling": 7.5,
        "local_search_from": 7.5,
        "initial_offset_range": 2.0,
        "symmetry": SYMMETRY,
        "finer_sampling_faster": True,
        "threads": 2,
    }
    return refine3d.Options(**(values | changes))


def _all_of(run):
    """A job's result and its events."""
    events = []
    try:
        while True:
            events.append(next(run))
    except StopIteration as end:
        return end.value, events


def test_poses_positions_and_map_come_back(extracted, project, tmp_path):
    before = _errors(read_optimisation_set(extracted).particles, project)
    result = finish(refine3d.run(options(extracted, tmp_path / "Refine3D", reference=project.map)))
    angle, distance = _errors(result.data, project)
    assert before[0] > 8
    assert angle < 0.5 * before[0]
    assert distance < 0.6 * before[1]
    mask = soft_sphere((BOX,) * 3, 11.0, 3.0)
    agreement = fourier_shell_correlation(mask * read_map(result.map).data, mask * read_map(project.map).data)
    assert agreement[1 : BOX // 3].mean() > 0.9


@pytest.mark.parametrize("extracted", [True], indirect=True, ids=["stacks"])
def test_what_is_left_blank_comes_from_the_set_and_goes_on_in_the_next(extracted, project, tmp_path):
    truth = read_map(project.map)
    for half in (1, 2):
        write_map(tmp_path / f"half{half}.mrc", truth.data, truth.pixel_size)
    write_map(tmp_path / "mask.mrc", soft_sphere((BOX,) * 3, 12.0, 3.0), truth.pixel_size)
    entries = read_optimisation_set(extracted).with_entries(
        reference_half1=tmp_path / "half1.mrc",
        reference_half2=tmp_path / "half2.mrc",
        reference_mask=tmp_path / "mask.mrc",
    )
    write_optimisation_set(tmp_path / "set.star", entries)
    run = refine3d.run(
        options(tmp_path / "set.star", tmp_path / "Refine3D", solvent_flattened_fsc=True, sigma_tilt=20.0)
    )
    result, events = _all_of(run)
    after = read_optimisation_set(result.optimisation_set)
    assert after.particles == result.data
    assert (after.reference_half1, after.reference_half2) == result.half_maps
    assert after.reference_mask == tmp_path / "mask.mrc"
    # RELION reads tilt series and trajectories from here when it goes on.
    optimiser = read_star(result.output / "run_optimiser.star")["optimiser_general"]
    assert Path(optimiser["rlnTomoTomogramsFile"]).samefile(entries.tomograms)
    assert optimiser["rlnTomoTrajectoriesFile"] == ""
    assert after.tomograms == entries.tomograms
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "half1.mrc" in said
    assert "mask.mrc" in said


def test_a_prior_on_the_tilt_keeps_particles_near_it(extracted, project, tmp_path):
    """With a wrong but narrow prior the tilt angles end there, as near as the first grid allows."""
    entries = read_optimisation_set(extracted)
    file = read_particles(entries.particles)
    wrong = file.particles.assign(rlnAngleTiltPrior=40.0)
    write_particles(tmp_path / "particles.star", ParticleFile(file.optics, wrong, file.general))
    file_set = OptimisationSet(particles=tmp_path / "particles.star", tomograms=entries.tomograms)
    write_optimisation_set(tmp_path / "set.star", file_set)
    output = tmp_path / "Refine3D"
    run = refine3d.run(
        options(
            tmp_path / "set.star",
            output,
            reference=project.map,
            initial_angular_sampling=15.0,
            local_search_from=3.7,
            sigma_tilt=2.0,
        )
    )
    # One iteration tells.
    for event in run:
        if isinstance(event, Figures):
            run.close()
            break
    tilt = column(read_particles(output / "run_it001_data.star"), "rlnAngleTilt")
    assert np.abs(tilt - 40).max() < 25


@pytest.mark.parametrize("extracted", [True], indirect=True, ids=["stacks"])
def test_a_stack_of_another_length_than_its_visible_images_is_named(extracted, tmp_path):
    entries = read_optimisation_set(extracted)
    file = read_particles(entries.particles)
    table = _whole(file)
    stack = Path(str(table["rlnImageName"].iloc[0]))
    hidden = "[0" + table["rlnTomoVisibleFrames"].iloc[0][2:]

    def load(**columns):
        particles = ParticleFile(file.optics, table.assign(**columns), file.general)
        write_particles(tmp_path / "particles.star", particles)
        return load_subtomograms(
            tmp_path / "particles.star", entries.tomograms, None, seed=1, tilt_prior=False
        )[1]

    assert load().image_names[0] == f"1@{stack}"
    images = read_map(stack).data
    short, dark = tmp_path / "short.mrcs", tmp_path / "dark.mrcs"
    write_stack(short, images[:-1], PIXEL)
    assert load(rlnTomoVisibleFrames=hidden, rlnImageName=str(short)).image_names[0] == f"1@{short}"
    with pytest.raises(UserError, match=r"short\.mrcs holds 6 images"):
        load(rlnImageName=str(short))
    # WarpTools keeps the place of an image that is not visible, and leaves it dark.
    write_stack(dark, np.concatenate([1e-4 * images[:1], images[1:]]), PIXEL)
    assert load(rlnTomoVisibleFrames=hidden, rlnImageName=str(dark)).image_names[0] == f"2@{dark}"
    with pytest.raises(UserError, match=r"holds 7 images, but rlnTomoVisibleFrames of \S+ lists 6 visible"):
        load(rlnTomoVisibleFrames=hidden)


def _whole(file: ParticleFile):
    """Two particles that all tilts show, one in each half."""
    whole = file.particles["rlnTomoVisibleFrames"].astype(str).str.count("1") == ACQUISITION.tilts
    return file.particles[whole].iloc[:2].reset_index(drop=True).assign(rlnRandomSubset=[1, 2])


@pytest.mark.parametrize("extracted", [True], indirect=True, ids=["stacks"])
@pytest.mark.parametrize(
    ("optics", "without", "message"),
    [
        ({"rlnImagePixelSize": 2 * PIXEL}, [], "images of optics group 1 8 A/px, but tilt images of 4 A/px"),
        ({}, ["rlnRandomSubset"], "which half set .* two half maps"),
        ({}, ["rlnTomoVisibleFrames"], "lacks the column rlnTomoVisibleFrames"),
    ],
)
def test_particles_that_do_not_fit_are_named(extracted, project, tmp_path, optics, without, message):
    entries = read_optimisation_set(extracted)
    file = read_particles(entries.particles)
    table = _whole(file).drop(columns=without)
    write_particles(
        tmp_path / "particles.star", ParticleFile(file.optics.assign(**optics), table, file.general)
    )
    truth = read_map(project.map)
    for half in (1, 2):
        write_map(tmp_path / f"half{half}.mrc", truth.data, truth.pixel_size)
    with pytest.raises(UserError, match=message):
        finish(
            refine3d.run(
                options(
                    extracted,
                    tmp_path / "Refine3D",
                    particles=tmp_path / "particles.star",
                    reference=tmp_path / "half1.mrc",
                )
            )
        )
    assert not (tmp_path / "Refine3D").exists()


@pytest.mark.parametrize("extracted", [True], indirect=True, ids=["stacks"])
def test_without_its_column_the_prior_on_the_tilt_is_about_the_first_tilt_angle(extracted, tmp_path):
    entries = read_optimisation_set(extracted)
    file = read_particles(entries.particles)
    table = file.particles.drop(columns="rlnAngleTiltPrior")
    write_particles(tmp_path / "particles.star", ParticleFile(file.optics, table, file.general))
    _, particles = load_subtomograms(
        tmp_path / "particles.star", entries.tomograms, None, seed=1, tilt_prior=True
    )
    assert np.allclose(particles.tilt_priors, table["rlnAngleTilt"])
    assert np.ptp(particles.tilt_priors) > 10


@pytest.mark.parametrize("extracted", [True], indirect=True, ids=["stacks"])
def test_a_refinement_that_was_stopped_ends_in_the_same_map_on_any_number_of_threads(
    extracted, project, tmp_path
):
    coarse = {"reference": project.map, "initial_angular_sampling": 15.0, "local_search_from": 15.0}
    whole = finish(refine3d.run(options(extracted, tmp_path / "whole", **coarse)))
    run = refine3d.run(options(extracted, tmp_path / "stopped", threads=1, **coarse))
    iterations = 0
    for event in run:
        iterations += isinstance(event, Figures)
        if iterations == 2:
            run.close()
            break
    resumed = finish(refine3d.run(refine3d.Options(continue_from=tmp_path / "stopped", threads=1)))
    assert whole.iterations > 2
    assert np.array_equal(read_map(resumed.map).data, read_map(whole.map).data)
    after = read_optimisation_set(resumed.optimisation_set)
    assert (after.reference_half1, after.reference_half2) == resumed.half_maps
    # Asking for more than there is leaves a finished job finished.
    with pytest.raises(UserError, match="has converged"):
        finish(refine3d.run(refine3d.Options(continue_from=tmp_path / "stopped")))
    assert status(tmp_path / "stopped") == "succeeded"


@pytest.mark.parametrize(("reached", "said"), [(10.9, "binning 1 allows 5.4 A"), (20.0, "")])
def test_the_next_binning_is_named_when_the_pixels_hold_the_refinement_back(reached, said):
    optics = pd.DataFrame({"rlnTomoTiltSeriesPixelSize": [2.7], "rlnImagePixelSize": [5.4]})
    file = ParticleFile(optics, pd.DataFrame({"rlnOpticsGroup": [1, 1]}))
    sentence = next_binning_of(file, reached)
    assert said in sentence
    assert bool(sentence) == bool(said)
