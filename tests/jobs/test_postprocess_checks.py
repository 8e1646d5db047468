"""PostProcess says what is wrong with half maps, masks and headers, and what to change to what."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from tests.jobs.test_postprocess import (  # noqa: F401
    PIXEL,
    SIZE,
    events_of,
    half_map,
    mask,
    settings,
    small_mask,
    warnings_of,
    write_halves,
)

from cryorefine.io.mrc import write_map
from cryorefine.jobs import postprocess, postprocess_checks
from cryorefine.jobs.postprocess_report import Report
from cryorefine.maps.masks import soft_sphere
from cryorefine.maps.solvent import SolventFsc

SHELLS = 65


def report_of(unmasked, corrected=None, randomised=None, power=None):
    """A report of curves made up for a box of 128 voxels of 1 A."""
    curves = None
    if corrected is not None:
        noise = np.zeros(SHELLS) if randomised is None else randomised
        curves = SolventFsc(unmasked, corrected, noise, corrected, 10, np.ones(SHELLS))
    paths = ("a_half1.mrc", "a_half2.mrc")
    power = np.ones(SHELLS) if power is None else power
    pair = SimpleNamespace(size=128, unmasked=unmasked, power=power)
    return Report(paths, "mask.mrc", 1.0, pair, curves, None)


def falling(shell, steepness=0.4):
    """An FSC that falls through one half at a shell."""
    return 1 / (1 + np.exp(steepness * (np.arange(SHELLS) - shell)))


def said(report, behind=None):
    return list(postprocess_checks.curves(report, behind))


def test_good_curves_leave_nothing_to_say():
    assert said(report_of(falling(30), falling(40)), soft_sphere((16,) * 3, 4, 5)) == []
    assert said(report_of(falling(30))) == []


def test_random_phases_that_correlate_name_the_edge_that_is_needed():
    sharp = soft_sphere((32,) * 3, 8, 2)
    noise = np.where(np.arange(SHELLS) < 45, 0.3, 0.0)
    (sentence,) = said(report_of(falling(30), falling(40), noise), sharp)
    # The resolution is shell 44, 2.91 A of 1 A/px: an edge of twice that.
    assert re.search(r"correlate by 0.20 at 2.91 A", sentence) or "correlate by 0.30" in sentence
    assert "--soft-edge of 6 px (it is about 2 px now)" in sentence
    assert "--lowpass of 15 A" in sentence


def test_a_better_resolution_without_the_mask_names_both():
    (sentence,) = said(report_of(falling(40), falling(30)))
    assert "without the mask (2.91 A) is better than with mask.mrc (3.76 A)" in sentence
    assert "half the --threshold and an --extend of 3 px more" in sentence


def test_half_maps_that_never_agree():
    curve = np.zeros(SHELLS)
    curve[0] = 1
    assert "do not agree at any resolution" in said(report_of(curve))[0]


def test_a_fall_that_never_comes_asks_for_smaller_pixels():
    (sentence,) = said(report_of(np.linspace(1, 0.4, SHELLS)))
    assert "limited by the pixel size of 1 A/px; refine with particles of at most 0.667 A/px" in sentence


def test_a_mask_whose_part_in_the_fsc_cannot_be_told_is_named():
    flat = np.linspace(1, 0.85, SHELLS)
    sentences = said(report_of(flat, flat))
    assert any("never drops below 0.8, so phases cannot be randomised" in text for text in sentences)


def test_a_dip_that_rises_is_placed():
    curve = falling(45)
    curve[20:26] -= 0.5
    (sentence,) = said(report_of(curve))
    assert re.search(r"dips to 0.50 at 5\.\d A and rises again to (1.00|0.99) at 4\.\d A", sentence)
    # A shallow one is what protein does at 10 A.
    curve = falling(45)
    curve[20:26] -= 0.1
    assert said(report_of(curve)) == []


def test_noise_that_correlates_is_called_dependent():
    curve = 0.1 + 0.9 * falling(25)
    (sentence,) = said(report_of(curve))
    assert "correlate by 0.10 even beyond their resolution" in sentence
    assert "rlnRandomSubset" in sentence


def test_filtered_half_maps_are_found_out():
    power = np.where(np.arange(SHELLS) < 50, 1.0, 0.0)
    (sentence,) = said(report_of(falling(30), power=power))
    assert "has been filtered; give the unfiltered half maps" in sentence


def test_headers_that_contradict_the_entry_or_each_other(tmp_path):
    paths = [tmp_path / name for name in ("half1.mrc", "half2.mrc", "mask.mrc")]
    for path, pixel in zip(paths, (1.0, 1.0, 1.35), strict=True):
        write_map(path, np.ones((4, 4, 4)), pixel)
    (entry,) = postprocess_checks.pixel_sizes(paths[:2], 3.54, 3.54)
    assert "half1.mrc says 1 A/px but 3.54 was entered" in entry
    assert "--pixel-size 1" in entry
    (other,) = postprocess_checks.pixel_sizes(paths, 1.0, None)
    assert "mask.mrc says 1.35 A/px but that of" in other
    # Calibration changes a pixel size by a few per cent.
    assert list(postprocess_checks.pixel_sizes(paths[:2], 1.03, 1.03)) == []


def test_a_job_at_nyquist_says_so_and_ends_well(settings, tmp_path, rng):  # noqa: F811
    path = write_halves(tmp_path, rng, decay=200.0, noise=5.0)
    changes = {"half_map": path, "mask": None, "bfactor": -1.0}
    events, result = events_of(postprocess.run(postprocess.Options(**{**settings, **changes})))
    assert result.resolution == pytest.approx(2 * PIXEL)
    assert any("limited by the pixel size of 2 A/px" in text for text in warnings_of(events))


def test_half_maps_whose_fsc_stays_high_are_sharpened_all_the_same(settings, tmp_path, rng):  # noqa: F811
    path = write_halves(tmp_path, rng, signal=100.0, decay=30.0, noise=1.0)
    events, result = events_of(postprocess.run(postprocess.Options(**{**settings, "half_map": path})))
    assert result.masked_map.exists()
    assert any("phases cannot be randomised" in text for text in warnings_of(events))


def test_a_sharp_mask_is_blamed_in_a_real_run(settings, tmp_path, rng):  # noqa: F811
    # White noise in place of a particle, and a mask of a few single voxels: it alone correlates.
    ragged = (rng.random((SIZE,) * 3) > 0.97) * soft_sphere((SIZE,) * 3, 9, 0)
    write_map(tmp_path / "ragged.mrc", ragged.astype(np.float32), PIXEL)
    path = write_halves(tmp_path, rng, signal=500.0, decay=3.0)
    changes = {"half_map": path, "mask": tmp_path / "ragged.mrc", "bfactor": -10.0}
    events, _ = events_of(postprocess.run(postprocess.Options(**{**settings, **changes})))
    assert any("too sharp or too detailed" in text for text in warnings_of(events)), warnings_of(events)
