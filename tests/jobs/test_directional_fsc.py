"""The directional FSC as a job: its files agree with each other, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.healpix import directions
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.star import read_star
from cryorefine.jobs import directional_fsc, finish
from cryorefine.jobs.base import Curve, Notice
from cryorefine.maps.fourier import forward, inverse
from cryorefine.maps.shells import squared_radius

SIZE, PIXEL = 48, 2.5


def write_halves(folder: Path, rng: np.random.Generator, reach: float, flat_z: bool = False) -> Path:
    """Write half maps with FSC 1/2 at ``reach`` shells, which along z know next to nothing if ``flat_z``."""
    spectrum = forward(rng.normal(size=(SIZE,) * 3))
    noise = (np.sqrt(squared_radius((SIZE,) * 3)) / reach) ** 3
    damping = np.ones_like(noise)
    if flat_z:
        z = np.abs(np.fft.fftfreq(SIZE, 1 / SIZE))[:, None, None]
        gap = z > np.cos(np.deg2rad(30)) * np.sqrt(squared_radius((SIZE,) * 3))
        noise[gap], damping[gap] = 3.0, 0.1
    for half in (1, 2):
        error = noise * forward(rng.normal(size=(SIZE,) * 3))
        volume = inverse(damping * (spectrum + error), SIZE)
        write_map(folder / f"run_half{half}_class001_unfil.mrc", volume.astype(np.float32), PIXEL)
    return folder / "run_half1_class001_unfil.mrc"


def collect(options):
    """Run the job; return its result and all events."""
    running, events = directional_fsc.run(options), []
    while True:
        try:
            events.append(next(running))
        except StopIteration as stop:
            return stop.value, events


def test_an_isotropic_pair_has_one_resolution(tmp_path, rng):
    half = write_halves(tmp_path, rng, 11.0)
    options = directional_fsc.Options(half_map=half, output=tmp_path / "job001", healpix_order=2)
    result, events = collect(options)
    expected = SIZE * PIXEL / (11 * 6 ** (1 / 6))  # FSC = 1 / (1 + (r / 11)^6) = 1/7
    assert result.resolution == pytest.approx(expected, rel=0.04)
    assert result.best_resolution > 0.8 * expected
    assert result.worst_resolution < 1.3 * expected
    assert result.cfar > 0.75
    assert result.sphericity > 0.9
    assert not [event for event in events if isinstance(event, Notice)]


def test_the_files_hold_what_the_result_says(tmp_path, rng):
    half = write_halves(tmp_path, rng, 11.0, flat_z=True)
    options = directional_fsc.Options(half_map=half, output=tmp_path / "job001", healpix_order=2)
    result, events = collect(options)
    blocks = read_star(result.star)
    table, general = blocks["directions"], blocks["general"]
    rot, tilt = directions(2)
    np.testing.assert_allclose(table["rlnAngleRot"], rot, atol=1e-6)
    np.testing.assert_allclose(table["rlnAngleTilt"], tilt, atol=1e-6)
    assert general["cryorefineFscAreaRatio"] == pytest.approx(result.cfar)
    area = table["cryorefineFscArea"].to_numpy()
    assert area.min() / area.max() == pytest.approx(result.cfar)
    assert table["rlnAngstromResolution"].max() == pytest.approx(result.worst_resolution)
    # what is missing is missing along z
    worst = int(np.argmin(area))
    assert min(tilt[worst], 180 - tilt[worst]) < 20
    volume = read_map(result.volume)
    assert volume.data.shape == (SIZE,) * 3
    assert volume.pixel_size == PIXEL
    assert volume.data[SIZE // 2 + 8, SIZE // 2, SIZE // 2] < 0.5
    assert volume.data[SIZE // 2, SIZE // 2, SIZE // 2 + 8] > 0.7
    (curve,) = [event for event in events if isinstance(event, Curve)]
    np.testing.assert_allclose(curve.values["lowest"], blocks["fsc"]["cryorefineFscLowest"], atol=1e-9)
    assert result.picture.stat().st_size > 10_000
    assert result.picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.warning
    assert f"anisotropic (cFAR {result.cfar:.2f})" in notice.message


def test_a_mask_is_applied_to_both_halves(tmp_path, rng):
    """Of two maps that agree in one half of the box alone, the mask shows that half."""
    common = rng.normal(size=(SIZE,) * 3)
    for half in (1, 2):
        volume = common.copy()
        volume[:, : SIZE // 2] = rng.normal(size=(SIZE, SIZE // 2, SIZE))
        write_map(tmp_path / f"half{half}.mrc", volume.astype(np.float32), PIXEL)
    mask = np.zeros((SIZE,) * 3, np.float32)
    mask[:, SIZE // 2 + 4 :] = 1
    write_map(tmp_path / "mask.mrc", mask, PIXEL)
    options = directional_fsc.Options(
        half_map=tmp_path / "half2.mrc",
        mask=tmp_path / "mask.mrc",
        output=tmp_path / "job001",
        healpix_order=1,
    )
    result, events = collect(options)
    assert result.resolution == result.worst_resolution == pytest.approx(2 * PIXEL)
    assert any(isinstance(event, Notice) and "reaches the last shell" in event.message for event in events)


def test_maps_that_have_nothing_in_common_are_told_of(tmp_path, rng):
    for half in (1, 2):
        write_map(tmp_path / f"half{half}.mrc", rng.normal(size=(33,) * 3).astype(np.float32), PIXEL)
    options = directional_fsc.Options(
        half_map=tmp_path / "half1.mrc", output=tmp_path / "job001", healpix_order=1, symmetry="I"
    )
    _, events = collect(options)
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert "agree at no resolution" in notice.message


def test_mistakes_are_told_in_a_sentence(tmp_path, rng):
    half = write_halves(tmp_path, rng, 11.0)
    with pytest.raises(UserError, match="Symmetry 'D0'"):
        finish(
            directional_fsc.run(directional_fsc.Options(half_map=half, output=tmp_path / "a", symmetry="D0"))
        )
    write_map(tmp_path / "run_half2_class001_unfil.mrc", np.eye(32)[None].repeat(32, 0), PIXEL)
    with pytest.raises(UserError, match=r"48 px but .* one of 32 px"):
        finish(directional_fsc.run(directional_fsc.Options(half_map=half, output=tmp_path / "b")))
    assert not (tmp_path / "a").exists()


def test_real_half_maps_are_worst_where_views_are_fewest(tmp_path, betagal):
    """Few of these particles were seen from the side, so that z is sampled least."""
    from cryorefine.geometry.orientation_distribution import fourier_sampling
    from cryorefine.io.particles import column, read_particles

    folder = betagal / "relion5_refine3d"
    result = finish(
        directional_fsc.run(
            directional_fsc.Options(
                half_map=folder / "run_half1_class001_unfil.mrc",
                mask=folder / "mask.mrc",
                output=tmp_path / "job001",
                healpix_order=2,
                symmetry="D2",
            )
        )
    )
    particles = read_particles(folder / "run_data.star")
    sampling = fourier_sampling(
        column(particles, "rlnAngleRot"), column(particles, "rlnAngleTilt"), 2, "D2", radius=20.0
    )
    area = read_star(result.star)["directions"]["cryorefineFscArea"].to_numpy()
    worst, least = view_directions(
        *(angle[[np.argmin(area), np.argmin(sampling)]] for angle in directions(2))
    )
    assert abs(worst @ least) > np.cos(np.deg2rad(30))
    assert np.corrcoef(area, sampling)[0, 1] > 0.3
