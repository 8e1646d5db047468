"""Random phases beyond a shell: shows how much correlation a mask alone makes."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cryorefine.maps.shells import logical_indices
from cryorefine.maps.slabs import over_slabs

_LEVELS = 4096
"""Phases are multiples of 1/4096 turn: a table is far quicker than a sine and a cosine for each voxel."""


def randomise_phases(
    spectrum: NDArray[Any], first_shell: int, size: int, rng: np.random.Generator, threads: int = 0
) -> NDArray[Any]:
    """Give every component with a radius of at least ``first_shell`` a random phase.

    Amplitudes are kept, and mates stay conjugate to each other, so the map that comes out is real
    and has exactly the same power spectrum.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Half-complex array of a map or an image, shape (..., y, x // 2 + 1).
    first_shell : int
        Radius in Fourier pixels.
    size : int
        Box size in pixels.
    rng : numpy.random.Generator
        Source of the phases. The result does not depend on the number of threads.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        A new array.
    """
    result = np.array(spectrum, order="C")
    stack = result if result.ndim == 3 else result[None]
    draws = rng.integers(0, _LEVELS, size=stack.shape, dtype=np.uint16)
    angles = 2.0 * np.pi * np.arange(_LEVELS) / _LEVELS
    phasors = (np.cos(angles) + 1j * np.sin(angles)).astype(stack.dtype)
    y2 = logical_indices(stack.shape[1]) ** 2
    z2 = y2 if spectrum.ndim == 3 else np.zeros(1, dtype=y2.dtype)

    def work(slab: slice) -> None:
        _randomise_kernel(stack[slab], z2[slab], y2, first_shell**2, draws[slab], phasors)

    over_slabs(work, len(stack), threads)
    # Both mates are stored where x is 0 or Nyquist.
    for x in (0, size // 2) if size % 2 == 0 else (0,):
        _make_hermitian(result[..., x])
    return result


def _make_hermitian(plane: NDArray[Any]) -> None:
    """Replace, in place, one of each pair of mates by the conjugate of the other."""
    axes = tuple(range(plane.ndim))
    mate = np.roll(np.flip(plane, axes), 1, axes)
    index = np.arange(plane.size).reshape(plane.shape)
    mate_index = np.roll(np.flip(index, axes), 1, axes)
    alone = index == mate_index
    plane[...] = np.where(index <= mate_index, plane, mate.conj())
    plane[alone] = np.abs(plane[alone]) * np.where(plane[alone].real < 0, -1, 1)


@numba.njit(nogil=True, cache=True)
def _randomise_kernel(spectrum, z2, y2, limit, draws, phasors):  # type: ignore[no-untyped-def]
    for z in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            row = z2[z] + y2[y]
            for x in range(spectrum.shape[2]):
                if row + x * x >= limit:
                    # A phase plus a uniformly random one is uniformly random: no amplitude is needed.
                    spectrum[z, y, x] *= phasors[draws[z, y, x]]
