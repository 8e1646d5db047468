"""Opening and saving: what is dropped on napari, what is saved from it, and the sample."""

from __future__ import annotations

import subprocess
import sys
import threading

import mrcfile
import numpy as np
import pytest
from qtpy.QtCore import QTimer

from cryorefine.errors import UserError
from cryorefine.io.mrc import Place, read_map, write_map, write_stack
from napari_cryorefine import readers
from napari_cryorefine._compat import is_true_hand
from napari_cryorefine.writers import write_mrc

PLUGIN = "napari-cryorefine"


@pytest.fixture
def plugin(npe2pm):
    """Make the plugin known to napari, as the installed manifest describes it."""
    with npe2pm.tmp_plugin(package=PLUGIN):
        yield


def test_the_manifest_is_valid():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution(PLUGIN)
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == [
        "Workflow",
        "Rescale map",
        "Refine3D",
        "MaskCreate",
        "PostProcess",
        "CtfRefine",
        "Extract subtomos",
        "Reconstruct particle",
        "LocalRes",
        "Confidence map",
        "Directional FSC",
        "Orientation distribution",
        "Sky map",
        "Tomograms",
        "Monitor",
        "Project",
    ]


@pytest.mark.parametrize("name", ["a.mrc", "a.map", "a.rec", "a.ctf"])
def test_volumes_open_with_their_pixel_size(project, blob, viewer, plugin, name):
    write_map(project / name, blob, 2.5)
    (layer,) = viewer.open(str(project / name), plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, blob)
    assert tuple(layer.scale) == (2.5, 2.5, 2.5)
    assert is_true_hand(viewer)


@pytest.mark.parametrize(("name", "axis"), [("a.mrcs", "image"), ("a.st", "tilt")])
def test_stacks_open_image_by_image(project, blob, name, axis):
    write_stack(project / name, blob[:5], 2.5)
    ((data, keywords, kind),) = readers.get_mrc_reader(str(project / name))(str(project / name))
    assert kind == "image"
    assert data.shape == (5, 1, 24, 24)
    assert keywords["axis_labels"] == (axis, "z", "y", "x")


def test_a_micrograph_opens_as_an_image(project, blob):
    write_map(project / "micrograph.mrc", blob[0], 0.885)
    ((data, keywords, _),) = readers.read_mrc(project / "micrograph.mrc")
    assert data.shape == (24, 24)
    assert keywords["scale"] == (0.885, 0.885)


def test_a_header_without_pixel_size_still_opens(project, blob, monkeypatch):
    from napari.utils import notifications

    told = []
    monkeypatch.setattr(notifications, "show_warning", told.append)
    write_map(project / "a.mrc", blob, 0.0)
    ((_, keywords, _),) = readers.read_mrc(project / "a.mrc")
    assert keywords["scale"] == (1.0, 1.0, 1.0)
    assert told == ["a.mrc has no pixel size in its header; 1 Å is assumed."]


def test_particles_open_on_their_micrographs(shared, viewer, plugin):
    star = shared / "data/betagal_empiar10204/particles_good997.star"
    field, points = viewer.open(str(star), plugin=PLUGIN)
    view = points.metadata["view"]
    assert len(view.fits) == 997
    assert len(view.fits.micrographs) == 10
    assert len(points.data) == len(view.fits.members[0])
    assert list(viewer.layers) == [field, points]
    assert viewer.window.dock_widgets["Particles"].view is view


def test_large_particle_files_are_read_beside_the_window(shared, viewer, plugin, monkeypatch, qtbot):
    monkeypatch.setattr(readers, "_LARGE", 0)
    viewer.open(str(shared / "data/betagal_empiar10204/particles_good997.star"), plugin=PLUGIN)
    assert len(viewer.layers) == 0
    qtbot.waitUntil(lambda: "Particles" in viewer.window.dock_widgets, timeout=20000)
    assert len(viewer.layers) == 2


def by_hand(action):
    """Do something as a menu does, in Qt's own loop."""
    QTimer.singleShot(0, action)


