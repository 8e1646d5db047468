"""What is to be expected of references and images, from the FSC and from the values at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.ctf import phase
from cryorefine.maps.fsc import resolution_shell
from cryorefine.refine.ctf_refinement.optics_fit import plain_odd
from cryorefine.refine.ctf_refinement.polynomials import even_terms, from_zernike, odd_terms
from cryorefine.refine.particle_set import ParticleSet

F64 = NDArray[np.float64]

# Shells whose FSC is below this say nothing.
_NOTHING = 0.05
_NEARLY_ALL = 0.95


def signal_to_noise(fsc: F64) -> F64:
    """Return the signal-to-noise ratio of a half map whose FSC with the other one is given."""
    correlation = np.clip(fsc, 0.001, 0.999)
    return np.asarray(correlation / (1 - correlation))


def last_shell(fsc: F64) -> int:
    """Return the last shell at which an FSC says anything."""
    return resolution_shell(fsc, _NOTHING)


def scouting_shell(fsc: F64) -> int:
    """Return the shell up to which nearly all lies that images tell of their defocus and the like.

    A pixel tells of a phase as its signal-to-noise ratio, and of a defocus as u^4 of that. There are ~ u
    pixels in a shell, and the ratio of an image is ~ u that of a map, of whose u^2 voxels it fills u.
    """
    told = np.arange(len(fsc)) ** 6.0 * signal_to_noise(fsc) * trusted(fsc)
    total = np.cumsum(told)
    return int(np.searchsorted(total, _NEARLY_ALL * total[-1]))


def trusted(fsc: F64) -> F64:
    """Return an FSC as far as it says anything, and 0 beyond, shape (shells,)."""
    return np.where(np.arange(len(fsc)) <= last_shell(fsc), np.clip(fsc, 0, 1), 0.0)


def supplied_scale(slope: F64, fsc: F64, first: int) -> F64:
    """Return the scale of images relative to supplied maps, shape (optics groups,).

    The slope of images on maps is the maps' FSC times this scale. It is seen at low frequencies, where
    wrong CTFs do least harm.

    Parameters
    ----------
    slope : ndarray, shape (optics groups, shells)
        As measured.
    fsc : ndarray, shape (shells of the maps,)
        Of the supplied maps.
    first : int
        First shell that is compared.
    """
    low = slice(first, max(first + 3, (2 * first + last_shell(fsc)) // 3))
    seen = slope[:, low]
    if not seen.size:
        return np.ones(len(slope))
    return np.asarray(np.median(seen / np.maximum(trusted(fsc)[low][: seen.shape[1]], 0.1), axis=1))


def rebuilt_quality(rebuilt: F64, supplied: F64) -> float:
    """Return the area under the FSC of rebuilt half maps relative to that of the supplied ones.

    Over the resolved shells of the supplied maps. 1 means equal maps; the resolution itself, the first
    crossing of a threshold, would be a matter of chance.

    Parameters
    ----------
    rebuilt, supplied : ndarray, shape (shells,)
        FSC of half maps.
    """
    last = min(resolution_shell(supplied), len(rebuilt) - 1)
    return float(rebuilt[1 : last + 1].sum() / max(supplied[1 : last + 1].sum(), 1e-6))


def phases_moved(before: ParticleSet, after: ParticleSet, resolution: float) -> float:
    """Return how far phases at a resolution (A) have moved with new values, in radians (rms).

    Parameters
    ----------
    before, after : ParticleSet
        The same particles with old and new values; magnification is not looked at.
    resolution : float
        A.
    """
    u, angle = 1 / resolution, np.arange(0, 2 * np.pi, np.pi / 8)
    x, y = u * np.cos(angle), u * np.sin(angle)
    square = np.zeros(len(after.image_optics))
    for g in after.used_optics:
        old, new = before.optics[g], after.optics[g]
        odd = (plain_odd(new) - plain_odd(old)) @ odd_terms(x, y)
        even = from_zernike(np.array(new.even_aberrations), odd=False)
        even -= from_zernike(np.array(old.even_aberrations), odd=False)
        members = np.flatnonzero(after.image_optics == g)
        change = phase(after.ctf.take(members), x, y, even @ even_terms(x, y))
        change -= phase(before.ctf.take(members), x, y)
        square[members] = np.mean(change**2, axis=1) + np.mean(odd**2)
    return float(np.sqrt(square.mean()))
