"""Random phases beyond a shell, which show how much correlation a mask alone makes: drawn, and on average."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.maps.shells import logical_indices, shell_table, squared_radius, voxels_by_squared_radius
from cryorefine.maps.slabs import over_slabs, threads_for
from cryorefine.maps.windows import window_sums

_LEVELS = 4096
"""Phases are multiples of 1/4096 turn: a table is far quicker than a sine and a cosine for each voxel."""

_MASK_SHELLS = 33
"""Shells of a mask's own spectrum that are looked at one by one."""


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
    xp = module_of(spectrum)
    result = xp.array(spectrum, order="C")
    stack = result if result.ndim == 3 else result[None]
    draws = xp.asarray(rng.integers(0, _LEVELS, size=stack.shape, dtype=np.uint16))
    angles = 2.0 * np.pi * np.arange(_LEVELS) / _LEVELS
    phasors = xp.asarray((np.cos(angles) + 1j * np.sin(angles)).astype(stack.dtype))
    plane = xp.asarray(squared_radius((size, size)))
    z2 = logical_indices(len(stack)) ** 2

    def work(slab: slice) -> None:
        for z in range(slab.start, slab.stop):
            # A phase plus a uniformly random one is uniformly random: no amplitude is needed.
            stack[z] *= xp.where(plane >= first_shell**2 - int(z2[z]), phasors[draws[z]], phasors[0])

    over_slabs(work, len(stack), threads_for(stack, threads))
    # Both mates are stored where x is 0 or Nyquist.
    for x in (0, size // 2) if size % 2 == 0 else (0,):
        _make_hermitian(result[..., x])
    return result


def expected_power(
    mask: NDArray[Any], power: NDArray[np.float64], first_shell: int, size: int, threads: int = 0
) -> NDArray[np.float64]:
    """Return the power that components of random phase have behind a mask, on average over all draws.

    Random phases make components independent of each other, so a mask spreads their power like that
    of noise: E|F(k)|^2 is the sum over q of |M(k - q)|^2 P(q), with M the transform of the mask and P
    the power that gets random phases. P is taken to be the same in all directions. The sum over q
    then is one over the length of k - q, with the mean of P over a sphere about k.

    Parameters
    ----------
    mask : numpy.ndarray
        The mask, or a window of the box outside of which it is zero, shape (z, y, x).
    power : numpy.ndarray
        Mean power of a component in each shell as far as the corners of the box, scaled as by
        :func:`.fourier.forward`, of one or several maps: shape (..., shells).
    first_shell : int
        Radius from which on phases are random.
    size : int
        Box in voxels.
    threads : int
        0 for every core.

    Returns
    -------
    numpy.ndarray
        Summed over the voxels of a half-complex array, float64 of shape (..., size // 2 + 1).
    """
    shells = size // 2 + 1
    known = min(_MASK_SHELLS, shells)
    bins = shell_table(size)
    stored, whole = (np.bincount(bins, voxels_by_squared_radius(size, 3, mates)) for mates in (False, True))
    own = window_sums([mask], mask > 0, size, known, threads)[1] / stored[:known] * whole[:known]
    total = float(module_of(mask).square(mask, dtype=np.float64).sum()) / size**3
    # What the mask has beyond the shells looked at is spread over the whole box.
    spread = max(total - own.sum(), 0.0)
    own *= (total - spread) / own.sum()
    radius = np.arange(power.shape[-1])
    k, step = np.arange(shells)[:, None, None], np.arange(known)[:, None]
    cosine, weight = np.polynomial.legendre.leggauss(24)
    q = np.sqrt(np.maximum(k**2 + step**2 - 2.0 * k * step * cosine, 0.0))
    inside = np.where(q >= first_shell, weight / 2.0, 0.0)

    def expected(power: NDArray[np.float64]) -> NDArray[np.float64]:
        around = (np.interp(q, radius, power, right=0.0) * inside).sum(axis=2)
        far = float(np.where(radius >= first_shell, power * whole, 0.0).sum() / whole.sum())
        return stored[:shells] * ((around * own).sum(axis=1) + spread * far)

    return np.apply_along_axis(expected, -1, power)


def _make_hermitian(plane: NDArray[Any]) -> None:
    """Replace, in place, one of each pair of mates by the conjugate of the other."""
    xp, axes = module_of(plane), tuple(range(plane.ndim))
    mate = xp.roll(xp.flip(plane, axes), 1, axes)
    index = xp.arange(plane.size).reshape(plane.shape)
    mate_index = xp.roll(xp.flip(index, axes), 1, axes)
    # A component that is its own mate is real.
    own = xp.where(plane.real < 0, -abs(plane), abs(plane))
    plane[...] = xp.where(index < mate_index, plane, mate.conj())
    plane[...] = xp.where(index == mate_index, own, plane)
