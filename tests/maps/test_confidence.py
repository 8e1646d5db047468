"""Confidence maps: real density is found, and noise is taken for density as rarely as promised."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.maps import confidence, filters, masks
from cryorefine.maps.shells import radius_table

SIZE, PIXEL, RESOLUTION, WIDTH = 48, 1.5, 6.0, 12.0
SHAPE = (SIZE,) * 3


def filtered(volume):
    gain = filters.lowpass_gain(radius_table(SIZE), SIZE, PIXEL, RESOLUTION)
    return filters.apply_filter(volume.astype(np.float32), gain)


@pytest.fixture(scope="module")
def clean():
    """Some atoms within a ball."""
    rng = np.random.default_rng(3)
    atoms = (rng.random(SHAPE) < 0.01) * masks.soft_sphere(SHAPE, 12, 0)
    return filtered(60.0 * atoms)


def rates(clean, rng, noise=lambda n: n, region=None, width=WIDTH):
    halves = [clean + filtered(noise(rng.standard_normal(SHAPE))) for _ in range(2)]
    average, difference = (halves[0] + halves[1]) / 2, (halves[0] - halves[1]) / 2
    level = confidence.noise_level(difference, width, region)
    return confidence.false_discovery_rate(average, difference, level, region), level


def proportions(clean, level, rate, limit):
    """Share of false ones among the discoveries, and share of the strong density that is found."""
    found = rate <= limit
    false = found & (clean < 0.02 * level)
    strong = clean > 6 * level
    return np.count_nonzero(false) / max(np.count_nonzero(found), 1), np.mean(found[strong])


@pytest.mark.parametrize("limit", [0.01, 0.1])
def test_the_rate_is_held_and_strong_density_is_found(clean, rng, limit):
    trials = []
    for _ in range(12):
        rate, level = rates(clean, rng)
        trials.append(proportions(clean, level, rate, limit))
    false, power = np.mean(trials, 0)
    assert false <= limit
    assert power > 0.99


def ramp(volume):
    """Noise that is four times stronger at one end than at the other."""
    return volume * np.linspace(0.5, 2.0, SIZE)[:, None, None]


def heavy(volume):
    """Noise with far more outliers than a Gaussian has."""
    return np.sign(volume) * np.abs(volume) ** 2.5 / 2


def even(volume):
    return volume


@pytest.mark.parametrize("noise", [even, ramp, heavy])
def test_p_values_are_those_of_noise_that_is_neither_even_nor_gaussian(clean, rng, noise):
    """Without the factor for dependent tests, which makes it cautious, the rate is met and not just held."""
    factor = np.log(SIZE**3) + np.euler_gamma
    trials = []
    for _ in range(24):
        rate, level = rates(clean, rng, noise)
        trials.append(proportions(clean, level, rate, 0.05 * factor)[0])
    assert 0.01 < np.mean(trials) < 0.055


def test_where_there_is_no_density_none_is_found(rng):
    nothing = np.zeros(SHAPE, dtype=np.float32)
    found = [(rates(nothing, rng)[0] <= 0.05).any() for _ in range(20)]
    assert np.mean(found) <= 0.05


def test_fewer_tests_find_more(clean, rng):
    ball = masks.soft_sphere(SHAPE, 14, 0) > 0
    seed = int(rng.integers(1000))
    everywhere, _ = rates(0.4 * clean, np.random.default_rng(seed))
    inside, _ = rates(0.4 * clean, np.random.default_rng(seed), region=ball)
    assert (inside[~ball] == 1).all()
    assert np.count_nonzero(inside <= 0.01) > 1.2 * np.count_nonzero(everywhere[ball] <= 0.01)


def test_the_noise_level_follows_the_noise(rng):
    expected = ramp(np.ones(SHAPE))
    _, level = rates(np.zeros(SHAPE), rng, ramp, width=6.0)
    scale = filtered(rng.standard_normal(SHAPE)).std() / np.sqrt(2)
    middle = slice(12, 36)
    np.testing.assert_allclose(level[middle], scale * expected[middle], rtol=0.3)
    profile = level.mean((1, 2))[middle]
    np.testing.assert_allclose(profile, scale * expected[middle, 0, 0], rtol=0.12)


def test_steps_of_the_table_are_those_of_the_published_procedure(rng):
    """Benjamini and Yekutieli 2001, on a handful of tests by the book."""
    p_value = np.array([0.2, 0.04, 0.01, 0.001])  # of scores that rise
    rank = np.array([4, 3, 2, 1])
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    expected = harmonic * np.minimum.accumulate(p_value * 4 / rank)
    ours = confidence._benjamini_yekutieli(p_value, rank, 4)
    np.testing.assert_allclose(ours, expected, rtol=0.01)