def test_files_opened_by_hand_are_read_beside_the_window(half_maps, viewer, plugin, qtbot, monkeypatch):
    threads, opened = [], []
    read = readers.read_for_display

    def record(path, **keywords):
        threads.append(threading.current_thread())
        return read(path, **keywords)

    monkeypatch.setattr(readers, "read_for_display", record)
    by_hand(lambda: opened.extend(viewer.open([str(path) for path in half_maps], plugin=PLUGIN)))
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=20_000)
    assert opened == []
    assert len(threads) == 2
    assert threading.main_thread() not in threads
    assert [layer.name for layer in viewer.layers] == [path.stem for path in half_maps]
    assert is_true_hand(viewer)
    assert not viewer.layers[1].visible  # the second half map of a pair


def test_a_file_that_is_no_map_is_refused_in_a_sentence_by_hand_too(
    project, viewer, plugin, qtbot, monkeypatch
):
    told = []
    monkeypatch.setattr("napari_cryorefine.opening.show_error", told.append)
    (project / "broken.mrc").write_bytes(b"nothing")
    by_hand(lambda: viewer.open(str(project / "broken.mrc"), plugin=PLUGIN))
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    assert "broken.mrc" in told[0]


def test_another_star_file_is_refused_in_a_sentence(shared):
    star = shared / "data/betagal_empiar10204/golden_halfmaps/post.star"
    with pytest.raises(UserError, match=r"post.star"):
        readers.read_particle_star(star)


def test_a_saved_map_keeps_its_pixel_size(project, map_file, viewer, plugin):
    (layer,) = viewer.open(str(map_file), plugin=PLUGIN)
    layer.save(str(project / "copy.mrc"), plugin=PLUGIN)
    copy = read_map(project / "copy.mrc")
    np.testing.assert_array_equal(copy.data, layer.data)
    assert copy.pixel_size == 2.5


def test_a_saved_map_has_the_header_of_the_one_it_was_read_from(project, blob, viewer, plugin):
    place = Place(origin=(-30.0, 12.5, 7.0), start=(-12, 5, 3))
    write_map(project / "placed.mrc", blob, 2.5, place)
    (layer,) = viewer.open(str(project / "placed.mrc"), plugin=PLUGIN)
    layer.save(str(project / "copy.mrc"), plugin=PLUGIN)
    assert (project / "copy.mrc").read_bytes() == (project / "placed.mrc").read_bytes()
    with mrcfile.open(project / "copy.mrc") as written:
        assert written.header.origin.tolist() == place.origin
        assert [int(written.header[f"n{axis}start"]) for axis in "xyz"] == list(place.start)


def test_a_painted_mask_is_saved_as_a_map(project, viewer, plugin):
    painted = np.zeros((6, 6, 6), np.uint8)
    painted[2:4] = 1
    layer = viewer.add_labels(painted, scale=(2.5,) * 3, units="angstrom")
    layer.save(str(project / "mask.mrc"), plugin=PLUGIN)
    mask = read_map(project / "mask.mrc")
    np.testing.assert_array_equal(mask.data, painted)
    assert mask.pixel_size == 2.5


def test_a_stack_is_saved_as_a_stack(project, blob, model):
    from cryorefine.io.mrc import Map
    from napari_cryorefine import add_stack

    layer = add_stack(model, Map(blob[:5], 2.5))
    data, attributes, _ = layer.as_layer_data_tuple()
    write_mrc(str(project / "copy.mrcs"), data, attributes)
    copy = read_map(project / "copy.mrcs")
    np.testing.assert_array_equal(copy.data, blob[:5])
    assert copy.pixel_size == 2.5


def test_nanometres_are_saved_as_angstroms(project, blob, model):
    layer = model.add_image(blob, scale=(0.25,) * 3, units="nanometer")
    data, attributes, _ = layer.as_layer_data_tuple()
    write_mrc(str(project / "a.mrc"), data, attributes)
    assert read_map(project / "a.mrc").pixel_size == pytest.approx(2.5)


def test_voxels_that_are_no_cubes_are_refused(project, blob, model):
    layer = model.add_image(blob, scale=(1.0, 1.0, 2.0), units="angstrom")
    data, attributes, _ = layer.as_layer_data_tuple()
    with pytest.raises(UserError, match="not cubes"):
        write_mrc(str(project / "a.mrc"), data, attributes)
    assert not (project / "a.mrc").exists()


