"""What a word of a STAR file means: a number, or text that may look like one."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

LARGE = 1_000_000
"""Values of a table above which it is worth the time that compiled loops take to load."""

# Labels whose values are words even where they look like numbers (micrograph "001", group "12").
_TEXT_LABEL = re.compile(
    r"""rln(\w*(Name|NameNoDW|NameEven|NameOdd|NameOriginal|NameIfTrue|File|Starfile|Label|Alias|Image|Zernike
    |Metadata|MapHalf1|MapHalf2|TomogramHalf1|TomogramHalf2|VisibleFrames|PowerSpectrum|FourierMask)
    |JobOption\w+|PipeLineEdge\w+|SymmetryGroup|Comment|PostprocessedMap|PostprocessedMapMasked
    |Sche(dule|me)(String\w+|Operator\w+|JobMode|EdgeBooleanVariable))""",
    re.VERBOSE,
)
_WORD = re.compile(r"""(?P<quote>["'])(?P<quoted>.*?)(?P=quote)(?=\s|$)|(?P<comment>\#.*)|(?P<bare>\S+)""")
_LEADING_ZERO = re.compile(r"(?:^| )[+-]?0\d")


class Quoted(str):
    """A word that stood in quotes: text, whatever it looks like."""

    __slots__ = ()


def split(line: str) -> list[str]:
    """Split one line into words: the fast way when it holds no quotes or comments."""
    if '"' not in line and "'" not in line and "#" not in line:
        return line.split()
    words: list[str] = []
    for match in _WORD.finditer(line):
        if match["quote"]:
            words.append(Quoted(match["quoted"]))
        elif match["comment"]:
            break
        else:
            words.append(match["bare"])
    return words


def numbers(words: Sequence[str]) -> np.ndarray[Any, Any] | Sequence[str]:
    """Return int64 or float64 values, or the words themselves when one of them is no plain number."""
    values: np.ndarray[Any, Any]
    try:
        values = np.fromiter(map(int, words), dtype=np.int64, count=len(words))
    except (ValueError, OverflowError):
        try:
            values = np.fromiter(map(float, words), dtype=np.float64, count=len(words))
        except ValueError:
            return words
        integral = False
    else:
        integral = True
    if Quoted in set(map(type, words)):
        return words
    # Python also takes "1_000" for a number; "007" is a name, not the number 7.
    text = " ".join(words)
    if "_" in text or (integral and _LEADING_ZERO.search(text)):
        return words
    return values


def fractions(words: Sequence[str]) -> np.ndarray[Any, Any] | Sequence[str]:
    """Return what :func:`numbers` does of words beside which a column has fractions: "007" is then 7.0."""
    values = numbers([*words, "0.5"])
    return values[:-1] if isinstance(values, np.ndarray) else words


@functools.cache
def is_text_label(label: str) -> bool:
    """Whether RELION defines the values of a label as text."""
    return _TEXT_LABEL.fullmatch(label) is not None
