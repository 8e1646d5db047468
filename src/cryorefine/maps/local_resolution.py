"""Local resolution: the FSC of two half maps behind a small soft sphere that visits the whole map.

What RELION does (`relion_postprocess --locres`; section D.5 of the behaviour reference), with two
differences in how: transforms are taken of the sphere's window alone and only up to the shell that
decides, and the FSC of random phases is the expected one (:class:`LocalFsc`) instead of one draw.
"""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu, module_of, to_host
from cryorefine.compute.place import shortage, wait_for_gpu
from cryorefine.maps import fsc
from cryorefine.maps.filters import lowpass_gain
from cryorefine.maps.local_resolution_fsc import LocalFsc, Sphere, sampling_points, window_of
from cryorefine.maps.sharpen import fsc_weights, passed_shells, shell_gain
from cryorefine.maps.shells import radius_table
from cryorefine.maps.slabs import thread_count
from cryorefine.maps.windows import filtered_window

Place = tuple[int, int, int]

__all__ = ["LocalFsc", "LocalPoint", "LocalResolution", "Sphere", "sampling_points"]


@dataclass(frozen=True)
class LocalPoint:
    """What was found at one place of the sphere.

    Attributes
    ----------
    centre : tuple of int
        Voxel (z, y, x).
    resolution : float
        A.
    masked, randomised, corrected : numpy.ndarray
        The curves of :class:`.solvent.SolventFsc` up to the shell that decides.
    """

    centre: tuple[int, int, int]
    resolution: float
    masked: NDArray[np.float64]
    randomised: NDArray[np.float64]
    corrected: NDArray[np.float64]


