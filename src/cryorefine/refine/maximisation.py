"""From the sums of both half sets to their next maps and noise models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of, to_host
from cryorefine.compute.place import shortage
from cryorefine.geometry.symmetry import point_group
from cryorefine.maps.filters import initial_lowpass
from cryorefine.maps.fsc import first_shell_below
from cryorefine.maps.masks import soft_sphere
from cryorefine.maps.solvent import RANDOMISE_BELOW, HalfMaps, solvent_corrected_fsc
from cryorefine.refine.gpu.volumes import GpuVolumes, gpu_volumes
from cryorefine.refine.reconstruct import Prior, join_low_resolution, prior_from_fsc, reconstruct
from cryorefine.refine.state import HalfModel
from cryorefine.refine.sums import HalfSums
from cryorefine.refine.volume import (
    C64,
    F32,
    enforce_friedel,
    half_volume_correlation,
    symmetrise,
)

F64 = NDArray[np.float64]
Volume = tuple[C64, F32]
JOIN_BELOW = 40.0
SMALLEST_SIGMA2_OFFSET = 2.0
# A scale needs shells in which the signal stands well above the noise of the map.
SCALE_NEEDS_SSNR = 3.0


@dataclass(frozen=True, eq=False)
class MaximisationOptions:
    """What the maximisation step is told besides the sums.

    Attributes
    ----------
    size, box : int
        Current image size and edge of the map in pixels.
    pixel_size, padding : float
        A per voxel, and padding factor.
    symmetry : str
        Point group.
    resolution : float
        Current resolution in 1/A.
    last : bool
        Join the halves.
    first : bool
        First iteration by cross-correlation: keep noise and scales, and filter the maps again.
    initial_lowpass : float
        Resolution of that filter in A; 0 for none.
    mask : ndarray or None
        Solvent mask, shape (box, box, box).
    mask_diameter : float
        Diameter in A of the sphere used without a mask.
    solvent_fsc : bool
        Correct the FSC for the solvent with the mask.
    dimensions : int
        Dimensions of the particles' shifts.
    device : str
        Where the maps are solved for.
    """

    size: int
    box: int
    pixel_size: float
    padding: float
    symmetry: str
    resolution: float
    last: bool
    first: bool
    initial_lowpass: float
    mask: F32 | None
    mask_diameter: float
    solvent_fsc: bool
    dimensions: int = 2
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class MaximisationResult:
    """Outcome of a maximisation step.

    ``halves`` hold the next references; ``unfiltered`` the unregularised half maps where they were
    made (last iteration, solvent FSC); ``joined`` the map of both halves in the last iteration.
    """

    halves: tuple[HalfModel, HalfModel]
    fsc: F64
    unfiltered: tuple[F32, F32] | None
    joined: F32 | None
    notices: tuple[str, ...]


def maximise(
    sums: tuple[HalfSums, HalfSums],
    models: tuple[HalfModel, HalfModel],
    options: MaximisationOptions,
    *,
    group: tuple[NDArray[np.int64], NDArray[np.int64]],
    norms: tuple[F64, F64],
    weights: tuple[F64, F64],
    likelihoods: tuple[F64, F64],
) -> MaximisationResult:
    """Reconstruct both halves and update their noise models.

    Parameters
    ----------
    sums : tuple of HalfSums
        Of each half set.
    models : tuple of HalfModel
        As the expectation step used them.
    options : MaximisationOptions
        Everything else.
    group, norms, weights, likelihoods : tuple of ndarray
        For each half set the scale group, norm correction, largest weight and log-likelihood of its
        particles.
    """
    solved = _solve_on(options.device, sums, options)
    halves = []
    for h, (reference, prior) in enumerate(zip(solved.references, solved.priors, strict=True)):
        model = replace(
            models[h],
            reference=reference,
            ssnr=prior.ssnr,
            sigma2=prior.sigma2,
            tau2=prior.tau2,
            mean_largest_weight=float(np.mean(weights[h])),
            log_likelihood=float(np.sum(likelihoods[h])),
        )
        halves.append(update_noise_model(model, sums[h], group[h], norms[h], options))
    joined = solved.references[0] if options.last else None
    return MaximisationResult(
        (halves[0], halves[1]), solved.fsc, solved.unfiltered, joined, tuple(solved.notices)
    )


@dataclass(frozen=True, eq=False)
class _Solved:
    """New references of both halves, what the FSC says of them, and more of :class:`MaximisationResult`."""

    references: tuple[F32, F32]
    priors: tuple[Prior, Prior]
    fsc: F64
    unfiltered: tuple[F32, F32] | None
    notices: list[str]


def _solve_on(device: str, sums: tuple[HalfSums, HalfSums], options: MaximisationOptions) -> _Solved:
    """Solve for the maps on a GPU, if that is the device and has the memory, or else on the processor."""
    notices = []
    with gpu_volumes(device) as gpu:
        if gpu is not None:
            try:
                with shortage():
                    return _solve(sums, options, gpu)
            except MemoryError:
                notices.append(
                    "The GPU's memory is too small for the maps' transforms; the processor reconstructs."
                )
    solved = _solve(sums, options, None)
    return replace(solved, notices=notices + solved.notices)


def _solve(sums: tuple[HalfSums, HalfSums], options: MaximisationOptions, gpu: GpuVolumes | None) -> _Solved:
    operators = point_group(options.symmetry).operators
    notices: list[str] = []
    size, padding = options.size, options.padding

    def symmetric(half: HalfSums) -> Volume:
        if gpu is None:
            numerator, weight = half.volume.volumes()
            enforce_friedel(numerator, weight)
            return symmetrise(numerator, weight, operators, size, padding)
        numerator, weight = half.volume.volumes_on(gpu.xp)
        gpu.enforce_friedel(numerator, weight)
        return symmetrise(numerator, weight, operators, size, padding, gpu)

    def solve(volume: Volume, prior: Prior | None) -> F32:
        return reconstruct(*volume, box=options.box, size=size, padding=padding, prior=prior, gpu=gpu)

    with ThreadPoolExecutor(2) as pool:
        # On a GPU, which belongs to this thread, the halves come one after the other.
        both: Any = pool.map if gpu is None else map
        one, two = both(symmetric, sums)

        def unregularised() -> tuple[F32, F32]:
            first, second = both(lambda volume: solve(volume, None), (one, two))
            return first, second

        # The final half maps share nothing, not even their low resolutions.
        unfiltered = unregularised() if options.last else None
        shell = int(np.ceil(options.box * options.pixel_size * min(1 / JOIN_BELOW, options.resolution)))
        join_low_resolution(one, two, shell=shell, padding=padding, gpu=gpu)
        fsc = half_volume_correlation(one, two, size, options.box // 2 + 1, padding, gpu)
        if options.solvent_fsc and options.mask is not None:
            maps = unregularised()
            fsc = flattened_fsc(*maps, options.mask, size, notices)
            unfiltered = unfiltered or maps
            del maps
        prior = partial(prior_from_fsc, fsc, size=size, padding=padding, gpu=gpu)
        if options.last:
            whole = (one[0] + two[0], one[1] + two[1])
            priors = (prior(whole[1], joined=True),) * 2
            references = (to_host(solve(whole, priors[0])),) * 2
        else:
            priors = prior(one[1], joined=False), prior(two[1], joined=False)

            def next_reference(volume: Volume, of_half: Prior) -> F32:
                reference: F32 = to_host(filtered(solve(volume, of_half), options))
                return reference

            first, second = both(next_reference, (one, two), priors)
            references = (first, second)
    if unfiltered is not None:
        unfiltered = to_host(unfiltered[0]), to_host(unfiltered[1])
    return _Solved(references, priors, fsc, unfiltered, notices)


def filtered(density: F32, options: MaximisationOptions) -> F32:
    """Return a map as it is compared with, where it lives: flattened, and in a first iteration filtered."""
    if options.first and options.initial_lowpass > 0:
        density = initial_lowpass(density, options.pixel_size, options.initial_lowpass, threads=1)
    return flatten(density, options)


def flatten(density: F32, options: MaximisationOptions) -> F32:
    """Multiply a map by the solvent mask, or by a soft sphere of the mask diameter, where it lives."""
    mask = options.mask
    if mask is None:
        mask = soft_sphere(density.shape, options.mask_diameter / 2 / options.pixel_size, 5.0)
    result: F32 = (density * module_of(density).asarray(mask)).astype(np.float32, copy=False)
    return result


def flattened_fsc(first: F32, second: F32, mask: F32, size: int, notices: list[str]) -> F64:
    """FSC of two half maps inside a mask, worked out where they live: never negative, and 0 beyond size/2.

    Where the half maps agree too well for a correction (unmasked FSC never below 0.8), the unmasked
    curve is returned and a notice added.
    """
    mask = module_of(first).asarray(mask)
    halves = HalfMaps(first, second, threads=1)
    if first_shell_below(halves.unmasked, RANDOMISE_BELOW) is None:
        notices.append(
            "The FSC never falls below 0.8, so it cannot be corrected for the solvent; the unmasked one is "
            "used."
        )
        return halves.unmasked
    corrected = np.maximum(solvent_corrected_fsc(halves, mask, threads=1).corrected, 0)
    corrected[size // 2 + 1 :] = 0
    return corrected


def update_noise_model(
    model: HalfModel, sums: HalfSums, group: NDArray[np.int64], norms: F64, options: MaximisationOptions
) -> HalfModel:
    """Take noise spectra, scales, priors and norms from the sums.

    Parameters
    ----------
    model : HalfModel
        With the new map's signal-to-noise ratio.
    sums : HalfSums
        Sums of the expectation step.
    group : ndarray, shape (particles,)
        Scale group of each particle.
    norms : ndarray, shape (particles,)
        Their norm corrections.
    options : MaximisationOptions
        In a first iteration by correlation only the prior on directions is taken.
    """
    directions = sums["directions"]
    mass = float(sums["mass"])
    model = replace(
        model,
        direction_prior=directions / directions.sum() if len(directions) else directions,
    )
    if options.first:
        return model
    noise, count = sums["noise"], sums["noise_count"]
    sigma2 = model.sigma2_noise.copy()
    np.divide(noise, count, out=sigma2, where=(count > 0) & (noise > 0))
    offset2 = max(float(sums["offset_square"]) / (options.dimensions * mass), SMALLEST_SIGMA2_OFFSET)
    return replace(
        model,
        sigma2_noise=sigma2,
        scale=updated_scales(model, sums, group),
        sigma_offset=float(np.sqrt(offset2)),
        mean_norm=float(np.mean(norms)),
    )


def updated_scales(model: HalfModel, sums: HalfSums, group: NDArray[np.int64]) -> F64:
    """Intensity scale of each group, its mean over particles being 1."""
    groups = len(model.scale)
    if groups < 2:
        return np.ones(groups)
    trusted = model.ssnr > SCALE_NEEDS_SSNR
    cross, power = (sums[name][:, trusted].sum(axis=1) for name in ("scale_cross", "scale_power"))
    members = np.bincount(group, minlength=groups)
    known = (members > 0) & (power > 0)
    if not known.any():
        return model.scale
    scale = np.ones(groups)
    scale[known] = cross[known] / power[known]
    median = float(np.median(scale[known]))
    if median <= 0:
        return model.scale
    scale = np.clip(scale, median / 5, 5 * median)
    return scale / (np.sum(scale * members) / members.sum())
