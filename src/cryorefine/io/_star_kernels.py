"""Compiled loops over the bytes of large STAR tables: words, numbers, and rows of text.

A number of at most 2**53 times or over a power of ten of at most 22 is rounded once when it is
multiplied or divided, so it is the nearest double (Clinger, PLDI 1990, section 3). Whatever is less
simple than that is left to Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_POWERS = np.array([10.0**power for power in range(23)])
_LARGEST = 2**53
_TAB, _NEWLINE, _SPACE, _QUOTE, _HASH, _APOSTROPHE = (ord(c) for c in "\t\n \"#'")
_PLUS, _MINUS, _POINT, _ZERO, _NINE, _UNDERSCORE = (ord(c) for c in "+-.09_")
_SMALL_E, _LARGE_E, _LAST = ord("e"), ord("E"), ord("~")
INTEGERS, FLOATS, WORDS = 0, 1, 2


@njit(nogil=True, cache=True)
def find_words(
    text: NDArray[np.uint8], at: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[int, int]:
    """Find the words of the next lines, as long as every line is plain and fills the table's width.

    Parameters
    ----------
    text : numpy.ndarray of uint8
        Whole lines.
    at : int
        Where the first line begins.
    starts, ends : numpy.ndarray, shape (rows, columns)
        Receive where each word begins and ends.

    Returns
    -------
    rows, at : int
        Rows found, and where the line behind them begins: one with quotes, comments or letters beyond
        ASCII, with another number of words, or no line at all.
    """
    size, (most, width) = len(text), starts.shape
    row = 0
    while row < most and at < size:
        i, column, plain = at, 0, True
        while i < size and text[i] != _NEWLINE:
            c = text[i]
            if c == _SPACE or c == _TAB:
                i += 1
                continue
            if column == width:
                plain = False
                break
            starts[row, column] = i
            while i < size:
                c = text[i]
                if c <= _SPACE:
                    break
                if c == _QUOTE or c == _APOSTROPHE or c == _HASH or c > _LAST:
                    plain = False
                    break
                i += 1
            if not plain or (i < size and c < _SPACE and c != _TAB and c != _NEWLINE):
                plain = False
                break
            ends[row, column] = i
            column += 1
        if not plain or column != width:
            break
        at = min(i + 1, size)
        row += 1
    return row, at


@njit(nogil=True, cache=True, error_model="numpy")
def read_numbers(
    text: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    unsure: NDArray[np.int64],
) -> tuple[int, int]:
    """Read the words of one column as numbers.

    Parameters
    ----------
    text : numpy.ndarray of uint8
        The text that the words stand in.
    starts, ends : numpy.ndarray, shape (rows,)
        Where they begin and end.
    integers, floats : numpy.ndarray, shape (rows,)
        Receive their values; the first only as long as all are integers.
    unsure : numpy.ndarray, shape (rows,)
        Receives the rows whose words are no numbers, or none that can be read here.

    Returns
    -------
    kind : int
        INTEGERS, FLOATS, or WORDS where integers have leading zeros, as names made of digits do.
    count : int
        Number of unsure rows.
    """
    count, integral, named = 0, True, False
    for row in range(len(starts)):
        i, end = starts[row], ends[row]
        first = i
        negative = text[i] == _MINUS
        if negative or text[i] == _PLUS:
            i += 1
        mantissa, digits, behind, power = 0, 0, 0, 0
        simple = True
        begin = i
        while i < end and _ZERO <= text[i] <= _NINE:
            mantissa = 10 * mantissa + (text[i] - _ZERO)
            i += 1
        digits = i - begin
        whole = i == end
        leading_zero = digits > 1 and text[begin] == _ZERO
        if i < end and text[i] == _POINT:
            i += 1
            begin = i
            while i < end and _ZERO <= text[i] <= _NINE:
                mantissa = 10 * mantissa + (text[i] - _ZERO)
                i += 1
            behind = i - begin
            digits += behind
        if i < end and (text[i] == _SMALL_E or text[i] == _LARGE_E):
            i += 1
            down = i < end and text[i] == _MINUS
            if i < end and (down or text[i] == _PLUS):
                i += 1
            begin = i
            while i < end and _ZERO <= text[i] <= _NINE:
                power = 10 * power + (text[i] - _ZERO)
                i += 1
            if i == begin or i - begin > 3:
                simple = False
            power = -power if down else power
        power -= behind
        # 18 digits cannot overflow while they are read.
        if i < end or digits == 0 or digits > 18 or not simple:
            unsure[count] = row
            count += 1
            continue
        if whole:
            named |= leading_zero
            integers[row] = -mantissa if negative else mantissa
        else:
            integral = False
        if mantissa > _LARGEST or power > 22 or power < -22:
            if not whole:
                unsure[count] = row
                count += 1
                continue
            value = float(mantissa)
        elif power < 0:
            value = float(mantissa) / _POWERS[-power]
        else:
            value = float(mantissa) * _POWERS[power]
        floats[row] = -value if text[first] == _MINUS else value
    if not integral:
        return FLOATS, count
    return (WORDS if named else INTEGERS), count


@njit(nogil=True, cache=True)
def join_words(
    text: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the words of one column with a newline between them."""
    joined = np.empty(np.sum(ends - starts) + len(starts), np.uint8)
    to = 0
    for row in range(len(starts)):
        for i in range(starts[row], ends[row]):
            joined[to] = text[i]
            to += 1
        joined[to] = _NEWLINE
        to += 1
    return joined[:-1]


