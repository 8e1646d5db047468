import numpy as np
import pytest

from cryorefine.ctf.ctf import CtfParameters, ctf, dose_weight, electron_wavelength, phase

TITAN = CtfParameters(300.0, 2.7, 0.1, 15000.0, 14500.0, 30.0)
X = np.array([0, 0.05, 0, 0.05, 0.1, 0.2])
Y = np.array([0, 0, 0.05, 0.05, 0.02, -0.1])


@pytest.fixture
def frequencies(rng):
    return rng.uniform(-0.35, 0.35, (2, 500))


@pytest.fixture
def many(rng):
    n = 7
    u, v = rng.uniform(3e3, 4e4, (2, n))
    return CtfParameters(
        rng.choice([200.0, 300.0], n),
        rng.choice([0.01, 2.7], n),
        rng.choice([0.07, 0.1], n),
        u,
        v,
        rng.uniform(0, 180, n),
        rng.uniform(0, 90, n),
        rng.uniform(-20, 100, n),
        rng.uniform(0.5, 1.2, n),
    )


@pytest.mark.parametrize(
    ("voltage", "expected"),
    [(80, 0.04175740), (100, 0.03701458), (120, 0.03349235), (200, 0.02507949), (300, 0.01968762)],
)
def test_wavelength(voltage, expected):
    assert electron_wavelength(voltage) == pytest.approx(expected, abs=5e-9)


def test_reference_values():
    expected = [-0.100167, -2.398209, -2.359552, -4.720503, -9.680809, -44.602084]
    np.testing.assert_allclose(phase(TITAN, X, Y), [expected], atol=1e-6)
    expected = [0.1, 0.676783, 0.704728, -0.999967, -0.253243, 0.580862]
    np.testing.assert_allclose(ctf(TITAN, X, Y), [expected], atol=1e-6)


def test_reference_value_with_phase_plate_damping_and_scale():
    params = CtfParameters(300.0, 2.7, 0.1, 15000.0, 14500.0, 30.0, 90.0, 50.0, 0.8)
    assert phase(params, [0.05], [0.05])[0, 0] == pytest.approx(-6.291300, abs=1e-6)
    assert ctf(params, [0.05], [0.05])[0, 0] == pytest.approx(0.0060982, abs=1e-6)


def test_near_the_origin_protein_is_white():
    assert ctf(TITAN, [0.0, 0.001], [0.0, 0.0]).min() > 0


def test_defocus_u_acts_along_its_angle():
    astigmatic = CtfParameters(300.0, 0.0, 0.0, 20000.0, 10000.0, 30.0)
    along, across = np.deg2rad([30, 120])
    gamma = phase(astigmatic, 0.1 * np.cos([along, across]), 0.1 * np.sin([along, across]))[0]
    np.testing.assert_allclose(gamma, -np.pi * electron_wavelength(300) * 0.01 * np.array([20000, 10000]))


def test_compiled_ctf_is_minus_the_sine_of_gamma(many, frequencies):
    damping = np.exp(-many.b_factor[:, None] / 4 * (frequencies**2).sum(axis=0))
    expected = -np.sin(phase(many, *frequencies)) * damping * many.scale[:, None]
    np.testing.assert_allclose(ctf(many, *frequencies), expected, atol=2e-6)


def test_compiled_ctf_holds_far_beyond_the_useful_range(frequencies):
    strong = CtfParameters(300.0, 2.7, 0.1, 1e6, 9e5, 10.0)
    gamma = phase(strong, *frequencies)
    assert np.abs(gamma).max() > 10000
    np.testing.assert_allclose(ctf(strong, *frequencies), -np.sin(gamma), atol=1e-6)


def test_scalars_and_arrays_agree(many, frequencies):
    one = CtfParameters(*(float(many.column(name)[3]) for name in many.__dataclass_fields__))
    np.testing.assert_array_equal(ctf(one, *frequencies)[0], ctf(many, *frequencies)[3])
    np.testing.assert_array_equal(
        ctf(many.take(np.array([3, 5])), *frequencies), ctf(many, *frequencies)[[3, 5]]
    )
    assert len(one) == 1
    assert len(many.take(slice(0, 2))) == 2
    assert len(TITAN.take(np.array([0, 0]))) == 1


