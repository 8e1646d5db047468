"""Defocus and beam tilt estimated anew between the late iterations of a refinement.

Each particle is compared with a map of its own half set less its own part in that, rebuilt from the
poses of the iteration, so the halves stay as independent as they were: see
docs/ctf_refinement_method.md.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.executor import LocalExecutor
from cryorefine.maps.masks import soft_sphere
from cryorefine.refine.ctf_refinement import CtfFit, Finding, Stage, SuppliedMaps, refine_ctf
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.state import TransferTable

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def with_transfer(particles: ParticleSet, table: TransferTable | None) -> ParticleSet:
    """Return particles with the defocus and beam tilt that a refinement has found."""
    if table is None:
        return particles
    tilts = [(float(x), float(y)) for x, y in table.beam_tilt]
    optics = tuple(replace(o, beam_tilt=tilt) for o, tilt in zip(particles.optics, tilts, strict=True))
    ctf = replace(
        particles.ctf,
        defocus_u=table.defocus_u,
        defocus_v=table.defocus_v,
        defocus_angle=table.defocus_angle,
    )
    return replace(particles, optics=optics, ctf=ctf)


def refine_transfer(
    particles: ParticleSet,
    half_maps: tuple[F32, F32],
    mask: F32 | None,
    fsc: F64,
    *,
    pixel_size: float,
    mask_diameter: float,
    symmetry: str,
    seed: int,
    threads: int,
    device: str = "cpu",
) -> Generator[Stage, None, tuple[TransferTable, tuple[str, ...]]]:
    """Fit the defocus of every particle and the beam tilt of every optics group, once.

    Parameters
    ----------
    particles : ParticleSet
        Single particles with the iteration's poses; their values are where the fits start from.
    half_maps : tuple of ndarray, shape (box, box, box)
        Half maps of the iteration.
    mask : ndarray, shape (box, box, box), or None
        Solvent mask; None stands for a sphere of the mask diameter.
    fsc : ndarray, shape (shells,)
        FSC of the half maps.
    pixel_size, mask_diameter : float
        A per voxel, and A.
    symmetry : str
        Point group.
    seed : int
        Seed of the blocks of the jackknife.
    threads : int
        Threads to use; the result does not depend on it.
    device : str
        "cpu", or GPUs.

    Yields
    ------
    Stage
        Progress.

    Returns
    -------
    TransferTable, tuple of str
        The values, and sentences about what is doubtful.
    """
    box = half_maps[0].shape[0]
    if mask is None:
        mask = soft_sphere((box,) * 3, mask_diameter / 2 / pixel_size)
    fit = CtfFit(defocus="per-particle", beam_tilt=True, symmetry=symmetry, rounds=1, seed=seed)
    maps = SuppliedMaps(half_maps, mask, fsc, pixel_size)
    warnings: list[str] = []
    with LocalExecutor(threads) as executor:
        fitting = refine_ctf(particles, particles.group, maps, fit, executor, device)
        while True:
            try:
                event = next(fitting)
            except StopIteration as stop:
                outcome = stop.value
                break
            if isinstance(event, Stage):
                yield event
            elif isinstance(event, Finding) and event.warning:
                warnings.append(event.message)
    values = outcome.particles
    tilts = np.array([group.beam_tilt for group in outcome.optics], np.float64)
    table = TransferTable(values.defocus_u, values.defocus_v, values.defocus_angle, tilts)
    return table, tuple(dict.fromkeys(warnings))