@njit(nogil=True, cache=True)
def plain_words(joined: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> int:
    """Find words that stand in a STAR file as they are, between newlines.

    Parameters
    ----------
    joined : numpy.ndarray of uint8
        Words, with a newline behind each.
    starts, ends : numpy.ndarray, shape (words,)
        Receive where they begin and end.

    Returns
    -------
    int
        Number of words; -1 when one needs quotes, or might.
    """
    count, begin = 0, 0
    for i in range(len(joined)):
        c = joined[i]
        if c == _NEWLINE:
            if i == begin or count == len(starts):
                return -1
            first = joined[begin]
            if first == _QUOTE or first == _APOSTROPHE or first == _HASH or first == _UNDERSCORE:
                return -1
            # Words such as data_ and loop_ have their first underscore in the fifth place.
            if i - begin >= 5 and joined[begin + 4] == _UNDERSCORE:
                return -1
            starts[count], ends[count] = begin, i
            count += 1
            begin = i + 1
        elif c <= _SPACE or c > _LAST:
            return -1
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def write_rows(
    sources: NDArray[np.int64],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    words: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> Any:
    """Return rows as text: integers and six decimals in 12 places, words in their column's width.

    Parameters
    ----------
    sources : numpy.ndarray, shape (columns, 2)
        For each column its kind (INTEGERS, FLOATS, WORDS) and its row in the arrays of that kind.
    integers, floats : numpy.ndarray, shape (columns of that kind, rows)
        Values; floats are finite, below 1e9 and have six decimals at most.
    words : numpy.ndarray of uint8
        The words of all columns of text.
    starts, ends : numpy.ndarray, shape (columns of text, rows)
        Where each begins and ends.
    widths : numpy.ndarray, shape (columns,)
        Places at least.
    """
    rows = max(integers.shape[1], floats.shape[1], starts.shape[1])
    size = np.sum(ends - starts) + rows * (np.sum(widths) + 24 * len(sources) + 2)
    text = np.empty(size, np.uint8)
    digits = np.empty(24, np.uint8)
    to = 0
    for row in range(rows):
        for column in range(len(sources)):
            if column:
                text[to] = _SPACE
                to += 1
            kind, number = sources[column]
            if kind == WORDS:
                begin, end = starts[number, row], ends[number, row]
                for _ in range(widths[column] - (end - begin)):
                    text[to] = _SPACE
                    to += 1
                for i in range(begin, end):
                    text[to] = words[i]
                    to += 1
                continue
            if kind == INTEGERS:
                value = integers[number, row]
                negative = value < 0
            else:
                scaled = floats[number, row]
                negative = np.signbit(scaled)
                value = np.int64(np.rint(scaled * 1e6))
            # Digits from the last to the first; of the magnitude, which int64 may not hold as such.
            magnitude = np.uint64(0) - np.uint64(value) if value < 0 else np.uint64(value)
            length = 0
            while magnitude > 0 or length == 0 or (kind == FLOATS and length < 8):
                if kind == FLOATS and length == 6:
                    digits[length] = _POINT
                else:
                    rest = magnitude // np.uint64(10)
                    digits[length] = np.uint8(magnitude - rest * np.uint64(10)) + np.uint8(_ZERO)
                    magnitude = rest
                length += 1
            if negative:
                digits[length] = _MINUS
                length += 1
            for _ in range(widths[column] - length):
                text[to] = _SPACE
                to += 1
            for i in range(length):
                text[to] = digits[length - 1 - i]
                to += 1
        text[to] = _SPACE
        text[to + 1] = _NEWLINE
        to += 2
    return text[:to]
