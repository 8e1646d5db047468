"""The orientation distribution as a job: counts, factor and files of known sets of views."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError
from cryorefine.geometry.euler import angles, matrices, view_directions
from cryorefine.geometry.healpix import nearest_pixels
from cryorefine.io.particles import ParticleFile, write_particles
from cryorefine.io.star import read_star
from cryorefine.jobs import finish, orientations
from cryorefine.jobs.base import Notice

COUNT = 3000


def write_views(path, rot, tilt, box=100):
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnImagePixelSize": [1.5],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@stack.mrcs" for i in range(len(rot))],
            "rlnOpticsGroup": 1,
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": 0.0,
        }
    )
    write_particles(path, ParticleFile(optics if box else optics.drop(columns="rlnImageSize"), particles))
    return path


def collect(options):
    """Run the job; return its result and what it told the person."""
    running, notices = orientations.run(options), []
    while True:
        try:
            event = next(running)
        except StopIteration as stop:
            return stop.value, notices
        if isinstance(event, Notice):
            notices.append(event.message)


def test_even_views_are_fine(tmp_path, rng):
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, COUNT)))
    path = write_views(tmp_path / "p.star", rng.uniform(-180, 180, COUNT), tilt)
    result, notices = collect(orientations.Options(particles=path, output=tmp_path / "job001"))
    assert result.scf > 0.93
    assert result.empty == 0
    assert notices == []


def test_top_views_are_told_of(tmp_path, rng):
    tilt = np.rad2deg(np.arccos(rng.uniform(np.cos(np.deg2rad(20)), 1, COUNT)))
    path = write_views(tmp_path / "p.star", rng.uniform(-180, 180, COUNT), tilt)
    result, notices = collect(orientations.Options(particles=path, output=tmp_path / "job001"))
    # The empty caps begin 20 degrees off the equator: 1 - sin 20 of the sphere.
    assert result.empty == pytest.approx(1 - np.sin(np.deg2rad(20)), abs=0.03)
    assert result.scf < 0.1
    assert "sample Fourier space unevenly" in notices[0]


def test_the_table_counts_particles_and_their_mates(tmp_path):
    path = write_views(tmp_path / "p.star", [40.0, 40.0, 10.0], [60.0, 60.0, 80.0])
    options = orientations.Options(particles=path, output=tmp_path / "job001", symmetry="d2", healpix_order=2)
    result, _ = collect(options)
    blocks = read_star(result.star)
    table, general = blocks["directions"], blocks["general"]
    assert len(table) == 192
    assert table["cryorefineParticleCount"].sum() == 3
    mates = table["cryorefineParticleCountWithMates"].to_numpy()
    assert mates.sum() == 12
    for rot, tilt in ((40, 60), (-140, 60), (140, 120), (-40, 120)):
        assert mates[nearest_pixels(rot, tilt, 2)] == 2
    assert general["cryorefineSamplingCompensationFactor"] == pytest.approx(result.scf)
    assert general["cryorefineParticleCount"] == 3
    assert result.picture.stat().st_size > 10_000


def test_the_bild_file_fills_the_box_of_the_particles(tmp_path):
    path = write_views(tmp_path / "p.star", [0.0] * 5, [90.0] * 5)
    result, _ = collect(orientations.Options(particles=path, output=tmp_path / "job001"))
    (line,) = [line for line in result.bild.read_text().splitlines() if line.startswith(".cylinder")]
    x, y, z = (float(word) for word in line.split()[1:4])
    # 100 px of 1.5 A: the sphere of radius 75 A around (75, 75, 75) is seen along x
    assert np.linalg.norm([x - 75, y - 75, z - 75]) == pytest.approx(75, abs=0.01)
    assert x > 149
    assert abs(z - 75) < 7


def test_boxes_of_tomograms_that_were_turned_before(rng):
    """However the rotation from reference to tomogram is split in two, the beam is where it was."""
    whole = np.stack([rng.uniform(-180, 180, 20), rng.uniform(0, 180, 20), rng.uniform(-180, 180, 20)])
    box = np.stack([rng.uniform(-180, 180, 20), rng.uniform(0, 180, 20), rng.uniform(-180, 180, 20)])
    rest = angles(np.swapaxes(matrices(*box), 1, 2) @ matrices(*whole))
    table = pd.DataFrame({"rlnImageName": ["1@s.mrcs"] * 20, "rlnOpticsGroup": 1})
    for i, name in enumerate(("Rot", "Tilt", "Psi")):
        table[f"rlnTomoSubtomogram{name}"], table[f"rlnAngle{name}"] = box[i], rest[i]
    rot, tilt = orientations.viewing_angles(ParticleFile(pd.DataFrame({"rlnOpticsGroup": [1]}), table))
    np.testing.assert_allclose(view_directions(rot, tilt), view_directions(*whole[:2]), atol=1e-9)


def test_an_unknown_box_is_said(tmp_path):
    path = write_views(tmp_path / "p.star", [0.0] * 5, [90.0] * 5, box=0)
    _, notices = collect(orientations.Options(particles=path, output=tmp_path / "job001"))
    assert any("200 A wide" in notice for notice in notices)


def test_particles_without_angles_are_refused(tmp_path):
    path = write_views(tmp_path / "p.star", [0.0], [0.0])
    path.write_text(path.read_text().replace("rlnAngleTilt", "rlnAngleTiltPrior"))
    with pytest.raises(UserError, match="lacks the column rlnAngleTilt"):
        finish(orientations.run(orientations.Options(particles=path, output=tmp_path / "job001")))
