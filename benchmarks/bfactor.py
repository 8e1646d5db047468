"""B-factors of simulated half maps of known B: bias, and spread over draws of random phases.

Half maps of a ball of structure whose amplitudes fall off by a known B-factor, each with noise of its
own. The weighted fit is compared with RELION's rule (which tests hold to RELION's own numbers), with
random phases averaged and with single draws, as RELION makes them.

    python benchmarks/bfactor.py [--size 256] [--draws 4]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from cryorefine.maps import bfactor, filters, fourier, masks, sharpen, solvent
from cryorefine.maps.shells import shell_frequencies

PIXEL, LOWEST = 1.4, 10.0
B_FACTORS, NOISES = (60.0, 120.0, 240.0), (0.3, 1.5)


def half_maps(size: int, b_factor: float, noise: float, seed: int) -> solvent.HalfMaps:
    """White structure in a ball, damped; ``noise`` in units of the signal's amplitude at 6 A."""
    rng = np.random.default_rng(seed)
    shape = (size,) * 3
    structure = rng.standard_normal(shape, dtype=np.float32) * masks.soft_sphere(shape, 0.27 * size, 3)
    structure = filters.apply_bfactor(structure, PIXEL, b_factor)
    amplitudes = sharpen.Amplitudes(fourier.forward(structure)).guinier()
    scale = np.float32(noise * np.exp(amplitudes[round(size * PIXEL / 6)]) * size**1.5)
    return solvent.HalfMaps(
        *(structure + scale * rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    )


def fits(
    halves: solvent.HalfMaps,
    mask: np.ndarray,
    amplitudes: sharpen.Amplitudes,
    rng: np.random.Generator | None,
) -> tuple[float, float, float]:
    """Return RELION's B-factor, ours, and the uncertainty of ours."""
    curves = solvent.solvent_corrected_fsc(halves, mask, rng=rng)
    frequency = shell_frequencies(halves.size, PIXEL)
    gain = sharpen.shell_gain(sharpen.fsc_weights(curves.corrected), halves.size)
    plain = sharpen.fit_guinier(frequency**2, amplitudes.guinier(gain), LOWEST)
    components = amplitudes.counts * bfactor.filled_fraction(mask)
    power = curves.masked_power / amplitudes.counts
    ours = bfactor.fit_bfactor(frequency, curves.corrected, power, components, LOWEST)
    assert plain is not None
    assert ours is not None
    return plain.b_factor, ours.b_factor, ours.b_factor_error or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--draws", type=int, default=4)
    options = parser.parse_args()
    mask = masks.soft_sphere((options.size,) * 3, 0.27 * options.size + 6, 6)
    print(
        f"{options.size}^3 voxels of {PIXEL} A, fit from {LOWEST:g} A, {options.draws} draws of random phases"
    )
    print(f"{'':<26}{'RELION rule':>26}{'weighted':>36}")
    print(f"{'true B':>8}{'noise':>8}{'':<10}{'averaged':>12}{'drawn, spread':>14}", end="")
    print(f"{'averaged':>22}{'drawn, spread':>14}")
    errors = []
    for b_factor, noise in itertools.product(B_FACTORS, NOISES):
        halves = half_maps(options.size, b_factor, noise, seed=round(b_factor + 10 * noise))
        amplitudes = sharpen.Amplitudes(halves.average())
        plain, ours, error = fits(halves, mask, amplitudes, None)
        drawn = np.array(
            [fits(halves, mask, amplitudes, np.random.default_rng(seed)) for seed in range(options.draws)]
        )
        spread = np.ptp(drawn, axis=0)
        errors.append([plain / -b_factor - 1, ours / -b_factor - 1])
        print(f"{-b_factor:>8.0f}{noise:>8.1f}{'':<10}{plain:>12.1f}{spread[0]:>14.2f}", end="")
        print(f"{ours:>14.1f} +-{error:5.1f}{spread[1]:>14.2f}", flush=True)
    rms = 100 * np.sqrt(np.mean(np.square(errors), axis=0))
    print(f"rms error: RELION's rule {rms[0]:.1f} %, weighted {rms[1]:.1f} %")


if __name__ == "__main__":
    main()
