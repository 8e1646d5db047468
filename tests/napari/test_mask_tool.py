"""The preview of MaskCreate: it shows the mask that the job will make, and follows what is moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSlider

from cryorefine.io.mrc import read_map, write_map
from cryorefine.jobs import mask_create
from cryorefine.maps import mask_recipe, masks
from napari_cryorefine.layers import add_surface
from napari_cryorefine.mask_preview import Isosurface, MaskMaker, Wish
from napari_cryorefine.meshes import TRIANGLES, isosurface
from napari_cryorefine.widgets import MaskCreateForm

SECONDS = 20_000
OUTLINE, SURFACE = "mask preview", "mask preview density"


@pytest.fixture
def form(qtbot, viewer, map_file, messages):
    """Form of MaskCreate, on the screen, with the blob as its map."""
    form = MaskCreateForm(viewer)
    qtbot.addWidget(form)
    form.resize(450, 900)
    with qtbot.waitExposed(form):
        form.show()
    form.page.update(input=map_file, lowpass=0.0, threshold=0.3, extend=2.0, soft_edge=3.0)
    return form


@pytest.fixture
def settle(form, qtbot):
    """Wait until everything asked for is shown."""

    def wait() -> None:
        qtbot.waitUntil(lambda: not form.tool.busy, timeout=SECONDS)

    return wait


def click(qtbot, widget) -> None:
    """Click in the middle of a push button, or on the square of a check box."""
    target = widget.native
    place = target.rect().center()
    if widget.widget_type == "CheckBox":
        place.setX(8)
    qtbot.mouseClick(target, Qt.MouseButton.LeftButton, pos=place)


def extent(layer) -> np.ndarray:
    """Return the lengths of a surface along z, y and x in A."""
    return np.ptp(layer.data[0] * layer.scale, axis=0)


def test_the_outlines_are_those_of_the_mask_that_the_job_makes(form, viewer, qtbot, settle):
    click(qtbot, form.tool.preview)
    settle()
    shown = viewer.layers[OUTLINE]
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    # The mask has taken the place of its preview.
    assert not form.tool.preview.value
    # The map that it is made from lies under it.
    assert [layer.name for layer in viewer.layers] == ["blob", "mask", "mask outline"]
    mask = read_map(Path("MaskCreate/job001/mask.mrc")).data
    np.testing.assert_array_equal(shown.data.regions == 1, mask == 1)
    np.testing.assert_array_equal(shown.data.regions == 2, (mask > 0) & (mask < 1))
    assert tuple(shown.scale) == (2.5,) * 3
    assert [str(unit) for unit in shown.units] == ["angstrom"] * 3


def test_the_surface_follows_the_slider_in_3d_and_the_threshold_its_slider(form, viewer, qtbot, settle):
    click(qtbot, form.tool.preview)
    settle()
    viewer.dims.ndisplay = 3
    settle()
    assert viewer.layers[SURFACE].visible
    assert not viewer.layers[OUTLINE].visible
    before, figures, threshold = (
        extent(viewer.layers[SURFACE]),
        form.tool.figures.text(),
        form.page["threshold"].value,
    )
    slider = form.tool.level.native.findChild(QSlider)
    slider.setFocus()
    for _ in range(5):
        qtbot.keyClick(slider, Qt.Key.Key_PageUp)
    settle()
    assert form.page["threshold"].value > threshold
    assert (extent(viewer.layers[SURFACE]) < before).all()
    assert form.tool.figures.text() != figures
    # A threshold that is typed is kept to its last digit; the slider goes where it is.
    box, place = form.page["threshold"], form.tool.level.value
    box.native.lineEdit().selectAll()
    qtbot.keyClicks(box.native.lineEdit(), "0.31234")
    qtbot.keyClick(box.native.lineEdit(), Qt.Key.Key_Return)
    settle()
    assert box.value == 0.31234
    assert form.tool.level.value < place


def test_only_the_newest_of_many_values_is_waited_for(form, viewer, settle):
    form.tool.preview.value = True
    for threshold in np.linspace(0.1, 0.6, 40):
        form.page["threshold"].value = float(threshold)
    settle()
    expected = mask_recipe.mask_from_recipe(
        read_map(Path("blob.mrc")).data, mask_recipe.MaskRecipe(0.6, extend=2, soft_edge=3)
    )
    np.testing.assert_array_equal(viewer.layers[OUTLINE].data.regions == 1, expected == 1)


def test_volumes_are_told_in_cubic_angstrom_and_kilodalton(form, settle, blob):
    form.tool.preview.value = True
    settle()
    volume = np.count_nonzero(blob >= 0.3) * 2.5**3
    told = form.tool.figures.text().replace("\u202f", "")
    assert f"At the threshold: {volume:.0f} Å³, as {0.81e-3 * volume:.0f} kDa" in told


def test_the_suggested_threshold_is_taken_with_its_reason(form, viewer, qtbot, settle, blob):
    click(qtbot, form.tool.preview)
    settle()
    click(qtbot, form.tool.suggest)
    settle()
    threshold = form.page["threshold"].value
    assert 0.02 < threshold < 0.2  # above the noise of 0.02, below most of the particle
    assert f"{threshold:g}" in form.tool.words.text()
    assert "solvent" in form.tool.words.text()
    # The reason holds for that threshold alone.
    form.page["threshold"].value = 0.4
    settle()
    assert "solvent" not in form.tool.words.text()


def test_what_is_wrong_is_told_in_a_sentence(form, settle):
    form.tool.preview.value = True
    settle()
    assert not form.tool.words.text()
    form.page["extend"].value = 12.0
    settle()
    assert "edge of the box" in form.tool.words.text()
    form.page["threshold"].value = 50.0
    settle()
    assert "empty" in form.tool.words.text()
    form.page["input"].value = "nowhere.mrc"
    settle()
    assert "nowhere.mrc" in form.tool.words.text()


def test_the_preview_goes_as_it_came_and_leaves_the_map(form, viewer, qtbot, settle):
    click(qtbot, form.tool.preview)
    settle()
    viewer.dims.ndisplay = 3
    settle()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    names = [layer.name for layer in viewer.layers]
    assert names == ["blob", "mask preview", "mask preview density"]
    assert not viewer.layers["blob"].visible  # in the way of its surface
    click(qtbot, form.tool.preview)
    settle()
    assert [layer.name for layer in viewer.layers] == ["blob"]
    assert viewer.layers["blob"].visible
    viewer.dims.ndisplay = 2
    click(qtbot, form.tool.preview)
    settle()
    assert viewer.layers[OUTLINE].visible
    assert SURFACE not in viewer.layers


def test_closing_the_dock_takes_the_preview_away_and_stops_it(viewer, qtbot, map_file):
    form = MaskCreateForm(viewer)
    dock = viewer.window.add_dock_widget(form, name="MaskCreate")
    form.page.update(input=map_file, lowpass=0.0, threshold=0.3)
    form.tool.preview.value = True
    qtbot.waitUntil(lambda: not form.tool.busy, timeout=SECONDS)
    assert OUTLINE in viewer.layers
    form.page["threshold"].value = 0.4
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not form.tool.busy, timeout=SECONDS)
    assert OUTLINE not in viewer.layers
    viewer.dims.ndisplay = 3
    assert not form.tool.busy
    qtbot.addWidget(form)


def test_the_masks_own_boundaries_are_shown_in_3d(form, viewer, qtbot, settle):
    form.tool.preview.value = True
    viewer.dims.ndisplay = 3
    form.tool.solid.value = "3D: all"
    settle()
    density, core, edge = (viewer.layers[f"mask preview {part}"] for part in ("density", "core", "soft edge"))
    assert density.visible
    assert core.visible
    assert edge.visible
    # Each boundary lies between the outermost voxels of its part and their neighbours.
    regions = viewer.layers[OUTLINE].data.regions
    for layer, inside in ((core, regions == 1), (edge, regions > 0)):
        wide = 2.5 * np.ptp(np.argwhere(inside), axis=0)
        assert (extent(layer) >= wide - 2.5).all()
        assert (extent(layer) <= wide + 2 * 2.5).all()
    assert density.opacity > core.opacity > edge.opacity
    viewer.dims.ndisplay = 2
    assert not core.visible
    viewer.dims.ndisplay = 3
    settle()
    form.tool.solid.value = "3D: core"
    settle()
    assert core.opacity == 1
    assert density not in viewer.layers
    assert edge not in viewer.layers


def test_a_preview_thrown_away_comes_back_with_the_next_change(form, viewer, settle):
    viewer.dims.ndisplay = 3
    form.tool.preview.value = True
    settle()
    for name in (OUTLINE, SURFACE):
        viewer.layers.remove(viewer.layers[name])
    form.page["threshold"].value = 0.4
    settle()
    assert viewer.layers[SURFACE].visible
    assert not viewer.layers[OUTLINE].visible


def test_a_mask_is_painted_erased_and_softened(form, viewer, qtbot, settle):
    click(qtbot, form.tool.preview)
    settle()
    core = viewer.layers[OUTLINE].data.regions == 1
    click(qtbot, form.tool.paint)
    painted = viewer.layers.selection.active
    assert painted.mode == "paint"
    np.testing.assert_array_equal(painted.data == 1, core)
    painted.data[:, :12] = 0
    painted.paint((3, 20, 20), 1)
    click(qtbot, form.tool.soften)
    settle()
    body = viewer.layers["painted mask softened"]
    np.testing.assert_array_equal(body.data, masks.add_soft_edge(painted.data > 0, 3))
    assert body.data[3, 20, 20] == 1
    assert tuple(body.scale) == (2.5,) * 3
    # Other forms take it like any map; MaskCreate saves it with the job.
    assert "painted mask softened" in form._layer_files()


def test_the_map_of_a_layer_without_a_file_is_previewed(form, viewer, settle, blob):
    layer = viewer.add_image(blob, name="mine", scale=(2.5,) * 3, units="angstrom")
    form.page["input"].value = form._layer_files()["mine"]
    form.tool.preview.value = True
    settle()
    assert viewer.layers[OUTLINE].data.regions.any(), form.tool.words.text()
    assert not Path("MaskCreate").exists()
    assert layer in viewer.layers


def test_a_large_map_has_its_surface_where_the_map_is(tmp_path):
    z, y, x = np.indices((150,) * 3)
    ball = np.exp(-((z - 100) ** 2 + (y - 70) ** 2 + (x - 60) ** 2) / 400).astype(np.float32)
    write_map(tmp_path / "ball.mrc", ball, 2.0)
    options = mask_create.Options(
        input=tmp_path / "ball.mrc", output=tmp_path, lowpass=0.0, threshold=0.5, extend=0.0, soft_edge=0.0
    )
    _, surface, regions, core, _ = MaskMaker()(Wish(options, parts=("density", "core")))
    assert len(surface.vertices) < 30_000
    centre = surface.vertices.mean(axis=0) * surface.voxel
    np.testing.assert_allclose(centre, (200, 140, 120), atol=0.5)
    np.testing.assert_allclose(core.vertices.mean(axis=0) * core.voxel, (200, 140, 120), atol=0.5)
    # A ball of radius 20 sqrt(ln 2) voxels of 2 A.
    assert regions.volume.cubic_angstrom == pytest.approx(
        4 / 3 * np.pi * (40 * np.sqrt(np.log(2))) ** 3, rel=0.01
    )
    assert regions.enclosed == regions.volume


def test_the_surface_lies_where_the_map_does(model):
    vertices, faces = np.array([[0, 10, 20], [5, 10, 20], [0, 15, 20]], np.float32), np.array([[0, 1, 2]])
    layer = add_surface(model, vertices, faces, 2.0, name="surface")
    low, high = layer.extent.world
    np.testing.assert_allclose(low, [0, 20, 40])
    np.testing.assert_allclose(high, [10, 30, 40])


def test_a_rough_surface_is_made_of_no_more_triangles_than_can_be_moved(tmp_path):
    noise = np.random.default_rng(1).standard_normal((72, 72, 72)).astype(np.float32)
    write_map(tmp_path / "noise.mrc", noise, 1.0)
    options = mask_create.Options(
        input=tmp_path / "noise.mrc", output=tmp_path, lowpass=12.0, threshold=0.01, extend=0.0, soft_edge=2.0
    )
    parts = ("density", "core", "soft edge")
    surfaces = [p for p in MaskMaker()(Wish(options, parts=parts)) if isinstance(p, Isosurface)]
    assert [surface.part for surface in surfaces] == list(parts)
    for surface in surfaces:
        assert 0 < len(surface.faces) < 1.1 * TRIANGLES


def test_there_is_no_surface_beyond_the_values_of_the_map():
    flat = np.zeros((8, 8, 8), np.float32)
    flat[4, 4, 4] = 1
    for threshold in (-1.0, 0.0, 1.0, 2.0):
        vertices, faces = isosurface(flat, threshold)
        assert len(vertices) == len(faces) == 0


def test_islands_are_removed_and_holes_filled_at_a_click(form, viewer, settle, qtbot, project, blob):
    volume = np.zeros((24, 24, 24), np.float32)
    volume[4:14, 4:14, 4:14] = 1
    volume[8:10, 8:10, 8:10] = 0  # a hole
    volume[18:20, 18:20, 18:20] = 1  # an island
    write_map(project / "parts.mrc", volume, 2.5)
    viewer.dims.ndisplay = 3
    form.page.update(input="parts.mrc", lowpass=0.0, threshold=0.5, extend=0.0, soft_edge=0.0)
    click(qtbot, form.tool.preview)
    settle()
    whole = extent(viewer.layers[SURFACE])
    faces = len(viewer.layers[SURFACE].data[1])
    form.page["keep_largest"].value = 1
    form.page["fill_holes"].native.setChecked(True)
    settle()
    core = viewer.layers[OUTLINE].data.regions == 1
    assert core.sum() == 1000
    assert core[9, 9, 9]
    assert (extent(viewer.layers[SURFACE]) < whole - 10).all()
    assert len(viewer.layers[SURFACE].data[1]) < faces - 2 * 3 * 8
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    np.testing.assert_array_equal(read_map(Path("MaskCreate/job001/mask.mrc")).data > 0, core)


def test_a_new_sphere_is_previewed_too(form, viewer, settle):
    form.page.update(input=None, new_box=32, outer_radius=8.0, soft_edge=3.0, pixel_size=2.0)
    viewer.dims.ndisplay = 3
    form.tool.preview.value = True
    settle()
    shown = viewer.layers[OUTLINE]
    assert shown.data.shape == (32, 32, 32)
    assert (shown.data.regions[16, 16] == 1).sum() == 17
    np.testing.assert_allclose(extent(viewer.layers[SURFACE]), 2 * 2 * (8 + 1.5), atol=1)


def test_the_map_may_decide_the_threshold(form, settle):
    form.page.update(threshold_from="mass", mass=10.0)
    form.tool.preview.value = True
    settle()
    assert "10 kDa" in form.tool.words.text()
    assert "10 kDa of protein" in form.tool.figures.text().splitlines()[0]
    # Whoever moves the slider gives the threshold.
    form.tool.level.value += 30
    settle()
    assert form.page["threshold_from"].value == "given"
    assert "10 kDa of protein" not in form.tool.figures.text().splitlines()[0]


def test_the_tab_key_goes_from_the_options_through_the_preview_to_the_buttons(form):
    order, here = [], form.page.last_control
    while form.run_button not in order:
        here = here.nextInFocusChain()
        order.append(here)
    wanted = [form.tool.preview.native, form.tool.soften.native, form.alias]
    assert [one for one in order if one in wanted] == wanted
