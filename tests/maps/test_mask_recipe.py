"""Masks step by step, and slab by slab with the same voxels; what is wrong with a mask; thresholds."""

import re

import numpy as np
import pytest

from cryorefine.maps import density, mask_checks, masks
from cryorefine.maps.mask_recipe import MaskRecipe, binary_mask, mask_by_slabs, mask_from_recipe


def blobs(rng, size=48):
    """Smooth random density with several islands."""
    from scipy import ndimage

    return ndimage.gaussian_filter(rng.standard_normal((size,) * 3), 3) * 20


@pytest.mark.parametrize(
    ("combination", "expected"),
    [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1]), ("and-not", [0, 0, 1, 0]), ("or-not", [1, 0, 1, 1])],
)
def test_a_second_map_takes_part_in_four_ways(combination, expected):
    first, second = np.array([[[0, 0, 1, 1]]]), np.array([[[0, 1, 0, 1]]])
    made = binary_mask(first, MaskRecipe(1.0, combination), second)
    assert made.ravel().astype(int).tolist() == expected


def test_a_recipe_without_extras_is_the_plain_mask(rng):
    volume = blobs(rng)
    expected = 1 - masks.add_soft_edge(masks.extend_binary(volume >= 0.5, 1.5), 3.0)
    made = mask_from_recipe(volume, MaskRecipe(0.5, extend=1.5, soft_edge=3.0, invert=True))
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("planes", [5, 7, 48])
@pytest.mark.parametrize(
    "recipe",
    [
        MaskRecipe(0.5, extend=2.5, soft_edge=4.3),
        MaskRecipe(0.5, extend=-1.2, soft_edge=3, helix_length=0.4, invert=True),
        MaskRecipe(0.5, extend=11, soft_edge=9, largest_islands=2, fill_holes=True),
    ],
)
def test_slabs_give_the_same_voxels_as_one_piece(rng, planes, recipe):
    volume = blobs(rng)
    expected = mask_from_recipe(volume, recipe)
    made = np.full_like(expected, np.nan)
    mask_by_slabs(lambda a, b: binary_mask(volume[a:b], recipe), len(volume), recipe, made, planes, 2)
    np.testing.assert_array_equal(made, expected)


def test_helix_window_is_one_in_the_middle_and_soft_beyond():
    window = masks.helix_window(20, 0.4, 2.0)
    np.testing.assert_allclose(window[10:17], [1, 1, 1, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(window[4:10], [0, 0.5, 1, 1, 1, 1], atol=1e-6)


def test_shell_has_edges_on_both_sides_and_any_centre():
    shell = masks.soft_shell(32, 10.0, 4.0, 2.0, (0, 0, 3))
    line = shell[16, 16, 19:]
    np.testing.assert_allclose(line, [0, 0, 0, 0.5, *[1] * 7, 0.5, 0][: len(line)], atol=1e-6)
    assert masks.soft_shell(32, 10.0)[16, 16, 26] == 1
    assert masks.soft_shell(32, 10.0)[16, 16, 27] == 0


def test_islands_are_kept_by_number_and_by_volume():
    binary = np.zeros((12, 12, 12), dtype=bool)
    binary[1:5, 1:5, 1:5] = True  # 64
    binary[7:10, 7:10, 7:10] = True  # 27
    binary[6, 1, 1] = True  # 1
    assert density.keep_islands(binary, largest=1).sum() == 64
    assert density.keep_islands(binary, largest=2).sum() == 91
    assert density.keep_islands(binary, smallest_volume=2).sum() == 91
    assert density.keep_islands(binary, smallest_volume=28).sum() == 64
    assert density.keep_islands(binary).sum() == 92


def test_a_hole_is_filled_but_not_a_bay():
    binary = np.zeros((9, 9, 9), dtype=bool)
    binary[2:7, 2:7, 2:7] = True
    binary[4, 4, 4] = False
    assert density.fill_holes(binary)[4, 4, 4]
    binary[4, 4, 4:] = False
    assert not density.fill_holes(binary)[4, 4, 4]


def test_threshold_for_a_mass_encloses_its_volume(rng):
    volume = rng.random((40,) * 3)
    found = density.threshold_for_mass(volume, 1.5, 10.0)
    assert density.volume_of(volume >= found.value, 1.5).kilodalton == pytest.approx(10.0, rel=1e-3)
    assert "10 kDa" in found.reason
    with pytest.raises(ValueError, match="voxels, but the box has"):
        density.threshold_for_mass(volume, 1.5, 1e6)


@pytest.mark.parametrize("radius", [7, 11])
def test_suggested_threshold_lies_between_solvent_and_particle(rng, radius):
    particle = masks.soft_sphere((40,) * 3, radius, 2)
    volume = 3.0 * particle + 0.2 * rng.standard_normal(particle.shape) + 5.0
    found = density.suggest_threshold(volume)
    assert 5.5 < found.value < 7.0
    assert "standard deviations of the solvent" in found.reason
    inside = volume >= found.value
    assert abs(inside.sum() / (particle > 0.5).sum() - 1) < 0.2


def test_suggested_threshold_of_density_without_noise_is_otsus():
    found = density.suggest_threshold(masks.soft_sphere((32,) * 3, 8, 3))
    assert 0.1 < found.value < 0.9
    assert "Otsu" in found.reason


def test_edge_width_is_measured():
    for width in (2, 3, 5, 8):
        measured = mask_checks.edge_width(masks.soft_sphere((48,) * 3, 12, width))
        assert measured == pytest.approx(width, rel=0.12)
    assert mask_checks.edge_width(masks.soft_sphere((32,) * 3, 8, 0)) == 0


def test_share_of_the_signal_outside_is_that_of_the_density(rng):
    first, second = (masks.soft_shell(64, 8.0, 0.0, 3.0, (0, 0, x)) for x in (-16, 16))
    volume = first + second + 0.05 * rng.standard_normal(first.shape)
    assert mask_checks.share_outside(volume, masks.soft_sphere((64,) * 3, 28, 2)) < 0.01
    assert mask_checks.share_outside(volume, masks.soft_shell(64, 13.0, 0, 2, (0, 0, 16))) == pytest.approx(
        0.5, abs=0.03
    )


def test_each_fault_of_a_mask_has_its_sentence():
    good = masks.soft_sphere((48,) * 3, 12, 6)
    assert list(mask_checks.sentences(good, 2.0, good, 5.0)) == []
    cases = {
        "is empty": (np.zeros_like(good), None, None),
        "reaches the edge of the box": (masks.soft_sphere((48,) * 3, 22, 6), None, None),
        "leaves out 7. % of the map's signal": (masks.soft_sphere((48,) * 3, 6, 6), None, good),
        "too narrow for 8.00 A .*--soft-edge of at least 8 px": (good, 8.0, None),
        "too narrow and .*--soft-edge of at least 5 px": (masks.soft_sphere((48,) * 3, 12, 0), None, None),
    }
    for sentence, (mask, resolution, volume) in cases.items():
        (found,) = mask_checks.sentences(mask, 2.0, volume, resolution)
        assert re.search(sentence, found), (sentence, found)
