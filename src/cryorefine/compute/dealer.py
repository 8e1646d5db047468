"""Who does which group of a reduction: neighbours to one worker, and nobody idle while there is work."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


class Dealer:
    """Deals the groups of blocks to workers, each block in order.

    A worker goes on with the blocks that it began, so that their sums need not travel; then it begins
    another; when all are begun, it helps where most is left.

    Parameters
    ----------
    sizes : sequence of int
        Groups of each block.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.dealt = [0] * len(self.sizes)
        self.begun = 0
        self.owner: dict[int, Hashable] = {}

    def next(self, worker: Hashable) -> tuple[int, int] | None:
        """Return (block, group in it) for a worker to do; None when all are dealt."""
        own = [b for b, name in self.owner.items() if name == worker]
        if own:
            return self._deal(own[0])
        if self.begun < len(self.sizes):
            self.owner[self.begun] = worker
            self.begun += 1
            return self._deal(self.begun - 1)
        left = {b: self.sizes[b] - self.dealt[b] for b in self.owner}
        return self._deal(max(left, key=left.__getitem__)) if left else None

    def forget(self, worker: Hashable) -> None:
        """Leave what a lost worker had begun to the others."""
        for block, name in self.owner.items():
            if name == worker:
                self.owner[block] = None

    def _deal(self, block: int) -> tuple[int, int]:
        group = self.dealt[block]
        self.dealt[block] += 1
        if self.dealt[block] == self.sizes[block]:
            self.owner.pop(block)
        return block, group
