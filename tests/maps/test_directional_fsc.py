"""The FSC along directions: isotropic maps are the same everywhere, and a gap is found where it is."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.geometry.euler import view_directions
from cryorefine.geometry.healpix import directions
from cryorefine.geometry.symmetry import point_group
from cryorefine.maps.conical_fsc import FEWEST, cones, conical_fsc, fsc_volume
from cryorefine.maps.directional_fsc import area_ratio, areas, crossing_shells, sphericity
from cryorefine.maps.fourier import forward, inverse
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.maps.shells import logical_indices

SIZE = 64
BAD = (40.0, 65.0)  # not the mirror image, nor a mate, of any direction along the axes


def grid(size=SIZE):
    """Return frequencies (x, y, z) of the half-complex array, shape (3, z, y, x // 2 + 1)."""
    index = logical_indices(size).astype(float)
    z, y, x = np.meshgrid(index, index, np.arange(size // 2 + 1.0), indexing="ij")
    return np.stack([x, y, z])


def half_maps(rng, noise, size=SIZE):
    """Return the spectra of two maps of one signal; noise is its amplitude at each frequency."""
    signal = forward(rng.normal(size=(size,) * 3))
    return [signal + noise * forward(rng.normal(size=(size,) * 3)) for _ in range(2)]


def fading_noise(size=SIZE, reach=20.0):
    """Return an isotropic amplitude of noise with FSC 1/2 at ``reach`` shells, shape of the spectra."""
    return (np.linalg.norm(grid(size), axis=0) / reach) ** 3


def missing_cone(rng, half_angle=25.0):
    """Return half maps that few views have reached in a cone around BAD: damped there, and mostly noise."""
    frequencies = grid()
    axis = view_directions(*BAD)
    along = np.abs(np.tensordot(axis, frequencies, 1)) / np.maximum(np.linalg.norm(frequencies, axis=0), 1e-9)
    inside = along > np.cos(np.deg2rad(half_angle))
    spectra = half_maps(rng, np.where(inside, 3.0, fading_noise()))
    return [np.where(inside, 0.1, 1.0) * spectrum for spectrum in spectra]


@pytest.fixture(scope="module")
def around():
    return cones(2, 20.0)


def test_cones_of_90_degrees_are_the_whole_fsc_with_each_coefficient_once(rng):
    a, b = half_maps(rng, fading_noise(32, 10.0), 32)
    volumes = [inverse(spectrum, 32) for spectrum in (a, b)]
    a, b = (forward(volume) for volume in volumes)
    fsc = conical_fsc(a, b, cones(1, 90.0))
    index = np.fft.fftfreq(32, 1 / 32)
    radius = np.sqrt(sum(np.meshgrid(index**2, index**2, index**2)))
    shell = np.floor(radius + 0.5).astype(int).ravel()
    full = [np.fft.fftn(volume).ravel() for volume in volumes]
    product, *powers = (
        np.bincount(shell, values)[:17]
        for values in ((full[0] * full[1].conj()).real, np.abs(full[0]) ** 2, np.abs(full[1]) ** 2)
    )
    expected = product / np.sqrt(powers[0] * powers[1])
    np.testing.assert_allclose(fsc.whole[1:], expected[1:], atol=1e-10)
    for curve in fsc.curves:
        np.testing.assert_allclose(curve[1:], expected[1:], atol=1e-10)
    # PostProcess counts the plane x = 0 twice, as RELION does; that changes little.
    usual = fourier_shell_correlation(*volumes)
    np.testing.assert_allclose(fsc.whole[3:], usual[3:], atol=0.03)


def test_a_cone_holds_what_lies_within_its_angle(rng, around):
    """Two cones and two shells by brute force, on the full spectrum."""
    volumes = rng.normal(size=(2, 24, 24, 24))
    fsc = conical_fsc(*(forward(volume) for volume in volumes), around)
    index = np.fft.fftfreq(24, 1 / 24)
    z, y, x = np.meshgrid(index, index, index, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    first, second = (np.fft.fftn(volume) for volume in volumes)
    for cone, shell in ((5, 9), (60, 10), (95, 8)):
        ax, ay, az = around.axes[cone, 0]
        inside = np.abs(ax * x + ay * y + az * z) >= np.cos(np.deg2rad(20)) * radius
        inside &= np.floor(radius + 0.5) == shell
        assert inside.sum() >= 2 * FEWEST
        a, b = first[inside], second[inside]
        expected = (a * b.conj()).real.sum() / np.linalg.norm(a) / np.linalg.norm(b)
        assert fsc.curves[cone, shell] == pytest.approx(expected, abs=1e-12)


def test_isotropic_half_maps_are_equal_in_all_directions(rng, around):
    fsc = conical_fsc(*half_maps(rng, fading_noise()), around)
    shells = crossing_shells(fsc.curves)
    # FSC = 1 / (1 + noise^2) is 0.143 where (r / 20)^6 = 6.
    assert np.median(shells) == pytest.approx(20 * 6 ** (1 / 6), abs=0.6)
    assert shells.std() < 1.2
    assert area_ratio(areas(fsc.curves)) > 0.85
    assert sphericity(shells[around.place]) > 0.98


def test_a_missing_cone_is_found_in_its_direction_and_hand(rng, around):
    fsc = conical_fsc(*missing_cone(rng), around)
    area = areas(fsc.curves)
    assert area_ratio(area) < 0.4
    place, vectors = around.place, view_directions(*directions(2))
    worst = vectors[np.argmin(area[place])]
    assert abs(worst @ view_directions(*BAD)) > np.cos(np.deg2rad(12))
    for mirror in ((1, 1, -1), (1, -1, 1), (-1, 1, 1)):
        assert abs(worst * mirror @ view_directions(*BAD)) < np.cos(np.deg2rad(25))
    far = np.abs(vectors @ view_directions(*BAD)) < np.cos(np.deg2rad(50))
    shells = crossing_shells(fsc.curves)[place]
    assert shells[far].min() > 22
    assert shells[np.argmin(area[place])] < 12
    assert sphericity(shells) < 0.95


def test_the_3d_fsc_has_the_cone_where_the_map_lacks_it(rng, around):
    volume = fsc_volume(conical_fsc(*missing_cone(rng), around), around, SIZE)
    x, y, z = np.round(18 * view_directions(*BAD)).astype(int)
    centre = SIZE // 2
    assert volume[centre, centre, centre] == 1
    assert volume[centre + z, centre + y, centre + x] < 0.3
    assert volume[centre - z, centre - y, centre - x] == volume[centre + z, centre + y, centre + x]
    assert volume[centre + z, centre + y, centre - x] > 0.5
    assert volume[centre + z, centre - y, centre + x] > 0.5
    assert volume[0, 0, 0] == 0


@pytest.mark.parametrize("group", ["C3", "D2", "O"])
def test_symmetry_mates_share_a_cone(group):
    around = cones(2, 20.0, group)
    assert len(around.axes) < 2 * 192 / len(point_group(group))
    vectors = view_directions(*directions(2))
    mates = np.concatenate([around.axes, -around.axes], axis=1)[around.place]
    nearest = np.einsum("pmi,pi->pm", mates, vectors).max(axis=1)
    assert nearest.min() > np.cos(np.deg2rad(13))


def test_symmetry_finds_the_mates_of_a_missing_cone_too(rng):
    """Mates are pooled, so a cone missing in one of two equivalent directions shows in both."""
    around = cones(2, 20.0, "C2")
    area = areas(conical_fsc(*missing_cone(rng), around).curves)[around.place]
    vectors = view_directions(*directions(2))
    for rot in (BAD[0], BAD[0] + 180):
        near = np.argmax(vectors @ view_directions(rot, BAD[1]))
        assert area[near] < 0.95 * np.median(area)
    assert area_ratio(area) > area_ratio(areas(conical_fsc(*missing_cone(rng), cones(2, 20.0)).curves))


def test_threads_do_not_change_the_curves(rng, around):
    spectra = half_maps(rng, fading_noise())
    one, two = (conical_fsc(*spectra, around, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.curves, two.curves)


def test_crossings_are_interpolated_and_areas_end_there():
    curves = np.array([[1.0, 0.8, 0.4, 0.0, 0.3], [1.0, 0.9, 0.9, 0.9, 0.9], [1.0, 0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(crossing_shells(curves, 0.2), [2.5, 4.0, 0.8])
    expected = [0.9 + 0.6 + 0.5 * 0.3, 0.95 + 3 * 0.9, 0.8 * 0.6]
    np.testing.assert_allclose(areas(curves, 0.2), expected)


def test_sphericity_of_a_sphere_and_of_a_spheroid():
    vectors = view_directions(*directions(3))
    assert sphericity(np.full(768, 3.7)) == pytest.approx(1, abs=1e-12)
    # A prolate spheroid of axes 1, 1, 2: A = 2 pi (1 + 2 asin(e) / e), e^2 = 3/4; V = 8 pi / 3.
    radius = 1 / np.sqrt(vectors[:, 0] ** 2 + vectors[:, 1] ** 2 + vectors[:, 2] ** 2 / 4)
    e = np.sqrt(0.75)
    surface = 2 * np.pi * (1 + 2 * np.arcsin(e) / e)
    expected = np.pi ** (1 / 3) * (6 * 8 * np.pi / 3) ** (2 / 3) / surface
    assert sphericity(radius) == pytest.approx(expected, abs=0.01)
    assert sphericity(radius, 10.0) == pytest.approx(expected, abs=0.02)


def test_roughness_finer_than_the_smoothing_hardly_counts(rng):
    rough = rng.normal(1, 0.05, 768)
    assert sphericity(rough) < 0.85
    assert sphericity(rough, 20.0) > 0.98
