"""Angular harmonics of functions over the Fourier pixels of an image.

The transform of what lies within a disc has the harmonics s_m(rho) = integral of f_m(x) J_m(2 pi rho x) x dx
over the disc. A few functions of rho span them for each m, the singular functions of that integral (Slepian,
Bell Syst. Tech. J. 43 (1964) 3009). Such steerable bases of images are treated by Zhao, Shkolnisky and
Singer, IEEE Trans. Comput. Imaging 2 (2016) 1. Images are never interpolated here: the transpose of the
expansion is applied to their own pixels, over which the sums still run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Radial functions weaker than the strongest one by this factor are left out.
TOLERANCE = 0.03
# Radii for which Bessel functions are worked out at once.
_RADII = 64


class Pairs:
    """Pixels of a half plane at (kx, ky) and (kx, -ky), whose sums go with cos(m phi), differences with sin.

    Parameters
    ----------
    kx, ky : ndarray of int, shape (pixels,)
        Fourier indices, one of each Friedel pair.

    Attributes
    ----------
    upper, lower : ndarray of int, shape (pairs,)
        Pixels with ky >= 0 and their mirror images; -1 where one has none.
    angle : ndarray, shape (pairs,)
        phi of the upper pixel.
    radii, ring : ndarray, shapes (radii,) and (pairs,)
        All radii in pixels that there are, rising, and which is a pair's.
    """

    def __init__(self, kx: I64, ky: I64) -> None:
        place = {each: i for i, each in enumerate(zip(kx.tolist(), ky.tolist(), strict=True))}
        self.upper = np.flatnonzero(ky >= 0)
        x, y = kx[self.upper], ky[self.upper]
        mirrored = zip(x.tolist(), (-y).tolist(), strict=True)
        self.lower = np.array([place.get(each, -1) if each[1] < 0 else -1 for each in mirrored])
        self.angle = np.arctan2(y, x)
        squared, self.ring = np.unique(x**2 + y**2, return_inverse=True)
        self.radii = np.sqrt(squared)

    def of(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return upper and lower pixels of arrays (n, pixels), the latter 0 where there are none."""
        lower = values[:, self.lower]
        lower[:, self.lower < 0] = 0
        return values[:, self.upper], lower


@dataclass(frozen=True, eq=False)
class Term:
    """One angular harmonic, and the radial functions that belong to it.

    Attributes
    ----------
    order : int
        m.
    group : int
        Which group it is in.
    own : slice
        Its functions among those of the group.
    flipped : bool
        Whether the group holds the complex conjugates of its coefficients.
    analysis : ndarray of float32, shape (rings, functions)
        From values on the rings to coefficients.
    values : ndarray of float32, shape (finer rings, functions)
        The functions.
    """

    order: int
    group: int
    own: slice
    flipped: bool
    analysis: F32
    values: F32