class LocalResolution:
    """Local resolution and locally filtered map, gathered place by place.

    Attributes
    ----------
    left_gpu : bool
        Whether the memory of the GPU that the maps were on has become too small.

    Parameters
    ----------
    local_fsc : LocalFsc
        Where the curves come from.
    pixel_size : float
        A/px.
    lowest : float
        Resolutions coarser than this many A count as this.
    average : numpy.ndarray
        Spectrum (:func:`.fourier.forward`) of the map to be filtered: the average of both half maps,
        sharpened as wanted.
    expected_shell : int
        Shells up to which curves are tried first. It changes the time and not the result.
    """

    def __init__(
        self,
        local_fsc: LocalFsc,
        pixel_size: float,
        lowest: float,
        average: Any,
        expected_shell: int,
    ) -> None:
        self.size, self.sphere = local_fsc.size, local_fsc.sphere
        self.pixel_size, self.lowest = pixel_size, lowest
        self._fsc = local_fsc
        self._average = average
        coarsest = int(np.ceil(self.size * pixel_size / lowest)) + 3
        self._first_try = min(max(expected_shell, coarsest, 8) + 1, self.size // 2 + 1)
        shape, xp = (self.size,) * 3, module_of(average)
        self._mask = xp.asarray(self.sphere.mask())
        self._weight, self._filtered, self._frequency = (xp.zeros(shape, dtype=np.float32) for _ in range(3))
        self.left_gpu = False
        self.points: list[LocalPoint] = []
        self._others: list[LocalResolution] = []
        self._free: queue.SimpleQueue[LocalResolution] = queue.SimpleQueue()

    def also_on(self, put: Callable[[Any], Any]) -> None:
        """Let another GPU, to which a function brings arrays, measure at some places, if it has room."""
        with self._average.device:
            wait_for_gpu()
        other = copy(self)
        try:
            with shortage():
                other._fsc, other._average = self._fsc.moved(put), put(self._average)
        except MemoryError:
            return
        self._others.append(other)

    def visit(self, centres: list[Place], threads: int = 0) -> Iterator[LocalPoint]:
        """Measure at each centre; yields the points in that order, each when its part is in the maps."""
        before = len(self.points)
        if is_on_gpu(self._average):
            for each in (self, *self._others):
                self._free.put(each)
            try:
                yield from self._visit(centres, self._measure_on_gpus, 1 + len(self._others))
            except MemoryError:
                pass
            else:
                return
            # Only here is what the failed attempt held let go.
            self._leave_gpu()
        yield from self._visit(centres[len(self.points) - before :], self._measure, thread_count(threads))

    def _visit(
        self, centres: list[Place], measure: Callable[[Place], tuple[LocalPoint, Any]], workers: int
    ) -> Iterator[LocalPoint]:
        remaining, pending = iter(centres), deque[Future[tuple[LocalPoint, Any]]]()
        with ThreadPoolExecutor(workers) as pool:
            try:
                # A few ahead of the sum, which is taken in order so that threads do not change it.
                for centre in itertools.islice(remaining, 4 * workers):
                    pending.append(pool.submit(measure, centre))
                while pending:
                    point, filtered = pending.popleft().result()
                    for centre in itertools.islice(remaining, 1):
                        pending.append(pool.submit(measure, centre))
                    self._add(point, filtered)
                    yield point
            finally:
                for future in pending:
                    future.cancel()

    def _measure_on_gpus(self, centre: Place) -> tuple[LocalPoint, Any]:
        """Measure at a place on whichever GPU is free."""
        free = self._free.get()
        try:
            with free._average.device, shortage():
                found = free._measure(centre)
                wait_for_gpu()  # others' streams may read it
                return found
        finally:
            self._free.put(free)

    def _leave_gpu(self) -> None:
        """Go on on the processor."""
        self.left_gpu = True
        self._others, self._free = [], queue.SimpleQueue()
        self._fsc = self._fsc.moved(to_host)
        for name in ("_average", "_mask", "_weight", "_filtered", "_frequency"):
            setattr(self, name, to_host(getattr(self, name)))

    def maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the local resolution in A and the locally filtered map; 0 where no sphere has been."""
        weight, *totals = (to_host(each) for each in (self._weight, self._frequency, self._filtered))
        seen = weight > 0
        frequency, filtered = (
            np.divide(total, weight, out=np.zeros_like(total), where=seen) for total in totals
        )
        return np.divide(1.0, frequency, out=np.zeros_like(frequency), where=seen), filtered

    def smooth_map(self) -> NDArray[np.float32]:
        """Return the local resolution in A as a smooth function of the place, up to all faces of the box.

        The frequencies found at the places of the sphere are blended with cubic B-splines on their
        grid, which makes a twice differentiable function that nowhere exceeds the values around.
        Beyond the outermost places it keeps their values.
        """
        count = -(-self.size // self.sphere.step)
        total, weight = np.zeros((count,) * 3), np.zeros((count,) * 3)
        for point in self.points:
            index = tuple(i // self.sphere.step for i in point.centre)
            total[index], weight[index] = 1.0 / point.resolution, 1.0
        # What has no place gets the mean of its neighbours that have, from the inside outwards.
        while not weight.all():
            around, number = (_neighbours(a) for a in (total * weight, weight))
            new = (weight == 0) & (number > 0)
            total[new], weight[new] = around[new] / number[new], 1.0
        basis = _spline_basis(self.size, self.sphere.step, count).astype(np.float32)
        values = total.astype(np.float32)
        for _ in range(3):  # each turn takes the first axis away and adds a whole one at the end
            values = np.tensordot(values, basis, axes=(0, 1))
        return np.float32(1.0) / values

    def _measure(self, centre: tuple[int, int, int]) -> tuple[LocalPoint, NDArray[np.float32]]:
        shells, every = self._first_try, self.size // 2 + 1
        masked, randomised, corrected = self._fsc.curves(centre, shells)
        while shells < every and not (corrected < fsc.GOLD_STANDARD).any():
            shells = min(shells * 3 // 2, every)
            masked, randomised, corrected = self._fsc.curves(centre, shells)
        found = fsc.resolution(corrected, self.size, self.pixel_size)
        resolution = min(found, self.lowest)
        window, _ = window_of(centre, self.sphere.reach, self.size)
        gain = shell_gain(fsc_weights(corrected), self.size)
        gain = gain * lowpass_gain(radius_table(self.size), self.size, self.pixel_size, resolution)
        filtered = filtered_window(self._average, gain, passed_shells(gain, self.size), window)
        return LocalPoint(centre, resolution, masked, randomised, corrected), filtered

    def _add(self, point: LocalPoint, filtered: NDArray[np.float32]) -> None:
        window, part = window_of(point.centre, self.sphere.reach, self.size)
        there: Any = self._mask
        with there.device if is_on_gpu(there) else nullcontext():
            mask = self._mask[part]
            brought = module_of(mask).asarray(filtered)
            if brought is not filtered:
                wait_for_gpu()  # before the other GPU's memory is let go
            self._weight[window] += mask
            self._filtered[window] += mask * brought
            self._frequency[window] += mask / np.float32(point.resolution)
        self.points.append(point)


def _neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the cube of 27 cells about each cell."""
    result = values
    for axis in range(values.ndim):
        padded = np.pad(result, [(1, 1) if a == axis else (0, 0) for a in range(values.ndim)])
        parts = [np.take(padded, range(i, i + values.shape[axis]), axis) for i in range(3)]
        result = parts[0] + parts[1] + parts[2]
    return result


def _spline_basis(size: int, step: int, count: int) -> NDArray[np.float64]:
    """Cubic B-splines about 0, step, ... at each voxel, shape (size, count); they sum to 1."""
    distance = np.abs(np.arange(size)[:, None] / step - np.arange(count))
    near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
    basis = np.where(distance < 1.0, near, far)
    result: NDArray[np.float64] = basis / basis.sum(axis=1, keepdims=True)
    return result
