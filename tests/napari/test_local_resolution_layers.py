"""A map's surface in the colours of its local resolution, in angstroms and where the map is."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import Map, write_map
from cryorefine.jobs.base import Product
from cryorefine.maps import masks
from napari_cryorefine import open_results
from napari_cryorefine._compat import is_true_hand
from napari_cryorefine.level_panel import LEVEL_DOCK
from napari_cryorefine.local_resolution_layers import add_local_resolution
from napari_cryorefine.results import show_event

SIZE, PIXEL, RADIUS = 32, 2.5, 9
SHAPE = (SIZE,) * 3


@pytest.fixture
def ball():
    """A ball about (z, y, x) = (16, 16, 20), better where z is large."""
    density = np.roll(masks.soft_sphere(SHAPE, RADIUS, 2), 4, 2)
    resolution = np.broadcast_to(np.linspace(8.0, 4.0, SIZE, dtype=np.float32)[:, None, None], SHAPE).copy()
    resolution[..., :3] = 0
    return Map(density, PIXEL), Map(resolution, PIXEL)


def in_voxels(layer):
    """Vertices in voxels of the map."""
    return np.array([layer.data_to_world(vertex) for vertex in layer.data[0]]) / PIXEL


def test_the_surface_is_where_the_density_reaches_the_level(model, ball):
    layer = add_local_resolution(model, *ball, level=0.5)
    distance = np.linalg.norm(in_voxels(layer) - (16, 16, 20), axis=1)
    np.testing.assert_allclose(distance, RADIUS + 1, atol=0.3)
    assert [str(unit) for unit in layer.units] == ["angstrom"] * 3
    assert is_true_hand(model)


def test_each_vertex_has_the_resolution_of_its_place(model, ball):
    layer = add_local_resolution(model, *ball, level=0.5)
    values = layer.data[2]
    np.testing.assert_allclose(values, np.interp(in_voxels(layer)[:, 0], [0, SIZE - 1], [8, 4]), atol=0.1)
    low, high = layer.contrast_limits
    assert values.min() <= low < high <= values.max()
    good, poor = layer.colormap.map([0.0, 1.0])[:, :3]
    assert good.argmax() == 2  # blue
    assert poor.argmax() == 0  # red
    assert min(good.max(), poor.max()) > 0.6  # seen on black


def test_the_surface_is_lit_from_the_front(model, ball):
    """Napari lights the back of a surface when an odd number of mirrors stands before it."""
    layer = add_local_resolution(model, *ball, level=0.5)
    assert np.prod(layer.scale) < 0
    assert is_true_hand(model)


def test_a_large_map_is_drawn_coarsely_in_the_same_place(model, ball, monkeypatch):
    monkeypatch.setattr("napari_cryorefine.local_resolution_layers._LARGEST", 16)
    layer = add_local_resolution(model, *ball, level=0.5)
    assert len(layer.data[1]) < 2000
    np.testing.assert_allclose(np.linalg.norm(in_voxels(layer) - (16, 16, 20), axis=1), RADIUS + 1, atol=0.8)


def test_a_finished_job_is_shown_and_shown_again_in_place(model, project, ball):
    folder = project / "LocalRes" / "job004"
    folder.mkdir(parents=True)
    for name, one in zip(("relion_locres_filtered", "relion_locres"), ball, strict=True):
        write_map(folder / f"{name}.mrc", one.data, PIXEL)
    layers = open_results(model, folder)
    surface, density, slices = layers
    assert [layer.name for layer in layers] == [
        "local resolution (Å)",
        "relion_locres_filtered",
        "relion_locres",
    ]
    assert (density.visible, slices.blending) == (True, "multiplicative")
    np.testing.assert_allclose(slices.contrast_limits, surface.contrast_limits)
    assert (surface.visible, slices.visible) == (False, True)
    model.dims.ndisplay = 3
    assert (surface.visible, density.visible, slices.visible) == (True, False, False)
    write_map(folder / "locres_smooth.mrc", ball[1].data / 2 + 1, PIXEL)
    show_event(model, Product("local_resolution", folder / "relion_locres_filtered.mrc"), folder)
    assert len(model.layers) == 3
    assert surface.data[2].max() < 5


def test_a_finished_confidence_map_is_shown(model, project, ball):
    folder = project / "Confidence" / "job005"
    folder.mkdir(parents=True)
    for name in ("confidence", "filtered", "significant"):
        write_map(folder / f"{name}.mrc", ball[0].data, PIXEL)
    shown = {layer.name: layer.visible for layer in open_results(model, folder)}
    assert shown == {"confidence": False, "significant": True}


@pytest.mark.parametrize(
    ("level", "resolution", "words"),
    [(2.0, None, "level between"), (0.5, np.zeros(SHAPE), "0 on all"), (0.5, np.ones((8,) * 3), "boxes")],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(model, ball, level, resolution, words):
    other = ball[1] if resolution is None else Map(resolution.astype(np.float32), PIXEL)
    with pytest.raises(UserError, match=words):
        add_local_resolution(model, ball[0], other, level=level)


def test_the_slider_moves_the_surface_between_large_and_small(viewer, qtbot, project, ball):
    folder = project / "LocalRes" / "job004"
    folder.mkdir(parents=True)
    for name, one in zip(("relion_locres_filtered", "relion_locres"), ball, strict=True):
        write_map(folder / f"{name}.mrc", one.data, PIXEL)
    surface = open_results(viewer, folder)[0]
    viewer.dims.ndisplay = 3
    panel = viewer.window.dock_widgets[LEVEL_DOCK]

    def moved(change):
        change()
        qtbot.waitUntil(lambda: not panel.busy, timeout=20_000)
        return np.linalg.norm(in_voxels(surface) - (16, 16, 20), axis=1).max()

    limits = surface.contrast_limits
    wide = moved(lambda: setattr(panel.level, "value", 0.02))
    assert "Å³" in panel.told.value
    narrow = moved(lambda: setattr(panel.level, "value", 0.98))
    assert RADIUS - 0.5 < narrow < wide - 1
    place = panel.slider.value
    assert moved(lambda: setattr(panel.slider, "value", place - 20)) > narrow
    assert panel.level.value == surface.metadata["level"] < 0.98
    assert surface.contrast_limits == limits
    moved(lambda: setattr(panel.level, "value", 5.0))
    assert "give a level between" in panel.told.value
