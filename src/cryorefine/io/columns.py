"""Tables as plain columns, for jobs that are over before pandas would be loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Columns(dict[str, Any]):
    """A table: label -> column, an array or a list of str; all of one length."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.values()), ()))

    def numbers(self, label: str) -> NDArray[np.float64]:
        """Return a column as float64.

        Raises
        ------
        ValueError
            When it holds what is no number.
        """
        return np.asarray(self[label], dtype=np.float64)

    def words(self, label: str) -> NDArray[np.object_]:
        """Return a column as text, an array of str."""
        values = self[label]
        return _texts(
            [str(value) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]
        )

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of one row by label."""
        return {label: values[index] for label, values in self.items()}

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Columns:
        """Return some of the rows."""
        return Columns((label, as_array(values)[rows]) for label, values in self.items())

    def with_columns(self, **columns: Any) -> Columns:
        """Return the table with columns in place of those of the same label, or at its end.

        A single number is the value of every row.
        """
        count = self.rows
        given = {k: np.full(count, v) if isinstance(v, int | float) else v for k, v in columns.items()}
        return Columns({**self, **given})

    def without(self, *labels: str) -> Columns:
        """Return the table without some columns, which need not be there."""
        return Columns((label, values) for label, values in self.items() if label not in labels)


def as_array(values: Any) -> NDArray[Any]:
    """Return a column as an array; texts as objects, which take a word each however long the longest is."""
    if isinstance(values, list) and values and isinstance(values[0], str):
        return _texts(values)
    return np.asarray(values)


def _texts(values: list[str]) -> NDArray[np.object_]:
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result
