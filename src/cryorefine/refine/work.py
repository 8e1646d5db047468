"""One unit of work: read a chunk's images and reference, and compare them. Runs anywhere.

Whoever runs it keeps the last references' Fourier volumes, so that a worker transforms each only once
in an iteration.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from cryorefine.io.images import ImageReader
from cryorefine.refine.expectation import ChunkResult, expectation
from cryorefine.refine.parameters import ExpectationParameters
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.volume import C64, fourier_volume

_KEPT = 2
_volumes: OrderedDict[tuple[str, int, int, float], C64] = OrderedDict()
_lock = threading.Lock()


def reference_volume(parameters: ExpectationParameters) -> C64:
    """Fourier volume of the parameters' reference, made once per process and iteration."""
    path = parameters.reference
    # The file's time tells a repeated iteration's reference from that of the run before.
    key = (str(path), path.stat().st_mtime_ns, parameters.current_size, parameters.padding)
    with _lock:
        if key not in _volumes:
            while len(_volumes) >= _KEPT:
                _volumes.popitem(last=False)
            density = np.load(path)
            _volumes[key] = fourier_volume(density, parameters.current_size, parameters.padding)
        return _volumes[key]


def run_chunk(chunk: ParticleSet, reader: ImageReader, parameters: ExpectationParameters) -> ChunkResult:
    """Compare a chunk of particles with the reference that the parameters name."""
    images = read_images(chunk, reader)
    return expectation(chunk, images, reference_volume(parameters), parameters)


def read_images(chunk: ParticleSet, reader: ImageReader) -> list[np.ndarray]:
    """Images of a chunk in its order; each optics group's are read at once, being of one size."""
    result: list[np.ndarray] = [np.empty(0)] * len(chunk.image_names)
    optics = np.array([v.optics for v in chunk.views])[chunk.image_view]
    for group in np.unique(optics):
        here = np.flatnonzero(optics == group)
        for i, image in zip(here, reader.read([str(chunk.image_names[k]) for k in here]), strict=True):
            result[i] = image
    return result
