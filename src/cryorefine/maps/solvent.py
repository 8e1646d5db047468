"""FSC of half maps behind a mask, freed from the correlation that the mask itself makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.maps import fsc
from cryorefine.maps.density import bounds
from cryorefine.maps.fourier import forward, inverse
from cryorefine.maps.randomise import expected_power, randomise_phases
from cryorefine.maps.shells import cross_sums, radius_table, shell_table, voxels_by_squared_radius
from cryorefine.maps.windows import filtered_window, window_sums

RANDOMISE_BELOW = 0.8
"""Phases are randomised from the shell where the unmasked FSC drops below this."""


class HalfMaps:
    """Two half maps, their transforms, and what of them does not depend on a mask.

    Parameters
    ----------
    first, second : numpy.ndarray
        The unfiltered half maps, shape (z, y, x).
    threads : int
        0 for every core.
    keep : bool
        Whether to keep the transforms; without, each is made anew when it is asked for, and the maps
        may stay in their files.

    Attributes
    ----------
    maps : tuple of numpy.ndarray
        The half maps themselves.
    spectra : tuple of numpy.ndarray
        Their transforms (:func:`.fourier.forward`), shape (z, y, x // 2 + 1); empty where none are kept.
    size : int
        Box in voxels.
    unmasked : numpy.ndarray
        Their FSC, shape (size // 2 + 1,).
    power : numpy.ndarray
        Geometric mean of their power, summed over the voxels of each shell 0..size/2.
    shell_power : numpy.ndarray
        Mean power of a component of each in the shells as far as the corners, shape (2, shells).
    """

    def __init__(
        self, first: NDArray[Any], second: NDArray[Any], threads: int = 0, keep: bool = True
    ) -> None:
        self.maps: tuple[Any, Any] = first, second
        self.size = len(first)
        self._threads = threads
        spectra = forward(first, threads), forward(second, threads)
        self.spectra: tuple[Any, ...] = spectra if keep else ()
        sums = cross_sums(*spectra, threads=threads, corners=True)
        inside = sums[:, : self.size // 2 + 1]
        self.unmasked = fsc.fsc_of_sums(inside)
        self.power = np.sqrt(inside[1] * inside[2])
        counts = np.bincount(shell_table(self.size), voxels_by_squared_radius(self.size))
        self.shell_power = sums[1:] / counts

    def moved(self, put: Callable[[Any], Any]) -> Self:
        """Return the same half maps with their arrays brought elsewhere by a function, e.g. to a GPU."""
        result = copy(self)
        result.maps = put(self.maps[0]), put(self.maps[1])
        result.spectra = tuple(put(spectrum) for spectrum in self.spectra)
        return result

    def spectrum(self, number: int) -> NDArray[Any]:
        """Return the transform of the first half map (0) or the second (1)."""
        spectrum: NDArray[Any] = (
            self.spectra[number] if self.spectra else forward(self.maps[number], self._threads)
        )
        return spectrum

    @property
    def first_randomised_shell(self) -> int:
        """Shell from which on phases are randomised.

        Where the FSC never drops there is nothing to randomise, and the masked FSC stays as it is.
        """
        return fsc.first_shell_below(self.unmasked, RANDOMISE_BELOW) or len(self.unmasked) - 1

    def average(self, overwrite: bool = False) -> NDArray[Any]:
        """Return the transform of the average of both; it may take the place of the first one's."""
        first = self.spectrum(0)
        out = first if overwrite or not self.spectra else None
        average: NDArray[Any] = module_of(first).add(first, self.spectrum(1), out=out)
        average *= 0.5
        return average


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


def solvent_corrected_fsc(
    halves: HalfMaps, mask: NDArray[Any], *, rng: np.random.Generator | None = None, threads: int = 0
) -> SolventFsc:
    """Correlate two half maps behind a mask and correct the curve by random phases.

    After Chen et al., Ultramicroscopy 135, 24-35 (2013). A single draw of phases is noisy, the more
    so the smaller the box, and this noise would move resolution and B-factor. So the curve is the one
    to which the average over draws tends: with R the part of a map that gets random phases, L the
    rest and m the mask, R is independent in both halves and of L, so the sum of products is that of
    m L1 and m L2 alone, and the sum of powers that of m L plus :func:`.randomise.expected_power`.

    Parameters
    ----------
    halves : HalfMaps
        The half maps.
    mask : numpy.ndarray
        Shape (z, y, x), values in [0, 1].
    rng : numpy.random.Generator, optional
        Draw the phases once from it, as RELION does, instead of taking the average over all draws.
    threads : int
        0 for every core.

    Returns
    -------
    SolventFsc
        All four curves.
    """
    size, start = halves.size, halves.first_randomised_shell
    shells = size // 2 + 1
    window = bounds(mask > 0)
    inside = mask[window]

    def sums(windows: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
        return window_sums(windows, inside, size, shells, threads)

    behind = sums(half[window] for half in halves.maps)
    if rng is not None:
        drawn = (randomise_phases(halves.spectrum(half), start, size, rng, threads) for half in (0, 1))
        noise = sums(inverse(spectrum, size, threads)[window] for spectrum in drawn)
    else:
        known = (radius_table(size) < start).astype(np.float64)
        noise = sums(
            filtered_window(halves.spectrum(half), known, start + 1, window, threads) for half in (0, 1)
        )
        noise[1:] += expected_power(inside, halves.shell_power, start, size, threads)
    masked, randomised = fsc.fsc_of_sums(behind), fsc.fsc_of_sums(noise)
    corrected = fsc.corrected_fsc(masked, randomised, start)
    power = np.sqrt(behind[1] * behind[2])
    return SolventFsc(halves.unmasked, masked, randomised, corrected, start, power)
