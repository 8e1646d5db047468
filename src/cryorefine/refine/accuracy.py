"""How accurately poses can be known: by how much one must change before the images would notice.

A pose is told apart from another one when the squared difference of their projections, relative to
the noise, exceeds -ln(0.01): the wrong one then has less than a hundredth of the right one's
probability (Scheres, J. Struct. Biol. 180 (2012) 519-530).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.place import shortage
from cryorefine.geometry.euler import angles, matrices
from cryorefine.io.images import ImageReader
from cryorefine.refine.half_plane import half_plane, shift_phases
from cryorefine.refine.images import contrast_transfer, image_size, remap
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.slicing import effective_rotation, slices, within_reach
from cryorefine.refine.volume import C64, ReferenceVolume
from cryorefine.refine.work import read_squared_ctf

F64 = NDArray[np.float64]
DISTINCT = -np.log(0.01)


def _trial_errors(steps: list[tuple[float, float]], largest: float) -> F64:
    """Errors growing in steps (limit, step): each step holds below its limit."""
    values = [0.0]
    while values[-1] <= largest:
        step = next(s for limit, s in steps if values[-1] < limit - 1e-9)
        values.append(values[-1] + step)
    return np.array(values[1:])


ANGLES = _trial_errors([(0.2, 0.05), (1, 0.1), (2, 0.2), (5, 0.5), (10, 1), (20, 2), (np.inf, 5)], 30)
SHIFTS = _trial_errors([(1, 0.1), (2, 0.2), (5, 0.5), (np.inf, 1)], 10)


def estimate_accuracies(
    particles: ParticleSet,
    reader: ImageReader,
    volume: C64 | ReferenceVolume,
    parameters: ExpectationParameters,
    operations: Operations = PROCESSOR,
) -> tuple[float, float]:
    """Mean error of an angle (degrees) and of a shift (A) at which poses become distinct.

    Parameters
    ----------
    particles : ParticleSet
        The sample to average over, at their current poses.
    reader : ImageReader
        Of what volumes hold of the CTF.
    volume : ndarray or ReferenceVolume
        Fourier volume of their reference.
    parameters : ExpectationParameters
        Of the iteration to come.
    operations : Operations
        Where slices are made and compared.
    """
    try:
        with shortage():
            there = operations.volume(volume)
            return _estimate(particles, reader, there, parameters, operations)
    except MemoryError:
        if operations is PROCESSOR:
            raise
    return _estimate(particles, reader, PROCESSOR.volume(volume), parameters, PROCESSOR)


def _estimate(
    particles: ParticleSet,
    reader: ImageReader,
    volume: C64,
    parameters: ExpectationParameters,
    operations: Operations,
) -> tuple[float, float]:
    angle_errors, shift_errors = [], []
    for n in range(len(particles)):
        rng = np.random.default_rng(parameters.seed + int(particles.identity[n]))
        axis, direction = rng.integers(3), rng.integers(particles.dimensions)
        turned, moved = _differences(
            particles, n, int(axis), int(direction), reader, volume, parameters, operations
        )
        angle_errors.append(_first(turned, ANGLES))
        shift_errors.append(_first(moved, SHIFTS))
    pixel = particles.optics[0].pixel_size
    return float(np.mean(angle_errors)), float(np.mean(shift_errors)) * pixel


def _first(difference: F64, errors: F64) -> float:
    above = np.flatnonzero(difference > DISTINCT)
    return float(errors[above[0]] if len(above) else errors[-1])


def _differences(
    particles: ParticleSet,
    n: int,
    axis: int,
    direction: int,
    reader: ImageReader,
    volume: C64,
    parameters: ExpectationParameters,
    operations: Operations,
) -> tuple[F64, F64]:
    """Squared differences for every trial angle and every trial shift, summed over a particle's images."""
    pose = particles.poses[n]
    trial = np.tile(np.array(angles(pose)).reshape(1, 3), (len(ANGLES), 1))
    trial[:, axis] += ANGLES
    poses = np.concatenate([pose[None], matrices(*trial.T)])
    turned, moved = np.zeros(len(ANGLES)), np.zeros(len(SHIFTS))
    for i in np.flatnonzero(particles.image_particle == n):
        view = particles.views[particles.image_view[i]]
        optics = particles.optics[view.optics]
        size = image_size(optics, parameters.current_size, parameters.box, parameters.pixel_size)
        scale = remap(optics, parameters.box, parameters.pixel_size)
        rotation = effective_rotation(view, optics, parameters.box, parameters.pixel_size)
        plane = within_reach(
            half_plane(optics.box, size, scale, optics.dimensions),
            rotation,
            parameters.current_size,
            parameters.padding,
        )
        re, im = slices(volume, rotation @ poses, plane, parameters.padding, operations)
        one = particles.images(np.array([i]))
        squared = read_squared_ctf(one, reader)
        model = contrast_transfer(plane, optics, one.ctf, parameters.images, squared)[0] * scale**2
        model = model * parameters.scale[particles.group[n]]
        shell = np.minimum(plane.shell, parameters.shells - 1)
        # Of the pixels at kx = 0 half are listed, of the others all.
        multiplicity = np.where(plane.kx > 0, 1.0, 2.0)
        multiplicity[0] = 0
        weight = multiplicity * model**2 / (2 * parameters.sigma2_noise[view.optics][shell])
        there = operations.array(weight)
        turned += operations.host(((re[1:] - re[0]) ** 2 + (im[1:] - im[0]) ** 2) @ there)
        shifts = np.zeros((len(SHIFTS), particles.dimensions))
        shifts[:, direction] = SHIFTS
        phases = shift_phases(plane, shifts @ view.projection.T)
        moved += np.abs(phases - 1) ** 2 @ operations.host((re[0] ** 2 + im[0] ** 2) * there)
    return turned, moved
