"""Expanded slices score as direct sums do."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import jv

from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine import oracle
from cryorefine.refine.half_plane import half_plane, shift_phases
from cryorefine.refine.harmonics import _bessel
from cryorefine.refine.operations import PROCESSOR
from cryorefine.refine.polar import polar_slices
from cryorefine.refine.volume import fourier_volume

BOX, SIZE, PADDING = 32, 24, 4.0


def expanded(volume, plane, grid, rotation):
    return polar_slices([SimpleNamespace(rotation=rotation)], [plane], volume, grid, PADDING, PROCESSOR)[0]


@pytest.mark.parametrize(("group", "scale"), [("D2", 1.0), ("C3", 0.8)])
def test_scores_of_all_in_plane_angles_are_direct_sums(rng, group, scale):
    """Of an astigmatic CTF's images, one of whose particles lies in another view."""
    density = gaussian_filter(rng.normal(size=(BOX,) * 3), 1.2) * soft_sphere((BOX,) * 3, 9.0, 4.0)
    volume = fourier_volume(density.astype(np.float32), BOX, PADDING)
    grid = SamplingGrid(2, group, 0.3)
    plane = half_plane(BOX, SIZE)
    slices = expanded(volume, plane, grid, scale * np.eye(3))
    x, y = plane.indices.T
    ctf = np.sin(0.04 * (1.2 * x**2 + y**2) + np.arange(2)[:, None]).astype(np.float32)
    a = rng.normal(size=(2, plane.pixels)) + 1j * rng.normal(size=(2, plane.pixels))
    a, b = (a * ctf).astype(np.complex64), 0.5 * ctf**2
    phases = shift_phases(plane, rng.uniform(-3, 3, (5, 2)))
    scores = np.ones((grid.n_orientations, 3, 5), np.float32)
    norms = np.ones((grid.n_orientations, 3), np.float32)
    slices.add_scores((a.real, a.imag), b, phases, np.array([0, 2]), scores, norms)
    assert (scores[:, 1] == 1).all()
    assert (norms[:, 1] == 1).all()
    some = rng.choice(grid.n_orientations, 12, replace=False)
    models = [
        oracle.slice_volume(volume, scale * matrix, plane.indices, PADDING)
        for matrix in grid.coarse_matrices(some)
    ]
    moved = a[:, None] * phases
    dots = np.einsum("op,ntp->ont", np.conj(models), moved).real
    assert np.std(scores[some][:, [0, 2]] - 1 - dots) < 0.01 * np.std(dots)
    power = np.abs(models) ** 2 @ b.T
    np.testing.assert_allclose(norms[some][:, [0, 2]] - 1, power, rtol=0.01)


def test_views_that_do_not_turn_in_their_plane_are_left_to_direct_sums(rng):
    volume = fourier_volume(rng.normal(size=(BOX,) * 3).astype(np.float32), BOX, 1.0)
    plane, grid = half_plane(BOX, SIZE), SamplingGrid(2)
    tilted = SamplingGrid(0).coarse_matrices([7])[0]
    for rotation in (tilted, np.diag([1.01, 1.0, 1.0])):
        assert expanded(volume, plane, grid, rotation) is None
    # So few orientations are quicker one by one.
    assert expanded(volume, plane, SamplingGrid(0), np.eye(3)) is None


@pytest.mark.parametrize("first", [0, 1])
def test_bessel_functions(first):
    z = np.array([[0.0, 0.3], [7.0, 60.0]])
    orders = np.arange(first, 80, 2)
    np.testing.assert_allclose(_bessel(orders, z), jv(orders, z[..., None]), atol=1e-12)
