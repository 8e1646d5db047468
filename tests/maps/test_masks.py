"""Masks: extension and edge by exact distances, spheres, and RELION's masks of the same map."""

import subprocess

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from cryorefine.io.mrc import read_map, write_map
from cryorefine.maps import filters, masks
from cryorefine.maps.distance import squared_distance
from cryorefine.maps.mask_recipe import MaskRecipe, mask_from_recipe


@pytest.fixture
def specks(rng):
    return rng.random((21, 24, 27)) > 0.997


@pytest.mark.parametrize("limit", [0.5, 1.0, 3.7, 12.0, 60.0])
def test_distances_are_exact_up_to_the_limit(specks, limit):
    expected = np.rint(distance_transform_edt(~specks) ** 2)
    result = squared_distance(specks, limit)
    near = expected <= limit**2
    assert (result[near] == expected[near]).all()
    assert (result[~near] > limit**2).all()


@pytest.mark.parametrize("extend", [0.5, 1, 2.5, 3, 7, 40])
def test_extension_takes_what_is_strictly_closer(specks, extend):
    expected = distance_transform_edt(~specks) < extend
    assert (masks.extend_binary(specks, extend) == expected).all()


@pytest.mark.parametrize("extend", [-0.5, -1, -2.2, -4])
def test_negative_extension_takes_away_what_is_close_to_the_outside(specks, extend):
    solid = masks.extend_binary(specks, 5)
    expected = distance_transform_edt(solid) >= -extend
    assert (masks.extend_binary(solid, extend) == (solid & expected)).all()


def test_extension_by_three_reaches_offsets_of_squared_length_eight():
    binary = np.zeros((9, 9, 9), dtype=bool)
    binary[4, 4, 4] = True
    extended = masks.extend_binary(binary, 3)
    assert extended[4, 6, 6]
    assert not extended[4, 4, 7]


def test_the_box_does_not_wrap_around():
    binary = np.zeros((8, 8, 8), dtype=bool)
    binary[0, 0, 0] = True
    assert not masks.extend_binary(binary, 4)[-1, 0, 0]
    assert masks.extend_binary(~np.zeros((8, 8, 8), dtype=bool), -3).all()


def test_edge_of_three_pixels_is_three_quarters_then_a_quarter():
    binary = np.zeros((9, 9, 9), dtype=bool)
    binary[4, 4, 4] = True
    edge = masks.add_soft_edge(binary, 3)[4, 4, 4:]
    np.testing.assert_allclose(edge, [1.0, 0.75, 0.25, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("width", [0, 1, 4.5, 9])
def test_edge_is_a_cosine_of_the_distance(specks, width):
    distance = distance_transform_edt(~specks)
    expected = np.where(distance < max(width, 1e-9), 0.5 + 0.5 * np.cos(np.pi * distance / max(width, 1)), 0)
    np.testing.assert_allclose(masks.add_soft_edge(specks, width), expected, atol=1e-6)


def test_threshold_itself_belongs_to_the_mask():
    volume = np.array([0.4, 0.5, 0.6]).reshape(1, 1, 3)
    assert mask_from_recipe(volume, MaskRecipe(0.5)).tolist() == [[[0, 1, 1]]]
    assert mask_from_recipe(volume, MaskRecipe(0.5, invert=True)).tolist() == [[[1, 0, 0]]]


def test_nothing_above_the_threshold_makes_an_empty_mask():
    assert not mask_from_recipe(np.zeros((6, 6, 6)), MaskRecipe(1.0, extend=2, soft_edge=2)).any()


@pytest.mark.parametrize("size", [16, 15])
def test_sphere_is_centred_on_voxel_half_the_box(size):
    sphere = masks.soft_sphere((size, size, size), 4.0, 3.0)
    centre = size // 2
    line = sphere[centre, centre, centre:]
    np.testing.assert_allclose(line[:8], [1, 1, 1, 1, 1, 0.75, 0.25, 0], atol=1e-6)
    assert sphere[centre, centre - 5, centre] == pytest.approx(0.75)
    assert (masks.soft_sphere((size, size), 4.0, 3.0) == sphere[centre]).all()


def test_touching_the_box_is_seen_on_every_face():
    binary = np.zeros((5, 5, 5), dtype=bool)
    binary[2, 2, 2] = True
    assert not masks.touches_box(binary)
    for axis in range(3):
        for side in (0, -1):
            touching = binary.copy()
            np.moveaxis(touching, axis, 0)[side, 2, 2] = True
            assert masks.touches_box(touching)


@pytest.mark.parametrize(
    ("lowpass", "threshold", "extend", "edge", "invert"),
    [
        (15, 0.1, 2, 4, False),
        (12, 0.0713, 0, 5, False),
        (20, -0.0137, -2, 3, False),
        (-1, 0.91, 3, 0, False),
        (9, 0.15, 1.5, 2.5, True),
    ],
)
def test_masks_agree_with_relion(relion, rng, tmp_path, lowpass, threshold, extend, edge, invert):
    noise = rng.standard_normal((32, 32, 32))
    volume = filters.lowpass(noise, 3.0, 8.0).astype(np.float32)
    write_map(tmp_path / "in.mrc", volume, 3.0)
    options = {
        "lowpass": lowpass,
        "ini_threshold": threshold,
        "extend_inimask": extend,
        "width_soft_edge": edge,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [relion("mask_create"), "--i", "in.mrc", "--o", "out.mrc", "--angpix", "3", *words]
    subprocess.run([*command, *["--invert"] * invert], cwd=tmp_path, check=True, capture_output=True)
    density = volume.astype(np.float64)
    if lowpass > 0:
        density = filters.lowpass(density, 3.0, lowpass)
    recipe = MaskRecipe(threshold, extend=extend, soft_edge=edge, invert=invert)
    ours = mask_from_recipe(density, recipe)
    assert 0.001 < ours.mean() < 0.999
    np.testing.assert_allclose(ours, read_map(tmp_path / "out.mrc").data, atol=1e-5)
