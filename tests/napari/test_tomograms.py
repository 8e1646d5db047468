"""Tomograms in napari: what stands where, one tomogram at a time, and the tilts of a particle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QTimer

from cryorefine.io.mrc import read_map, write_map, write_stack
from cryorefine.io.optimisation_set import read_optimisation_set, write_optimisation_set
from cryorefine.io.particles import read_particles, write_particles
from cryorefine.io.star import read_star, write_star
from cryorefine.refine.atoms import Atoms
from cryorefine.refine.tilt_project import Acquisition, simulate_project
from napari_cryorefine import readers
from napari_cryorefine.layers import own_layer
from napari_cryorefine.tomogram_panel import TomogramPanel
from napari_cryorefine.tomography import read_tomography, tilt_text
from napari_cryorefine.tomography_layers import (
    DIRECTIONS,
    LARGEST_IMAGE,
    PARTICLES,
    PROJECTED,
    STACK,
    TILTS,
    TOMOGRAM,
    reference_layers,
    stack_of_particle,
    tomogram_layers,
)

PLUGIN = "napari-cryorefine"
SECONDS = 20_000
PIXEL = 4.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two tilt series of eight round, heavy particles each."""
    atoms = Atoms(np.array([[0, 0, 0], [30.0, 0, 0]]), np.array([1.0, 0.0]), 10.0)
    acquisition = Acquisition(
        pixel_size=PIXEL,
        image_size=160,
        tilts=5,
        tilt_step=10.0,
        thickness=200.0,
        dose=1.0,
        amplitude_contrast=0.9,
        defocus=(100.0, 200.0),
        defocus_error=0.0,
    )
    folder = tmp_path_factory.mktemp("tomograms")
    return simulate_project(
        folder, atoms, acquisition, particles=8, box=24, snr=50.0, tomogram_binning=4, seed=5
    )


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    """Copy of the project that may be changed, as the current folder."""
    import shutil

    shutil.copytree(made.map.parent, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def panel(made, viewer, qtbot):
    """Panel that shows the first tomogram with the true places."""
    panel = TomogramPanel(viewer)
    qtbot.addWidget(panel)
    panel.open(made.truth_set)
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)
    return panel


def settle(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)


def by_role(layers):
    return {keywords["metadata"]["role"]: (data, keywords, kind) for data, keywords, kind in layers}


def world(data, keywords):
    return np.asarray(data) * keywords["scale"] + keywords.get("translate", 0.0)


def at(image, keywords, places):
    """Values of an image layer at places in the world, to the nearest voxel."""
    index = np.floor((places - np.array(keywords.get("translate", 0.0))) / keywords["scale"] + 0.5)
    return np.asarray(image)[tuple(index.astype(int).T)]


def of_particles(layer):
    """Points of a layer, particle by particle."""
    points, keywords, _ = layer
    return points[np.lexsort((points[:, 0], keywords["features"]["rlnTomoParticleName"]))]


def test_every_layer_is_in_angstroms_and_named(made):
    layers = by_role(tomogram_layers(read_tomography(made.truth_set), "TS_01"))
    assert set(layers) == {TOMOGRAM, TILTS, PROJECTED, PARTICLES, DIRECTIONS}
    for _, keywords, _ in layers.values():
        assert keywords["units"][-3:] == ("angstrom",) * 3
        assert keywords["axis_labels"][-3:] == ("z", "y", "x")
        assert keywords["name"].startswith("TS_01")
    assert layers[TILTS][1]["axis_labels"][0] == "tilt"
    assert layers[TILTS][0].shape == (5, 1, 160, 160)


def test_points_lie_on_the_particles_in_every_tilt(made):
    layers = by_role(tomogram_layers(read_tomography(made.truth_set), "TS_02"))
    images, keywords, _ = layers[TILTS]
    points, marked, _ = layers[PROJECTED]
    here = at(images, keywords, world(points, marked))
    assert here.max() < np.asarray(images).mean() - 3  # the noise is 1
    assert (np.bincount(points[:, 0].astype(int)) >= 7).all()


