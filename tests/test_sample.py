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
from cryorefine.io.particles import project_root, read_particles
from cryorefine.sample import sample_folder


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
