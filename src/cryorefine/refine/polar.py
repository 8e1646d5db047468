"""Scores of all in-plane angles of a direction at once.

An untilted view sees the orientations of a direction as a single slice turned in its plane: with
S(rho, phi) = sum_m s_m(rho) exp(i m phi) the slice at the angle psi is S(rho, phi + psi), and its product
with an image is a Fourier series in psi. Each of its terms costs one small matrix product, where direct sums
take one over all pixels for every psi.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.refine.chunk_images import ViewData
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.harmonics import Expansion, Pairs
from cryorefine.refine.operations import PROCESSOR, Operations, ProcessorOperations
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Radius of the disc that holds a slice's map, in box edges: what lies farther out wraps around.
SUPPORT = 0.5
# Highest angular harmonic of the weights of a model's power: an astigmatic CTF's square has few.
HIGHEST_OF_POWER = 32
# Columns (particles x shifts) and directions of a block, which should stay in the processor's cache.
COLUMNS, DIRECTIONS = 600, 64
# Bytes of the fixed matrices of an image size, and of the coefficients of all slices, above which direct sums
# do the work.
LARGEST_BASIS, LARGEST_SLICES = 64 * 2**20, 96 * 2**20
_COMPILE: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": True, "error_model": "numpy"}


class PolarGrid:
    """Rings on which slices are sampled, and the expansions of models and of their power.

    Parameters
    ----------
    kx, ky : ndarray of int, shape (pixels,)
        Fourier indices of the images that slices are compared with.
    n_psi : int
        Number of in-plane angles.
    """

    def __init__(self, kx: I64, ky: I64, n_psi: int) -> None:
        self.n_psi = n_psi
        self.pairs = Pairs(kx, ky)
        top = float(self.pairs.radii[-1])
        # The power's transform reaches twice as far as the map, so that its samples must be twice as dense.
        counts = int(3 * SUPPORT * top) + 8, int(4.8 * SUPPORT * top) + 8
        rings, finer = (np.linspace(top / count, top, count) for count in counts)
        highest = int(2 * np.pi * SUPPORT * top) + 16
        angles = highest + 4
        self.rings, self.finer, self.angles = len(rings), len(finer), angles
        self.model = Expansion(self.pairs, n_psi, SUPPORT, rings, finer, range(highest))
        even = range(0, min(highest, HIGHEST_OF_POWER + 1), 2)
        self.power = Expansion(self.pairs, n_psi, 2 * SUPPORT, finer, finer, even)
        phi = np.pi / angles * np.arange(angles)
        self.kx, self.ky = (
            np.outer(rings, part).astype(np.float32).ravel() for part in (np.cos(phi), np.sin(phi))
        )
        # From half a turn to harmonics, by parity, and back: even ones are in the real parts of slices.
        self._to, self._from = [], []
        for parity in range(2):
            orders = np.arange(parity, highest, 2)[:, None]
            cos, sin = np.cos(orders * phi), np.sin(orders * phi)
            both = np.stack([cos, -sin] if parity == 0 else [sin, cos])
            self._to.append((both / angles).astype(np.float32).reshape(-1, angles))
            self._from.append((both * np.where(orders > 0, 2, 1)).astype(np.float32).reshape(-1, angles))

    def slices(self, volume: C64, rotation: F64, grid: SamplingGrid, padding: float) -> PolarSlices:
        """Expand the slices of all directions at the first in-plane angle.

        Parameters
        ----------
        volume : ndarray
            Fourier volume.
        rotation : ndarray, shape (3, 3)
            What multiplies an orientation to give the view's slice.
        grid : SamplingGrid
            Orientations.
        padding : float
            Padding factor.
        """
        directions = grid.n_directions
        model, power = self.model.slice_room(directions), self.power.slice_room(directions)
        for start in range(0, directions, DIRECTIONS):
            some = np.arange(start, min(start + DIRECTIONS, directions))
            block = slice(start, start + len(some))
            matrices = (rotation @ grid.coarse_matrices(some * self.n_psi)).astype(np.float32)
            parts = [np.empty((len(some), len(self.kx)), np.float32) for _ in range(2)]
            PROCESSOR.slice_volume(
                volume, matrices, self.kx, self.ky, np.zeros(0, np.float32), padding, *parts
            )
            # The power is that of the expanded models, free of what interpolation adds outside the disc.
            within = self._expand(self.model, [part.reshape(-1, self.angles) for part in parts], model, block)
            re, im = (part.T @ back for part, back in zip(within, self._from, strict=True))
            self._expand(self.power, [re**2 + im**2], power, block)
        return PolarSlices(self, model, power)

    def _expand(self, expansion: Expansion, parts: list[F32], into: list[F32], block: slice) -> list[F32]:
        """Write coefficients of functions sampled on rings, and return what they make of these.

        Parameters
        ----------
        expansion : Expansion
            Of models or of their power.
        parts : list of ndarray, shape (directions * rings, angles)
            Real parts, and imaginary parts if there are any.
        into : list of ndarray
            Coefficients.
        block : slice
            Which directions they are of.

        Returns
        -------
        list of ndarray, shape (2 harmonics, directions * finer rings)
            Real parts of the harmonics of each parity above imaginary parts.
        """
        directions = block.stop - block.start
        harmonics = [to @ part.T for to, part in zip(self._to, parts, strict=False)]
        result = [np.zeros((len(each), directions * self.finer), np.float32) for each in harmonics]
        for term in expansion.terms:
            parity, row = term.order % 2, term.order // 2
            rows = row, row + len(harmonics[parity]) // 2
            re, im = (harmonics[parity][k].reshape(directions, -1) @ term.analysis for k in rows)
            for k, part in zip(rows, (re, im), strict=True):
                result[parity][k] = (part @ term.values.T).ravel()
            if term.flipped:
                np.negative(im, out=im)
            own, size = into[term.group][:, block], expansion.sizes[term.group]
            first, second = term.own, slice(size + term.own.start, size + term.own.stop)
            own[0, :, first] = own[1, :, second] = re
            own[0, :, second] = im
            own[1, :, first] = -im
        return result


@dataclass(frozen=True, eq=False)
class PolarSlices:
    """Expanded slices of all directions.

    Attributes
    ----------
    polar : PolarGrid
        What they are expanded in.
    model, power : list of ndarray
        Coefficients of the slices and of their power, see :meth:`.Expansion.slice_room`.
    """

    polar: PolarGrid
    model: list[F32]
    power: list[F32]

    def add_scores(
        self, images: tuple[F32, F32], weights: F32, phases: C64, into: I64, scores: F32, norms: F32
    ) -> None:
        """Add products of all orientations' slices with shifted images, and the power of the models.

        Parameters
        ----------
        images : tuple of ndarray, shape (images, pixels)
            Real and imaginary parts of the weighted images.
        weights : ndarray, shape (images, pixels)
            Weights of the models' power.
        phases : ndarray, shape (shifts, pixels)
            Of the shifts.
        into : ndarray of int, shape (images,)
            Which particles of ``scores`` and ``norms`` the images belong to.
        scores, norms : ndarray, shapes (orientations, particles, shifts) and (orientations, particles)
        """
        polar, shifts, directions = self.polar, len(phases), self.model[0].shape[1]
        upper, lower = polar.pairs.of(phases)
        step = min(len(into), -(-COLUMNS // shifts))
        room = np.empty((2 * polar.n_psi + 2) * min(DIRECTIONS, directions) * step * shifts, np.float32)
        for first in range(0, len(into), step):
            some = slice(first, first + step)
            own = into[some]
            pixels = polar.pairs.of(images[0][some] + 1j * images[1][some])
            added = [np.empty((len(own) * shifts, len(polar.pairs.angle)), np.float32) for _ in range(4)]
            _shifted_pairs(*pixels, upper, lower, *added)
            of_images = polar.model.image_coefficients(added[:2], added[2:])
            above, below = polar.pairs.of(weights[some])
            of_weights = polar.power.image_coefficients([above + below], [above - below])
            for start in range(0, directions, DIRECTIONS):
                block = slice(start, min(start + DIRECTIONS, directions))
                here = slice(start * polar.n_psi, block.stop * polar.n_psi)
                _unfold(*polar.model.products(self.model, of_images, block, room), own, scores[here])
                _unfold(*polar.power.products(self.power, of_weights, block, room), own, norms[here, :, None])


def polar_slices(
    views: list[ViewData],
    planes: list[HalfPlane],
    volume: C64,
    grid: SamplingGrid,
    padding: float,
    operations: Operations,
) -> list[PolarSlices | None]:
    """Expand the slices that each view compares with, None where direct sums are needed or cheaper.

    That depends on the views and grids alone. Views that see the same slices share them.

    Parameters
    ----------
    views, planes : list
        Views, and the pixels of each that take part.
    volume : ndarray
        Fourier volume.
    grid : SamplingGrid
        Orientations.
    padding : float
        Padding factor.
    operations : Operations
        Where the work is done.
    """
    known: dict[tuple[PolarGrid, float], PolarSlices] = {}
    result: list[PolarSlices | None] = []
    for data, plane in zip(views, planes, strict=True):
        if not (isinstance(operations, ProcessorOperations) and _suits(data, plane, grid)):
            result.append(None)
            continue
        polar = _polar_grid(*(axis.astype(np.int64).tobytes() for axis in (plane.kx, plane.ky)), grid.n_psi)
        key = polar, float(data.rotation[0, 0])
        if key not in known:
            known[key] = polar.slices(volume, data.rotation, grid, padding)
        result.append(known[key])
    return result


def _suits(data: ViewData, plane: HalfPlane, grid: SamplingGrid) -> bool:
    """Tell whether in-plane angles turn a view's slices in their plane, and an expansion pays."""
    return (
        plane.dimensions == 2
        and np.allclose(data.rotation, data.rotation[0, 0] * np.eye(3), rtol=0, atol=1e-9)
        and 2 * plane.pixels <= grid.n_orientations
        and 4 * plane.pixels**2 <= LARGEST_BASIS
        and 16 * plane.pixels * grid.n_directions <= LARGEST_SLICES
    )