def test_intact_first_peak_leaves_amplitudes_up_to_the_peak(frequencies):
    gamma = phase(TITAN, *frequencies)
    plain, intact = ctf(TITAN, *frequencies), ctf(TITAN, *frequencies, intact_first_peak=True)
    inside = np.abs(gamma) < np.pi / 2
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(intact[inside], 1)
    np.testing.assert_array_equal(intact[~inside], plain[~inside])


def test_absolute_and_phase_flip(many, frequencies):
    plain = ctf(many, *frequencies)
    np.testing.assert_array_equal(ctf(many, *frequencies, absolute=True), np.abs(plain))
    flipped = ctf(many, *frequencies, phase_flip=True)
    np.testing.assert_allclose(flipped, np.sign(plain) * many.scale[:, None], rtol=1e-6)


def test_phase_flip_survives_any_damping():
    damped = CtfParameters(300.0, 2.7, 0.1, 15000.0, 14500.0, 30.0, b_factor=1e6)
    np.testing.assert_array_equal(ctf(damped, X, Y, phase_flip=True), np.sign(ctf(TITAN, X, Y)))


def test_no_value_is_so_small_that_it_cannot_be_divided_by():
    # gamma is 0 at the origin without amplitude contrast, and strong damping leaves nothing
    np.testing.assert_array_equal(
        ctf(CtfParameters(300.0, 2.7, 0.0, 1e4, 1e4), [0.0], [0.0]), np.float32(1e-8)
    )
    damped = CtfParameters(300.0, 2.7, 0.1, 15000.0, 14500.0, 30.0, b_factor=1e6)
    np.testing.assert_array_equal(np.abs(ctf(damped, X[1:], Y[1:])), np.float32(1e-8))


def test_the_smallest_values_keep_their_sign():
    weak = CtfParameters(300.0, 2.7, 0.1, 15000.0, 14500.0, 30.0, scale=1e-12)
    np.testing.assert_array_equal(ctf(weak, X, Y), np.float32(1e-8) * np.sign(ctf(TITAN, X, Y)))


def test_even_aberrations_add_to_gamma_for_all_or_for_each(many, frequencies):
    even = np.linspace(-1, 1, frequencies.shape[1])
    rows = np.arange(len(many))[:, None] * even
    for extra in (even, rows):
        gamma = phase(many, *frequencies, even=extra)
        np.testing.assert_allclose(
            gamma - phase(many, *frequencies), np.broadcast_to(extra, gamma.shape), atol=1e-9
        )
        plain = CtfParameters(*(many.column(name) for name in list(many.__dataclass_fields__)[:7]))
        np.testing.assert_allclose(ctf(plain, *frequencies, even=extra), -np.sin(gamma), atol=1e-6)


def test_shapes_that_do_not_fit_are_refused(many):
    with pytest.raises(ValueError, match="pixels"):
        ctf(many, X, Y[:3])
    with pytest.raises(ValueError, match="even"):
        ctf(many, X, Y, even=np.zeros((2, len(X))))
    with pytest.raises(ValueError, match="exclude"):
        ctf(many, X, Y, absolute=True, phase_flip=True)
    with pytest.raises(ValueError, match="arrays"):
        CtfParameters(300.0, 2.7, 0.1, np.zeros((2, 2)), 1e4)


def test_dose_weight_reference_values():
    weight = dose_weight([0.05, 0.1, 0.2, 0.3], [30, 30, 30, 60])
    np.testing.assert_allclose(weight, [0.678915, 0.346128, 0.095346, 0.001532], atol=1e-6)
    assert dose_weight(0.0, 100.0) == 1


def test_dose_and_b_factor_damp_together(frequencies):
    u = np.hypot(*frequencies)
    fresh = CtfParameters(300.0, 2.7, 0.1, 15000.0, 15000.0)
    spent = CtfParameters(300.0, 2.7, 0.1, 15000.0, 15000.0, b_factor=60.0, dose=np.array([0.0, 45.0]))
    left = dose_weight(u, 45.0) * np.exp(-15 * u**2)
    expected = ctf(fresh, *frequencies)[0] * np.stack([np.exp(-15 * u**2), left])
    np.testing.assert_allclose(ctf(spent, *frequencies), expected, atol=1e-6)
