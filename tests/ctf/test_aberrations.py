import numpy as np
import pytest

from cryorefine.ctf.aberrations import (
    beam_tilt_scale,
    even_basis,
    even_indices,
    even_phase,
    magnify,
    odd_basis,
    odd_indices,
    odd_phase,
    zernike,
)


@pytest.fixture
def xy(rng):
    return rng.uniform(-0.5, 0.5, (2, 200))


def test_order_of_coefficients():
    assert [odd_indices(i) for i in range(6)] == [(1, -1), (1, 1), (3, -3), (3, -1), (3, 1), (3, 3)]
    assert [even_indices(i) for i in range(9)] == [
        (0, 0),
        *[(2, m) for m in (-2, 0, 2)],
        *[(4, m) for m in (-4, -2, 0, 2, 4)],
    ]


def test_polynomials_written_out(xy):
    x, y = xy
    u2 = x**2 + y**2
    written = {
        (1, -1): y,
        (1, 1): x,
        (3, -1): (3 * u2 - 2) * y,
        (3, 1): (3 * u2 - 2) * x,
        (3, 3): x**3 - 3 * x * y**2,
        (3, -3): 3 * x**2 * y - y**3,
        (0, 0): np.ones_like(x),
        (2, 0): 2 * u2 - 1,
        (2, 2): x**2 - y**2,
        (2, -2): 2 * x * y,
        (4, 0): 6 * u2**2 - 6 * u2 + 1,
        (4, 2): (4 * u2 - 3) * (x**2 - y**2),
    }
    for (n, m), expected in written.items():
        np.testing.assert_allclose(zernike(n, m, x, y), expected, atol=1e-14)


def test_polynomials_are_orthogonal_on_the_unit_disc():
    axis = np.linspace(-1, 1, 401)
    x, y = np.meshgrid(axis, axis)
    inside = x**2 + y**2 <= 1
    for basis in (odd_basis(12, x[inside], y[inside]), even_basis(9, x[inside], y[inside])):
        gram = basis @ basis.T
        norm = np.sqrt(np.diag(gram))
        np.testing.assert_allclose(gram / np.outer(norm, norm), np.eye(len(basis)), atol=0.01)


def test_parity(xy):
    x, y = xy
    np.testing.assert_allclose(odd_basis(12, -x, -y), -odd_basis(12, x, y), atol=1e-14)
    np.testing.assert_allclose(even_basis(9, -x, -y), even_basis(9, x, y), atol=1e-14)


def test_no_such_polynomial():
    with pytest.raises(ValueError, match="degree 3"):
        zernike(3, 2, 0.1, 0.1)
    with pytest.raises(ValueError, match="degree 1"):
        zernike(1, 3, 0.1, 0.1)


def test_beam_tilt_is_coma(xy):
    x, y = xy
    scale = beam_tilt_scale(300, 2.7)
    assert scale == pytest.approx(65.7552, abs=1e-4)
    expected = -scale * (1.2 * x - 0.7 * y) * (x**2 + y**2)
    np.testing.assert_allclose(odd_phase([], 1.2, -0.7, 300, 2.7, x, y), expected, atol=1e-12)
    assert odd_phase([], 0.5, 0, 300, 2.7, [0.3], [0.0])[0] == pytest.approx(-0.8877, abs=1e-4)


def test_beam_tilt_and_coefficients_add_up(xy):
    coefficients = [0.1, -0.2, 3.0, -2.0, 2.5, 1.5]
    both = odd_phase(coefficients, 1.2, -0.7, 300, 2.7, *xy)
    apart = odd_phase(coefficients, 0, 0, 300, 2.7, *xy) + odd_phase([], 1.2, -0.7, 300, 2.7, *xy)
    np.testing.assert_allclose(both, apart, atol=1e-12)


def test_no_coefficients_no_phase(xy):
    np.testing.assert_array_equal(odd_phase([], 0, 0, 300, 2.7, *xy), np.zeros(200))
    np.testing.assert_array_equal(even_phase([], *xy), np.zeros(200))


def test_even_phase_is_the_weighted_sum(xy):
    np.testing.assert_allclose(even_phase([0.5, 0, 2.0], *xy), 0.5 + 2 * zernike(2, 0, *xy))


def test_phases_keep_the_shape_of_an_image():
    y, x = np.mgrid[-3:4, 0:4] / 10
    assert odd_phase([0, 1.0], 0, 0, 300, 2.7, x, y).shape == (7, 4)
    assert even_phase([0, 1.0], x, y).shape == (7, 4)


def test_magnification_multiplies_the_column_x_y():
    x, y = magnify([[1.03, 0.02], [-0.015, 0.97]], [0.1, 0.0], [0.0, 0.1])
    np.testing.assert_allclose(x, [0.103, 0.002])
    np.testing.assert_allclose(y, [-0.0015, 0.097])
