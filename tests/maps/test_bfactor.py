"""The weighted B-factor: right on simulated maps of known B, steady over seeds, honest of its error."""

import numpy as np
import pytest

from cryorefine.io.mrc import read_map
from cryorefine.io.mtf import read_mtf
from cryorefine.maps import bfactor, filters, fourier, masks, sharpen, solvent
from cryorefine.maps.shells import radius_table, shell_frequencies

SIZE, PIXEL, LOWEST = 64, 2.0, 10.0
NOISES = (0.3, 1.0, 2.0)  # of the signal's amplitude at 8 A
MASKS = ((20, 6), (28, 6), (18, 1))  # radius and edge around a particle of radius 17


def simulated(b_factor, noise, seed):
    """Half maps of a ball of white structure, damped by a B-factor, with noise of their own."""
    rng = np.random.default_rng(seed)
    structure = rng.standard_normal((SIZE,) * 3) * masks.soft_sphere((SIZE,) * 3, 17, 2)
    structure = filters.apply_bfactor(structure, PIXEL, b_factor)
    at_8_angstrom = np.exp(sharpen.Amplitudes(fourier.forward(structure)).guinier()[16])
    scale = noise * at_8_angstrom * SIZE**1.5
    return [structure + scale * rng.standard_normal(structure.shape) for _ in range(2)]


def both_fits(pair, mask, pixel_size, lowest, seed=None, mtf=None):
    """The B-factor of RELION's rule and the weighted fit, with one draw of random phases or their average."""
    size = len(mask)
    rng = None if seed is None else np.random.default_rng(seed)
    curves = solvent.solvent_corrected_fsc(pair, mask, rng=rng)
    gain = np.ones(len(radius_table(size))) if mtf is None else mtf
    amplitudes = sharpen.Amplitudes(pair.average())
    weights = sharpen.shell_gain(sharpen.fsc_weights(curves.corrected), size)
    frequency = shell_frequencies(size, pixel_size)
    plain = sharpen.fit_guinier(frequency**2, amplitudes.guinier(gain * weights), lowest)
    power = curves.masked_power / amplitudes.counts * gain[np.arange(size // 2 + 1) ** 2] ** 2
    components = amplitudes.counts * bfactor.filled_fraction(mask)
    return plain, bfactor.fit_bfactor(frequency, curves.corrected, power, components, lowest)


@pytest.fixture(scope="module")
def errors():
    """Relative errors of RELION's rule and ours, and ours in units of the uncertainty it claims."""
    rows = []
    for number, b_factor in enumerate((80.0, 160.0, 300.0)):
        for noise in NOISES:
            for radius, edge in MASKS:
                halves = simulated(b_factor, noise, seed=number)
                mask = masks.soft_sphere((SIZE,) * 3, radius, edge)
                plain, ours = both_fits(solvent.HalfMaps(*halves), mask, PIXEL, LOWEST)
                if plain is not None and ours is not None:
                    off = ours.b_factor + b_factor
                    rows.append(
                        [(plain.b_factor + b_factor) / b_factor, off / b_factor, off / ours.b_factor_error]
                    )
    assert len(rows) >= 25
    return np.array(rows)


def test_known_bfactors_are_found_within_a_few_per_cent(errors):
    assert np.sqrt(np.mean(errors[:, 1] ** 2)) < 0.06
    assert np.abs(errors[:, 1]).max() < 0.2


def test_it_is_nearer_the_truth_than_relions_rule(errors):
    plain, ours = np.sqrt(np.mean(errors[:, :2] ** 2, axis=0))
    assert ours < plain / 3
    assert np.mean(np.abs(errors[:, 1]) < np.abs(errors[:, 0])) > 0.8


def test_the_uncertainty_is_that_of_the_errors(errors):
    assert 0.5 < np.sqrt(np.mean(errors[:, 2] ** 2)) < 2.0


@pytest.mark.parametrize("lowest", [15.0, 10.0])
def test_real_maps_have_one_bfactor_and_draws_spread_about_it(betagal, lowest):
    folder = betagal / "relion5_refine3d"
    halves = [read_map(folder / f"run_half{half}_class001_unfil.mrc").data for half in (1, 2)]
    pair, mask = solvent.HalfMaps(*halves), read_map(folder / "mask.mrc").data
    mtf = sharpen.mtf_gain(*read_mtf(betagal / "mtf_k2_200kV.star"), 0.885, 64, 3.54)
    average = both_fits(pair, mask, 3.54, lowest, None, mtf)[1]
    assert -340 < average.b_factor < -280
    assert 5 < average.b_factor_error < 60
    draws = [both_fits(pair, mask, 3.54, lowest, seed, mtf) for seed in range(1, 13)]
    plain, ours = np.array([[fit.b_factor for fit in fits] for fits in draws]).T
    assert ours.mean() == pytest.approx(average.b_factor, rel=0.01)
    assert np.std(ours) < 0.04 * abs(average.b_factor)
    assert np.std(ours) < np.std(plain)


def line(shells=40, slope=-30.0):
    frequency = np.arange(shells) / 120.0
    return frequency, np.exp(2 * (1.0 + slope * frequency**2))


def test_a_straight_line_without_noise_is_exact():
    frequency, signal = line()
    ones = np.ones(len(frequency))
    fit = bfactor.fit_bfactor(frequency, ones, signal, 1e9 * ones, 20.0)
    assert fit.slope == pytest.approx(-30.0, abs=1e-6)
    assert fit.intercept == pytest.approx(1.0, abs=1e-6)
    assert fit.b_factor_error < 0.01
    assert fit.correlation == pytest.approx(1.0)


def test_a_noisy_shell_moves_it_less_than_the_plain_fit():
    frequency, signal = line()
    correlation = signal / (signal + np.exp(-5.0))
    power = signal / correlation
    correlation[-8] *= 0.4
    counts = np.arange(40.0) ** 2 + 1
    fit = bfactor.fit_bfactor(frequency, correlation, power, counts, 20.0)
    use = (frequency >= 1 / 20) & (np.arange(40) < 39)
    plain = np.polyfit(frequency[use] ** 2, 0.5 * np.log((correlation * power)[use]), 1)[0]
    assert abs(fit.slope + 30) < 0.5 * abs(plain + 30)


def test_the_range_ends_where_the_fsc_is_gone_and_heeds_its_limits():
    frequency, signal = line()
    correlation = np.where(np.arange(40) < 25, 0.9, 0.01)
    power = signal / 0.9
    power[25:] *= 1e6
    counts = np.full(40, 1e9)
    fit = bfactor.fit_bfactor(frequency, correlation, power, counts, 20.0)
    assert fit.slope == pytest.approx(-30.0, rel=1e-3)
    assert bfactor.fit_bfactor(frequency, correlation, power, counts, 5.1) is None
    assert bfactor.fit_bfactor(frequency, correlation, power, counts, 20.0, 18.0) is None


def test_filled_fraction_of_a_binary_mask_is_its_volume():
    mask = np.zeros((8, 8, 8), dtype=np.float32)
    mask[2:6] = 1
    assert bfactor.filled_fraction(mask) == pytest.approx(0.5)
    assert bfactor.filled_fraction(None) == 1.0


def test_shells_of_few_components_count_little():
    frequency, signal = line()
    counts = np.full(40, 1e5)
    counts[-6:] = 2.0
    power = signal.copy()
    power[-6:] *= 1.3
    ones = np.ones(40)
    fit = bfactor.fit_bfactor(frequency, ones, power, counts, 20.0)
    assert fit.slope == pytest.approx(-30.0, rel=1e-3)
