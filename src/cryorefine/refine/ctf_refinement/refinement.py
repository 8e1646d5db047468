"""Refines the CTF parameters of particles: rounds of rebuilding the reference and fitting."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.executor import LocalExecutor
from cryorefine.refine.ctf_refinement.result import CtfEvent, CtfResult
from cryorefine.refine.ctf_refinement.settings import CtfFit, SuppliedMaps
from cryorefine.refine.particle_set import ParticleSet

Index = NDArray[np.int64]


def refine_ctf(
    particles: ParticleSet,
    micrograph: Index,
    maps: SuppliedMaps,
    fit: CtfFit,
    executor: LocalExecutor,
) -> Generator[CtfEvent, None, CtfResult]:
    """Fit CTF parameters to particles whose poses and half sets are known.

    Parameters
    ----------
    particles : ParticleSet
        Single particles; their values are where the fits start from.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each particle, 0, 1, ...
    maps : SuppliedMaps
        Half maps, mask and FSC of post-processing.
    fit : CtfFit
        What is fitted.
    executor : LocalExecutor
        Threads, entered; the result does not depend on their number.

    Yields
    ------
    CtfEvent
        Progress, the values of each micrograph as they come, aberration images, and findings.

    Returns
    -------
    CtfResult
        The values with their uncertainties.
    """
    raise NotImplementedError
    yield
