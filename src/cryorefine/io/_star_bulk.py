"""Large STAR tables, many rows at a time, in compiled loops; what is not plain is left to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.io._star_kernels import (
    FLOATS,
    INTEGERS,
    WORDS,
    find_words,
    join_words,
    plain_words,
    read_numbers,
    write_rows,
)
from cryorefine.io._star_lines import Lines
from cryorefine.io._star_words import is_text_label, numbers

_ROWS = 50_000
_WIDTH = 10  # of a column of words, at least
I64 = NDArray[np.int64]


class BulkReader:
    """Reads rows of one table.

    Parameters
    ----------
    width : int
        Number of columns.
    text_columns : set of int
        Those that hold words whatever they look like.
    """

    def __init__(self, width: int, text_columns: set[int]) -> None:
        self._text_columns = text_columns
        # By columns, because columns are what is read next.
        self._starts = np.empty((width, _ROWS), np.int64).T
        self._ends = np.empty((width, _ROWS), np.int64).T
        self._pools: list[dict[str, str]] = [{} for _ in range(width)]

    def read(self, lines: Lines) -> list[NDArray[Any] | list[str]] | None:
        """Read the next rows, which are passed, as far as they are plain; None if there is no such row."""
        text = np.frombuffer(lines.block, np.uint8)
        rows, at = find_words(text, lines.at, self._starts, self._ends)
        if not rows:
            return None
        lines.skip(at, rows)
        columns: list[NDArray[Any] | list[str]] = []
        for i in range(self._starts.shape[1]):
            starts, ends = self._starts[:rows, i], self._ends[:rows, i]
            if i in self._text_columns:
                columns.append(self._words(i, text, starts, ends))
            else:
                values = _numbers(text, starts, ends)
                columns.append(self._words(i, text, starts, ends) if values is None else values)
        return columns

    def _words(self, column: int, text: NDArray[np.uint8], starts: I64, ends: I64) -> list[str]:
        """Return words; those that come again and again, as names of micrographs do, are kept once."""
        words = _split(join_words(text, starts, ends))
        pool = self._pools[column]
        if len(pool) > _ROWS:
            return words
        return [pool.setdefault(word, word) for word in words]


def _numbers(text: NDArray[np.uint8], starts: I64, ends: I64) -> NDArray[Any] | None:
    """Return what :func:`.numbers` makes of the words, or None where it leaves them as they are."""
    rows = len(starts)
    integers, floats, unsure = np.empty(rows, np.int64), np.empty(rows), np.empty(rows, np.int64)
    kind, count = read_numbers(text, starts, ends, integers, floats, unsure)
    if count == 0:
        return None if kind == WORDS else integers if kind == INTEGERS else floats
    if kind != FLOATS:
        values = numbers(_split(join_words(text, starts, ends)))
        return values if isinstance(values, np.ndarray) else None
    some = unsure[:count]
    words = _split(join_words(text, starts[some], ends[some]))
    try:
        floats[some] = [float(word) for word in words]
    except ValueError:
        return None
    return None if any("_" in word for word in words) else floats


def _split(joined: NDArray[np.uint8]) -> list[str]:
    return joined.tobytes().decode("ascii").split("\n")


def bulk_rows(
    columns: Sequence[tuple[str, NDArray[Any], int]], to_word: Callable[[str, Any], str]
) -> Iterator[bytes]:
    """Yield the rows of a table as text, as :mod:`._star_write` would write them one by one.

    Parameters
    ----------
    columns : sequence of (str, numpy.ndarray, int)
        Label, values and format of each column: INTEGERS; FLOATS, of six decimals; or WORDS.
    to_word : callable
        Makes a word of a label's value, where it is not a number that is written here.
    """
    widths = np.array([_WIDTH if kind == WORDS else 12 for _, _, kind in columns])
    sources = np.zeros((len(columns), 2), np.int64)
    for kind in (INTEGERS, FLOATS, WORDS):
        members = [i for i, column in enumerate(columns) if column[2] == kind]
        sources[members] = [(kind, number) for number in range(len(members))] or np.zeros((0, 2))
    for first in range(0, len(columns[0][1]), _ROWS):
        part = [(label, values[first : first + _ROWS], kind) for label, values, kind in columns]
        rows = len(part[0][1])
        integers = [values.astype(np.int64) for _, values, kind in part if kind == INTEGERS]
        floats = [values.astype(np.float64) for _, values, kind in part if kind == FLOATS]
        texts = [_joined(label, values, to_word) for label, values, kind in part if kind == WORDS]
        starts, ends = np.zeros((2, len(texts), rows), np.int64)
        places = np.cumsum([0, *(len(text) for text, _, _ in texts)])
        for i, (_, begin, end) in enumerate(texts):
            starts[i], ends[i] = begin + places[i], end + places[i]
        words = np.concatenate([np.zeros(0, np.uint8), *(text for text, _, _ in texts)])
        made = write_rows(
            sources,
            np.array(integers).reshape(-1, rows),
            np.array(floats).reshape(-1, rows),
            words,
            starts,
            ends,
            widths,
        )
        yield made.tobytes()


def _joined(
    label: str, values: NDArray[Any], to_word: Callable[[str, Any], str]
) -> tuple[NDArray[np.uint8], I64, I64]:
    """Return the words of a column, one behind another, and where they begin and end."""
    starts, ends = np.empty((2, len(values)), np.int64)
    given = values.tolist()
    try:
        joined = np.frombuffer(("\n".join(given) + "\n").encode(), np.uint8)
    except (TypeError, UnicodeEncodeError):
        pass
    else:
        if is_text_label(label) and plain_words(joined, starts, ends) == len(values):
            return joined, starts, ends
    # Padded as characters, of which some are more than one byte.
    words = [to_word(label, value).rjust(_WIDTH).encode() for value in given]
    ends = np.cumsum([len(word) for word in words])
    return np.frombuffer(b"".join(words), np.uint8), np.concatenate([[0], ends[:-1]]), ends
