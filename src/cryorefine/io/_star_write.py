"""Writing of STAR files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryorefine.errors import UserError
from cryorefine.io._star_words import LARGE, is_text_label, numbers
from cryorefine.io.columns import Columns, as_array
from cryorefine.io.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

# What stands without quotes for itself: no blank in it, and nothing that has a meaning at its beginning.
_BARE = re.compile(r"""(?!(?i:data_|loop_))[^\s"'#_]\S*""")


def write_star(
    path: str | os.PathLike[str],
    blocks: Mapping[str, pd.DataFrame | Mapping[str, Any]],
    comments: Sequence[str] = (),
    *,
    flush: bool = True,
) -> None:
    """Write blocks as RELION does, but without loss: every number reads back as it was.

    Parameters
    ----------
    path : path-like
        The file; it appears under this name when it is whole.
    blocks : mapping of str to (pandas.DataFrame or mapping)
        Block name without ``data_`` to a table (a DataFrame or :class:`.Columns`) or to single values.
        Sequences and arrays as values are written as RELION's vectors, ``[a,b,c]``.
    comments : sequence of str
        Lines for the top of the file, without ``#``.
    flush : bool
        As in :func:`.write_whole`.

    Raises
    ------
    UserError
        When the place cannot be written or a text cannot be expressed in a STAR file.
    """
    file = Path(path)
    with write_whole(file, flush=flush) as temporary, open(temporary, "wb") as handle:
        handle.writelines(f"# {line}\n".encode() for line in comments)
        for name, block in blocks.items():
            # Each table carries the version of the labels used, as RELION 5 does.
            handle.write(f"\n# version 50001\n\ndata_{name}\n\n".encode())
            if isinstance(block, Columns) or not isinstance(block, Mapping):
                handle.writelines(_table_text(file, _labelled(block)))
            else:
                width = max((len(label) for label in block), default=0) + 1
                for label, value in block.items():
                    handle.write(f"_{label:<{width}} {_word(file, str(label), value):>15}\n".encode())
            handle.write(b" \n")


def _labelled(table: pd.DataFrame | Columns) -> list[tuple[str, Any]]:
    """Return label and values of each column: int64 or float64 arrays, or anything else as it is."""
    if isinstance(table, Columns):
        return [(label, as_array(values)) for label, values in table.items()]
    import pandas as pd

    columns: list[tuple[str, Any]] = []
    for i, label in enumerate(table.columns):
        column = table.iloc[:, i]
        if pd.api.types.is_bool_dtype(column.dtype):
            column = column.astype(np.int64)
        if pd.api.types.is_float_dtype(column.dtype):
            columns.append((str(label), column.to_numpy(dtype=np.float64, na_value=np.nan)))
        elif pd.api.types.is_integer_dtype(column.dtype):
            columns.append((str(label), column.to_numpy()))
        else:
            columns.append((str(label), column.astype(object).where(column.notna(), None).to_numpy()))
    return columns


def as_columns(table: pd.DataFrame | Columns) -> Columns:
    """Return a pandas table as plain columns; what is no number stays an array of objects."""
    return table if isinstance(table, Columns) else Columns(_labelled(table))


def _table_text(file: Path, table: list[tuple[str, Any]]) -> Iterator[bytes]:
    yield b"loop_ \n"
    yield from (f"_{label} #{i} \n".encode() for i, (label, _) in enumerate(table, start=1))
    formats = [_format(values) for _, values in table]
    if table and len(table) * len(table[0][1]) > LARGE:
        yield from _bulk_text(file, table, formats)
        return
    columns: list[Sequence[Any]] = []
    for (label, values), form in zip(table, formats, strict=True):
        given = values.tolist()
        columns.append([_word(file, label, value) for value in given] if form == "%10s" else given)
    row = " ".join(formats) + " \n"
    yield from ((row % values).encode() for values in zip(*columns, strict=True))


def _format(values: np.ndarray[Any, Any]) -> str:
    """Return how the values of a column are written, so that they all read back as they are."""
    if values.dtype.kind in "biu":
        return "%12d"
    if values.dtype.kind == "f":
        return "%12.6f" if _six_decimals_suffice(values) else "%18r"
    return "%10s"


def _bulk_text(file: Path, table: list[tuple[str, Any]], formats: Sequence[str]) -> Iterator[bytes]:
    from cryorefine.io._star_bulk import bulk_rows
    from cryorefine.io._star_kernels import FLOATS, INTEGERS, WORDS

    columns = []
    for (label, values), form in zip(table, formats, strict=True):
        kind = WORDS
        if form == "%12d" and values.dtype != np.uint64:
            kind = INTEGERS
        elif form == "%12.6f" and np.isfinite(values).all():
            kind = FLOATS
        columns.append((label, values, kind))
    form_of = {label: form for (label, _), form in zip(table, formats, strict=True)}

    def word(label: str, value: Any) -> str:
        form = form_of[label]
        return _word(file, label, value) if form == "%10s" else form % value

    yield from bulk_rows(columns, word)


def _six_decimals_suffice(values: np.ndarray[Any, Any]) -> bool:
    """Whether RELION's usual format gives back every value exactly."""
    finite = values[np.isfinite(values)]
    return bool(np.all((np.round(finite, 6) == finite) & (np.abs(finite) < 1e9)))


def _word(file: Path, label: str, value: Any) -> str:
    """Return one value as a word of a STAR file."""
    if isinstance(value, str):
        return _quote(file, label, value)
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.6f}" if _six_decimals_suffice(np.array([number])) else repr(number)
    if isinstance(value, Sequence | np.ndarray):
        return "[" + ",".join(f"{item:.12g}" for item in value) + "]"
    if value is None:
        return '""'
    return _quote(file, label, str(value))


def _quote(file: Path, label: str, text: str) -> str:
    if _BARE.fullmatch(text) and (is_text_label(label) or not isinstance(numbers((text,)), np.ndarray)):
        return text
    for quote in "\"'":
        if not re.search(quote + r"(\s|$)", text) and "\n" not in text and "\r" not in text:
            return quote + text + quote
    raise UserError(
        f"{file} cannot hold the value {text!r} of {label}: a STAR file has no way to write both kinds "
        "of quotes or a line break in one value; change the value."
    )
