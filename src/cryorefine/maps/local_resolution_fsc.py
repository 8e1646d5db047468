"""FSC of two half maps behind a small soft sphere, in the shells of the whole box."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import module_of
from cryorefine.maps import fourier, fsc, masks
from cryorefine.maps.randomise import expected_power
from cryorefine.maps.shells import apply_gain, radius_table, round_half_away
from cryorefine.maps.solvent import HalfMaps
from cryorefine.maps.windows import window_sums


@dataclass(frozen=True)
class Sphere:
    """The soft sphere behind which the FSC is measured, and the distance between its places.

    Attributes
    ----------
    step : int
        Distance between places in voxels.
    radius : int
        Voxels; the sphere is 1 up to it.
    edge : int
        Width in voxels of the raised-cosine edge beyond.
    """

    step: int
    radius: int
    edge: int

    @classmethod
    def of(cls, pixel_size: float, sampling: float, radius: float | None, edge: float | None) -> Sphere:
        """Make one from lengths in A; unless given, the edge is the sampling and the radius half of it."""
        radius = sampling / 2 if radius is None else radius
        edge = sampling if edge is None else edge
        step, inner, width = (int(round_half_away(a / pixel_size)) for a in (sampling, radius, edge))
        return cls(max(step, 1), inner, width)

    @property
    def reach(self) -> int:
        """Distance in voxels from which on the sphere is zero."""
        return self.radius + self.edge

    def mask(self) -> NDArray[np.float32]:
        """Return the sphere in a box of ``2 reach + 1`` voxels."""
        return masks.soft_sphere((2 * self.reach + 1,) * 3, self.radius, self.edge)


def sampling_points(
    size: int, sphere: Sphere, within: NDArray[np.bool_] | None = None
) -> list[tuple[int, int, int]]:
    """Return the places of the sphere: a grid from the first voxel on, inside the sphere in the box.

    Parameters
    ----------
    size : int
        Box in voxels.
    sphere : Sphere
        Its step, and the radius by which its centre keeps away from the sphere inscribed in the box.
    within : numpy.ndarray, optional
        Boolean, shape (z, y, x). Only places where the sphere reaches a true voxel are kept: the
        others say nothing about these voxels.

    Returns
    -------
    list of tuple of int
        Voxels (z, y, x).
    """
    axis = np.arange(0, size, sphere.step)
    squares = (axis - size // 2) ** 2
    inside = squares[:, None, None] + squares[:, None] + squares < (size / 2 - sphere.radius) ** 2
    points = [tuple(int(i) for i in axis[index]) for index in np.argwhere(inside)]
    if within is None:
        return points  # type: ignore[return-value]
    ball = sphere.mask() > 0
    kept = []
    for point in points:
        window, part = window_of(point, sphere.reach, size)
        if (within[window] & ball[part]).any():
            kept.append(point)
    return kept  # type: ignore[return-value]


class LocalFsc:
    """FSC of two half maps behind a sphere, corrected for what the sphere itself correlates.

    The correction takes the FSC of half maps whose phases are random from a shell on (Chen et al.,
    Ultramicroscopy 135, 24-35, 2013). A draw behind a small sphere is so noisy that it moves the
    result, so the average over all draws is used, as in :func:`.solvent.solvent_corrected_fsc`. What
    random phases add to the power is the same wherever the sphere is.

    Parameters
    ----------
    halves : HalfMaps
        The unfiltered half maps.
    sphere : Sphere
        Size of the sphere.
    first_randomised_shell : int
        Where the random phases begin.
    threads : int
        0 for every core.
    """

    def __init__(
        self, halves: HalfMaps, sphere: Sphere, first_randomised_shell: int, threads: int = 0
    ) -> None:
        self.size = halves.size
        self.sphere = sphere
        self.start = first_randomised_shell
        self._halves = halves.maps
        xp = module_of(halves.spectra[0])
        self._mask = xp.asarray(sphere.mask())
        self._mass = _mass(self._mask)
        known = (radius_table(self.size) < first_randomised_shell).astype(np.float64)
        self._low = [
            fourier.inverse(apply_gain(spectrum.copy(), known, threads), self.size, threads, overwrite=True)
            for spectrum in halves.spectra
        ]
        self._random_power = expected_power(self._mask, halves.shell_power, self.start, self.size, threads)

    def moved(self, put: Callable[[Any], Any]) -> Self:
        """Return the same with its arrays brought elsewhere by a function, e.g. from a GPU."""
        result = copy(self)
        result._halves = put(self._halves[0]), put(self._halves[1])
        result._low = [put(volume) for volume in self._low]
        result._mask = put(self._mask)
        return result

    def curves(
        self, centre: tuple[int, int, int], shells: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the masked, randomised and corrected FSC in the first ``shells`` shells about a voxel."""
        window, part = window_of(centre, self.sphere.reach, self.size)
        mask = self._mask[part]
        masked = fsc.fsc_of_sums(self._sums(self._halves, window, mask, shells))
        sums = self._sums(self._low, window, mask, shells)
        # At the rim of the box a piece of the sphere is missing.
        share = _mass(mask) / self._mass
        sums[1:] += share * self._random_power[:, :shells]
        randomised = fsc.fsc_of_sums(sums)
        return masked, randomised, fsc.corrected_fsc(masked, randomised, self.start)

    def _sums(
        self,
        maps: Iterable[NDArray[Any]],
        window: tuple[slice, slice, slice],
        mask: NDArray[Any],
        shells: int,
    ) -> NDArray[np.float64]:
        return window_sums((volume[window] for volume in maps), mask, self.size, shells)


def _mass(mask: Any) -> float:
    """Sum of the squares of a mask."""
    return float(module_of(mask).square(mask, dtype=np.float64).sum())


def window_of(
    centre: tuple[int, ...], reach: int, size: int
) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
    """Return the part of the box about a voxel, and which part of ``2 reach + 1`` voxels lies in it."""
    window, part = [], []
    for c in centre:
        low, high = max(c - reach, 0), min(c + reach + 1, size)
        window.append(slice(low, high))
        part.append(slice(low - c + reach, high - c + reach))
    return (window[0], window[1], window[2]), (part[0], part[1], part[2])
