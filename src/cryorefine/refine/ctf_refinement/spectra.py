"""Transforms of whole particle images about their particles, kept in memory where they fit."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryorefine.compute.array_module import to_host
from cryorefine.io.images import ImageReader
from cryorefine.maps import fft
from cryorefine.refine.ctf_refinement.division import Chunk
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.particle_set import ParticleSet

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}


class Memory:
    """Arrays of chunks that are kept as long as a number of bytes lasts; the others are made again.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: dict[int, C64] = {}
        self._lock = threading.Lock()

    def get(self, number: int) -> C64 | None:
        """Return the array of a chunk, or None."""
        return self._kept.get(number)

    def keep(self, number: int, array: C64) -> None:
        """Keep the array of a chunk if there is room."""
        with self._lock:
            if array.nbytes <= self.limit and number not in self._kept:
                self.limit -= array.nbytes
                self._kept[number] = array

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.limit += sum(array.nbytes for array in self._kept.values())
            self._kept.clear()


class Spectra:
    """Transforms of the images of chunks, on the pixels that are compared.

    The images are taken as they are, without a circular mask: the CTF spreads a particle's signal over
    more than its own disc, and a masked reference correlates with nothing outside anyway.

    Parameters
    ----------
    particles : ParticleSet
        Single particles.
    planes : dict
        Pixels of each view.
    memory : Memory
        Where transforms are kept.
    """

    def __init__(self, particles: ParticleSet, planes: dict[int, HalfPlane], memory: Memory) -> None:
        self._particles = particles
        self._planes = planes
        self._memory = memory
        self._reader = ImageReader(particles.root)

    def __call__(self, chunk: Chunk, xp: Any = np) -> C64:
        """Return the transforms, shape (n, pixels), on the scale of FFT / box^2.

        They are made by NumPy, or by CuPy on its current GPU, and returned on the processor.
        """
        kept = self._memory.get(chunk.number)
        if kept is not None:
            return kept
        particles, plane = self._particles, self._planes[chunk.view]
        view = particles.views[chunk.view]
        images = self._reader.read([str(name) for name in particles.image_names[chunk.particles]])
        transform = fft.real_forward(xp.asarray(images), (1, 2)).reshape(len(images), -1)
        offsets = particles.offsets[chunk.particles] @ view.projection.T
        shifts = offsets / particles.optics[view.optics].pixel_size
        kx, ky = plane.kx.astype(np.int32), plane.ky.astype(np.int32)
        if xp is np:
            result = np.empty((len(images), plane.pixels), np.complex64)
            room = np.empty((2, 2 * (plane.box // 2) + 1), np.complex64)
            _gather(transform, plane.source, kx, ky, plane.box, shifts, room, result)
        else:
            result = _gathered(xp, transform, plane, kx, ky, shifts)
        self._memory.keep(chunk.number, result)
        return result


class Part:
    """Some of the pixels of transforms.

    Parameters
    ----------
    whole : Spectra
        The transforms.
    inside : dict
        Which pixels of each view, as a mask.
    """

    def __init__(self, whole: Spectra | Part, inside: dict[int, NDArray[np.bool_]]) -> None:
        self._whole = whole
        self._inside = inside

    def __call__(self, chunk: Chunk, xp: Any = np) -> C64:
        """Return the transforms, shape (n, pixels), as :class:`Spectra` does."""
        return self._whole(chunk, xp)[:, self._inside[chunk.view]]


def _gathered(
    xp: Any,
    transform: Any,
    plane: HalfPlane,
    kx: NDArray[np.int32],
    ky: NDArray[np.int32],
    shifts: NDArray[np.float64],
) -> C64:
    """Do as :func:`_gather` on a GPU; returned on the processor."""
    half = plane.box // 2
    along = []
    for axis, first in ((0, 0), (1, -half)):
        angle = -2 * np.pi * np.arange(first, half + 1) * (shifts[:, axis, None] / plane.box - 0.5)
        along.append(xp.asarray(np.exp(1j * angle).astype(np.complex64)))
    picked = transform[:, xp.asarray(plane.source)]
    picked *= along[0][:, xp.asarray(kx)]
    picked *= along[1][:, xp.asarray(ky + half)]
    result: C64 = to_host(picked)
    return result


@njit(**_FAST)
def _gather(
    transform: C64,
    source: NDArray[np.intp],
    kx: NDArray[np.int32],
    ky: NDArray[np.int32],
    box: int,
    shifts: NDArray[np.float64],
    room: C64,
    out: C64,
) -> None:
    """Pick pixels, move contents by shifts (n, 2) in pixels and the origin to the centre of the image."""
    half = box // 2
    along_x, along_y = room[0], room[1]
    # Moving the origin to box/2 multiplies by exp(2 pi i k / 2).
    for i in range(transform.shape[0]):
        for k in range(half + 1):
            angle = -2 * np.pi * k * (shifts[i, 0] / box - 0.5)
            along_x[k] = np.complex64(complex(np.cos(angle), np.sin(angle)))
        for k in range(-half, half + 1):
            angle = -2 * np.pi * k * (shifts[i, 1] / box - 0.5)
            along_y[k + half] = np.complex64(complex(np.cos(angle), np.sin(angle)))
        for p in range(len(source)):
            out[i, p] = transform[i, source[p]] * (along_x[kx[p]] * along_y[ky[p] + half])
