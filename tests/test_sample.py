"""The sample data are whole, and are the particles they are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryorefine import sample
from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map
from cryorefine.io.mtf import read_mtf
from cryorefine.io.optimisation_set import read_optimisation_set
from cryorefine.io.particles import project_root, read_particles
from cryorefine.io.tomograms import read_tomograms
from cryorefine.sample import sample_folder
from cryorefine.tomo.geometry import project
from cryorefine.tomo.particles import read_subtomograms
from cryorefine.tomo.tilt_images import TiltImages


def test_every_particle_has_its_image_ctf_and_optics() -> None:
    file = read_particles(sample_folder() / "particles.star", required=["rlnDefocusU", "rlnVoltage"])
    names = list(file.particles["rlnImageName"])
    images = ImageReader(project_root(file.path, names[0])).read(names)

    assert images.shape == (997, 64, 64)
    assert np.isfinite(images).all()
    # Normalised: the noise around the particle has mean 0 and variance 1.
    y, x = np.mgrid[-32:32, -32:32]
    background = images[:, x**2 + y**2 > 28**2]
    assert abs(background.mean()) < 0.02
    assert abs(background.std() - 1) < 0.05
    assert not {"rlnAngleRot", "rlnRandomSubset", "rlnClassNumber"} & set(file.particles)


def test_the_reference_and_the_detector_fit_the_particles() -> None:
    reference = read_map(sample_folder() / "reference_5a1a.mrc")
    optics = read_particles(sample_folder() / "particles.star").optics.iloc[0]

    assert reference.data.shape == (64, 64, 64)
    assert reference.pixel_size == pytest.approx(optics["rlnImagePixelSize"])
    assert (sample_folder() / optics["rlnMtfFileName"]).is_file()
    frequency, value = read_mtf(sample_folder() / "mtf_k2_200kV.star")
    assert value[0] == 1
    assert frequency[-1] >= 0.5


def test_the_sample_is_what_the_shared_data_hold(betagal: Path) -> None:
    ours, theirs = (
        read_particles(path)
        for path in (sample_folder() / "particles.star", betagal / "particles_good997.star")
    )
    for column in ("rlnMicrographName", "rlnDefocusU", "rlnCoordinateX"):
        assert list(ours.particles[column]) == list(theirs.particles[column])
    rows = [0, 500, 996]
    mine, original = (
        ImageReader(project_root(file.path, names[0])).read(names)
        for file in (ours, theirs)
        for names in [list(file.particles["rlnImageName"].iloc[rows])]
    )
    assert np.array_equal(mine, original)


def test_an_installation_without_the_data_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sample, "__file__", str(tmp_path / "site" / "cryorefine" / "sample.py"))
    with pytest.raises(UserError, match="install the program again"):
        sample_folder()


def test_the_tilt_series_are_whole_and_small() -> None:
    folder = sample_folder("betagal_tilts")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 15e6
    tomograms = read_tomograms(folder / "tomograms.star")
    for series in tomograms.values():
        assert len(series) == 25
        images = np.array(TiltImages(series).images, np.float32)
        assert images.shape == (25, 340, 340)
        assert 1.0 < images.std() < 1.3  # noise of 1, and particles


def test_particles_are_dark_in_their_true_places() -> None:
    entries = read_optimisation_set(sample_folder("betagal_tilts") / "truth_optimisation_set.star")
    assert entries.particles is not None
    assert entries.tomograms is not None
    particles = read_subtomograms(entries.particles, read_tomograms(entries.tomograms))
    assert len(particles) == 48
    squares = []
    for series, rows in particles.by_tomogram():
        centres = project(series, particles.positions(series, rows))[0][:, 12]
        corners = np.floor(centres + 0.5).astype(np.int64) - 20
        squares.append(TiltImages(series).squares(np.full(len(rows), 12), corners, 40))
    mean = np.concatenate(squares).mean(axis=0)
    assert mean[16:24, 16:24].mean() < mean[:5].mean() - 0.2
