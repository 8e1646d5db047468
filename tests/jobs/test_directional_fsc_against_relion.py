"""Half maps that RELION reconstructs from views of one side lack what those views do not see."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryorefine.geometry.euler import angles, matrices, view_directions
from cryorefine.geometry.healpix import directions
from cryorefine.geometry.orientation_distribution import fourier_sampling
from cryorefine.io.mrc import write_map
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import directional_fsc, finish
from cryorefine.maps.filters import lowpass

SIZE, PIXEL, COUNT = 40, 3.0, 250
TOP = (40.0, 65.0)


@pytest.fixture(scope="module")
def half_map(relion, tmp_path_factory) -> tuple[Path, np.ndarray]:
    """Return a half map from views within 30 degrees of TOP, and the poses (n, 3, 3) of all views."""
    project, reconstruct = relion("project"), relion("reconstruct")
    folder = tmp_path_factory.mktemp("one_sided")
    rng = np.random.default_rng(5)
    z, y, x = np.indices((SIZE,) * 3) - SIZE / 2
    ball = 1 / (1 + np.exp(np.sqrt(x**2 + y**2 + z**2) - 13))
    particle = lowpass(ball * rng.normal(size=ball.shape), PIXEL, 2.5 * PIXEL)
    write_map(folder / "particle.mrc", particle.astype(np.float32), PIXEL)
    poses = []
    for half in (1, 2):
        tilt = np.rad2deg(np.arccos(rng.uniform(np.cos(np.deg2rad(30)), 1, COUNT)))
        near_z = matrices(rng.uniform(-180, 180, COUNT), tilt, rng.uniform(-180, 180, COUNT))
        # row 3 of A is the view: A @ R(TOP) looks along TOP where A looks along z
        pose = near_z @ matrices(*TOP, 0.0)
        poses.append(pose)
        rot, tilt, psi = angles(pose)
        table = {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi, "rlnOpticsGroup": 1}
        optics = {
            "rlnOpticsGroupName": "one", "rlnOpticsGroup": [1], "rlnImagePixelSize": PIXEL,
            "rlnImageSize": SIZE, "rlnImageDimensionality": 2, "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1,
        }  # fmt: skip
        blocks = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(table)}
        write_star(folder / f"views{half}.star", blocks)
        stack = folder / f"half{half}"
        run(
            project, "--i", folder / "particle.mrc", "--ang", folder / f"views{half}.star", "--o", stack,
            "--angpix", PIXEL, "--add_noise", "--white_noise", 3 * particle.std() * SIZE**0.5,
        )  # fmt: skip
        run(reconstruct, "--i", f"{stack}.star", "--o", folder / f"half{half}.mrc", "--angpix", PIXEL)
    return folder / "half1.mrc", np.concatenate(poses)


def run(*words) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_missing_cone_lies_along_the_views(half_map, tmp_path):
    half, poses = half_map
    options = directional_fsc.Options(half_map=half, output=tmp_path / "job001", healpix_order=2)
    result = finish(directional_fsc.run(options))
    table = read_star(result.star)["directions"]
    area = table["cryorefineFscArea"].to_numpy()
    along = np.abs(view_directions(*directions(2)) @ view_directions(*TOP))
    # Slices of views within 30 degrees of TOP reach no direction within 60 degrees of it.
    inside, outside = area[along > np.cos(np.deg2rad(40))], area[along < np.cos(np.deg2rad(80))]
    assert inside.max() < 0.7 * outside.min()
    assert inside.mean() < 0.55 * outside.mean()
    assert result.cfar < 0.3
    worst = view_directions(*(angle[np.argmin(area)] for angle in directions(2)))
    assert abs(worst @ view_directions(*TOP)) > np.cos(np.deg2rad(45))
    rot, tilt, _ = angles(poses)
    sampling = fourier_sampling(rot, tilt, 2, radius=13.0)
    assert np.corrcoef(sampling, area)[0, 1] > 0.7
