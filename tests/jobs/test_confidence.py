"""The confidence job: what it leaves, what it says, and what it refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map
from cryorefine.jobs.base import Figures, Notice, finish
from cryorefine.jobs.confidence import Options, run
from cryorefine.jobs.relion_job import read_job
from cryorefine.maps import filters, masks

SIZE, PIXEL = 48, 2.0
SHAPE = (SIZE,) * 3


@pytest.fixture
def halves(tmp_path, rng):
    """Path of half map 1 of a ball of atoms."""
    atoms = (rng.random(SHAPE) < 0.03) * masks.soft_sphere(SHAPE, 12, 0)
    structure = filters.lowpass(40 * atoms.astype(np.float32), PIXEL, 8.0)
    write_map(tmp_path / "mask.mrc", masks.soft_sphere(SHAPE, 15, 3), PIXEL)
    for half in (1, 2):
        noise = rng.standard_normal(SHAPE).astype(np.float32)
        write_map(tmp_path / f"half{half}.mrc", structure + noise, PIXEL)
    return tmp_path / "half1.mrc"


def options(half, **others):
    return Options(**({"half_map": half, "output": half.parent / "Confidence"} | others))


def test_the_particle_is_significant_and_the_solvent_is_not(halves):
    result = finish(run(options(halves)))
    confidence, filtered, significant = (
        read_map(path) for path in (result.confidence, result.filtered, result.significant)
    )
    assert confidence.pixel_size == pytest.approx(PIXEL)
    ball = masks.soft_sphere(SHAPE, 15, 0) > 0
    real = confidence.data >= 0.99
    assert real[ball].sum() > 1000
    assert real[~ball].sum() < 0.01 * real.sum() + 5
    np.testing.assert_array_equal(significant.data != 0, real)
    np.testing.assert_array_equal(significant.data[real], filtered.data[real])
    assert result.volume == pytest.approx(real.sum() * PIXEL**3)
    assert 7 < result.lowpass < 10


def test_a_mask_finds_more_and_tests_nothing_outside(halves):
    mask = halves.parent / "mask.mrc"
    plain = finish(run(options(halves, lowpass=8.0)))
    within = finish(run(options(halves, lowpass=8.0, mask=mask, output=halves.parent / "masked")))
    assert within.volume > plain.volume
    assert (read_map(within.confidence).data[read_map(mask).data == 0] == 0).all()


def test_a_stricter_rate_keeps_less(halves):
    volumes = [
        finish(run(options(halves, false_discovery_rate=rate, output=halves.parent / str(rate)))).volume
        for rate in (0.001, 0.1)
    ]
    assert volumes[0] < volumes[1]


def test_the_job_file_brings_the_options_back(halves):
    given = options(halves, bfactor=-20.0, lowpass=9.0, noise_window=30.0)
    events = list(run(given))
    assert any(isinstance(event, Figures) for event in events)
    assert read_job(halves.parent / "Confidence" / "job.star").options == given


def test_noise_alone_has_nothing_significant(tmp_path, rng):
    for half in (1, 2):
        write_map(tmp_path / f"half{half}.mrc", rng.standard_normal(SHAPE).astype(np.float32), PIXEL)
    events = list(run(options(tmp_path / "half1.mrc", lowpass=8.0)))
    assert any("coarser --lowpass" in event.message for event in events if isinstance(event, Notice))


def test_half_maps_that_are_the_same_are_refused(halves):
    shutil.copy(halves, halves.parent / "half2.mrc")
    with pytest.raises(UserError, match="same map"):
        finish(run(options(halves, lowpass=8.0)))


def test_half_maps_that_do_not_agree_are_refused(tmp_path, rng):
    volume = rng.standard_normal(SHAPE).astype(np.float32)
    write_map(tmp_path / "half1.mrc", volume, PIXEL)
    write_map(tmp_path / "half2.mrc", -volume, PIXEL)
    with pytest.raises(UserError, match="do not agree"):
        finish(run(options(tmp_path / "half1.mrc")))
