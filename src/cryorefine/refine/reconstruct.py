"""From accumulated Fourier sums to a map: FSC-driven regularisation and the Wiener division.

Formulas: Scheres, J. Struct. Biol. 180 (2012) 519-530, with the signal-to-noise ratio of each half
taken from the gold-standard FSC (Scheres & Chen, Nat. Methods 9 (2012) 853-854).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.refine.volume import (
    C64,
    F32,
    interpolation_falloff,
    map_from_fourier,
    radius,
    shell_means,
)

if TYPE_CHECKING:
    from cryorefine.refine.gpu.volumes import GpuVolumes

FIRST_REGULARISED_SHELL = 5
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What the FSC says of each shell, all of shape (shells,).

    ``ssnr`` is the signal-to-noise ratio of the data in the map (data versus prior), ``sigma2`` the
    variance of the noise in the reconstruction and ``tau2`` that of the signal.
    """

    ssnr: Curve
    sigma2: Curve
    tau2: Curve


def prior_from_fsc(
    fsc: Curve, weight: F32, *, size: int, padding: float, joined: bool, gpu: GpuVolumes | None = None
) -> Prior:
    """Estimate signal and noise of a reconstruction.

    Parameters
    ----------
    fsc : ndarray, shape (shells,)
        Correlation of the two half sets.
    weight : ndarray
        Symmetrised weight volume of the set to be reconstructed.
    size : int
        Current image size in pixels.
    padding : float
        Padding factor.
    joined : bool
        Whether the set is both halves together: the FSC of the whole is then sqrt(2 f / (1 + f)).
    gpu : GpuVolumes or None
        Where the weights are, if they are on a GPU.
    """
    means = (shell_means if gpu is None else gpu.shell_means)(weight, padding, len(fsc))
    correlation = np.maximum(fsc, 0.001)
    if joined:
        correlation = np.sqrt(2 * correlation / (1 + correlation))
    correlation = np.minimum(correlation, 0.999)
    ssnr = correlation / (1 - correlation)
    sigma2 = np.zeros_like(means)
    np.divide(1, padding**3 * means, out=sigma2, where=means > 0)
    tau2 = ssnr * sigma2
    tau2[size // 2 + 1 :] = 0
    return Prior(ssnr, sigma2, tau2)


@njit(nogil=True, cache=True, error_model="numpy")
def divide(numerator: C64, weight: F32, extra: Curve, floor: Curve, reach: float, padding: float) -> C64:
    """Numerator / max(weight + extra(shell), floor(shell)) inside a sphere of the given reach."""
    limit = numerator.shape[0] // 2
    result = np.zeros_like(numerator)
    for iz in range(2 * limit + 1):
        for iy in range(2 * limit + 1):
            for ix in range(limit + 2):
                r = np.sqrt(float(ix**2 + (iy - limit) ** 2 + (iz - limit) ** 2))
                if r > reach:
                    continue
                shell = min(int(r / padding + 0.5), len(extra) - 1)
                below = min(int(r / padding), len(floor) - 1)
                total = max(weight[iz, iy, ix] + extra[shell], floor[below])
                if total > 0:
                    result[iz, iy, ix] = numerator[iz, iy, ix] / total
    return result


def reconstruct(
    numerator: C64,
    weight: F32,
    *,
    box: int,
    size: int,
    padding: float,
    prior: Prior | None,
    threads: int = 1,
    gpu: GpuVolumes | None = None,
) -> F32:
    """Solve for the map.

    Parameters
    ----------
    numerator, weight : ndarray
        Symmetrised accumulators.
    box, size : int
        Edge of the map, and current image size, in pixels.
    padding : float
        Padding factor.
    prior : Prior or None
        Signal and noise by shell; None gives the unregularised map.
    threads : int
        Threads of the FFT.
    gpu : GpuVolumes or None
        Where the accumulators are, if they are on a GPU.

    Returns
    -------
    ndarray of float32, shape (box, box, box)
        Map, where the accumulators live, with a soft sphere (radius box/2, edge 3 px) outside of which
        it is constant.
    """
    shells = box // 2 + 1
    means = (shell_means if gpu is None else gpu.shell_means)(weight, padding, shells)
    extra = np.zeros(shells)
    if prior is not None:
        # 1 / (padding^3 tau2) = mean weight / SSNR
        extra[FIRST_REGULARISED_SHELL:] = (means / prior.ssnr)[FIRST_REGULARISED_SHELL:]
    floor = (means + extra) / 1000
    reach = padding * size / 2
    volume = (divide if gpu is None else gpu.divide)(numerator, weight, extra, floor, reach, padding)
    density = map_from_fourier(volume, box, padding, threads)
    edge, xp = 3.0, module_of(density)
    inside = xp.clip((box / 2 - radius(box, xp)) / edge, 0, 1)
    gain = 0.5 - 0.5 * xp.cos(np.pi * inside)
    outside_mean = float(xp.sum(density * (1 - gain)) / xp.sum(1 - gain))
    density = density * gain + np.float32(outside_mean) * (1 - gain)
    result: F32 = (density / interpolation_falloff(box, padding, xp)).astype(np.float32)
    return result


def join_low_resolution(
    first: tuple[C64, F32],
    second: tuple[C64, F32],
    *,
    shell: int,
    padding: float,
    gpu: GpuVolumes | None = None,
) -> None:
    """Give both halves the average of their data and weights up to a shell, in place.

    Low resolutions cannot be overfitted but decide the common orientation of the two halves.
    """
    xp = np if gpu is None else gpu.xp
    # The shell lies deep inside the volume: a box about it is all that is looked at.
    limit = first[0].shape[0] // 2
    reach = min(int(shell * padding), limit)
    index = xp.arange(-reach, reach + 1)
    near = xp.arange(min(int(shell * padding), limit + 1) + 1)
    inside = index[:, None, None] ** 2 + index[:, None] ** 2 + near**2 <= (shell * padding) ** 2
    middle = slice(limit - reach, limit + reach + 1)
    box = middle, middle, slice(0, len(near))
    for one, two in zip(first, second, strict=True):
        # Views, so that what is written there is written into the volumes.
        mine, theirs = one[box], two[box]
        mean = (mine + theirs) / 2
        mine[...] = xp.where(inside, mean, mine)
        theirs[...] = xp.where(inside, mean, theirs)
