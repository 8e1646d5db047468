"""What is suggested for boxes, binning, sampling and filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_map
from cryorefine.io.optimisation_set import OptimisationSet, write_optimisation_set
from cryorefine.jobs.suggest import for_extraction, for_refinement
from cryorefine.tomo import suggestions

STEPS = (30, 15, 7.5, 3.7, 1.8, 0.9, 0.5, 0.2, 0.1)


def halves(rng, resolution, box=48, pixel_size=2.7):
    """Two maps that share everything up to a resolution and nothing beyond."""
    shells = np.fft.fftfreq(box, 1 / box)
    r = np.sqrt(shells[:, None, None] ** 2 + shells[:, None] ** 2 + np.arange(box // 2 + 1) ** 2)
    common, one, two = (scipy.fft.rfftn(rng.normal(size=(box,) * 3)) for _ in range(3))
    inside = r <= box * pixel_size / resolution
    maps = (scipy.fft.irfftn(np.where(inside, common, own), s=(box,) * 3) for own in (one, two))
    return [volume.astype(np.float32) for volume in maps]


def test_boxes_are_those_of_the_official_tutorial_at_binning_1():
    """HIV-1 CA-SP1, 230 A, 1.35 A/px: the tutorial keeps 192 px and cuts out 512."""
    assert suggestions.crop_size(230, 1.35).value == 192
    box = suggestions.box_size(230, 1.35, 33000, 300)
    # 0.0197 A * 33000 A / 2.7 A = 241 A to either side, (230 + 481) A / 1.35 A = 527; 540 = 4 * 27 * 5.
    assert box.value == 540
    assert "3.30 um" in box.reason
    assert "together 527 px" in box.reason


def test_more_defocus_and_finer_detail_need_larger_boxes():
    plain = suggestions.box_size(230, 2.0, 20000, 300).value
    assert suggestions.box_size(230, 2.0, 40000, 300).value > plain
    assert suggestions.box_size(230, 2.0, 20000, 300, highest=8).value < plain
    assert suggestions.box_size(230, 2.0, 0, 300).value == suggestions.crop_size(230, 2.0).value
    for size in range(20, 300, 7):
        value = suggestions.crop_size(size, 1.0).value
        assert value % 2 == 0
        assert value >= size + 10


def test_angular_sampling_is_finer_than_the_rim_needs_as_in_the_tutorial():
    """12 A at 230 A: 3.7 degrees; 5.5 A: 1.8 degrees."""
    assert suggestions.angular_sampling(12, 230, STEPS).value == 3.7
    assert suggestions.angular_sampling(5.5, 230, STEPS).value == 1.8
    assert suggestions.angular_sampling(0.1, 3000, STEPS).value == 0.1


def test_binning_is_halved_once_a_refinement_is_held_back_by_its_pixels():
    assert suggestions.next_binning(16.5, 1.35, 6).value == 3
    assert suggestions.next_binning(5.5, 1.35, 2).value == 1
    assert suggestions.next_binning(25, 1.35, 6).value == 6
    assert suggestions.next_binning(2.7, 1.35, 1).value == 1


@pytest.mark.parametrize("resolution", [8.0, 12.0])
def test_a_reference_is_filtered_a_little_below_what_its_halves_share(rng, resolution):
    first, second = halves(rng, resolution)
    value = suggestions.initial_lowpass(first, second, 2.7).value
    assert resolution < value < 1.25 * resolution


def test_suggestions_come_from_the_files_of_a_form(tmp_path, sim_hiv: Path, rng):
    for name, volume in zip(("half1", "half2"), halves(rng, 10.9, pixel_size=5.4), strict=True):
        write_map(tmp_path / f"{name}.mrc", volume, 5.4)
    tomograms = sim_hiv / "tomograms.star"
    entries = OptimisationSet(
        particles=sim_hiv / "particles.star",
        tomograms=tomograms,
        reference_half1=tmp_path / "half1.mrc",
        reference_half2=tmp_path / "half2.mrc",
    )
    write_optimisation_set(tmp_path / "set.star", entries)
    found = for_extraction(tmp_path / "set.star", None, 130, 2)
    assert found["binning"].value == 1
    assert found["crop_size"].value == suggestions.crop_size(130, 2.7).value
    assert found["box_size"].value > found["crop_size"].value
    assert "binning" not in for_extraction(None, tomograms, 130, 4)
    refine = for_refinement(tmp_path / "set.star", None, 130, None)
    assert 10.9 < refine["initial_lowpass"].value < 13
    assert refine["initial_angular_sampling"].value == 7.5
    assert for_refinement(None, None, 130, 30.0)["initial_angular_sampling"].value == 15
    with pytest.raises(UserError, match="need the tomograms"):
        for_extraction(None, None, 130, 1)
    with pytest.raises(UserError, match="need two half maps"):
        for_refinement(None, None, 130, None)
