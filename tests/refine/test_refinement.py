"""Refinements of simulated particles bring back the truth, whatever form the data have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tests.refine.conftest import optics, settings

from cryorefine.geometry import angles, angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.particles import ParticleFile, column, read_particles, write_particles
from cryorefine.io.star import read_star
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import Figures
from cryorefine.refine.atoms import Atoms, density, random_protein
from cryorefine.refine.simulation import simulate_particles

NYQUIST = 8.0


def protein(symmetry="C1", **options):
    residues = {"C1": 240, "C2": 80, "D2": 60}[symmetry]
    return random_protein(residues, radius=42.0, symmetry=symmetry, **options)


def mirrored(density):
    """The other hand: x and -x exchanged about index box // 2."""
    return np.roll(density[:, :, ::-1], 1, axis=2)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize("symmetry", ["C1", "C2", "D2"])
def test_poses_and_map_come_back(tmp_path, refined, symmetry):
    made = simulate_particles(tmp_path, protein(symmetry), [optics()], 240, snr=3.0)
    outcome = refined(made, symmetry=symmetry)
    assert np.median(outcome.angle_error) < 4
    assert np.mean(outcome.angle_error > 15) < 0.03
    assert np.median(outcome.shift_error) < 0.7
    assert outcome.result.resolution < 1.15 * NYQUIST
    assert outcome.agreement > 0.87
    right, wrong = (correlation(outcome.density, hand(outcome.truth)) for hand in (np.asarray, mirrored))
    assert right > 0.9
    assert wrong < 0.6
    sizes = {read_map(path).pixel_size for path in outcome.result.output.glob("*.mrc")}
    assert sizes == {4.0}


@pytest.mark.parametrize(
    ("simulation", "group", "options"),
    [
        pytest.param({}, {"ctf_premultiplied": True}, {}, id="premultiplied"),
        pytest.param({"phase_flipped": True}, {}, {"data_phase_flipped": True}, id="phase-flipped"),
        pytest.param({"with_ctf": False}, {}, {"ctf_correction": False}, id="no CTF"),
        pytest.param({}, {}, {"zero_mask": False}, id="noise mask"),
        pytest.param({"correlated": 10.0}, {}, {}, id="coloured noise"),
        pytest.param({}, {}, {"padding": 1}, id="no padding"),
        pytest.param(
            {"phase_shift": 60.0, "b_factor": 80.0, "defocus": (2000.0, 9000.0), "astigmatism": 2000.0},
            {"even_aberrations": (0, 0, 0, 0, 3e3, 0, 0, 0, -3e3), "magnification": (1.05, 0.02, 0.02, 0.96)},
            {},
            id="every term of the CTF",
        ),
    ],
)  # fmt: skip
def test_every_form_of_data_is_understood(tmp_path, refined, simulation, group, options):
    made = simulate_particles(tmp_path, protein("D2"), [optics(**group)], 150, snr=3.0, **simulation)
    outcome = refined(made, symmetry="D2", **options)
    assert np.median(outcome.angle_error) < 4
    assert np.median(outcome.shift_error) < 0.7
    assert outcome.agreement > 0.87


@pytest.mark.parametrize(
    ("group", "columns"),
    [
        ({"beam_tilt": (25.0, -15.0)}, {"rlnBeamTiltX": 0.0, "rlnBeamTiltY": 0.0}),
        ({"odd_aberrations": (0, 0, 800, 0, 0, -800)}, {"rlnOddZernike": "[0,0,0,0,0,0]"}),
    ],
)
def test_odd_aberrations_are_corrected(tmp_path, refined, group, columns):
    made = simulate_particles(tmp_path, protein("D2"), [optics(**group)], 120, snr=3.0)
    known = refined(made, symmetry="D2")
    file = read_particles(made.particles)
    ignorant = ParticleFile(file.optics.assign(**columns), file.particles)
    write_particles(made.particles, ignorant)
    ignored = refined(made, symmetry="D2")
    assert known.agreement > 0.87
    assert known.agreement > ignored.agreement + 0.05


def test_optics_groups_may_differ_in_pixel_and_box(tmp_path, refined):
    groups = [optics(), optics("finer", pixel_size=3.0, box=48, voltage=200.0)]
    made = simulate_particles(tmp_path, protein("D2"), groups, 160, snr=3.0)
    outcome = refined(made, symmetry="D2")
    for index in range(2):
        assert np.median(outcome.angle_error[made.optics == index]) < 4
        assert np.median(outcome.shift_error[made.optics == index]) < 0.7
    assert outcome.agreement > 0.87
    # Smaller pixels catch fewer electrons: normalised to the same noise, their signal is weaker. Norms and
    # scales share that factor between them.
    scale = read_star(outcome.result.model)["model_groups"]["rlnGroupScaleCorrection"].to_numpy()
    norm = column(read_particles(outcome.result.data), "rlnNormCorrection")
    signal = [scale[index] * np.mean(norm[made.optics == index]) for index in range(2)]
    assert signal[1] / signal[0] == pytest.approx(3 / 4, rel=0.1)


