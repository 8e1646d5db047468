"""Reading of STAR files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io._star_lines import Lines
from cryorefine.io._star_words import LARGE, Quoted, fractions, is_text_label, numbers, split
from cryorefine.io.columns import Columns

if TYPE_CHECKING:
    import pandas as pd

    from cryorefine.io._star_bulk import BulkReader

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
    return {name: as_frame(block) if isinstance(block, Columns) else block for name, block in blocks.items()}


def read_columns(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read every block of a STAR file as :func:`read_star` does, but loops as plain :class:`Columns`."""
    file = Path(path)
    blocks: dict[str, dict[str, Any]] = {}
    with Lines(file) as lines:
        while (line := lines.peek()) is not None:
            name = _block_name(line)
            lines.step()
            if name is None:
                continue
            if name in blocks:
                raise UserError(
                    f"{file} has two blocks named data_{name} (line {lines.number}); rename one of them."
                )
            blocks[name] = _read_block(lines)
    if not blocks:
        raise UserError(f"{file} is not a STAR file: no line starts with data_; choose a STAR file.")
    return blocks


def as_frame(columns: Columns) -> pd.DataFrame:
    """Return plain columns as a pandas table."""
    import pandas as pd

    table = {
        label: pd.Series(values, dtype="str") if isinstance(values, list) else values
        for label, values in columns.items()
    }
    # Pandas would gather the columns of a type in one array, which for a large table is another copy.
    large = sum(len(values) for values in table.values()) > LARGE
    return pd.DataFrame(table, copy=False if large else None)


def _block_name(line: str) -> str | None:
    """Return the name when the line starts a block. A row may start with ``data_...`` as its first word."""
    if "data_" not in line:
        return None
    words = split(line)
    if len(words) == 1 and words[0].startswith("data_") and not isinstance(words[0], Quoted):
        return words[0][5:]
    return None


def _read_block(lines: Lines) -> dict[str, Any]:
    """Read the block whose content starts at the present line, up to the next block."""
    values: dict[str, Any] = {}
    while (line := lines.peek()) is not None:
        words = split(line)
        if not words:
            lines.step()
        elif words[0].lower() == "loop_" and not values:
            lines.step()
            return _read_loop(lines)
        elif words[0].startswith("_") and len(words) <= 2:
            label = words[0][1:]
            if label in values:
                raise UserError(
                    f"{lines.file} gives _{label} twice in one block (line {lines.number + 1}); remove one."
                )
            values[label] = _value(label, words[1] if len(words) == 2 else "")
            lines.step()
        elif _block_name(line) is not None:
            break
        else:
            raise UserError(
                f"{lines.file} is malformed at line {lines.number + 1}: expected a label and one value but "
                f"found {_shorten(line)}; quote values that hold blanks, or correct the line."
            )
    return values


def _read_loop(lines: Lines) -> Columns:
    labels: list[str] = []
    while (line := lines.peek()) is not None:
        words = split(line)
        if words:
            if not words[0].startswith("_") or isinstance(words[0], Quoted):
                break
            labels.append(words[0][1:])
        lines.step()
    if not labels:
        raise UserError(
            f"{lines.file} is malformed at line {lines.number}: a loop_ without labels; correct the line."
        )
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"{lines.file} has the column _{twice} twice in one table; remove one.")
    first = lines.mark()
    text_columns = {i for i, label in enumerate(labels) if is_text_label(label)}
    while True:
        parts = _read_rows(lines, len(labels), text_columns)
        for part in parts:
            # Whether "007" is a name or a number is the whole column's to say, not that of some rows.
            if any(isinstance(piece, np.ndarray) and piece.dtype.kind == "f" for piece in part):
                part[:] = [piece if isinstance(piece, np.ndarray) else fractions(piece) for piece in part]
        mixed = {i for i, part in enumerate(parts) if i not in text_columns and _is_mixed(part)}
        if not mixed:
            return Columns(zip(labels, _joined(parts, text_columns), strict=True))
        # A column turned out to hold words after numbers: read again so that no digit is reformatted.
        text_columns |= mixed
        lines.back(first)


def _read_rows(lines: Lines, width: int, text_columns: set[int]) -> list[list[Any]]:
    """Read rows up to the next block; return for each column its values, some rows at a time."""
    parts: list[list[Any]] = [[] for _ in range(width)]
    rows: list[list[str]] = []
    after_blank = False
    bulk = _bulk_reader(lines, width, text_columns)

    def convert() -> None:
        for part, i, words in zip(parts, range(width), zip(*rows, strict=True), strict=False):
            part.append(words if i in text_columns else numbers(words))
        rows.clear()

    while True:
        columns = bulk.read(lines) if bulk is not None else None
        if columns is not None:
            convert()
            for part, values in zip(parts, columns, strict=True):
                part.append(values)
            after_blank = False
        line = lines.peek()
        if line is None:
            break
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
                    f"{lines.file} is truncated or malformed at line {lines.number + 1}: {len(words)} values "
                    f"where the table has {width} columns ({_shorten(line)}); correct the line or get a "
                    "whole copy."
                )
            # RELION ends a table at a blank line, so text behind one (a mail footer) is no data.
            warnings.warn(
                f"{lines.file} has text behind a table from line {lines.number + 1} on ({_shorten(line)}), "
                "which is ignored.",
                UserWarningMessage,
                stacklevel=6,
            )
            while line is not None and _block_name(line) is None:
                lines.step()
                line = lines.peek()
            break
        # A comment line is no end of a table, a blank one is.
        after_blank = not line.strip() or (after_blank and not words)
        lines.step()
    convert()
    return parts


def _bulk_reader(lines: Lines, width: int, text_columns: set[int]) -> BulkReader | None:
    """Return what reads large tables; small ones are read sooner than it is loaded."""
    if not lines.large or width == 1:
        return None
    from cryorefine.io._star_bulk import BulkReader

    return BulkReader(width, text_columns)


def _is_mixed(part: list[Any]) -> bool:
    numeric = [isinstance(piece, np.ndarray) for piece in part]
    return any(numeric) and not all(numeric)


def _joined(parts: list[list[Any]], text_columns: set[int]) -> Iterator[Any]:
    """Yield whole columns, and give up the pieces of each."""
    for i, part in enumerate(parts):
        if i in text_columns or (part and not isinstance(part[0], np.ndarray)):
            yield [str(word) for piece in part for word in piece]
        else:
            yield np.concatenate(part) if part else np.zeros(0)
        part.clear()


def _value(label: str, word: str) -> int | float | str:
    if is_text_label(label):
        return str(word)
    values = numbers((word,))
    return values[0].item() if isinstance(values, np.ndarray) else str(word)


def _shorten(line: str) -> str:
    text = " ".join(line.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
