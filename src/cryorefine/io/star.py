"""STAR files: named blocks, each a table (loop) or a list of single values.

The grammar is the part of STAR that RELION 3.0 to 5 write and read: ``data_NAME`` starts a block;
``loop_`` followed by labels and rows is a table; labels with one value each are a list; ``#`` starts
a comment at the beginning of a word; values with blanks stand in single or double quotes.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.files import write_whole

Block = pd.DataFrame | dict[str, Any]

# Rows converted at a time: keeps the memory of a million-particle file near that of its text.
_CHUNK_ROWS = 20_000

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


class _Quoted(str):
    """A word that stood in quotes: text, whatever it looks like."""

    __slots__ = ()


def read_star(path: str | os.PathLike[str]) -> dict[str, Block]:
    """Read every block of a STAR file.

    Numbers become int64 or float64 columns. Columns that RELION defines as text (names, files,
    labels) stay text, as do quoted words, integers with leading zeros and everything else.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict of str to (pandas.DataFrame or dict)
        Key: block name without ``data_``. Loops are DataFrames even with one row or none; lists are
        dicts of int, float or str.

    Raises
    ------
    UserError
        When the file is missing, is not a STAR file, or has a row of the wrong length.
    """
    file = Path(path)
    lines = _read_lines(file)
    blocks: dict[str, Block] = {}
    number = 0
    while number < len(lines):
        name = _block_name(lines[number])
        number += 1
        if name is None:
            continue
        if name in blocks:
            raise UserError(f"{file} has two blocks named data_{name} (line {number}); rename one of them.")
        number, block = _read_block(file, lines, number)
        blocks[name] = block
    if not blocks:
        raise UserError(f"{file} is not a STAR file: no line starts with data_; choose a STAR file.")
    return blocks


def write_star(
    path: str | os.PathLike[str],
    blocks: Mapping[str, pd.DataFrame | Mapping[str, Any]],
    comments: Sequence[str] = (),
) -> None:
    """Write blocks as RELION does, but without loss: every number reads back as it was.

    Parameters
    ----------
    path : path-like
        The file; it appears under this name when it is whole.
    blocks : mapping of str to (pandas.DataFrame or mapping)
        Block name without ``data_`` to a table or to single values. Sequences and arrays as values
        are written as RELION's vectors, ``[a,b,c]``.
    comments : sequence of str
        Lines for the top of the file, without ``#``.

    Raises
    ------
    UserError
        When the place cannot be written or a text cannot be expressed in a STAR file.
    """
    file = Path(path)
    parts = [f"# {line}\n" for line in comments]
    for name, block in blocks.items():
        # Each table carries the version of the labels used, as RELION 5 does.
        parts.append(f"\n# version 50001\n\ndata_{name}\n\n")
        if isinstance(block, pd.DataFrame):
            parts.extend(_table_text(file, block))
        else:
            width = max((len(label) for label in block), default=0) + 1
            for label, value in block.items():
                parts.append(f"_{label:<{width}} {_word(file, str(label), value):>15}\n")
        parts.append(" \n")
    with write_whole(file) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(parts)


# Reading


def _read_lines(file: Path) -> list[str]:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; check the name and the folder.") from None
    except IsADirectoryError:
        raise UserError(f"{file} is a folder; choose a STAR file.") from None
    except PermissionError:
        raise UserError(f"{file} may not be read; change its permissions.") from None
    if b"\0" in content[:4096]:
        raise UserError(f"{file} is not a STAR file but binary data; choose a STAR file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _block_name(line: str) -> str | None:
    """Return the name when the line starts a block. A row may start with ``data_...`` as its first word."""
    if "data_" not in line:
        return None
    words = _split(line)
    if len(words) == 1 and words[0].startswith("data_") and not isinstance(words[0], _Quoted):
        return words[0][5:]
    return None


def _split(line: str) -> list[str]:
    """Split one line into words: the fast way when it holds no quotes or comments."""
    if '"' not in line and "'" not in line and "#" not in line:
        return line.split()
    words: list[str] = []
    for match in _WORD.finditer(line):
        if match["quote"]:
            words.append(_Quoted(match["quoted"]))
        elif match["comment"]:
            break
        else:
            words.append(match["bare"])
    return words


def _read_block(file: Path, lines: list[str], number: int) -> tuple[int, Block]:
    """Read the block whose content starts at a line; return the line of the next block, and the block."""
    values: dict[str, Any] = {}
    while number < len(lines):
        words = _split(lines[number])
        if not words:
            number += 1
        elif words[0].lower() == "loop_" and not values:
            return _read_loop(file, lines, number + 1)
        elif words[0].startswith("_") and len(words) <= 2:
            label = words[0][1:]
            if label in values:
                raise UserError(f"{file} gives _{label} twice in one block (line {number + 1}); remove one.")
            values[label] = _value(label, words[1] if len(words) == 2 else "")
            number += 1
        elif _block_name(lines[number]) is not None:
            break
        else:
            raise UserError(
                f"{file} is malformed at line {number + 1}: expected a label and one value but found "
                f"{_shorten(lines[number])}; quote values that hold blanks, or correct the line."
            )
    return number, values


def _read_loop(file: Path, lines: list[str], number: int) -> tuple[int, pd.DataFrame]:
    labels: list[str] = []
    while number < len(lines):
        words = _split(lines[number])
        if words:
            if not words[0].startswith("_") or isinstance(words[0], _Quoted):
                break
            labels.append(words[0][1:])
        number += 1
    if not labels:
        raise UserError(f"{file} is malformed at line {number}: a loop_ without labels; correct the line.")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"{file} has the column _{twice} twice in one table; remove one.")
    first = number
    text_columns = {i for i, label in enumerate(labels) if _TEXT_LABEL.fullmatch(label)}
    while True:
        number, columns, mixed = _read_rows(file, lines, first, labels, text_columns)
        if not mixed:
            break
        # A column turned out to hold words after numbers: read again so that no digit is reformatted.
        text_columns |= mixed
    return number, pd.DataFrame(dict(zip(labels, columns, strict=True)))


def _read_rows(
    file: Path, lines: list[str], number: int, labels: list[str], text_columns: set[int]
) -> tuple[int, list[Any], set[int]]:
    """Read rows up to the next block; also return the columns that hold both numbers and words."""
    width = len(labels)
    parts: list[list[Any]] = [[] for _ in labels]
    rows: list[list[str]] = []
    after_blank = False

    def convert() -> None:
        for part, i, words in zip(parts, range(width), zip(*rows, strict=True), strict=False):
            part.append(words if i in text_columns else _numbers(words))
        rows.clear()

    while number < len(lines):
        line = lines[number]
        words = _split(line)
        if len(words) == width and (width > 1 or _block_name(line) is None):
            rows.append(words)
            if len(rows) == _CHUNK_ROWS:
                convert()
        elif words:
            if _block_name(line) is not None:
                break
            if not after_blank or words[0].lower() == "loop_" or words[0].startswith("_"):
                raise UserError(
                    f"{file} is truncated or malformed at line {number + 1}: {len(words)} values where the "
                    f"table has {width} columns ({_shorten(line)}); correct the line or get a whole copy."
                )
            # RELION ends a table at a blank line, so text behind one (a mail footer) is no data.
            warnings.warn(
                f"{file} has text behind a table from line {number + 1} on ({_shorten(line)}), "
                "which is ignored.",
                UserWarningMessage,
                stacklevel=5,
            )
            while number < len(lines) and _block_name(lines[number]) is None:
                number += 1
            break
        # A comment line is no end of a table, a blank one is.
        after_blank = not line.strip() or (after_blank and not words)
        number += 1
    convert()
    columns: list[Any] = []
    mixed: set[int] = set()
    for i, part in enumerate(parts):
        numeric = [isinstance(piece, np.ndarray) for piece in part]
        if i in text_columns or (part and not any(numeric)):
            columns.append(pd.Series([str(word) for piece in part for word in piece], dtype="str"))
        elif all(numeric):
            columns.append(np.concatenate(part) if part else np.zeros(0))
        else:
            mixed.add(i)
    return number, columns, mixed


def _numbers(words: Sequence[str]) -> np.ndarray[Any, Any] | Sequence[str]:
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
    if _Quoted in set(map(type, words)):
        return words
    # Python also takes "1_000" for a number; "007" is a name, not the number 7.
    text = " ".join(words)
    if "_" in text or (integral and _LEADING_ZERO.search(text)):
        return words
    return values


def _value(label: str, word: str) -> int | float | str:
    if _TEXT_LABEL.fullmatch(label):
        return str(word)
    values = _numbers((word,))
    return values[0].item() if isinstance(values, np.ndarray) else str(word)


def _shorten(line: str) -> str:
    text = " ".join(line.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")


# Writing


def _table_text(file: Path, table: pd.DataFrame) -> list[str]:
    parts = ["loop_ \n"]
    parts += [f"_{label} #{i} \n" for i, label in enumerate(table.columns, start=1)]
    formats: list[str] = []
    columns: list[Sequence[Any]] = []
    for i, label in enumerate(table.columns):
        column = table.iloc[:, i]
        if pd.api.types.is_bool_dtype(column.dtype):
            column = column.astype(np.int64)
        if pd.api.types.is_integer_dtype(column.dtype):
            formats.append("%12d")
            columns.append(column.tolist())
        elif pd.api.types.is_float_dtype(column.dtype):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            formats.append("%12.6f" if _six_decimals_suffice(values) else "%18r")
            columns.append(values.tolist())
        else:
            formats.append("%10s")
            columns.append([_word(file, str(label), value) for value in column.tolist()])
    row = " ".join(formats) + " \n"
    parts += [row % values for values in zip(*columns, strict=True)]
    return parts


def _six_decimals_suffice(values: np.ndarray[Any, Any]) -> bool:
    """Whether RELION's usual format gives back every value exactly."""
    finite = values[np.isfinite(values)]
    return bool(np.all((np.round(finite, 6) == finite) & (np.abs(finite) < 1e9)))


def _word(file: Path, label: str, value: Any) -> str:
    """Return one value as a word of a STAR file."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.6f}" if _six_decimals_suffice(np.array([number])) else repr(number)
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return "[" + ",".join(f"{item:.12g}" for item in value) + "]"
    if value is None or value is pd.NA:
        return '""'
    return _quote(file, label, str(value))


def _quote(file: Path, label: str, text: str) -> str:
    special = (
        not text
        or any(character.isspace() for character in text)
        or text[0] in "\"'#_"
        or text.lower().startswith(("data_", "loop_"))
        or (not _TEXT_LABEL.fullmatch(label) and isinstance(_numbers((text,)), np.ndarray))
    )
    if not special:
        return text
    for quote in "\"'":
        if not re.search(quote + r"(\s|$)", text) and "\n" not in text and "\r" not in text:
            return quote + text + quote
    raise UserError(
        f"{file} cannot hold the value {text!r} of {label}: a STAR file has no way to write both kinds "
        "of quotes or a line break in one value; change the value."
    )
