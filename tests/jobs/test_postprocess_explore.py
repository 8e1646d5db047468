"""Trying out masks and fits says what the job says, and changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import Map, read_map, write_map
from cryorefine.jobs import postprocess
from cryorefine.jobs.postprocess_explore import Exploration
from cryorefine.maps import filters, masks

SIZE, PIXEL = 32, 3.0


@pytest.fixture
def inputs(tmp_path):
    """Half maps of a smooth random particle in a sphere, and a soft mask around it."""
    rng = np.random.default_rng(5)
    mask = masks.soft_sphere((SIZE,) * 3, 9, 4)
    particle = filters.lowpass(rng.normal(size=(SIZE,) * 3), PIXEL, 9.0) * mask
    for half in (1, 2):
        noise = rng.normal(0, 0.2 * particle.std(), particle.shape)
        write_map(tmp_path / f"half{half}.mrc", (particle + noise).astype(np.float32), PIXEL)
    write_map(tmp_path / "mask.mrc", mask, PIXEL)
    options = postprocess.Options(
        half_map=tmp_path / "half1.mrc",
        mask=tmp_path / "mask.mrc",
        output=tmp_path / "out",
        autob_lowest_resolution=30.0,
    )
    return options, mask


def test_what_is_tried_is_what_the_job_does(inputs):
    options, _ = inputs
    exploration = Exploration(options.half_map)
    tried = exploration.try_out(options, exploration.mask(options.mask), options.mask)
    result = list_result(postprocess.run(options))
    assert tried.report.b_factor == result.b_factor
    assert tried.report.resolution == result.resolution
    assert list(tried.fsc.values) == ["corrected", "unmasked", "masked", "phase-randomised"]
    sharpened = exploration.sharpened(tried)
    np.testing.assert_allclose(sharpened.data, read_map(result.map).data, atol=1e-5 * np.ptp(sharpened.data))
    assert sharpened.pixel_size == PIXEL


def list_result(running):
    """Run a job to its end."""
    while True:
        try:
            next(running)
        except StopIteration as stop:
            return stop.value


def test_trying_leaves_no_trace_on_what_is_tried_next(inputs):
    options, mask = inputs
    exploration = Exploration(options.half_map)
    given = exploration.mask(Map(mask, PIXEL), "painted")
    first = exploration.try_out(options, given, None)
    sharpened = exploration.sharpened(first).data
    without = exploration.try_out(options, None, None)
    exploration.sharpened(without)
    again = exploration.try_out(options, given, None)
    assert list(without.fsc.values) == ["unmasked"]
    assert first.report.b_factor == again.report.b_factor
    np.testing.assert_array_equal(exploration.sharpened(again).data, sharpened)
    np.testing.assert_array_equal(first.fsc.values["corrected"], again.fsc.values["corrected"])


@pytest.mark.parametrize("method", ["weighted", "relion"])
def test_the_fit_keeps_to_its_range(inputs, method):
    options, _ = inputs
    options = dataclasses.replace(options, mask=None, bfactor_method=method)
    exploration = Exploration(options.half_map)
    whole = exploration.try_out(options, None, None).report.fit
    part = exploration.try_out(dataclasses.replace(options, autob_highest_resolution=15.0), None, None)
    assert part.report.fit.slope != whole.slope
    # What lies beyond the range has no say.
    rough = exploration.try_out(dataclasses.replace(options, autob_highest_resolution=15.1), None, None)
    assert rough.report.fit == part.report.fit


def test_a_mask_of_another_box_is_refused_by_its_name(inputs):
    options, mask = inputs
    with pytest.raises(UserError, match="painted is 30 x 30 x 30 px"):
        Exploration(options.half_map).mask(Map(mask[1:-1, 1:-1, 1:-1], PIXEL), "painted")
