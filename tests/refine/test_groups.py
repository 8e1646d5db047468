"""Chunks are put into tasks of a cluster by their number alone."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.refine.engine import LARGEST_CHUNK, LARGEST_GROUP, grouped


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
