"""One unit of work: read a chunk's images and reference, and compare them. Runs anywhere.

Whoever runs it keeps the last references' Fourier volumes, so that a worker transforms each only once
in an iteration.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.refine.expectation import ParticleResults, expectation
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.sums import HalfSums
from cryorefine.refine.volume import F32, ReferenceVolume

_KEPT = 2
# A component of a subtomogram that fewer images reached holds nothing.
FEWEST_IMAGES = 0.01
_volumes: OrderedDict[tuple[str, int, float], ReferenceVolume] = OrderedDict()
_lock = threading.Lock()


def reference_volume(parameters: ExpectationParameters) -> ReferenceVolume:
    """Fourier volume of the parameters' reference, made once per process, or GPU, and iteration."""
    path = parameters.reference
    key = (str(path), parameters.current_size, parameters.padding)
    with _lock:
        if key not in _volumes:
            while len(_volumes) >= _KEPT:
                _volumes.popitem(last=False)
            _volumes[key] = ReferenceVolume(np.load(path), parameters.current_size, parameters.padding)
        return _volumes[key]


def run_chunk(
    chunk: ParticleSet, reader: ImageReader, parameters: ExpectationParameters
) -> tuple[HalfSums, ParticleResults]:
    """Compare a chunk of particles with the reference that the parameters name."""
    images = read_images(chunk, reader)
    squared = read_squared_ctf(chunk, reader)
    result = expectation(chunk, images, reference_volume(parameters), parameters, squared)
    return HalfSums(result.sums), result.particles


def read_images(chunk: ParticleSet, reader: ImageReader) -> list[F32]:
    """Images of a chunk in its order; each optics group's are read at once, being of one size."""
    if chunk.weight_names is not None:
        return [reader.read_stack(str(name)) for name in chunk.image_names]
    result: list[F32] = [np.empty(0, np.float32)] * len(chunk.image_names)
    for group in chunk.used_optics:
        here = np.flatnonzero(chunk.image_optics == group)
        for i, image in zip(here, reader.read([str(chunk.image_names[k]) for k in here]), strict=True):
            result[i] = image
    return result


def read_squared_ctf(chunk: ParticleSet, reader: ImageReader) -> list[F32] | None:
    """Sum of the squared CTFs in each component of a chunk's volumes, shape (box, box, box/2 + 1) each.

    A file may hold the number of images that reached each component in a second half; a cubic one has
    its origin at the centre.

    Raises
    ------
    UserError
        When a file has another size than its volume.
    """
    if chunk.weight_names is None:
        return None
    result = []
    for name, image in zip(chunk.weight_names, chunk.image_view, strict=True):
        box = chunk.optics[chunk.views[image].optics].box
        values = reader.read_stack(str(name))
        half = box // 2 + 1
        if values.shape == (box, box, box):
            squared = np.fft.ifftshift(values)[:, :, :half]
        elif values.shape in ((box, box, half), (2 * box, box, half)):
            squared = values[:box]
            if len(values) == 2 * box:
                squared = np.where(values[box:] > FEWEST_IMAGES, squared, 0)
        else:
            size = " x ".join(str(n) for n in values.shape[::-1])
            raise UserError(
                f"{name} is {size} voxels, which does not fit a subtomogram of {box}; extract the particles "
                "again."
            )
        result.append(np.ascontiguousarray(np.maximum(squared, 0), np.float32))
    return result