def test_the_sample_holds_real_particles_beside_their_reference(viewer, plugin):
    reference, particles = viewer.open_sample(PLUGIN, "beta-galactosidase")
    assert particles.data.shape == (997, 1, 64, 64)
    assert particles.axis_labels == ("particle", "z", "y", "x")
    assert reference.data.shape == (64, 64, 64)
    assert reference.metadata["particles"] == particles.metadata["particles"]
    assert reference.metadata["particles"].endswith(".star")
    # Low-passed to 50 A: nothing is left beyond.
    spectrum = np.abs(np.fft.fftn(reference.data))
    shells = np.linalg.norm(np.meshgrid(*[np.fft.fftfreq(64, 3.54)] * 3, indexing="ij"), axis=0)
    assert spectrum[shells > 1 / 30].max() < 1e-3 * spectrum.max()
    assert is_true_hand(viewer)
    # The images stand beside the map, not in it, and in the section that napari shows first.
    assert particles.extent.world[0][1] == pytest.approx(viewer.dims.point[1])
    assert particles.extent.world[0][-1] > reference.extent.world[1][-1]


def test_the_readers_are_found_without_loading_what_computes():
    """Opening napari's menus must not wait for Numba or SciPy."""
    code = (
        "import sys, napari_cryorefine.readers, napari_cryorefine.writers, napari_cryorefine.sample; "
        "print([name for name in ('numba', 'scipy', 'pandas', 'qtpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_large_map_stays_in_its_file_and_is_coarser_in_3d(
    project, map_file, blob, viewer, plugin, monkeypatch, qtbot
):
    from napari_cryorefine import large_maps

    monkeypatch.setattr(large_maps, "LARGE", 1000)
    monkeypatch.setattr(large_maps, "COARSE", 8)
    (layer,) = viewer.open(str(map_file), plugin=PLUGIN)
    assert isinstance(layer.data, np.memmap)
    viewer.dims.ndisplay = 3
    assert not layer.visible
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=20000)
    copy = viewer.layers[1]
    np.testing.assert_allclose(copy.data, blob.reshape(8, 3, 8, 3, 8, 3).mean(axis=(1, 3, 5)), atol=1e-6)
    # both fill the same space
    for edge in (-0.5, 0.5):
        corner = [
            np.where(np.array([edge] * 3) < 0, -0.5, np.array(each.data.shape) - 0.5)
            for each in (layer, copy)
        ]
        np.testing.assert_allclose(layer.data_to_world(corner[0]), copy.data_to_world(corner[1]))
    viewer.dims.ndisplay = 2
    assert layer.visible
    assert not copy.visible
    viewer.dims.ndisplay = 3
    assert copy.visible
    viewer.layers.remove(layer)
    viewer.dims.ndisplay = 2
    assert len(viewer.layers) == 0


def test_a_mask_opens_as_a_body_in_3d_and_as_outlines_over_slices(project, blob, viewer, plugin):
    mask = np.clip(5 * blob - 1, 0, 1)
    write_map(project / "mask.mrc", mask, 2.5)
    body, outline = viewer.open(str(project / "mask.mrc"), plugin=PLUGIN)
    assert tuple(body.contrast_limits) == (0.0, 1.0)
    assert body.iso_threshold == 0.5
    assert (body.visible, outline.visible) == (False, True)
    assert set(np.unique(outline.data[12])) == {0, 1, 2}
    viewer.dims.ndisplay = 3
    assert (body.visible, outline.visible) == (True, False)


def test_half_maps_that_are_opened_share_contrast_and_level(half_maps, viewer, plugin):
    two, one = viewer.open([str(path) for path in reversed(half_maps)], plugin=PLUGIN)
    assert (one.visible, two.visible) == (True, False)
    assert one.colormap.name != two.colormap.name
    one.contrast_limits = (0.1, 0.5)
    assert tuple(two.contrast_limits) == (0.1, 0.5)


def test_local_resolution_opens_in_its_colours(project, blob, viewer, plugin):
    resolution = np.where(blob > 0.1, 4 + blob, 0)
    write_map(project / "relion_locres.mrc", resolution, 2.5)
    (layer,) = viewer.open(str(project / "relion_locres.mrc"), plugin=PLUGIN)
    assert layer.colormap.name == "local resolution"
    low, high = layer.contrast_limits
    assert 4 < low < high < 5.2