def test_points_lie_on_the_particles_in_the_tomogram(made):
    layers = by_role(tomogram_layers(read_tomography(made.truth_set), "TS_01"))
    tomogram, keywords, _ = layers[TOMOGRAM]
    points, marked, _ = layers[PARTICLES]
    here = at(tomogram, keywords, world(points, marked))
    assert np.median(here) < np.mean(tomogram) - 4 * np.std(tomogram)
    np.testing.assert_allclose(
        world(points, marked)[:, ::-1], made.places[:8] + np.array([320, 320, 100]), atol=1e-3
    )


def test_arrows_point_along_the_reference_z_axis(made):
    vectors, keywords, _ = by_role(tomogram_layers(read_tomography(made.truth_set), "TS_02"))[DIRECTIONS]
    np.testing.assert_allclose(vectors[:, 1, ::-1], made.poses[8:, :, 2], atol=1e-5)
    assert keywords["vector_style"] == "arrow"


def test_what_a_tilt_series_shows_fills_the_depth_and_stands_beside_the_tomogram(made, model):
    for data, keywords, kind in tomogram_layers(read_tomography(made.truth_set), "TS_01"):
        getattr(model, f"add_{kind}")(data, **keywords)
    tilts, tomogram = own_layer(model, TILTS), own_layer(model, TOMOGRAM)
    assert tilts.extent.world[0][-1] > tomogram.extent.world[1][-1]
    middle, depth = tilts.extent.world[0][1], tilts.scale[1]
    assert middle - depth / 2 <= tomogram.extent.world[0][0]
    assert middle + depth / 2 >= tomogram.extent.world[1][0]


def test_tilts_stand_in_the_order_of_their_angles(folder):
    """Files are often in the order of acquisition."""
    star, file = folder / "truth_optimisation_set.star", folder / "tilt_series/TS_01.star"
    before = read_tomography(star)
    expected, stack = by_role(tomogram_layers(before, "TS_01")), stack_of_particle(before, 2)
    table = read_star(file)["TS_01"]
    write_star(file, {"TS_01": table.sort_values("rlnMicrographPreExposure")})
    tomography = read_tomography(star)
    layers = by_role(tomogram_layers(tomography, "TS_01"))
    np.testing.assert_array_equal(layers[TILTS][0], expected[TILTS][0])
    np.testing.assert_allclose(of_particles(layers[PROJECTED]), of_particles(expected[PROJECTED]), atol=1e-3)
    np.testing.assert_array_equal(stack_of_particle(tomography, 2)[0], stack[0])
    series = tomography.tomograms["TS_01"]
    assert tilt_text(series, 0).startswith("Tilt 1 of 5: -20.0°, after 4 e/Å², defocus 0.0")
    assert tilt_text(series, 2).startswith("Tilt 3 of 5: 0.0°, after 0 e/Å²")