@lru_cache(maxsize=4)
def _polar_grid(kx: bytes, ky: bytes, n_psi: int) -> PolarGrid:
    """Make a polar grid from the bytes of its Fourier indices, once per process for the last few."""
    return PolarGrid(np.frombuffer(kx, np.int64), np.frombuffer(ky, np.int64), n_psi)


@njit(**_COMPILE)
def _shifted_pairs(
    image: C64,
    mirrored: C64,
    phase: C64,
    mirrored_phase: C64,
    re_sum: F32,
    im_sum: F32,
    re_difference: F32,
    im_difference: F32,
) -> None:
    """Shift images (images, pairs), then add and subtract pixels of pairs, shape (images * shifts, pairs)."""
    shifts = phase.shape[0]
    for n in range(image.shape[0]):
        a, b = image[n], mirrored[n]
        for t in range(shifts):
            row = n * shifts + t
            u, v = phase[t], mirrored_phase[t]
            for p in range(a.shape[0]):
                a_re = a[p].real * u[p].real - a[p].imag * u[p].imag
                a_im = a[p].real * u[p].imag + a[p].imag * u[p].real
                b_re = b[p].real * v[p].real - b[p].imag * v[p].imag
                b_im = b[p].real * v[p].imag + b[p].imag * v[p].real
                re_sum[row, p] = a_re + b_re
                im_sum[row, p] = a_im + b_im
                re_difference[row, p] = a_re - b_re
                im_difference[row, p] = a_im - b_im


@njit(**_COMPILE)
def _unfold(even: F32, odd: F32, into: I64, scores: F32) -> None:
    """Add even and odd terms (n_psi / 2, directions, images * shifts) to scores of both halves of a turn."""
    half, directions = even.shape[0], even.shape[1]
    shifts = scores.shape[2]
    for d in range(directions):
        for k in range(half):
            o = 2 * half * d + k
            for n in range(into.shape[0]):
                first, second = scores[o, into[n]], scores[o + half, into[n]]
                own_even, own_odd = even[k, d, n * shifts :], odd[k, d, n * shifts :]
                for t in range(shifts):
                    first[t] += own_even[t] + own_odd[t]
                    second[t] += own_even[t] - own_odd[t]
