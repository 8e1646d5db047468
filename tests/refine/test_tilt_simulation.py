"""Simulated tilt series: where particles lie in them, what the microscope does to them, and the files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryorefine.ctf.ctf import CtfParameters
from cryorefine.geometry.euler import matrices
from cryorefine.io.atomic_model import read_atomic_model
from cryorefine.io.mrc import read_map
from cryorefine.io.star import read_star
from cryorefine.refine.atoms import Atoms, random_protein
from cryorefine.refine.back_projection import back_project
from cryorefine.refine.tilt_project import Acquisition, simulate_project
from cryorefine.refine.tilt_simulation import (
    TiltGeometry,
    contrast_of_tilt,
    ctf_of_particle,
    dose_symmetric,
    random_places,
    simulate_tilt_images,
)

ATOM = Atoms(np.zeros((1, 3)), np.ones(1), 5.0)


def geometry(tilt, axis=0.0, shift=(0.0, 0.0), hand=-1, **changes):
    """Tilts seen in pure amplitude contrast (CTF 1 everywhere) unless changed."""
    tilt = np.atleast_1d(np.asarray(tilt, float))
    count = len(tilt)
    values = {"spherical_aberration": 0.0, "amplitude_contrast": 1 - 1e-9, "defocus": 0.0, **changes}
    defocus = np.full(count, values.pop("defocus"))
    transfer = CtfParameters(300.0, defocus_u=defocus, defocus_v=defocus, **values)
    return TiltGeometry(tilt, np.full(count, axis), np.tile(shift, (count, 1)), transfer, hand)


def images(where, atoms=ATOM, places=((0, 0, 0),), size=64, pose=None, **options):
    places = np.array(places, float)
    poses = np.tile(np.eye(3) if pose is None else pose, (len(places), 1, 1))
    return simulate_tilt_images(atoms, places, poses, where, pixel_size=2.0, size=size, **options)


def centre_of_mass(picture):
    """(x, y) in pixels."""
    axis = np.arange(len(picture))
    return np.array([(picture * axis).sum(), (picture * axis[:, None]).sum()]) / picture.sum()


def _moved(picture, rows, columns):
    """Content moved down and to the right; what comes in is 0, as the background is."""
    size = len(picture)
    wide = np.pad(picture, size)
    return wide[size - rows : 2 * size - rows, size - columns : 2 * size - columns]


def test_protein_is_dark_and_in_the_middle():
    (picture,) = images(geometry(0))
    assert picture.sum() < 0
    np.testing.assert_allclose(centre_of_mass(picture), (32, 32), atol=0.01)


def test_a_tilt_moves_what_is_high_along_the_tilted_axis():
    # About y by 30 degrees: x' = x cos + z sin.
    (picture,) = images(geometry(30), places=[(12, -9, 20)])
    expected = (12 * np.cos(np.pi / 6) + 20 * 0.5, -9)
    np.testing.assert_allclose(centre_of_mass(picture), 32 + np.array(expected) / 2, atol=0.01)


def test_the_image_is_turned_after_the_tilt_and_then_shifted():
    # About z by 90 degrees: (x, y) becomes (-y, x).
    (picture,) = images(geometry(30, axis=90, shift=(5, -3)), places=[(12, -9, 20)])
    tilted = (12 * np.cos(np.pi / 6) + 20 * 0.5, -9)
    expected = (-tilted[1] + 5, tilted[0] - 3)
    np.testing.assert_allclose(centre_of_mass(picture), 32 + np.array(expected) / 2, atol=0.01)


def test_the_pose_takes_the_particle_to_the_tomogram():
    """An atom at r in a turned particle lies where an atom at A r lies in one that is not."""
    pose = matrices(40.0, 60.0, 110.0)
    offset = np.array([15.0, 8.0, -20.0])
    turned = images(geometry(25, 85), atoms=replace(ATOM, positions=offset[None]), pose=pose)
    moved = images(geometry(25, 85), places=[pose @ offset])
    np.testing.assert_allclose(turned, moved, atol=1e-3 * np.abs(moved).max())


def test_particles_overlap_and_are_cut_at_the_edge():
    both = images(geometry(10), places=[(0, 0, 0), (10, 6, 5)])
    apart = [images(geometry(10), places=[place]) for place in ((0, 0, 0), (10, 6, 5))]
    np.testing.assert_allclose(both, apart[0] + apart[1], atol=1e-6)
    whole = images(geometry(0))[0]
    for x, y in ((-60, 0), (0, -60), (60, 60)):  # 30 pixels
        (cut,) = images(geometry(0), places=[(x, y, 0)])
        np.testing.assert_allclose(cut, _moved(whole, y // 2, x // 2), atol=1e-4 * np.abs(whole).max())
    assert not images(geometry(0), places=[(500, 0, 0)]).any()


def test_depth_changes_the_defocus_by_the_hand():
    place = np.array([100.0, 0.0, 300.0])
    for hand in (1, -1):
        found = ctf_of_particle(place, geometry([0, 30], defocus=20000.0, hand=hand))
        # z' = z cos - x sin
        depth = np.array([300, 300 * np.cos(np.pi / 6) - 50])
        np.testing.assert_allclose(found.column("defocus_u"), 20000 + hand * depth)
        np.testing.assert_allclose(found.column("defocus_v"), 20000 + hand * depth)


def test_dose_takes_the_fine_detail_first():
    wide = Atoms(np.array([[0, 0, 0], [60, 0, 0]], float), np.array([1.0, 0.0]), 1.0)  # nothing is cut off
    fresh, spent = images(geometry([0, 0], dose=np.array([0.0, 60.0])), atoms=wide)
    spectra = np.abs(np.fft.rfft2(np.stack([fresh, spent])))
    left = spectra[1, 0] / spectra[0, 0]
    assert left[1] > 0.9  # 128 A
    assert left[16] == pytest.approx(np.exp(-30 / (0.245 * 8**1.665 + 2.81)), rel=0.02)  # 8 A


def test_small_tilts_are_taken_first():
    tilt, dose = dose_symmetric(5, 3.0, 2.0)
    np.testing.assert_array_equal(tilt, (-6, -3, 0, 3, 6))
    np.testing.assert_array_equal(dose, (8, 4, 0, 2, 6))


def test_contrast_falls_with_the_tilt():
    np.testing.assert_allclose(contrast_of_tilt([0, 60]), (1, 0.5))
    # At 60 degrees a beam crosses twice the ice: as much again is scattered.
    np.testing.assert_allclose(contrast_of_tilt([0, 60], thickness=1500), (1, np.exp(-0.5)))


def test_places_keep_their_distance(rng):
    places = random_places(30, (300, 300, 100), 60, rng)
    assert (np.abs(places) <= (300, 300, 100)).all()
    apart = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(30, 1)]
    assert apart.min() >= 60


def test_the_same_images_as_another_simulator_made(shared):
    """Place, hand, contrast, dose and defocus agree with tilt series simulated by other means."""
    folder = shared / "data/sim_hiv_sta"
    model = read_atomic_model(shared / "data/hiv_sta_relion5_metadata/ModelAngelo/job080/job080.cif")
    atoms = Atoms(model.positions - (129.2, 129.4, 150.0), model.atomic_numbers.astype(float), 1.5)
    rows = [20, 8]  # 0 and -36 degrees
    table = read_star(folder / "tilt_series/TS_01.star")["TS_01"].iloc[rows]
    own = {label: table[label].to_numpy(float) for label in table.columns[1:]}
    taken = TiltGeometry(
        own["rlnTomoYTilt"],
        own["rlnTomoZRot"],
        np.stack([own["rlnTomoXShiftAngst"], own["rlnTomoYShiftAngst"]], axis=1),
        CtfParameters(
            300.0,
            2.7,
            0.1,
            own["rlnDefocusU"],
            own["rlnDefocusV"],
            own["rlnDefocusAngle"],
            scale=own["rlnCtfScalefactor"],
            dose=own["rlnMicrographPreExposure"],
        ),
    )
    particles = read_star(folder / "truth.star")["particles"]
    particles = particles[particles["rlnTomoName"] == "TS_01"]
    places = np.stack([particles[f"rlnCenteredCoordinate{axis}Angst"] for axis in "XYZ"], axis=1)
    poses = matrices(*(particles[f"rlnAngle{angle}"] for angle in ("Rot", "Tilt", "Psi")))
    recorded = np.asarray(read_map(folder / "tilt_series/TS_01.mrcs").data[rows], np.float64)
    recorded = np.fft.rfft2(recorded - recorded.mean(axis=(1, 2), keepdims=True))
    detail = {}
    for hand in (-1, 1):
        series = replace(taken, hand=hand)
        made = np.fft.rfft2(simulate_tilt_images(atoms, places, poses, series, pixel_size=2.7, size=512))
        made[:, 0, 0] = 0
        correlation = np.fft.irfft2(recorded * made.conj())
        for image in correlation:  # protein dark, in the right place
            assert np.unravel_index(image.argmax(), image.shape) == (0, 0)
        power = np.sum(np.abs(made) ** 2, axis=(1, 2))
        scale = np.sum((recorded * made.conj()).real, axis=(1, 2)) / power
        assert scale[0] == pytest.approx(scale[1], rel=0.02)  # contrast and dose of a tilted image
        radius = np.hypot(np.fft.fftfreq(512, 2.7)[:, None], np.fft.rfftfreq(512, 2.7))
        band = (radius > 1 / 12) & (radius < 1 / 7)
        product = np.sum((recorded * made.conj()).real[:, band])
        detail[hand] = product / np.linalg.norm(made[:, band])
    assert detail[-1] > 1.01 * detail[1]  # defocus by depth: fine detail knows the hand


def test_a_tomogram_shows_a_particle_where_it_lies():
    tilt, _ = dose_symmetric(21, 5.0, 1.0)
    taken = geometry(tilt, axis=80, shift=(6.0, -4.0))
    pictures = images(taken, places=[(24, -32, 16)], size=96)
    tomogram = back_project(pictures, taken.rotations, taken.shifts / 2.0, (24, 48, 48), 2)
    found = np.unravel_index(tomogram.argmin(), tomogram.shape)
    assert found == (12 + 4, 24 - 8, 24 + 6)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    atoms = random_protein(30, radius=30, symmetry="C6")
    acquisition = Acquisition(pixel_size=4.0, image_size=160, tilts=5, tilt_step=10.0, thickness=200.0)
    return folder, simulate_project(
        folder, atoms, acquisition, particles=8, box=24, snr=0.5, tomogram_binning=4
    )


def test_the_project_holds_the_truth_and_where_to_start(project):
    folder, made = project
    truth, wrong = (read_star(folder / name)["particles"] for name in ("truth.star", "particles.star"))
    found = matrices(*(truth[f"rlnAngle{angle}"] for angle in ("Rot", "Tilt", "Psi")))
    np.testing.assert_allclose(found, made.poses, atol=1e-6)
    places = [np.stack([t[f"rlnCenteredCoordinate{a}Angst"] for a in "XYZ"], 1) for t in (truth, wrong)]
    np.testing.assert_allclose(places[0], made.places, atol=1e-4)
    assert (places[1] - places[0]).std() == pytest.approx(4, rel=0.4)
    start = matrices(*(wrong[f"rlnAngle{angle}"] for angle in ("Rot", "Tilt", "Psi")))
    turn = np.degrees(np.arccos((np.einsum("nij,nij->n", start, made.poses) - 1) / 2))
    assert np.sqrt(np.mean(turn**2) / 3) == pytest.approx(8, rel=0.4)
    assert (wrong["rlnRandomSubset"] == 1).sum() == 8
    assert list(truth["rlnTomoParticleName"][[0, 7, 8]]) == ["TS_01/1", "TS_01/8", "TS_02/1"]


def test_the_project_names_files_that_are_there(project):
    folder, made = project
    for each in (made.optimisation_set, made.truth_set):
        (entries,) = read_star(each).values()
        assert all((folder / path).is_file() for path in entries.values())
    table = read_star(folder / "tomograms.star")["global"]
    for _, row in table.iterrows():
        tilts = read_star(folder / row["rlnTomoTiltSeriesStarFile"])[row["rlnTomoName"]]
        stack = tilts["rlnMicrographName"][0].split("@")[1]
        assert read_map(folder / stack).data.shape == (5, 160, 160)
        assert read_map(folder / row["rlnTomoReconstructedTomogram"]).pixel_size == 16.0
    assert read_map(made.map).data.shape == (24, 24, 24)


def test_the_noise_is_1_and_the_signal_as_asked(project):
    folder, made = project
    stack = np.asarray(read_map(folder / "tilt_series/TS_01.mrcs").data, np.float64)
    # Without particles only noise is left, so the corners' variance is 1.
    assert stack[:, :12, :12].var() == pytest.approx(1, rel=0.15)
    atoms = random_protein(30, radius=30, symmetry="C6")
    clean = simulate_tilt_images(
        atoms, made.places[:8], made.poses[:8], made.geometries[0], pixel_size=4.0, size=160
    )
    contrast = np.vdot(stack, clean) / np.vdot(clean, clean)
    assert contrast * clean[2].std() > 0.05
    np.testing.assert_allclose(np.var(stack - contrast * clean), 1, rtol=0.03)
