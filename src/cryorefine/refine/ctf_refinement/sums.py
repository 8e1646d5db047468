"""Fourier sums of slices, and what symmetry brings to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.refine.ctf_refinement.frame import Frame
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.volume import C64, F32

F64 = NDArray[np.float64]

_FAST: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@dataclass(frozen=True, eq=False)
class Sums:
    """Fourier sums of images and of their weights.

    Attributes
    ----------
    parts : ndarray of float32, shape (2L+1, 2L+1, L+2, 3)
        Real and imaginary part of the numerator, and weight: what one slice point changes lies
        together in memory, which halves the time of insertion.
    """

    parts: F32

    @classmethod
    def empty(cls, frame: Frame) -> Sums:
        """Return sums of nothing."""
        edge = 2 * frame.limit + 1
        return cls(np.zeros((edge, edge, frame.limit + 2, 3), np.float32))

    def insert(self, matrices: F64, plane: HalfPlane, padding: float, data: C64, weight: F32) -> None:
        """Add slices, shape (n, pixels), with orientation matrices (n, 3, 3)."""
        turned = matrices.astype(np.float32)
        index, room = np.empty(plane.pixels, np.uint64), np.empty((4, plane.pixels), np.float32)
        _insert(
            self.parts.reshape(-1),
            self.parts.shape[:3],
            turned,
            plane.kx,
            plane.ky,
            padding,
            data,
            weight,
            index,
            room,
        )

    def add(self, other: Sums) -> None:
        """Add the sums of other slices."""
        self.parts.__iadd__(other.parts)

    def complete(self) -> None:
        """Give Friedel mates the sums of both, in place, once all slices are in."""
        _enforce_friedel(self.parts)


def split_operators(operators: F64) -> tuple[F64, NDArray[np.int64]]:
    """Split a point group into operators to insert slices with, and turns of the finished grid.

    Operators that swap or reverse axes map the grid onto itself: they can be applied to the sums, exactly,
    instead of to every slice. All of D2 are such, and two of every C2.

    Parameters
    ----------
    operators : ndarray, shape (n, 3, 3)
        The group, the identity first.

    Returns
    -------
    inserted : ndarray, shape (n / m, 3, 3)
        One operator of each coset.
    turns : ndarray of int, shape (m, 3, 3)
        The subgroup of operators that map the grid onto itself, the identity first.
    """
    whole = np.abs(operators - np.rint(operators)).max(axis=(1, 2)) < 1e-6
    turns = np.rint(operators[whole]).astype(np.int64)
    chosen: list[F64] = []
    for operator in operators:
        known = any(np.abs(one @ turn - operator).max() < 1e-6 for one in chosen for turn in turns)
        if not known:
            chosen.append(operator)
    return np.stack(chosen), turns


@njit(fastmath=True, **_FAST)
def _insert(
    flat: F32,
    shape: tuple[int, int, int],
    matrices: F32,
    kx: F32,
    ky: F32,
    padding: float,
    data: C64,
    weight: F32,
    index: NDArray[np.uint64],
    room: F32,
) -> None:
    """Add slices by trilinear interpolation; every point must lie inside."""
    limit = np.float32(shape[0] // 2)
    stride_y = np.int32(3 * shape[2])
    stride_z = np.int32(3 * shape[2] * shape[1])
    pixels = kx.shape[0]
    part_x, part_y, part_z, mate = room[0], room[1], room[2], room[3]
    one = np.float32(1)
    for o in range(matrices.shape[0]):
        ax, ay = np.float32(matrices[o, 0, 0] * padding), np.float32(matrices[o, 0, 1] * padding)
        az, bx = np.float32(matrices[o, 0, 2] * padding), np.float32(matrices[o, 1, 0] * padding)
        by, bz = np.float32(matrices[o, 1, 1] * padding), np.float32(matrices[o, 1, 2] * padding)
        # Where the points lie, vectorised over pixels; points with x < 0 are added at their mates.
        for p in range(pixels):
            x = kx[p] * ax + ky[p] * bx
            y = kx[p] * ay + ky[p] * by
            z = kx[p] * az + ky[p] * bz
            m = one if x >= 0 else -one
            x, y, z = x * m, y * m + limit, z * m + limit
            ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
            part_x[p], part_y[p], part_z[p] = x - np.float32(ix), y - np.float32(iy), z - np.float32(iz)
            mate[p] = m
            index[p] = np.uint64(iz * stride_z + iy * stride_y + 3 * ix)
        for p in range(pixels):
            w = weight[o, p]
            re, im = data[o, p].real, data[o, p].imag * mate[p]
            fx, fy, fz = part_x[p], part_y[p], part_z[p]
            gx, gy, gz = one - fx, one - fy, one - fz
            re_0, im_0, w_0 = re * gx, im * gx, w * gx
            re_1, im_1, w_1 = re * fx, im * fx, w * fx
            for corner in range(4):
                c = (fz if corner >= 2 else gz) * (fy if corner % 2 else gy)
                step = (stride_z if corner >= 2 else 0) + (stride_y if corner % 2 else 0)
                i = index[p] + np.uint64(step)
                flat[i] += c * re_0
                flat[i + np.uint64(1)] += c * im_0
                flat[i + np.uint64(2)] += c * w_0
                flat[i + np.uint64(3)] += c * re_1
                flat[i + np.uint64(4)] += c * im_1
                flat[i + np.uint64(5)] += c * w_1


@njit(**_FAST)
def _enforce_friedel(parts: F32) -> None:
    """Give both Friedel mates in the plane x = 0 the sum of what was inserted at either, in place."""
    limit = parts.shape[0] // 2
    n = 2 * limit
    for z in range(limit, n + 1):
        for y in range(n + 1):
            if z == limit and y < limit:
                continue
            here, there = parts[z, y, 0], parts[n - z, n - y, 0]
            if z == limit and y == limit:
                here[0], here[1], here[2] = 2 * here[0], 0, 2 * here[2]
                continue
            here[0] += there[0]
            here[1] -= there[1]
            here[2] += there[2]
            there[0], there[1], there[2] = here[0], -here[1], here[2]
