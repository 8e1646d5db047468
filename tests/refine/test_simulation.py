"""Simulated particles: their geometry and statistics, and what RELION makes of them."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from cryorefine.ctf import CtfParameters
from cryorefine.geometry.euler import matrices
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.atoms import Atoms, density, random_protein
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import normalise, simulate_images, simulate_particles

OPTICS = OpticsGroup("simulated", 3.0, 32, 300.0, 2.7, 0.1)


def image(atoms, pose=None, offset=(0.0, 0.0), ctf=None, optics=OPTICS, **options):
    pose = np.eye(3) if pose is None else pose
    options = {"noise": 0.0, "rng": np.random.default_rng(1)} | options
    return simulate_images(atoms, pose[None], np.array([offset]), ctf, optics, **options)[0]


def one_atom(x, y, z):
    return Atoms(np.array([[x, y, z]], float), np.ones(1), 4.0)


def centre_of_mass(picture):
    """(x, y) in pixels from the centre."""
    axis = np.arange(len(picture)) - len(picture) // 2
    return np.array([(picture * axis).sum(), (picture * axis[:, None]).sum()]) / picture.sum()


def test_image_along_z_is_the_sum_of_the_map():
    atoms = random_protein(200, radius=30, sigma=3.0)
    volume = density(atoms, 32, 3.0)
    picture = image(atoms)
    np.testing.assert_allclose(picture, volume.sum(axis=0), atol=0.005 * picture.max())


def test_density_holds_every_atom_once():
    atoms = random_protein(100, radius=30, sigma=3.0)
    # Sums along z are integrals: voxels of p A hold p / p^3 of an atom.
    assert density(atoms, 32, 3.0).sum() * 3.0**2 == pytest.approx(100, rel=1e-4)


def test_pose_takes_the_particle_to_the_view():
    pose = matrices(30.0, 70.0, 110.0)
    expected = (pose @ [12.0, -9.0, 6.0])[:2] / 3
    np.testing.assert_allclose(centre_of_mass(image(one_atom(12, -9, 6), pose)), expected, atol=0.02)


def test_offset_is_what_centres_the_image():
    np.testing.assert_allclose(
        centre_of_mass(image(one_atom(0, 0, 0), offset=(6.0, -4.5))), (-2.0, 1.5), atol=0.02
    )


def test_magnification_stretches_the_image():
    """The value at k is the particle's at M k: twice the frequency is half the size."""
    stretched = OpticsGroup("stretched", 3.0, 32, 300.0, 2.7, 0.1, magnification=(1.1, 0.0, 0.0, 1.0))
    place = centre_of_mass(image(one_atom(11, 9, 0), optics=stretched))
    np.testing.assert_allclose(place, (11 * 1.1 / 3, 3.0), atol=0.02)


def test_premultiplied_images_carry_the_ctf_twice():
    ctf = CtfParameters(300.0, 2.7, 0.1, np.array([9000.0]), np.array([8000.0]), 20.0)
    twice = OpticsGroup("twice", 3.0, 32, 300.0, 2.7, 0.1, ctf_premultiplied=True)
    atoms = Atoms(np.zeros((1, 3)), np.ones(1), 1.5)
    spectra = [
        np.fft.fft2(image(atoms, ctf=c, optics=o)) for c, o in ((ctf, OPTICS), (ctf, twice), (None, OPTICS))
    ]
    once, both, none = (s.real / np.abs(spectra[2]) for s in spectra)
    # Where the once multiplied transform changes sign, the twice multiplied one does not.
    assert np.mean(once * none < -0.3) > 0.2
    assert np.mean(both * none < -0.1) < 0.05


