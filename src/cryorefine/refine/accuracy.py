"""How accurately poses can be known: by how much one must change before the images would notice.

A pose is told apart from another one when the squared difference of their projections, relative to
the noise, exceeds -ln(0.01): the wrong one then has less than a hundredth of the right one's
probability (Scheres, J. Struct. Biol. 180 (2012) 519-530).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.place import shortage
from cryorefine.geometry.euler import angles, matrices
from cryorefine.io.images import ImageReader
from cryorefine.refine.half_plane import HalfPlane, half_plane, shift_phases
from cryorefine.refine.images import contrast_transfer, image_size, remap
from cryorefine.refine.operations import PROCESSOR, Operations
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.slicing import effective_rotation, slices, within_reach
from cryorefine.refine.volume import C64, F32, ReferenceVolume
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


# Trial errors that are looked at together: most particles notice one of the first few.
BLOCK = 8


def estimate_accuracies(
    particles: ParticleSet,
    reader: ImageReader,
    volume: C64 | ReferenceVolume,
    parameters: ExpectationParameters,
    operations: Operations = PROCESSOR,
    threads: int = 1,
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
    threads : int
        Particles that the processor looks at side by side.
    """
    if operations is not PROCESSOR:
        try:
            with shortage():
                there = operations.volume(volume)
                return _estimate(particles, reader, there, parameters, operations, 1)
        except MemoryError:
            pass
    return _estimate(particles, reader, PROCESSOR.volume(volume), parameters, PROCESSOR, threads)


def _estimate(
    particles: ParticleSet,
    reader: ImageReader,
    volume: C64,
    parameters: ExpectationParameters,
    operations: Operations,
    threads: int,
) -> tuple[float, float]:
    def errors(n: int) -> tuple[float, float]:
        rng = np.random.default_rng(parameters.seed + int(particles.identity[n]))
        axis, direction = int(rng.integers(3)), int(rng.integers(particles.dimensions))
        images = _images(particles, n, reader, volume, parameters, operations)
        pose = particles.poses[n]

        def turned(trial: F64) -> F64:
            poses = np.tile(np.array(angles(pose)).reshape(1, 3), (len(trial), 1))
            poses[:, axis] += trial
            turns = matrices(*poses.T)
            return _sum_of(image.turned(turns, volume, parameters.padding) for image in images)

        def moved(trial: F64) -> F64:
            shifts = np.zeros((len(trial), particles.dimensions))
            shifts[:, direction] = trial
            return _sum_of(image.moved(shifts) for image in images)

        return _first(turned, ANGLES), _first(moved, SHIFTS)

    if threads == 1:
        results = list(map(errors, range(len(particles))))
    else:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(errors, range(len(particles))))
    found = np.array(results)
    angle, shift = found.mean(axis=0)
    return float(angle), float(shift) * particles.optics[0].pixel_size


def _sum_of(terms: Iterable[F64]) -> F64:
    """Sum arrays of one shape."""
    return np.sum(list(terms), axis=0)


def _first(difference: Callable[[F64], F64], errors: F64) -> float:
    """First of the rising errors whose squared difference is large enough; the last one if none is."""
    for start in range(0, len(errors), BLOCK):
        block = errors[start : start + BLOCK]
        above = np.flatnonzero(difference(block) > DISTINCT)
        if len(above):
            return float(block[above[0]])
    return float(errors[-1])


@dataclass(frozen=True, eq=False)
class _Image:
    """One image of a particle: its pixels, their weights, and the slice at the particle's pose.

    Weights and slice live where the operations do.
    """

    operations: Operations
    rotation: F64
    plane: HalfPlane
    weight: F64
    slice: tuple[F32, F32]
    projection: F64

    def turned(self, poses: F64, volume: C64, padding: float) -> F64:
        """Squared differences that other poses make, shape (poses,)."""
        re, im = slices(volume, self.rotation @ poses, self.plane, padding, self.operations)
        own_re, own_im = self.slice
        difference = (re - own_re) ** 2 + (im - own_im) ** 2
        return np.asarray(self.operations.host(difference @ self.weight))

    def moved(self, shifts: F64) -> F64:
        """Squared differences that shifts in pixels make, shape (shifts,)."""
        re, im = self.slice
        phases = shift_phases(self.plane, shifts @ self.projection.T)
        power = self.operations.host((re[0] ** 2 + im[0] ** 2) * self.weight)
        return np.asarray(np.abs(phases - 1) ** 2 @ power)


def _images(
    particles: ParticleSet,
    n: int,
    reader: ImageReader,
    volume: C64,
    parameters: ExpectationParameters,
    operations: Operations,
) -> list[_Image]:
    """All images of one particle."""
    result = []
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
        turn = (rotation @ particles.poses[n])[None]
        own = slices(volume, turn, plane, parameters.padding, operations)
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
        result.append(_Image(operations, rotation, plane, there, own, view.projection))
    return result
