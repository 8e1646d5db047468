"""Sums whose brackets do not depend on who computed the terms, or when.

Rounding makes a + b + c depend on the order, so bits stay the same only where the order does. Groups of
chunks are folded one after the other into blocks of ``FAN_IN``, the blocks likewise, and so on. That keeps
one running total a level, and lets workers add what lies next to each other in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, Self, TypeVar

FAN_IN = 8


class Sum(Protocol):
    """What can be summed: adds another one to itself."""

    def add(self, other: Self) -> None:
        """Add in place."""

    def copy(self) -> Self:
        """Return one that shares nothing with this."""


SumT = TypeVar("SumT")
ItemT = TypeVar("ItemT")


class Chain(Generic[SumT]):
    """Total of terms that come in order: ((a + b) + c) + ...

    Parameters
    ----------
    plus : callable
        Returns the sum of a total and a term; may change the total in place.
    """

    def __init__(self, plus: Callable[[SumT, SumT], SumT]) -> None:
        self.plus = plus
        self.count = 0
        self.total: SumT | None = None

    def push(self, term: SumT) -> None:
        """Add the next term."""
        self.total = term if self.total is None else self.plus(self.total, term)
        self.count += 1


class Fold(Generic[SumT]):
    """Total of blocks that come in order, in chains of at most ``FAN_IN``, and chains of those.

    Parameters
    ----------
    plus : callable
        As for :class:`Chain`.
    """

    def __init__(self, plus: Callable[[SumT, SumT], SumT]) -> None:
        self.plus = plus
        self.levels: list[Chain[SumT]] = []

    def push(self, term: SumT) -> None:
        """Add the next block."""
        for k, level in enumerate(self.levels):
            level.push(term)
            if level.count < FAN_IN or level.total is None:
                return
            term, self.levels[k] = level.total, Chain(self.plus)
        self.levels.append(Chain(self.plus))
        self.levels[-1].push(term)

    def total(self) -> SumT | None:
        """Sum of all blocks; None without any. Nothing can be pushed afterwards."""
        total: SumT | None = None
        for level in self.levels:
            if total is not None:
                level.push(total)
            total = level.total if level.total is not None else total
        return total


def blocks(groups: Sequence[ItemT]) -> list[Sequence[ItemT]]:
    """Cut groups into runs of ``FAN_IN``, the last one shorter."""
    return [groups[k : k + FAN_IN] for k in range(0, len(groups), FAN_IN)]
