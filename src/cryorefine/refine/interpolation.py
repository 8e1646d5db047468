"""Compiled loops between slices and a Fourier volume: trilinear interpolation and its transpose.

Both are single-threaded and release the interpreter's lock. A slice touches so much of a volume that the
caches do not hold it: so a few similar slices go through a volume together, a few hundred pixels at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]
U64 = NDArray[np.uint64]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}
# Pixels and slices that go through a volume together: what they touch of it stays near the processor.
TILE, GROUP = 256, 8

# Neighbours along x are consecutive numbers, which one vector can hold. LLVM finds no such vectors by itself
# in what Numba gives it, so what reads and adds them is written as vectors here: a slice takes half the time.
_FLAGS = ("fast",)
_operation: Any = intrinsic
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_TWO, _FOUR = ir.VectorType(_FLOAT, 2), ir.VectorType(_FLOAT, 4)


def _lanes(builder: Any, vector: Any, *lanes: int) -> Any:
    """Return some lanes of a vector as a vector."""
    which = ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, vector, which)


def _repeated(builder: Any, value: Any) -> Any:
    """Return a vector of four times a value."""
    one = builder.insert_element(ir.Constant(_FOUR, ir.Undefined), value, _INT(0))
    return _lanes(builder, one, 0, 0, 0, 0)


def _between(builder: Any, first: Any, second: Any, part: Any) -> Any:
    """Return first + part * (second - first)."""
    step = builder.fmul(part, builder.fsub(second, first, _FLAGS), _FLAGS)
    return builder.fadd(first, step, _FLAGS)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    """Return a pointer to consecutive numbers of a flat array."""
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data  # type: ignore[no-untyped-call]
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@_operation
def _interpolated(typing: Any, volume: Any, index: Any, y: Any, z: Any, fx: Any, fy: Any, fz: Any) -> Any:
    """Interpolate between the eight voxels from an index of a flat volume; (real, imaginary).

    ``y`` and ``z`` are the strides, ``fx``, ``fy``, ``fz`` the parts of a voxel.
    """
    single, whole = types.float32, types.uint64
    pair: Any = types.UniTuple(single, 2)  # type: ignore[no-untyped-call]
    signature = pair(volume, whole, whole, whole, single, single, single)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, y, z, fx, fy, fz = arguments

        def row(at: Any) -> Any:
            return builder.load(_pointer(context, builder, volume, array, at, _FOUR), align=4)

        above = builder.add(index, z)
        part = _repeated(builder, fy)
        low = _between(builder, row(index), row(builder.add(index, y)), part)
        high = _between(builder, row(above), row(builder.add(above, y)), part)
        both = _between(builder, low, high, _repeated(builder, fz))
        value = _between(builder, both, _lanes(builder, both, 2, 3, 2, 3), _repeated(builder, fx))
        parts = [builder.extract_element(value, _INT(lane)) for lane in (0, 1)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, generate


@_operation
def _add_spread(
    typing: Any,
    volume: Any,
    weight: Any,
    index: Any,
    y: Any,
    z: Any,
    fx: Any,
    fy: Any,
    fz: Any,
    re: Any,
    im: Any,
    w: Any,
) -> Any:
    """Add a value and its weight to the eight voxels from an index of a flat volume and its weights.

    ``y`` and ``z`` are the strides, ``fx``, ``fy``, ``fz`` the parts of a voxel.
    """
    single, whole = types.float32, types.uint64
    signature = types.void(volume, weight, whole, whole, whole, *[single] * 6)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, weights, index, y, z, fx, fy, fz, re, im, w = arguments

        def times(one: Any, other: Any) -> Any:
            return builder.fmul(one, other, _FLAGS)

        def corners(one: Any) -> list[Any]:
            """Share out what two neighbours along x get over (z, y): 00, 01, 10, 11."""
            result = []
            upper = times(one, _repeated(builder, fz))
            for half in (builder.fsub(one, upper, _FLAGS), upper):
                further = times(half, _repeated(builder, fy))
                result += [builder.fsub(half, further, _FLAGS), further]
            return result

        def add(kind: Any, array: Any, at: Any, vector: Any, term: Any) -> None:
            pointer = _pointer(context, builder, kind, array, at, vector)
            builder.store(builder.fadd(builder.load(pointer, align=4), term, _FLAGS), pointer, align=4)

        slope, first = (
            ir.Constant(_FOUR, [_FLOAT(v) for v in four]) for four in ((-1, -1, 1, 1), (1, 1, 0, 0))
        )
        shares = builder.fadd(times(_repeated(builder, fx), slope), first, _FLAGS)
        value = ir.Constant(_FOUR, ir.Undefined)
        for lane, part in enumerate((re, im, re, im)):
            value = builder.insert_element(value, part, _INT(lane))
        above = builder.add(index, z)
        places = index, builder.add(index, y), above, builder.add(above, y)
        terms = corners(times(value, shares)), corners(times(_repeated(builder, w), shares))
        for at, term, weight_term in zip(places, *terms, strict=True):
            add(volume, values, builder.add(at, at), _FOUR, term)
            add(weight, weights, at, _TWO, _lanes(builder, weight_term, 0, 2))
        return context.get_dummy_value()

    return signature, generate


# Inlined by force: of a function by itself a process that compiles would run another copy than one that loads
# its callers from the cache, and the two may round differently.
@njit(forceinline=True, **_FAST)
def _locate(
    matrix: F32,
    kx: F32,
    ky: F32,
    kz: F32,
    padding: float,
    limit: np.float32,
    strides: tuple[int, int, int],
    index: U64,
    parts: F32,
) -> None:
    """Find the voxel that each pixel's point lies in, its ``index``, and the ``parts`` of a voxel beyond it.

    The parts are those along x, y and z, and -1 where a point with x < 0 stands for its mate, 1 elsewhere.
    """
    ax = np.float32(matrix[0, 0] * padding)
    ay = np.float32(matrix[0, 1] * padding)
    az = np.float32(matrix[0, 2] * padding)
    bx = np.float32(matrix[1, 0] * padding)
    by = np.float32(matrix[1, 1] * padding)
    bz = np.float32(matrix[1, 2] * padding)
    cx = np.float32(matrix[2, 0] * padding)
    cy = np.float32(matrix[2, 1] * padding)
    cz = np.float32(matrix[2, 2] * padding)
    fx, fy, fz, mate = parts[0], parts[1], parts[2], parts[3]
    stride_x, stride_y, stride_z = strides
    deep = kz.shape[0] > 0
    for p in range(kx.shape[0]):
        x = kx[p] * ax + ky[p] * bx
        y = kx[p] * ay + ky[p] * by
        z = kx[p] * az + ky[p] * bz
        if deep:
            x += kz[p] * cx
            y += kz[p] * cy
            z += kz[p] * cz
        m = np.float32(1) if x >= 0 else np.float32(-1)
        x = x * m
        y = y * m + limit
        z = z * m + limit
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        fx[p] = x - np.float32(ix)
        fy[p] = y - np.float32(iy)
        fz[p] = z - np.float32(iz)
        mate[p] = m
        index[p] = np.uint64(iz * stride_z + iy * stride_y + ix * stride_x)


@njit(**_FAST)
def slice_volume(
    volume: F32, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, out_re: F32, out_im: F32
) -> None:
    """Central slices, or turned copies, of a Fourier volume by trilinear interpolation.

    Every point must lie inside the volume: nothing is checked here.

    Parameters
    ----------
    volume : float32, shape (2L+1, 2L+1, 2 (L+2))
        Fourier volume with x >= 0, real and imaginary parts in turn; the origin is at [L, L, 0].
    matrices : float32, shape (orientations, 3, 3)
        Orientation matrices A; the volume is sampled at padding * A^T (kx, ky, kz).
    kx, ky : float32, shape (pixels,)
        Fourier indices of the image.
    kz : float32, shape (pixels,) or (0,)
        Third index, of a volume's voxels; nothing stands for 0, a slice.
    padding : float
        Volume samples per image sample.
    out_re, out_im : float32, shape (orientations, pixels)
        Slices.
    """
    limit = np.float32(volume.shape[0] // 2)
    flat = volume.reshape(-1)
    y, z = volume.shape[2], volume.shape[2] * volume.shape[1]
    index = np.empty(TILE, np.uint64)
    parts = np.empty((4, TILE), np.float32)
    fx, fy, fz, mate = parts[0], parts[1], parts[2], parts[3]
    for group in range(0, matrices.shape[0], GROUP):
        for first in range(0, kx.shape[0], TILE):
            tile = slice(first, min(first + TILE, kx.shape[0]))
            for o in range(group, min(group + GROUP, matrices.shape[0])):
                points = kx[tile], ky[tile], kz[tile]
                _locate(matrices[o], *points, padding, limit, (2, y, z), index, parts)
                re, im = out_re[o, tile], out_im[o, tile]
                for p in range(re.shape[0]):
                    r, i = _interpolated(flat, index[p], np.uint64(y), np.uint64(z), fx[p], fy[p], fz[p])
                    re[p] = r
                    im[p] = mate[p] * i


@njit(**_FAST)
def insert_slices(
    numerator: C64,
    weight: F32,
    matrices: F32,
    kx: F32,
    ky: F32,
    kz: F32,
    padding: float,
    re: F32,
    im: F32,
    w: F32,
) -> None:
    """Add slices to a Fourier volume and its weights: the transpose of :func:`slice_volume`.

    Every point with a weight must lie inside the volume: nothing is checked here.

    Parameters
    ----------
    numerator, weight : complex64 and float32, shape (2L+1, 2L+1, L+2)
        Accumulators, changed in place.
    matrices : float32, shape (orientations, 3, 3)
        Orientation matrices A.
    kx, ky : float32, shape (pixels,)
        Fourier indices.
    kz : float32, shape (pixels,) or (0,)
        Third index, of a volume's voxels; nothing stands for 0, a slice.
    padding : float
        Volume samples per image sample.
    re, im, w : float32, shape (orientations, pixels)
        Weighted images and their weights.
    """
    limit = np.float32(numerator.shape[0] // 2)
    data = numerator.view(np.float32).reshape(-1)
    total = weight.reshape(-1)
    y, z = numerator.shape[2], numerator.shape[2] * numerator.shape[1]
    index = np.empty(TILE, np.uint64)
    parts = np.empty((4, TILE), np.float32)
    fx, fy, fz, mate = parts[0], parts[1], parts[2], parts[3]
    for group in range(0, matrices.shape[0], GROUP):
        for first in range(0, kx.shape[0], TILE):
            tile = slice(first, min(first + TILE, kx.shape[0]))
            for o in range(group, min(group + GROUP, matrices.shape[0])):
                vr, vi, vw = re[o, tile], im[o, tile], w[o, tile]
                if not vw.any():
                    continue
                points = kx[tile], ky[tile], kz[tile]
                _locate(matrices[o], *points, padding, limit, (1, y, z), index, parts)
                for p in range(vw.shape[0]):
                    if vw[p] != 0:
                        place = index[p], np.uint64(y), np.uint64(z), fx[p], fy[p], fz[p]
                        _add_spread(data, total, *place, vr[p], mate[p] * vi[p], vw[p])