def test_large_images_are_binned_and_stay_in_place(made, folder):
    big = 2 * LARGEST_IMAGE
    for name in ("TS_01", "TS_02"):
        stack = np.zeros((5, big, big), np.float32)
        stack[:, big // 2 + 10 : big // 2 + 12, big // 2 - 40 : big // 2 - 38] = 1
        write_stack(folder / f"tilt_series/{name}.mrcs", stack, PIXEL, half_precision=True)
    layers = by_role(tomogram_layers(read_tomography(folder / "optimisation_set.star"), "TS_01"))
    data, keywords, _ = layers[TILTS]
    assert data.shape == (5, 1, LARGEST_IMAGE, LARGEST_IMAGE)
    bright = np.argwhere(np.asarray(data[2]) == 1)
    place = world(np.append(2, bright[0]), keywords)
    left = 1.05 * 640  # a gap beside the tomogram
    np.testing.assert_allclose(place[-2:], ((big / 2 + 10.5) * PIXEL, left + (big / 2 - 39.5) * PIXEL))


def test_the_dock_reads_the_tilts_ahead_each_of_them_once(made, viewer, panel, monkeypatch):
    sections = own_layer(viewer, TILTS).data
    monkeypatch.setattr("napari_cryorefine.tomography_layers._binned", None)  # would fail
    for step in range(5):
        np.testing.assert_array_equal(
            np.asarray(own_layer(viewer, TILTS).data[step, 0]), sections.section(step)
        )
    assert panel.message.text() == ""


def test_the_tilts_of_a_particle_are_cut_from_the_images(made):
    images, keywords, _ = stack_of_particle(read_tomography(made.truth_set), 9)
    assert images.shape[:2] == (5, 1)
    middle = images.shape[-1] // 2
    darkest = [np.unravel_index(image.argmin(), image.shape) for image in images[:, 0]]
    np.testing.assert_allclose(darkest, middle, atol=3)
    assert keywords["name"] == "tilts of TS_02/2"


def test_an_extracted_stack_stands_at_the_tilts_that_show_the_particle(folder):
    file = read_particles(folder / "particles.star")
    write_stack(folder / "stack.mrcs", np.arange(1, 4)[:, None, None] * np.ones((3, 8, 8)), 8.0)
    table = file.particles.assign(rlnImageName="stack.mrcs", rlnTomoVisibleFrames="[0,1,1,0,1]")
    optics = file.optics.assign(rlnImagePixelSize=8.0)
    write_particles(folder / "particles.star", file.replace(particles=table, optics=optics))
    images, keywords, _ = stack_of_particle(read_tomography(folder / "optimisation_set.star"), 0)
    np.testing.assert_array_equal(images[:, 0, 0, 0], (0, 1, 2, 0, 3))
    assert keywords["scale"][-1] == 8.0


def test_half_maps_and_mask_of_the_set_stand_left_of_the_tomogram(made, folder):
    for name in ("half1.mrc", "half2.mrc", "mask.mrc"):
        write_map(folder / name, read_map(made.map).data, PIXEL)
    entries = read_optimisation_set(folder / "optimisation_set.star").with_entries(
        reference_half1=Path("half1.mrc"),
        reference_half2=Path("half2.mrc"),
        reference_mask=Path("mask.mrc"),
    )
    write_optimisation_set(folder / "optimisation_set.star", entries)
    layers = reference_layers(read_tomography(folder / "optimisation_set.star"), "TS_01")
    assert [keywords["name"] for _, keywords, _ in layers] == ["half1", "half2", "mask"]
    for data, keywords, _ in layers:
        assert keywords["translate"][2] + data.shape[2] * PIXEL < 0
    assert [keywords["visible"] for _, keywords, _ in layers] == [True, False, False]


def test_without_images_the_particles_are_still_shown(folder):
    for stack in (folder / "tilt_series").glob("*.mrcs"):
        stack.unlink()
    layers = by_role(readers.read_star_layers(folder / "optimisation_set.star"))
    assert set(layers) == {TOMOGRAM, PARTICLES, DIRECTIONS}


def test_tomograms_alone_are_shown_without_particles(made):
    layers = by_role(readers.read_star_layers(made.map.parent / "tomograms.star"))
    assert set(layers) == {TOMOGRAM, TILTS}


def test_particles_without_their_tomograms_count_from_the_middle(made):
    ((points, keywords, kind),) = readers.read_star_layers(made.map.parent / "truth.star")
    assert kind == "points"
    assert keywords["axis_labels"] == ("z", "y", "x")
    fits = keywords["metadata"]["fits"]
    assert [len(rows) for rows in fits.members] == [8, 8]
    np.testing.assert_allclose(points[:, ::-1], made.places[:8], atol=1e-3)


def test_a_stack_of_every_tilt_is_shown_as_it_is(shared):
    """WarpTools writes also the tilts that rlnTomoVisibleFrames leaves out."""
    folder = shared / "data/warp_2d_stacks"
    tomography = read_tomography(next(folder.glob("*_optimisation_set.star")))
    images, keywords, _ = stack_of_particle(tomography, 0)
    assert images.shape == (len(tomography.tomograms["Unt_083.tomostar"]), 1, 32, 32)
    assert np.abs(images).max(axis=(1, 2, 3)).all()
    assert keywords["scale"][-1] == 12.0


@pytest.mark.parametrize(("sign", "rendering"), [(1, "minip"), (-1, "mip")])
def test_protein_stands_out_in_3d_dark_or_white(made, folder, sign, rendering):
    file = folder / "tomograms/rec_TS_01.mrc"
    write_map(file, sign * read_map(file).data, 16.0)
    layers = by_role(tomogram_layers(read_tomography(folder / "optimisation_set.star"), "TS_01"))
    assert layers[TOMOGRAM][1]["rendering"] == rendering


def test_the_official_tutorial_opens_one_tomogram_at_a_time(shared):
    path = shared / "data/hiv_sta_relion5_metadata/Extract/job020/optimisation_set.star"
    tomography = read_tomography(path)
    assert tomography.names == ["TS_01", "TS_03", "TS_43", "TS_45", "TS_54"]
    counts = [len(by_role(tomogram_layers(tomography, name))[PARTICLES][0]) for name in tomography.names]
    assert sum(counts) == 9442


def test_opening_a_set_brings_the_dock(made, viewer, npe2pm):
    with npe2pm.tmp_plugin(package=PLUGIN):
        viewer.open(str(made.truth_set), plugin=PLUGIN)
    panel = viewer.window.dock_widgets["Tomograms"]
    assert panel.tomogram.currentText() == "TS_01"
    assert panel.count.text() == "8 particles, 64 × 64 × 20 nm"
    assert panel.tilt.text().startswith("Tilt 3 of 5: 0.0°")  # the picture without tilt is seen first


def test_the_dock_is_a_tab_beside_the_others(made, viewer, npe2pm, qtbot):
    with npe2pm.tmp_plugin(package=PLUGIN):
        dock, _ = viewer.window.add_plugin_dock_widget(PLUGIN, "Project")
        viewer.open(str(made.truth_set), plugin=PLUGIN)
    window = viewer.window._qt_window
    qtbot.waitUntil(lambda: len(window.tabifiedDockWidgets(dock)) == 1, timeout=SECONDS)


def test_another_tomogram_takes_the_place_of_the_first(made, viewer, panel, qtbot):
    first = np.array(own_layer(viewer, PARTICLES).data)
    own_layer(viewer, TOMOGRAM).opacity = 0.5
    own_layer(viewer, PARTICLES).selected_data = {3}
    settle(qtbot, panel)
    assert own_layer(viewer, STACK) is not None
    panel.move(1)
    settle(qtbot, panel)
    assert [layer.name for layer in viewer.layers] == [
        "TS_02 tomogram",
        "TS_02 tilt series",
        "TS_02 particles in the tilts",
        "TS_02 particles",
        "TS_02 directions",
    ]
    second = own_layer(viewer, PARTICLES)
    assert not np.allclose(second.data, first)
    assert second.features["rlnTomoParticleName"][0] == "TS_02/1"
    assert own_layer(viewer, TOMOGRAM).opacity == 0.5
    assert panel.particle.itemText(1) == "TS_02/1"
    panel.move(1)  # there is no third
    assert panel.tomogram.currentText() == "TS_02"


def test_a_particle_chosen_or_selected_shows_its_tilts(viewer, panel, qtbot):
    panel.particle.setCurrentText("TS_01/3")
    settle(qtbot, panel)
    assert own_layer(viewer, STACK).name == "tilts of TS_01/3"
    assert set(own_layer(viewer, PARTICLES).selected_data) == {2}
    seen = own_layer(viewer, PROJECTED)
    seen.selected_data = {int(np.flatnonzero(seen.metadata["rows"] == 5)[0])}
    settle(qtbot, panel)
    assert panel.particle.currentText() == "TS_01/6"
    assert own_layer(viewer, STACK).name == "tilts of TS_01/6"


def test_the_dock_reads_off_the_tilt(viewer, panel):
    viewer.dims.set_current_step(0, 0)
    assert panel.tilt.text().startswith("Tilt 1 of 5: -20.0°")
    viewer.dims.set_current_step(0, 4)
    assert panel.tilt.text().startswith("Tilt 5 of 5: 20.0°")


def test_the_tilt_series_is_not_drawn_in_3d(viewer, panel):
    own_layer(viewer, PROJECTED).visible = False
    viewer.dims.ndisplay = 3
    assert not own_layer(viewer, TILTS).visible
    assert own_layer(viewer, TOMOGRAM).visible
    viewer.dims.ndisplay = 2
    assert own_layer(viewer, TILTS).visible
    assert not own_layer(viewer, PROJECTED).visible  # hidden by hand


def test_a_mistake_is_told_in_the_dock(tmp_path, viewer, qtbot):
    panel = TomogramPanel(viewer)
    qtbot.addWidget(panel)
    panel.open(tmp_path / "nothing.star")
    settle(qtbot, panel)
    assert "nothing.star" in panel.message.text()


def test_the_sample_opens_with_its_particles(viewer, npe2pm):
    with npe2pm.tmp_plugin(package=PLUGIN):
        layers = viewer.open_sample(PLUGIN, "betagal-tilts")
    assert len(layers) == 5
    assert len(own_layer(viewer, PARTICLES).data) == 24


def test_layers_of_a_set_opened_by_hand_come_one_by_one(made, viewer, npe2pm, qtbot):
    counts = []
    viewer.layers.events.inserted.connect(
        lambda _: QTimer.singleShot(0, lambda: counts.append(len(viewer.layers)))
    )
    with npe2pm.tmp_plugin(package=PLUGIN):
        QTimer.singleShot(0, lambda: viewer.open(str(made.truth_set), plugin=PLUGIN))
        qtbot.waitUntil(lambda: len(counts) == 5, timeout=SECONDS)
    assert counts == [1, 2, 3, 4, 5]
    panel = viewer.window.dock_widgets["Tomograms"]
    settle(qtbot, panel)
    assert panel.tilt.text().startswith("Tilt 3 of 5: 0.0°")


def test_a_sample_opened_by_hand_begins_with_one_layer(viewer, npe2pm, qtbot):
    now = []
    with npe2pm.tmp_plugin(package=PLUGIN):
        QTimer.singleShot(0, lambda: now.extend(viewer.open_sample(PLUGIN, "betagal-tilts")))
        qtbot.waitUntil(lambda: len(viewer.layers) == 5, timeout=SECONDS)
    assert [layer.metadata["role"] for layer in now] == [TOMOGRAM]
    assert viewer.layers[0] is now[0]  # with what belongs to it, once that has been read
    settle(qtbot, viewer.window.dock_widgets["Tomograms"])
    assert now[0].metadata["tomography"] is viewer.window.dock_widgets["Tomograms"].tomography


def test_a_form_takes_the_set_that_is_shown(made, viewer, panel, qtbot, monkeypatch):
    from napari_cryorefine.widgets import Refine3DForm

    monkeypatch.chdir(made.map.parent)
    form = Refine3DForm(viewer)
    qtbot.addWidget(form)
    box = form.page["optimisation_set"]
    box.layer_menu.aboutToShow.emit()
    (only,) = box.layer_menu.actions()  # five layers, one file
    assert only.text() == "truth_optimisation_set.star"
    only.trigger()
    assert box.value == Path("truth_optimisation_set.star")
    reference = form.page["reference"]
    reference.layer_menu.aboutToShow.emit()
    assert [action.text() for action in reference.layer_menu.actions()] == ["TS_01 tomogram"]
