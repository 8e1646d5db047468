"""Reading of STAR files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io._star_words import Columns, Quoted, is_text_label, numbers, split

if TYPE_CHECKING:
    import pandas as pd

Block: TypeAlias = "pd.DataFrame | dict[str, Any]"

# Rows converted at a time: keeps the memory of a million-particle file near that of its text.
_CHUNK_ROWS = 20_000


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
    blocks = read_columns(path)
    return {name: _as_table(block) if isinstance(block, Columns) else block for name, block in blocks.items()}


def read_columns(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read every block of a STAR file as :func:`read_star` does, but loops as plain :class:`Columns`."""
    file = Path(path)
    lines = _read_lines(file)
    blocks: dict[str, dict[str, Any]] = {}
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


def _as_table(columns: Columns) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            label: pd.Series(values, dtype="str") if isinstance(values, list) else values
            for label, values in columns.items()
        }
    )


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
    words = split(line)
    if len(words) == 1 and words[0].startswith("data_") and not isinstance(words[0], Quoted):
        return words[0][5:]
    return None


def _read_block(file: Path, lines: list[str], number: int) -> tuple[int, dict[str, Any]]:
    """Read the block whose content starts at a line; return the line of the next block, and the block."""
    values: dict[str, Any] = {}
    while number < len(lines):
        words = split(lines[number])
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


def _read_loop(file: Path, lines: list[str], number: int) -> tuple[int, Columns]:
    labels: list[str] = []
    while number < len(lines):
        words = split(lines[number])
        if words:
            if not words[0].startswith("_") or isinstance(words[0], Quoted):
                break
            labels.append(words[0][1:])
        number += 1
    if not labels:
        raise UserError(f"{file} is malformed at line {number}: a loop_ without labels; correct the line.")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"{file} has the column _{twice} twice in one table; remove one.")
    first = number
    text_columns = {i for i, label in enumerate(labels) if is_text_label(label)}
    while True:
        number, columns, mixed = _read_rows(file, lines, first, labels, text_columns)
        if not mixed:
            break
        # A column turned out to hold words after numbers: read again so that no digit is reformatted.
        text_columns |= mixed
    return number, Columns(zip(labels, columns, strict=True))


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
            part.append(words if i in text_columns else numbers(words))
        rows.clear()

    while number < len(lines):
        line = lines[number]
        words = split(line)
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
                stacklevel=6,
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
            columns.append([str(word) for piece in part for word in piece])
        elif all(numeric):
            columns.append(np.concatenate(part) if part else np.zeros(0))
        else:
            mixed.add(i)
    return number, columns, mixed


def _value(label: str, word: str) -> int | float | str:
    if is_text_label(label):
        return str(word)
    values = numbers((word,))
    return values[0].item() if isinstance(values, np.ndarray) else str(word)


def _shorten(line: str) -> str:
    text = " ".join(line.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