def test_intensity_scales_come_back(tmp_path, refined):
    made = simulate_particles(
        tmp_path, protein("D2"), [optics()], 200, snr=1.0, micrographs=4, contrast=(1.0, 1.5, 1.0, 0.7)
    )
    outcome = refined(made, symmetry="D2")
    table = read_star(outcome.result.model)["model_groups"]
    scale = table["rlnGroupScaleCorrection"].to_numpy()
    np.testing.assert_allclose(scale / scale[0], (1.0, 1.5, 1.0, 0.7), rtol=0.1)
    assert np.mean(scale) == pytest.approx(1, abs=0.02)


def test_fsc_without_solvent_sees_further(tmp_path, refined):
    made = simulate_particles(tmp_path, protein("D2"), [optics(box=48)], 120, snr=0.3)
    truth = read_map(made.map).data
    mask = np.clip(3 * gaussian_filter(np.float32(truth > 0.15 * truth.max()), 1.5), 0, 1)
    write_map(tmp_path / "mask.mrc", mask, 4.0)
    plain = refined(made, symmetry="D2", reference_mask=tmp_path / "mask.mrc")
    corrected = refined(made, symmetry="D2", reference_mask=tmp_path / "mask.mrc", solvent_flattened_fsc=True)
    assert corrected.result.resolution < plain.result.resolution
    assert corrected.agreement > plain.agreement
    halves = corrected.result.output.glob("run_it001_half?_class001_unfil.mrc")
    assert len(list(halves)) == 2


@pytest.mark.slow
def test_clear_images_find_their_poses(tmp_path, refined):
    """A sharp posterior hides the right pose from a coarse grid; a margin of the search finds it again."""
    atoms = random_protein(120, radius=42.0, symmetry="C2")
    made = simulate_particles(tmp_path, atoms, [optics()], 240, snr=8.0)
    outcome = refined(made, symmetry="C2", finer_sampling_faster=False)
    assert np.mean(outcome.angle_error > 20) < 0.15


def test_each_half_starts_from_its_own_half_map(tmp_path):
    """Half 2 is given another particle's map, so that only half 1 finds its poses in the first iteration."""
    made = simulate_particles(tmp_path, protein("D2"), [optics()], 100, snr=3.0)
    write_map(tmp_path / "start_half1.mrc", read_map(made.map).data, 4.0)
    write_map(tmp_path / "start_half2.mrc", 5 * density(protein("D2", seed=7), 32, 4.0), 4.0)
    changes = {"reference": tmp_path / "start_half2.mrc", "initial_lowpass": 12.0}
    job = refine3d.run(settings(made, tmp_path / "job001", symmetry="D2", **changes))
    next(event for event in job if isinstance(event, Figures))
    job.close()
    file = read_particles(tmp_path / "job001" / "run_it001_data.star")
    poses = matrices(*(column(file, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")))
    error = angular_distance(poses, made.poses, point_group("D2"))
    half = column(file, "rlnRandomSubset")
    assert np.median(error[half == 1]) < 15
    assert np.median(error[half == 2]) > 30


def test_pseudo_symmetric_poses_are_told_apart(tmp_path, refined):
    """Half of the particles start at the wrong one of two poses that look almost the same."""
    twofold = protein("C2")
    knob = np.array([30.0, -22.0, 10.0]) + 4.0 * np.random.default_rng(5).normal(size=(40, 3))
    atoms = Atoms(
        np.concatenate([twofold.positions, knob]), np.ones(len(twofold.positions) + len(knob)), twofold.sigma
    )
    made = simulate_particles(tmp_path, atoms, [optics()], 160, snr=3.0)
    turned = made.poses.copy()
    turned[::2] = turned[::2] @ point_group("C2").operators[1]
    file = read_particles(made.truth)
    start = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles(turned), strict=True))
    write_particles(made.particles, ParticleFile(file.optics, file.particles.assign(**start)))
    local = {"initial_angular_sampling": 7.5, "local_search_from": 7.5, "initial_lowpass": 15.0}
    local["absolute_greyscale"] = True
    stuck = refined(made, **local)
    freed = refined(made, relax_symmetry="C2", **local)
    assert np.mean(stuck.angle_error > 90) > 0.3
    assert np.mean(freed.angle_error > 90) < 0.05
    assert np.median(freed.angle_error) < 4


def test_a_first_local_search_by_correlation_finds_the_same_poses_at_any_grey_scale(tmp_path):
    """One coarse pose of each particle goes on, the best one whatever the reference's grey scale."""
    made = simulate_particles(tmp_path, protein("D2"), [optics()], 12, snr=10.0)
    reference = read_map(made.map)
    found = []
    for factor in (1.0, 1000.0):
        scaled, folder = tmp_path / f"scaled_{factor}.mrc", tmp_path / f"job_{factor}"
        write_map(scaled, factor * reference.data, reference.pixel_size)
        changes = {"reference": scaled, "initial_angular_sampling": 3.7, "local_search_from": 3.7}
        job = refine3d.run(settings(made, folder, symmetry="D2", **changes))
        next(event for event in job if isinstance(event, Figures))
        job.close()
        found.append(read_particles(folder / "run_it001_data.star"))
    for file in found:
        assert (file.particles["rlnNrOfSignificantSamples"].astype(int) == 1).all()
    for name in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"):
        np.testing.assert_array_equal(*(column(file, f"rln{name}") for file in found))
