"""Layers: angstroms on every axis, sensible at first sight, and nobody's layer overwritten."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import Map
from cryorefine.io.particles import ParticleFile
from napari_cryorefine import layer_data, layers
from napari_cryorefine._compat import camera_of, is_true_hand


def particle_file(path="particles.star", **columns):
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnMicrographOriginalPixelSize": [0.885]})
    particles = pd.DataFrame({"rlnOpticsGroup": [1, 1, 1]} | columns)
    return ParticleFile(optics=optics, particles=particles, general=None, path=path)


COORDINATES = {
    "rlnMicrographName": ["b.mrc", "a.mrc", "b.mrc"],
    "rlnCoordinateX": [100.0, 200.0, 300.0],
    "rlnCoordinateY": [10.0, 20.0, 30.0],
}


def test_every_layer_is_in_angstrom_with_its_axes_named(model, map_file, half_maps, blob):
    layers.add_map(model, map_file)
    layers.add_half_maps(model, *half_maps)
    layers.add_mask(model, Map(np.clip(blob, 0, 1), 2.5))
    layers.add_stack(model, Map(blob, 2.5))
    layers.add_particles(model, particle_file(**COORDINATES))
    assert len(model.layers) == 8
    for layer in model.layers:
        axes = min(layer.ndim, 3)  # micrographs and their particles have no depth
        assert [str(unit) for unit in layer.units[-axes:]] == ["angstrom"] * axes
        assert layer.axis_labels[-axes:] == ("z", "y", "x")[-axes:]
        assert "path" in layer.metadata
    # None of them is without units or in others: napari would then show all of them in pixels.
    assert model.layers.extent.units is not None


def test_a_map_has_the_size_that_its_pixels_say(model, map_file):
    layer = layers.add_map(model, map_file)
    np.testing.assert_allclose(layer.scale, 2.5)
    np.testing.assert_allclose(layer.extent.world[1] - layer.extent.world[0], 23 * 2.5)
    assert layer.metadata["path"] == str(map_file)
    assert layers.source_path(layer) == map_file


def test_the_first_level_encloses_the_particle_and_no_solvent(blob):
    (low, high), level = layer_data.display_range(blob)
    particle = blob > 0.5
    assert low < level < high
    assert (blob[particle] > level).all()
    assert (blob > level).mean() < 0.06


def test_an_empty_map_has_limits_that_napari_takes(model):
    layer = layers.add_map(model, Map(np.zeros((8, 8, 8), np.float32), 1.0))
    assert layer.contrast_limits[0] < layer.contrast_limits[1]


def test_maps_are_shown_in_their_true_hand_from_the_first_one_on(model, map_file):
    assert not is_true_hand(model)
    layers.add_map(model, map_file)
    assert is_true_hand(model)


def test_who_turns_the_axes_afterwards_is_left_alone(model, map_file):
    layers.add_map(model, map_file)
    camera_of(model).orientation = ("towards", "down", "right")
    layers.add_map(model, map_file)
    assert not is_true_hand(model)


def test_axes_that_are_right_handed_already_stay_as_they_are(model, map_file):
    camera_of(model).orientation = ("away", "down", "right")
    layers.add_map(model, map_file)
    assert [str(axis) for axis in camera_of(model).orientation] == ["away", "down", "right"]


def test_a_map_of_the_same_role_takes_the_place_of_the_last_one(model, blob):
    first = layers.add_map(model, Map(blob, 2.5), role="job001 map")
    second = layers.add_map(model, Map(2 * blob, 2.5), role="job001 map")
    assert second is first
    assert len(model.layers) == 1
    np.testing.assert_array_equal(first.data, 2 * blob)
    # The new map is twice as bright: the level follows, as nobody has touched it.
    assert first.iso_threshold == pytest.approx(layer_data.display_range(2 * blob)[1], rel=1e-4)


def test_the_persons_own_contrast_and_level_survive_the_next_iteration(model, blob):
    layer = layers.add_map(model, Map(blob, 2.5), role="job001 map")
    layer.contrast_limits, layer.iso_threshold = (0.1, 0.3), 0.25
    layers.add_map(model, Map(2 * blob, 2.5), role="job001 map")
    assert tuple(layer.contrast_limits) == pytest.approx((0.1, 0.3))
    assert layer.iso_threshold == 0.25


def test_a_layer_of_somebody_else_with_the_same_name_is_not_touched(model, map_file):
    own = model.add_image(np.ones((4, 4, 4)), name="blob")
    added = layers.add_map(model, map_file, role="job001 map")
    assert added is not own
    assert own.data.shape == (4, 4, 4)
    assert len(model.layers) == 2


def test_half_maps_share_their_level_and_contrast(model, half_maps):
    one, two = layers.add_half_maps(model, *half_maps)
    one.iso_threshold = 0.42
    one.contrast_limits = (0.0, 0.9)
    assert two.iso_threshold == 0.42
    assert tuple(two.contrast_limits) == (0.0, 0.9)
    assert (one.visible, two.visible) == (True, False)


def test_half_maps_of_the_next_iteration_stay_linked(model, half_maps):
    layers.add_half_maps(model, *half_maps, role="Refine3D/job001")
    one, two = layers.add_half_maps(model, *half_maps, role="Refine3D/job001")
    assert len(model.layers) == 2
    one.iso_threshold = 0.3
    assert two.iso_threshold == 0.3


def test_the_outline_of_a_mask_tells_core_from_soft_edge():
    mask = np.array([[[0.0, 1e-4, 0.5, 1.0, 1.0]]], np.float32)
    assert layer_data.mask_regions(mask).tolist() == [[[0, 2, 2, 1, 1]]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_section_of_the_outline_has_one_line_around_the_core_and_one_around_the_edge(model, axis):
    distance = np.abs(np.indices((15, 15, 15)) - 7).max(axis=0)
    mask = np.clip((6 - distance) / 3, 0, 1).astype(np.float32)  # 1 out to 3, 0 from 6 on
    _, outline = layers.add_mask(model, Map(mask, 2.0))
    model.dims.order = np.roll((0, 1, 2), -axis)
    section = np.asarray(outline._slice.image.raw)
    expected = np.where(distance[7] == 3, 1, np.where(distance[7] == 5, 2, 0))
    np.testing.assert_array_equal(section, expected)


def test_slices_show_the_outline_and_3d_the_body(model, blob):
    body, outline = layers.add_mask(model, Map(np.clip(blob, 0, 1), 2.5))
    assert (outline.visible, body.visible) == (True, False)
    model.dims.ndisplay = 3
    assert (outline.visible, body.visible) == (False, True)
    body.visible = False
    model.dims.ndisplay = 2
    assert (outline.visible, body.visible) == (False, False)


def test_a_new_mask_of_the_same_job_replaces_body_and_outline(model, blob):
    layers.add_mask(model, Map(np.clip(blob, 0, 1), 2.5), role="MaskCreate/job002")
    body, outline = layers.add_mask(model, Map(np.ones_like(blob), 2.5), role="MaskCreate/job002")
    assert len(model.layers) == 2
    assert (body.data == 1).all()
    assert (outline.data.regions == 1).all()


def test_a_stack_does_not_mix_image_numbers_with_depth(model, blob):
    stack = layers.add_stack(model, Map(blob[:5], 2.5), axis="particle")
    layers.add_map(model, Map(blob, 2.5))
    assert stack.data.shape == (5, 1, 24, 24)
    assert stack.axis_labels == ("particle", "z", "y", "x")
    assert model.dims.range[0].stop == 4
    assert model.dims.range[1].stop == pytest.approx(23 * 2.5)


def test_particles_lie_where_their_micrograph_coordinates_say(model):
    points = layers.add_particles(model, particle_file(**COORDINATES))
    np.testing.assert_allclose(points.data, np.array([[10, 100], [30, 300]]) * 0.885)
    assert list(points.features["Coordinate X"]) == [100.0, 300.0]
    points.metadata["view"].show(1)
    np.testing.assert_allclose(points.data, np.array([[20, 200]]) * 0.885)
    assert points.name.endswith("of a.mrc")


def test_particles_are_coloured_by_any_of_their_numbers(model):
    values = {"rlnDefocusU": [1000.0, 2000.0, 1000.0], "rlnAngleRot": [10.0, 20.0, 30.0], "rlnOpticsGroup": 1}
    points = layers.add_particles(model, particle_file(**COORDINATES, **values))
    view = points.metadata["view"]
    assert view.fits.columns == ["Defocus (Å)", "Rot (°)", "Coordinate X", "Coordinate Y"]
    assert view.colouring == "Defocus (Å)"
    assert (points.face_color[0] == points.face_color[1]).all()
    view.colour_by("Rot (°)")
    assert (points.face_color[0] != points.face_color[1]).any()
    assert points.name == "Rot (°) of b.mrc"
    assert points.face_contrast_limits == (10.0, 30.0)


def test_particles_in_a_tomogram_keep_their_depth(model):
    columns = COORDINATES | {"rlnCoordinateZ": [1.0, 2.0, 3.0], "rlnTomoName": ["t2", "t1", "t2"]}
    points = layers.add_particles(model, particle_file(**columns))
    np.testing.assert_allclose(points.data, np.array([[1, 10, 100], [3, 30, 300]]) * 0.885)
    assert points.axis_labels == ("z", "y", "x")
    assert model.dims.ndisplay == 3
    assert [layer.name for layer in model.layers] == ["Coordinate X of t2"]


def test_particles_of_tomograms_that_are_not_there_lie_about_the_middle(model):
    centred = {f"rlnCenteredCoordinate{axis}Angst": [1.0, -20.0, 3.0] for axis in "XYZ"}
    points = layers.add_particles(model, particle_file(rlnTomoName=["t2", "t1", "t2"], **centred))
    np.testing.assert_allclose(points.data, [[1, 1, 1], [3, 3, 3]])


def test_particles_of_another_file_take_the_place_of_those_that_are_shown(model):
    layers.add_particles(model, particle_file(**COORDINATES))
    other = layers.add_particles(model, particle_file("other.star", **COORDINATES))
    assert len(model.layers) == 2
    assert other.metadata["path"] == "other.star"
    in_space = COORDINATES | {"rlnCoordinateZ": [1.0, 2.0, 3.0], "rlnTomoName": ["t2", "t1", "t2"]}
    layers.add_particles(model, particle_file(**in_space))
    assert len(model.layers) == 1


def test_particles_without_coordinates_are_refused_in_a_sentence(model):
    with pytest.raises(UserError, match=r"particles.star .*rlnCoordinateX.*\.mrcs"):
        layers.add_particles(model, particle_file())
