"""The local-resolution job: its files, what it refuses, and RELION's job file."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.star import read_star
from cryorefine.jobs.base import Notice, Product, finish
from cryorefine.jobs.local_resolution import Options, run
from cryorefine.jobs.relion_job import read_job
from cryorefine.maps import filters, masks

SIZE, PIXEL = 40, 2.0


@pytest.fixture
def halves(tmp_path, rng):
    """Path of half map 1 of a ball that is good to 6 A."""
    ball = masks.soft_sphere((SIZE,) * 3, 10, 3)
    structure = filters.lowpass(rng.standard_normal(ball.shape).astype(np.float32), PIXEL, 6.0) * ball
    write_map(tmp_path / "mask.mrc", masks.soft_sphere(ball.shape, 12, 3), PIXEL)
    for half in (1, 2):
        noise = 0.2 * rng.standard_normal(ball.shape).astype(np.float32)
        write_map(tmp_path / f"run_half{half}_class001_unfil.mrc", structure + noise, PIXEL)
    return tmp_path / "run_half1_class001_unfil.mrc"


def options(half, **others):
    return Options(**({"half_map": half, "output": half.parent / "LocalRes", "sampling": 16.0} | others))


def test_it_leaves_the_files_that_relion_leaves(halves):
    result = finish(run(options(halves, mask=halves.parent / "mask.mrc", smooth=True)))
    names = {path.name for path in result.output.iterdir()}
    assert {
        "relion_locres.mrc",
        "relion_locres_filtered.mrc",
        "relion_locres_fscs.star",
        "histogram.pdf",
        "locres_smooth.mrc",
        "RELION_JOB_EXIT_SUCCESS",
    } <= names
    for path in (result.local_resolution, result.filtered, result.smooth):
        assert read_map(path).pixel_size == pytest.approx(PIXEL)
    centre = (SIZE // 2,) * 3
    assert 4.0 <= result.best <= result.median <= 7.0
    assert read_map(result.local_resolution).data[centre] == pytest.approx(6.0, abs=1.0)
    assert read_map(result.smooth).data[centre] == pytest.approx(6.0, abs=1.0)


def test_the_curves_of_each_place_are_in_a_star_file(halves):
    result = finish(run(options(halves)))
    blocks = read_star(result.output / "relion_locres_fscs.star")
    places = blocks.pop("local_resolution")
    assert len(places) == len(blocks)
    row = places.iloc[len(places) // 2]
    name = "fsc_" + "_".join(
        f"{round(row[f'rlnCenteredCoordinate{axis}Angst'] / PIXEL):05d}" for axis in "XYZ"
    )
    curve = blocks[name]
    below = np.flatnonzero(curve["rlnFourierShellCorrelationCorrected"] < 0.143)[0]
    expected = min(curve["rlnAngstromResolution"].iloc[below - 1], 50.0)
    assert row["rlnAngstromResolution"] == pytest.approx(expected)


def test_sharpening_changes_the_filtered_map_and_not_the_resolution(halves, shared):
    plain = finish(run(options(halves, bfactor=0.0)))
    maps = read_map(plain.local_resolution).data, read_map(plain.filtered).data
    mtf = shared / "data" / "betagal_empiar10204" / "mtf_k2_200kV.star"
    for number, how in enumerate(
        ({"bfactor": -200.0}, {"bfactor": 0.0, "mtf": mtf, "mtf_pixel_size": PIXEL})
    ):
        other = finish(run(options(halves, **how, output=halves.parent / str(number))))
        np.testing.assert_array_equal(read_map(other.local_resolution).data, maps[0])
        assert read_map(other.filtered).data.std() > 1.02 * maps[1].std()


def test_it_shows_the_map_with_its_resolution_and_where_the_pixel_size_is_from(halves):
    events = list(run(options(halves)))
    (product,) = (event for event in events if isinstance(event, Product))
    assert (product.kind, product.path.name) == ("local_resolution", "relion_locres_filtered.mrc")
    assert any("2 A/px" in event.message for event in events if isinstance(event, Notice))


def test_a_mask_wider_than_the_particle_is_noticed(halves, tmp_path):
    write_map(tmp_path / "wide.mrc", np.ones((SIZE,) * 3, dtype=np.float32), PIXEL)
    events = list(run(options(halves, mask=tmp_path / "wide.mrc", sampling=8.0, lowest_resolution=16.0)))
    assert any("wide.mrc" in event.message and event.warning for event in events if isinstance(event, Notice))


def test_a_pixel_size_that_limits_the_resolution_is_noticed(halves):
    for half in (1, 2):  # hardly any noise: all shells agree
        path = halves.with_name(f"run_half{half}_class001_unfil.mrc")
        noise = np.random.default_rng(half).standard_normal((SIZE,) * 3)
        structure = np.random.default_rng(9).standard_normal((SIZE,) * 3)
        write_map(path, structure + 0.1 * noise, PIXEL)
    events = list(run(options(halves)))
    assert any("2 A/px can hold" in event.message for event in events if isinstance(event, Notice))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sphere_radius": 50.0}, "--sphere-radius"),
        ({"sphere_radius": 0.5}, "--sphere-radius"),
        ({"sampling": 70.0, "sphere_radius": 30.0}, "--sampling"),
    ],
)
def test_a_sphere_that_does_not_suit_the_box_is_refused_in_a_sentence(halves, wrong, words):
    with pytest.raises(UserError, match=words):
        finish(run(options(halves, **wrong)))
    assert not (halves.parent / "LocalRes").exists()


def test_relions_job_file_is_read_and_written(halves, tmp_path):
    given = options(halves, bfactor=-80.0, mask=halves.parent / "mask.mrc", randomise_at=20.0)
    finish(run(given))
    job = read_job(halves.parent / "LocalRes" / "job.star")
    assert (job.name, job.options) == ("local-resolution", given)
    table = read_star(halves.parent / "LocalRes" / "job.star")["joboptions_values"]
    texts = dict(zip(table["rlnJobOptionVariable"], table["rlnJobOptionValue"], strict=True))
    assert float(texts["adhoc_bfac"]) == -80
    assert texts["do_relion_locres"] == "Yes"
    assert "do_adhoc_bfac" not in texts
