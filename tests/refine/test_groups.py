"""Chunks, and tasks of a cluster, depend on the particles and the search alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cryorefine.refine.engine import LARGEST_CHUNK, LARGEST_GROUP, chunk_size, grouped


@pytest.mark.parametrize("particles", [500, 50_000, 500_000, 5_000_000])
def test_every_chunk_is_in_one_group_in_its_order(particles):
    chunks = list(range(-(-particles // LARGEST_CHUNK)))
    groups = grouped(chunks)
    assert [chunk for group in groups for chunk in group] == chunks
    assert max(map(len, groups)) <= LARGEST_GROUP
    # As many tasks as keep a cluster busy, where there are chunks for them.
    assert len(groups) >= min(len(chunks), 128)


def test_large_sets_do_not_make_a_task_of_each_chunk():
    sizes = {len(group) for group in grouped(list(np.arange(40_000)))}
    assert sizes == {LARGEST_GROUP}


class Particles(SimpleNamespace):
    """What a chunk's size depends on."""

    def __len__(self):
        return len(self.image_view)


@pytest.mark.parametrize(
    ("count", "box", "in_global", "in_local"),
    [
        (500, 64, 128, 128),
        (5000, 64, 312, 128),
        (10**6, 64, 512, 128),
        (10**6, 256, 192, 128),
        (1000, 4000, 8, 8),
    ],
)
def test_chunks_of_global_searches_are_larger_where_enough_are_left(count, box, in_global, in_local):
    optics = [SimpleNamespace(box=box, dimensions=2)]
    particles = Particles(views=[SimpleNamespace(optics=0)], image_view=np.zeros(count, int), optics=optics)
    assert chunk_size(particles, "cpu", local=False) == in_global
    assert chunk_size(particles, "cpu", local=True) == in_local
