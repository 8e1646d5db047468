"""Positions, visibility and contrast transfer of particles in tilt images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryorefine.geometry.euler import matrices
from cryorefine.io.optimisation_set import read_optimisation_set
from cryorefine.io.tomograms import Deformation, projection_matrices, read_tomograms
from cryorefine.tomo.deformation import deform
from cryorefine.tomo.geometry import (
    dose_weights,
    image_ctf,
    image_rotations,
    project,
    tomogram_positions,
    visible_images,
)
from cryorefine.tomo.particles import read_subtomograms


@pytest.fixture
def series(sim_hiv: Path):
    return read_tomograms(sim_hiv / "tomograms.star")["TS_01"]


def test_the_tomogram_centre_is_projected_to_the_image_centre_plus_the_shift(series):
    centres, depths = project(series, series.centre[None])
    shift = np.stack([series.table[f"rlnTomo{axis}ShiftAngst"] for axis in "XY"], axis=1) / series.pixel_size
    assert np.allclose(centres[0], 256 + shift)
    assert np.allclose(depths, 0)


def test_a_tilt_about_y_moves_what_is_deeper_along_minus_x():
    """Rz(0) Ry(30) takes (0, 0, 1) to (sin 30, 0, cos 30)."""
    one = np.ones(1)
    matrix = projection_matrices(
        0 * one,
        30 * one,
        0 * one,
        shift=np.zeros((1, 2)),
        size=np.array([100.0, 100, 60]),
        image_size=(80, 80),
    )
    point = matrix[0] @ [50, 50, 31, 1]
    assert np.allclose(point[:3], [40 + 0.5, 40, np.cos(np.deg2rad(30))])


def test_offsets_move_a_particle_against_its_own_axes(series):
    """A particle turned by 90 degrees about z with an offset of 5 A along its x axis lies elsewhere in y."""
    sub = matrices(90.0, 0.0, 0.0)[None]
    here = tomogram_positions(series, np.zeros((1, 3)), np.array([[5.0, 0, 0]]), sub)
    moved = (here - series.centre) * series.pixel_size
    assert np.allclose(moved, -(sub[0] @ [5.0, 0, 0]))


def test_a_shift_in_the_particle_frame_moves_the_image_by_the_first_two_rows_of_its_rotation(series):
    sub = matrices([20.0], [50.0], [-70.0])
    shift = np.array([[3.0, -2.0, 5.0]])
    before, _ = project(series, tomogram_positions(series, np.zeros((1, 3)), np.zeros((1, 3)), sub))
    after, _ = project(series, tomogram_positions(series, np.zeros((1, 3)), -shift, sub))
    rotation = image_rotations(series, sub)[0]
    assert np.allclose((after - before)[0] * series.pixel_size, (rotation @ shift[0])[:, :2])


def test_visible_frames_are_those_of_the_official_tutorial(hiv_tutorial: Path):
    """383 thousand entries that RELION 5 wrote: dose up to 50, a box of 192 in images of 3710 x 3838 px."""
    entries = read_optimisation_set(hiv_tutorial / "Extract/job020/optimisation_set.star")
    assert entries.particles is not None
    assert entries.tomograms is not None
    particles = read_subtomograms(entries.particles, read_tomograms(entries.tomograms, images=False))
    wrong = 0
    for series, rows in particles.by_tomogram():
        centres, _ = project(series, particles.positions(series, rows))
        sized = replace(series, image_size=(3710, 3838))
        visible = visible_images(sized, centres + np.array([3710, 3838]) // 2, 192 / 2, max_dose=50)
        wrong += int(np.count_nonzero(visible != particles.visible_frames(series, rows)))
    assert wrong == 0


def test_extraction_moves_coordinates_by_the_offsets(hiv_tutorial: Path):
    """RELION's own extraction of 9442 refined particles: old - A_sub @ origin is the new coordinate."""
    tomograms = read_tomograms(hiv_tutorial / "Denoise/job008/tomograms.star", images=False)
    before = read_subtomograms(hiv_tutorial / "Select/job018/particles.star", tomograms)
    after = read_subtomograms(hiv_tutorial / "Extract/job020/particles.star", tomograms)
    place = {name: row for row, name in enumerate(after.names)}
    for series, rows in before.by_tomogram():
        same = np.array([place[name] for name in before.names[rows]])
        moved = before.positions(series, rows) - after.positions(series, same)
        assert np.abs(moved * series.pixel_size).max() < 1e-5


def test_defocus_follows_depth_with_the_hand(series):
    deep = replace(series, hand=-1.0, defocus_slope=1.0)
    ctf = image_ctf(deep, np.full((1, len(series)), 10.0))
    assert np.allclose(ctf.defocus_u, series.defocus_u - 10 * series.pixel_size)
    assert np.allclose(ctf.column("defocus_v"), series.defocus_v - 10 * series.pixel_size)


def test_a_b_factor_for_each_electron_takes_the_place_of_the_empirical_curve(series):
    u = np.array([0.0, 0.1])
    plain = dose_weights(series, u)
    # The vector of the reference: 0.346128 at 0.1 / A after 30 electrons per square angstrom.
    after_30 = np.flatnonzero(series.dose == 30)
    assert np.allclose(plain[after_30, 1], 0.346128, atol=1e-6)
    gauss = dose_weights(replace(series, dose_b_factor=4.0), u)
    assert np.allclose(gauss[:, 1], np.exp(-series.dose * 0.01))


def test_linear_deformation_stretches_about_the_centre():
    model = Deformation("linear", (1, 1), np.array([[0.01, 0.002, -0.01]]))
    point = np.array([[[60.0, 60.0]]])
    assert np.allclose(deform(model, (100, 80), point), [[[60.1, 60 + 0.02 - 0.2]]])


def test_spline_deformation_goes_through_its_values_and_slopes():
    nodes = np.zeros((2, 3, 3, 4))
    nodes[0, 1, 1] = [2.0, 0.5, 0.0, 0.0]  # value and slope along x of the middle point, for x
    nodes[1, 2, 0] = [1.5, 0.0, 0.0, 0.0]
    model = Deformation("spline", (3, 3), nodes.reshape(1, -1))
    size = (100, 100)

    def shift(x, y):
        point = np.array([[[x, y]]], dtype=float)
        return (deform(model, size, point) - point)[0, 0]

    assert np.allclose(shift(50, 50), [2, 0])
    assert np.allclose(shift(0, 100), [0, 1.5], atol=1e-8)
    slope = (shift(50 + 1e-3, 50) - shift(50 - 1e-3, 50))[0] / 2e-3
    assert np.isclose(slope, 0.5 / 50, rtol=1e-3)
    assert np.allclose(shift(-30, 100), [0, 1.5], atol=1e-8)


def test_fourier_deformation_is_a_sum_of_half_waves_of_half_the_plane():
    # RELION 5 stores the waves (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (1, -2), (2, -2), (1, -1), (2, -1).
    waves = np.zeros((2, 9, 2))
    waves[0, 0] = [1.0, 0.0]
    waves[1, 2] = [0.0, 2.0]
    waves[1, 5] = [3.0, 0.0]
    model = Deformation("Fourier", (4, 4), waves.reshape(1, -1))
    point = np.array([[[25.0, 30.0]]])
    moved = deform(model, (100, 80), point) - point
    x, y = np.pi * 25 / 100, np.pi * 30 / 80
    assert np.allclose(moved, [[[np.cos(x), 2 * np.sin(y) + 3 * np.cos(x - 2 * y)]]])