class Expansion:
    """Expansion of Friedel symmetric functions over a half plane's pixels.

    Harmonics that look alike at all in-plane angles of a grid, m = +-q modulo their number, form a group,
    even q first: even harmonics see only the real parts of images and slices, odd ones the imaginary parts.

    Parameters
    ----------
    pairs : Pairs
        Pixels.
    n_psi : int
        Number of in-plane angles.
    support : float
        Radius of the disc that holds the functions' Fourier transforms, in box edges.
    rings, finer : ndarray, shapes (rings,) and (finer rings,)
        Radii in pixels at which functions are sampled to be expanded, and at which the expansion is wanted.
    orders : range
        Harmonics.

    Attributes
    ----------
    terms : list of Term
        Harmonics.
    sizes : list of int
        Number of functions of each group.
    even : int
        Number of groups of even q.
    """

    def __init__(
        self, pairs: Pairs, n_psi: int, support: float, rings: F64, finer: F64, orders: range
    ) -> None:
        found = list(_radial_functions(support, orders, rings, np.concatenate([finer, pairs.radii])))
        folded = [min(m % n_psi, -m % n_psi) for m, *_ in found]
        names = sorted(set(folded), key=lambda q: (q % 2, q))
        self.even = sum(q % 2 == 0 for q in names)
        self.terms: list[Term] = []
        self.sizes = [0] * len(names)
        rows: list[list[tuple[F64, F64]]] = [[] for _ in names]
        for (m, analysis, values), q in zip(found, folded, strict=True):
            group, flipped = names.index(q), m % n_psi != q
            first = self.sizes[group]
            self.sizes[group] = last = first + analysis.shape[1]
            own, at_radii = values[: len(finer)], values[len(finer) :]
            self.terms.append(Term(m, group, slice(first, last), flipped, analysis, own))
            # The mate at -k adds as much: harmonics above 0 count twice, those below 0 are left out.
            radial = (1 if m == 0 else 2) * at_radii[pairs.ring].T
            cos, sin = radial * np.cos(m * pairs.angle), radial * np.sin(m * pairs.angle)
            re, im = (cos, -sin) if m % 2 == 0 else (sin, cos)
            rows[group].append((re, -im if flipped else im))
        # One matrix for each parity, from pairs of pixels to real or imaginary parts of coefficients.
        self._rows = [
            tuple(
                np.concatenate([pair[k] for own in part for pair in own]).astype(np.float32) for k in range(2)
            )
            for part in (rows[: self.even], rows[self.even :])
            if part
        ]
        turn = 2 * np.pi / n_psi * np.arange(n_psi // 2)[:, None] * np.array(names)
        waves = np.stack([np.cos(turn), np.sin(turn)], axis=2).astype(np.float32)
        self._waves = [
            np.ascontiguousarray(part.reshape(n_psi // 2, -1))
            for part in (waves[:, : self.even], waves[:, self.even :])
        ]

    def slice_room(self, directions: int) -> list[F32]:
        """Return room for the coefficients of slices, for each group (2, directions, 2 functions).

        With c = re + i im it holds (re, im) and (-im, re): what makes the real and the imaginary part of the
        product of conj(c) with an image's coefficients.
        """
        return [np.empty((2, directions, 2 * size), np.float32) for size in self.sizes]

    def image_coefficients(self, sums: list[F32], differences: list[F32]) -> list[F32]:
        """Coefficients of images, real above imaginary parts, for each group (2 functions, images).

        Parameters
        ----------
        sums, differences : list of ndarray, shape (images, pairs)
            Real parts of pairs of pixels added and subtracted, and the imaginary parts if there are any.
        """
        result = []
        for odd, (re, im) in enumerate(self._rows):
            first, second = (differences, sums) if odd else (sums, differences)
            parts = re @ first[odd].T, im @ second[odd].T
            start = 0
            for size in self.sizes[self.even :] if odd else self.sizes[: self.even]:
                result.append(np.concatenate([part[start : start + size] for part in parts]))
                start += size
        return result

    def products(
        self, of_slices: list[F32], of_images: list[F32], block: slice, room: F32
    ) -> tuple[F32, F32]:
        """Products of slices and images at the first half of the in-plane angles, by parity of the harmonics.

        Half a turn farther the odd ones have changed their sign.

        Parameters
        ----------
        of_slices, of_images : list of ndarray
            Coefficients.
        block : slice
            Directions.
        room : ndarray
            Memory to use again, flat, 2 n_psi + 2 numbers for each direction and image.

        Returns
        -------
        even, odd : ndarray of float32, shape (n_psi / 2, directions, images)
        """
        count, images = of_slices[0][:, block].shape[1], of_images[0].shape[1]
        half, groups = len(self._waves[0]), len(self.sizes)
        rows = room[: (2 * groups + 2 * half) * count * images].reshape(-1, count * images)
        terms, even, odd = np.split(rows, [2 * groups, 2 * groups + half])
        for k, (left, right) in enumerate(zip(of_slices, of_images, strict=True)):
            np.matmul(left[:, block], right, out=terms[2 * k : 2 * k + 2].reshape(2, count, images))
        np.matmul(self._waves[0], terms[: 2 * self.even], out=even)
        np.matmul(self._waves[1], terms[2 * self.even :], out=odd)
        return even.reshape(half, count, images), odd.reshape(half, count, images)


def _radial_functions(
    support: float, orders: range, rings: F64, radii: F64
) -> Iterator[tuple[int, F32, F32]]:
    """List the radial functions of each harmonic of what lies within a disc, orthonormal on the rings.

    Parameters
    ----------
    support : float
        Radius of the disc in box edges.
    orders : range
        Harmonics, from 0 on.
    rings, radii : ndarray
        Radii in pixels at which functions are known, and at which they are wanted.

    Yields
    ------
    order : int
        Harmonic, if it has any.
    analysis, values : ndarray of float32, shapes (rings, functions) and (radii, functions)
        What turns values on the rings into coefficients; the functions.
    """
    # Gauss-Legendre quadrature over the disc makes the transform of what lies there a matrix.
    nodes, share = np.polynomial.legendre.leggauss(int(np.ceil(np.pi * support * rings[-1])) + 12)
    x = support * (nodes + 1) / 2
    root = np.sqrt(share * x)[:, None]
    strongest = 0.0
    for parity in range(2):
        own = np.array([m for m in orders if m % 2 == parity], np.int64)
        if len(own) == 0:
            continue
        on_rings = _bessel(own, 2 * np.pi * np.outer(rings, x)) * root
        spans = []
        for k in range(len(own)):
            kernel = on_rings[:, :, k]
            squared, vectors = np.linalg.eigh(kernel.T @ (rings[:, None] * kernel))
            strength = np.sqrt(np.maximum(squared, 0))
            strongest = max(strongest, float(strength[-1]))
            keep = strength > TOLERANCE * strongest
            spans.append(vectors[:, keep] / strength[keep])
        blocks = [
            _bessel(own, 2 * np.pi * np.outer(some, x)) * root
            for some in np.array_split(radii, -(-len(radii) // _RADII))
        ]
        for k, (m, span) in enumerate(zip(own.tolist(), spans, strict=True)):
            if span.shape[1]:
                analysis = rings[:, None] * (on_rings[:, :, k] @ span)
                values = np.concatenate([block[:, :, k] @ span for block in blocks])
                yield m, analysis.astype(np.float32), values.astype(np.float32)


def _bessel(orders: I64, argument: F64) -> F64:
    """Bessel functions of the first kind, orders all even or all odd, shape (*argument.shape, orders).

    By Bessel's integral J_m(z) is the mean over a quarter turn of theta of cos(z sin theta) cos(m theta) for
    even m, and of the same with sines for odd m. Midpoints give it exactly once they are closer than the
    integrand oscillates.
    """
    nodes = int((argument.max(initial=0) + orders.max(initial=0)) / 3) + 16
    theta = np.pi / 2 / nodes * (np.arange(nodes) + 0.5)
    wave = np.sin if orders[0] % 2 else np.cos
    result: F64 = wave(np.multiply.outer(argument, np.sin(theta))) @ wave(np.outer(theta, orders)) / nodes
    return result
