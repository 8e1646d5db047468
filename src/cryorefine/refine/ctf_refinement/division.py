"""Divides particles into jackknife blocks and chunks of work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.particle_set import ParticleSet

Index = NDArray[np.int64]

_BLOCKS = 20
_LARGEST_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Chunk:
    """Particles that are worked on together: of one half set, block and view.

    Attributes
    ----------
    number : int
        Position in the list of chunks.
    particles : ndarray of int, shape (n,)
        The particles.
    half : int
        0 or 1.
    block : int
        Block of the jackknife.
    view : int
        View, and with it the optics group.
    """

    number: int
    particles: Index
    half: int
    block: int
    view: int


def divide(particles: ParticleSet, micrograph: Index, seed: int) -> tuple[Chunk, ...]:
    """Divide particles into chunks.

    There are twenty jackknife blocks: of whole micrographs where there are as many, since what their
    particles have in common is then left out together; otherwise of particles dealt out at random.

    Parameters
    ----------
    particles : ParticleSet
        Single particles.
    micrograph : ndarray of int, shape (particles,)
        Micrograph of each.
    seed : int
        Seed of the dealing.

    Returns
    -------
    tuple of Chunk
        Sorted by half and block.
    """
    rng = np.random.default_rng(seed)
    whole = len(np.unique(micrograph)) >= _BLOCKS
    block = _deal(micrograph if whole else np.arange(len(micrograph)), _BLOCKS, rng)
    half = particles.half - 1
    view = particles.image_view
    order = np.lexsort((np.arange(len(particles)), micrograph, view, block, half))
    key = np.stack([half, block, view], axis=1)[order]
    starts = np.flatnonzero(np.any(np.diff(key, axis=0, prepend=key[:1] - 1) != 0, axis=1))
    chunks: list[Chunk] = []
    for first, last in zip(starts, [*starts[1:], len(order)], strict=True):
        parts = -(-(last - first) // _LARGEST_CHUNK)
        for some in np.array_split(order[first:last], parts):
            chunks.append(Chunk(len(chunks), some, *(int(v) for v in key[first])))
    return tuple(chunks)


def _deal(unit: Index, parts: int, rng: np.random.Generator) -> Index:
    """Deal units (particles of equal number) out to parts of about equal size, the largest units first."""
    _, member, size = np.unique(unit, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(size))
    order = shuffled[np.argsort(-size[shuffled], kind="stable")]
    part = np.empty(len(size), np.int64)
    if size.max() == size.min():
        part[order] = np.arange(len(size)) % parts
    else:
        load = np.zeros(parts, np.int64)
        for u in order:
            part[u] = np.argmin(load)
            load[part[u]] += size[u]
    return part[member]