def test_noise_has_the_asked_deviation_and_correlation(rng):
    nothing = Atoms(np.zeros((1, 3)), np.zeros(1), 3.0)
    poses, offsets = np.tile(np.eye(3), (200, 1, 1)), np.zeros((200, 2))
    white = simulate_images(nothing, poses, offsets, None, OPTICS, noise=2.0, rng=rng)
    coloured = simulate_images(nothing, poses, offsets, None, OPTICS, noise=2.0, correlated=12.0, rng=rng)
    assert white.std() == pytest.approx(2, rel=0.02)
    assert coloured.std() == pytest.approx(2, rel=0.03)
    neighbours = [np.mean(each[..., 1:] * each[..., :-1]) / each.var() for each in (white, coloured)]
    assert abs(neighbours[0]) < 0.02
    assert neighbours[1] > 0.4


def test_normalised_background(rng):
    images = rng.normal(5, 3, size=(4, 32, 32)).astype(np.float32)
    axis = np.arange(32) - 16
    background = normalise(images, 10)[:, np.hypot(axis[:, None], axis) > 10]
    np.testing.assert_allclose(background.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(background.std(axis=1), 1, atol=1e-5)


def test_a_folded_chain_has_no_mirror_and_its_group(tmp_path):
    lopsided = density(random_protein(200, radius=40), 32, 3.0)
    mirrored = lopsided[:, :, ::-1]
    assert np.corrcoef(lopsided[1:, 1:, 1:].ravel(), mirrored[1:, 1:, :-1].ravel())[0, 1] < 0.7
    twofold = density(random_protein(100, radius=40, symmetry="D2"), 32, 3.0)[1:, 1:, 1:]
    np.testing.assert_allclose(twofold, twofold[::-1, ::-1], atol=1e-4 * twofold.max())


def test_files_hold_the_truth(tmp_path):
    groups = [OPTICS, OpticsGroup("coarser", 4.0, 24, 200.0, 2.0, 0.07, beam_tilt=(1.0, -1.0))]
    atoms = random_protein(100, radius=30)
    made = simulate_particles(tmp_path, atoms, groups, 12, snr=1.0, micrographs=2, contrast=(1, 1, 2, 2))
    truth, hidden = read_particles(made.truth), read_particles(made.particles)
    assert "rlnAngleRot" not in hidden.particles
    found = matrices(*(column(truth, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")))
    np.testing.assert_allclose(found, made.poses, atol=1e-6)
    np.testing.assert_allclose(column(truth, "rlnOriginYAngst"), made.offsets[:, 1], atol=1e-5)
    assert truth.particles["rlnMicrographName"].nunique() == 4
    np.testing.assert_array_equal(made.contrast[:4], (1, 1, 2, 2))
    reader = ImageReader(tmp_path)
    assert [reader.shape(n) for n in truth.particles["rlnImageName"][:2]] == [(32, 32), (24, 24)]
    assert read_map(made.map).pixel_size == 3.0


@pytest.mark.parametrize("form", ["plain", "premultiplied"])
def test_relion_reconstructs_the_truth(tmp_path, relion, form):
    """Poses, offsets, CTF, aberrations and grey scale mean to RELION what they mean here."""
    optics = OpticsGroup(
        "aberrant",
        3.0,
        48,
        300.0,
        2.7,
        0.1,
        ctf_premultiplied=form == "premultiplied",
        beam_tilt=(1.5, -2.0),
        odd_aberrations=(0, 0, 100, 0, 0, 50),
        even_aberrations=(0, 0, 0, 0, 0, 0, 100, 0, 0),
        magnification=(1.02, 0.005, 0.003, 0.99),
    )
    simulate_particles(tmp_path, random_protein(200, radius=45), [optics], 400, snr=100.0)
    words = [relion("reconstruct"), "--i", "truth.star", "--o", "relion.mrc", "--ctf"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    found, truth = read_map(tmp_path / "relion.mrc").data, read_map(tmp_path / "truth.mrc").data
    fsc = fourier_shell_correlation(found, truth)
    assert fsc[:15].min() > 0.98
    if form == "plain":
        assert np.sum(found * truth) / np.sum(truth**2) == pytest.approx(1, abs=0.1)
