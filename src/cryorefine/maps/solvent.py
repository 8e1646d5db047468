"""FSC of half maps behind a mask, freed from the correlation that the mask itself makes."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.maps import fourier, fsc
from cryorefine.maps.randomise import randomise_phases
from cryorefine.maps.shells import cross_sums
from cryorefine.maps.slabs import thread_count

RANDOMISE_BELOW = 0.8
"""Phases are randomised from the shell where the unmasked FSC drops below this."""


@dataclass(frozen=True)
class SolventFsc:
    """The curves of one pair of half maps and one mask, each of shape (size // 2 + 1,).

    Attributes
    ----------
    unmasked, masked, randomised : numpy.ndarray
        FSC of the half maps, of the masked half maps, and of the masked half maps with random phases.
    corrected : numpy.ndarray
        :func:`.fsc.corrected_fsc` of them.
    first_randomised_shell : int
        Where the random phases begin.
    masked_power : numpy.ndarray
        Geometric mean of the power of the two masked half maps, summed over the voxels of each shell.
    """

    unmasked: NDArray[np.float64]
    masked: NDArray[np.float64]
    randomised: NDArray[np.float64]
    corrected: NDArray[np.float64]
    first_randomised_shell: int
    masked_power: NDArray[np.float64]


def enough_draws(size: int) -> int:
    """Return how many draws of random phases to average in a box of ``size`` voxels.

    In a small box the curve of a single draw is so noisy that it alone may move the resolution by
    several shells, but there more draws cost little: 128 for 64 voxels, 12 for 128, 1 from 256 on.
    """
    return math.ceil((256 / min(max(size, 64), 256)) ** 3.5)


def solvent_corrected_fsc(
    spectra: tuple[NDArray[Any], NDArray[Any]],
    mask: NDArray[Any],
    unmasked: NDArray[np.float64],
    first_randomised_shell: int,
    rng: np.random.Generator,
    *,
    draws: int | None = None,
    threads: int = 0,
    halves: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> SolventFsc:
    """Correlate two half maps behind a mask and correct the curve by random phases.

    After Chen et al., Ultramicroscopy 135, 24-35 (2013), with the average of several draws.

    Parameters
    ----------
    spectra : pair of numpy.ndarray
        Transforms of the unfiltered half maps (:func:`.fourier.forward`), shape (z, y, x // 2 + 1).
    mask : numpy.ndarray
        Shape (z, y, x), values in [0, 1].
    unmasked : numpy.ndarray
        FSC of ``spectra``.
    first_randomised_shell : int
        First shell with random phases, :func:`.fsc.first_shell_below` of ``unmasked`` and
        :data:`RANDOMISE_BELOW`.
    rng : numpy.random.Generator
        Source of the phases. The result does not depend on the number of threads.
    draws : int, optional
        How many draws to average; :func:`enough_draws` unless given.
    threads : int
        0 for every core.
    halves : pair of numpy.ndarray, optional
        The half maps themselves, shape (z, y, x), where they are at hand; saves two transforms.

    Returns
    -------
    SolventFsc
        All four curves.
    """
    size = mask.shape[-1]
    if halves is None:
        first, second = (fourier.masked(spectrum, mask, threads) for spectrum in spectra)
    else:
        first, second = (fourier.forward(half * mask, threads) for half in halves)
    sums = cross_sums(first, second, threads)
    masked, power = fsc.fsc_of_sums(sums), np.sqrt(sums[1] * sums[2])
    del first, second
    streams = rng.spawn(draws or enough_draws(size))
    workers = min(len(streams), thread_count(threads))
    inner = max(1, thread_count(threads) // workers)

    def draw(stream: np.random.Generator) -> NDArray[np.float64]:
        noise = []
        for spectrum in spectra:
            random = randomise_phases(spectrum, first_randomised_shell, size, stream, inner)
            noise.append(fourier.masked(random, mask, inner, overwrite=True))
        return cross_sums(noise[0], noise[1], inner)

    with ThreadPoolExecutor(workers) as pool:
        sums = np.sum(list(pool.map(draw, streams)), axis=0)
    randomised = fsc.fsc_of_sums(sums)
    corrected = fsc.corrected_fsc(masked, randomised, first_randomised_shell)
    return SolventFsc(unmasked, masked, randomised, corrected, first_randomised_shell, power)
