"""Random phases: amplitudes stay, the map stays real, the phases are random."""

import numpy as np
import pytest

from cryorefine.maps import fourier
from cryorefine.maps.randomise import randomise_phases
from cryorefine.maps.shells import shell_index, squared_radius


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 15, 15), (16, 16)])
def test_every_amplitude_survives_the_way_through_real_space(rng, shape):
    spectrum = fourier.forward(rng.standard_normal(shape))
    random = randomise_phases(spectrum, 4, shape[0], rng)
    back = fourier.forward(fourier.inverse(random, shape[0]))
    np.testing.assert_allclose(np.abs(back), np.abs(spectrum), atol=1e-12)
    np.testing.assert_allclose(back, random, atol=1e-12)


def test_components_inside_the_first_shell_are_untouched(rng):
    spectrum = fourier.forward(rng.standard_normal((16, 16, 16)))
    random = randomise_phases(spectrum, 5, 16, rng)
    squared = squared_radius((16, 16, 16))
    inside = squared < 25
    np.testing.assert_allclose(random[inside], spectrum[inside], atol=1e-15)
    changed = np.abs(random - spectrum) > 1e-6 * np.abs(spectrum)
    assert changed[~inside].mean() > 0.99
    assert changed[squared == 25].mean() > 0.9


def test_phases_are_uniform(rng):
    spectrum = fourier.forward(rng.standard_normal((32, 32, 32)))
    random = randomise_phases(spectrum, 6, 32, rng)
    phase = np.angle(random[shell_index((32, 32, 32)) > 6])
    counts, _ = np.histogram(phase, bins=16, range=(-np.pi, np.pi))
    expected = len(phase) / 16
    # chi-square with 15 degrees of freedom: 44 is passed once in 10,000 times
    assert ((counts - expected) ** 2 / expected).sum() < 44


def test_the_seed_decides_not_the_threads(rng):
    spectrum = fourier.forward(rng.standard_normal((16, 16, 16)))
    one = randomise_phases(spectrum, 4, 16, np.random.default_rng(7), threads=1)
    many = randomise_phases(spectrum, 4, 16, np.random.default_rng(7), threads=5)
    other = randomise_phases(spectrum, 4, 16, np.random.default_rng(8))
    assert (one == many).all()
    assert not np.allclose(one, other)
