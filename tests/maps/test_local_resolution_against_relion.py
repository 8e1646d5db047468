"""Local resolution of real half maps beside RELION's (relion_postprocess --locres)."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from cryorefine.io.mrc import read_map
from cryorefine.maps import filters, fourier
from cryorefine.maps.local_resolution import LocalFsc, LocalResolution, Sphere, sampling_points
from cryorefine.maps.shells import apply_gain, radius_table
from cryorefine.maps.solvent import HalfMaps

SIZE, PIXEL = 64, 3.54


@pytest.fixture(scope="module")
def halves(betagal):
    folder = betagal / "golden_halfmaps"
    return tuple(read_map(folder / f"half{half}_unfil.mrc").data for half in (1, 2))


@pytest.fixture(scope="module")
def theirs(betagal, relion, tmp_path_factory):
    """RELION's maps, and its curves (corrected, masked, randomised) for each place."""
    folder = tmp_path_factory.mktemp("relion")
    half = betagal / "golden_halfmaps" / "half1_unfil.mrc"
    words = ["--i", str(half), "--o", "x", "--angpix", str(PIXEL), "--locres", "--adhoc_bfac", "-100"]
    subprocess.run([relion("postprocess"), *words], cwd=folder, check=True, capture_output=True)
    curves = {}
    for block in (folder / "x_locres_fscs.star").read_text().split("data_fsc_")[1:]:
        name, *lines = block.split("\n")
        # The name holds x, y, z from the centre of the box.
        centre = tuple(int(c) + SIZE // 2 for c in re.findall(r"-?\d+", name)[::-1])
        rows = [[float(word) for word in line.split()] for line in lines if re.match(r"\s+\d+\s", line)]
        curves[centre] = np.array(rows)[:, [3, 5, 6]].T
    maps = [read_map(folder / f"x_locres{kind}.mrc").data for kind in ("", "_filtered")]
    return maps, curves


@pytest.fixture
def ours(halves):
    average = fourier.forward((halves[0] + halves[1]) / 2)
    apply_gain(average, filters.bfactor_gain(radius_table(SIZE), SIZE, PIXEL, -100.0))
    local_fsc = LocalFsc(HalfMaps(*halves), Sphere.of(PIXEL, 25.0, None, None), int(SIZE * PIXEL / 25))
    return LocalResolution(local_fsc, PIXEL, 50.0, average, 20), local_fsc


def test_places_and_masked_curves_are_the_same(ours, theirs):
    local, local_fsc = ours
    _, curves = theirs
    assert set(sampling_points(SIZE, local.sphere)) == set(curves)
    for centre in list(curves)[::12]:
        masked, _, _ = local_fsc.curves(centre, 33)
        np.testing.assert_allclose(masked, curves[centre][1], atol=1e-4)


def test_the_expected_curve_runs_through_the_middle_of_relions_draws(ours, theirs):
    _, local_fsc = ours
    difference = [theirs[1][centre][2] - local_fsc.curves(centre, 33)[1] for centre in list(theirs[1])[::4]]
    assert abs(np.mean(difference, 0)).max() < 0.06
    assert np.std(difference, 0)[6:].mean() > 0.05  # what a draw of RELION's costs


def test_with_relions_draws_the_maps_are_relions(ours, theirs, monkeypatch):
    local, local_fsc = ours
    maps, curves = theirs
    monkeypatch.setattr(
        local_fsc, "curves", lambda centre, shells: tuple(curves[centre][i, :shells] for i in (1, 2, 0))
    )
    for _ in local.visit(sampling_points(SIZE, local.sphere)):
        pass
    resolution, filtered = local.maps()
    np.testing.assert_allclose(resolution, maps[0], atol=1e-4)
    # RELION filters the sum of the half maps, we their average.
    np.testing.assert_allclose(2 * filtered, maps[1], atol=1e-5)


def test_with_our_own_curve_the_maps_are_close_to_relions(ours, theirs):
    local, _ = ours
    for _ in local.visit(sampling_points(SIZE, local.sphere)):
        pass
    resolution, filtered = local.maps()
    seen = theirs[0][0] > 0
    np.testing.assert_array_equal(resolution > 0, seen)
    assert np.median(np.abs(resolution - theirs[0][0])[seen]) < 0.5
    assert np.corrcoef(filtered[seen], theirs[0][1][seen])[0, 1] > 0.999
