"""Directions in napari: the dock shows what the file says, and the sphere has the hand of the map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError
from cryorefine.geometry.healpix import directions, nearest_pixels
from cryorefine.geometry.sky import mollweide_position
from cryorefine.io.mrc import write_map
from cryorefine.io.star import write_star
from cryorefine.jobs import directional_fsc, finish, orientations
from napari_cryorefine import open_results
from napari_cryorefine._compat import is_true_hand
from napari_cryorefine.results import CURVES_DOCK
from napari_cryorefine.sky import SKY_DOCK, add_direction_sphere, direction_text, read_sky
from napari_cryorefine.sky_panel import SkyPanel

BAD = (40.0, 65.0)


@pytest.fixture
def directional(project):
    """File of a directional FSC that is 8 A around BAD and its opposite, 4 A elsewhere."""
    rot, tilt = directions(2)
    values = np.full(192, 4.0)
    values[[nearest_pixels(*BAD, 2), nearest_pixels(BAD[0] + 180, 180 - BAD[1], 2)]] = 8.0
    table = {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAngstromResolution": values}
    general = {
        "cryorefineFscAreaRatio": 0.4,
        "cryorefineSphericity": 0.9,
        "rlnImageSize": 64,
        "rlnPixelSize": 1.5,
    }
    path = project / "directional_fsc.star"
    write_star(
        path, {"general": general, "directions": pd.DataFrame({**table, "cryorefineFscArea": 1 / values})}
    )
    return path


@pytest.fixture
def particles(project):
    """File of 40 particles seen along BAD and 10 from the top."""
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@stack.mrcs" for i in range(50)],
            "rlnOpticsGroup": 1,
            "rlnAngleRot": [BAD[0]] * 40 + [10.0] * 10,
            "rlnAngleTilt": [BAD[1]] * 40 + [2.0] * 10,
        }
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.5]})
    write_star(project / "particles.star", {"optics": optics, "particles": table})
    return project / "particles.star"


def test_the_map_is_read_off_at_the_direction(directional):
    sky = read_sky(directional)
    assert sky.title == "cFAR 0.40, sphericity 0.900"
    assert direction_text(sky, *mollweide_position(*BAD)).endswith(": 8")
    assert direction_text(sky, *mollweide_position(-BAD[0], BAD[1])).endswith(": 4")
    assert direction_text(sky, 1.9, 0.9) == direction_text(sky, 5, 0) == ""


def test_particles_are_counted_with_their_mates(particles):
    sky = read_sky(particles, "C2")
    assert sky.values.sum() == 100
    assert sky.values[nearest_pixels(BAD[0] - 180, BAD[1], 3)] == 40


def test_the_sphere_has_the_hand_of_the_map(model, directional):
    layer = add_direction_sphere(model, read_sky(directional))
    vertices, faces, values = layer.data
    centre = vertices.mean(axis=0)
    rot, tilt = np.deg2rad(BAD)
    expected = np.array([np.cos(tilt), np.sin(tilt) * np.sin(rot), np.sin(tilt) * np.cos(rot)])  # z, y, x
    worst = vertices[values == 8] - centre
    assert len(worst) == 2
    cosines = worst @ expected / np.linalg.norm(worst, axis=1)
    np.testing.assert_allclose(np.sort(cosines), [-1, 1], atol=0.03)
    assert is_true_hand(model)
    # beside the map, not in it: the box is 96 A wide
    assert vertices[:, 2].min() > 96
    assert add_direction_sphere(model, read_sky(directional)) is layer
    assert len(model.layers) == 1
    assert len(faces) == 2 * 192 - 4


def opened(panel, path, qtbot):
    panel.open(path)
    qtbot.waitUntil(lambda: not panel.busy, timeout=60_000)


def test_the_dock_shows_the_picture_the_right_way_up(viewer, particles, qtbot):
    panel = SkyPanel(viewer)
    opened(panel, particles, qtbot)
    image = panel.image.image
    across, up = mollweide_position(*BAD)
    # the last row is the top of the plot
    row, place = int((up + 1) / 2 * len(image)), int((across + 2) / 4 * image.shape[1])
    assert image[row, place] == 40
    assert image[-2, image.shape[1] // 2] >= 10
    assert panel.title.text() == "particles.star: 50 particles, C1"
    panel.symmetry.setText("D0")
    opened(panel, particles, qtbot)
    assert "D0" in panel.title.text()
    panel.close()


def test_good_resolutions_are_bright_however_often_they_are_shown(viewer, directional, qtbot):
    panel = SkyPanel(viewer)
    for _ in range(2):
        opened(panel, directional, qtbot)
        good, bad = panel.bar.colorMap().map([0.0, 1.0])[:, :3].sum(axis=1)
        assert good > bad
    panel.close()


def test_a_folder_of_a_job_opens_dock_and_sphere(viewer, project, half_maps, messages):
    result = finish(
        directional_fsc.run(
            directional_fsc.Options(
                half_map=half_maps[0], output=project / "DirectionalFsc/job001", healpix_order=1
            )
        )
    )
    layers = open_results(viewer, result.output)
    assert [layer.name for layer in layers] == ["directional resolution"]
    panel = viewer.window.dock_widgets[SKY_DOCK]
    assert panel.sky.path == result.star
    assert panel.sky.extent == pytest.approx(24 * 2.5)
    assert open_results(viewer, result.output) == []
    plot = viewer.window.dock_widgets[CURVES_DOCK].plots["Directional FSC"]
    assert list(plot.curves) == ["all directions", "lowest", "highest", "mean"]
    low, high = plot.curves["lowest"][1], plot.curves["highest"][1]
    assert (low <= high).all()
    assert (low < high).any()
    viewer.theme = "light"
    viewer.theme = "dark"


def test_orientations_take_the_same_dock(viewer, project, particles):
    result = finish(orientations.run(orientations.Options(particles=particles, output=project / "O/job001")))
    assert open_results(viewer, result.output) == []
    assert "50 particles, C1, SCF" in viewer.window.dock_widgets[SKY_DOCK].title.text()


def test_a_file_without_directions_is_refused(project):
    write_star(project / "other.star", {"general": {"rlnFinalResolution": 3.0}})
    with pytest.raises(UserError, match="holds no table of particles"):
        read_sky(project / "other.star")


def test_maps_are_not_moved_by_the_sphere(model, project, blob, directional):
    write_map(project / "run_class001.mrc", blob, 2.5)
    (layer,) = [one for one in open_results(model, project) if one.name == "run_class001"]
    assert layer.visible
    assert any(one.metadata.get("cryorefine") == "directions" for one in model.layers)
