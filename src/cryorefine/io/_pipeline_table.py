"""The text of a pipeline as blocks whose tables can be changed row by row, the rest of it untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cryorefine.errors import UserError

_NUMBERS = {
    "rlnPipeLineProcessType",
    "rlnPipeLineProcessStatus",
    "rlnPipeLineNodeType",
    "rlnPipeLineNodeTypeLabelDepth",
}
"""Columns that RELION writes wider than words."""


@dataclass
class Table:
    """A loop: the lines before its rows, the rows as words and as text, and the lines behind them."""

    head: str
    labels: list[str]
    rows: list[tuple[list[str], str]] = field(default_factory=list)
    tail: str = ""

    def column(self, label: str) -> int:
        return self.labels.index(label)

    def words(self) -> list[list[str]]:
        return [words for words, _ in self.rows if words]

    def text(self) -> str:
        return self.head + "".join(text for _, text in self.rows) + self.tail

    def find(self, **values: str) -> int | None:
        """Return the row with these values, names of jobs and files with or without a slash at their end."""
        wanted = {self.column(label): value.rstrip("/") for label, value in values.items()}
        for row, (words, _) in enumerate(self.rows):
            if words and all(words[i].rstrip("/") == value for i, value in wanted.items()):
                return row
        return None

    def put(self, values: dict[str, str], row: int | None = None) -> None:
        """Write a row anew, or add one behind the others; raise KeyError for an unknown column."""
        words = [values[label] for label in self.labels]
        shown = [
            f"{word:>{12 if label in _NUMBERS else 10}}"
            for label, word in zip(self.labels, words, strict=True)
        ]
        text = " ".join(shown) + " \n"
        if row is None:
            if self.rows and not self.rows[-1][1].endswith("\n"):
                self.rows[-1] = (self.rows[-1][0], self.rows[-1][1] + "\n")
            self.rows.append((words, text))
        else:
            self.rows[row] = (words, text)


def _split(line: str) -> list[str]:
    # Forms are made before anything computes, and this one loads NumPy.
    from cryorefine.io._star_words import split

    return split(line)


def parse_blocks(text: str, path: Path) -> dict[str, str | Table]:
    """Cut a file into blocks: tables, and the text of everything else, in order."""
    parts = re.split(r"(?m)^(?=data_\S*[ \t\r]*$)", text)
    blocks: dict[str, str | Table] = {"": parts[0]}
    for part in parts[1:]:
        name = _split(part.partition("\n")[0])[0][5:]
        if name in blocks:
            raise UserError(f"{path} is damaged: it has two blocks data_{name}; put back a whole copy of it.")
        blocks[name] = _parse_table(part, name, path)
    return blocks


def _parse_table(part: str, name: str, path: Path) -> str | Table:
    lines = re.findall(r"[^\n]*\n|[^\n]+", part)
    words = [_split(line) for line in lines]
    first = next((i for i, found in enumerate(words[1:], start=1) if found), None)
    if first is None or words[first][0].lower() != "loop_":
        return part
    labels: list[str] = []
    number = first + 1
    while number < len(lines) and (not words[number] or words[number][0].startswith("_")):
        if not words[number] and labels and not lines[number].lstrip().startswith("#"):
            break
        labels += [word[1:] for word in words[number][:1]]
        number += 1
    table = Table("".join(lines[:number]), labels)
    while number < len(lines) and lines[number].strip():
        if words[number] and len(words[number]) != len(labels):
            raise UserError(
                f"{path} is damaged: data_{name} has a row of {len(words[number])} words for "
                f"{len(labels)} columns ({lines[number].strip()!r}); put back a whole copy of it."
            )
        table.rows.append((words[number], lines[number]))
        number += 1
    if any(words[number:]):
        raise UserError(
            f"{path} is damaged: data_{name} has rows behind a blank line, which RELION would lose; "
            "put back a whole copy of it."
        )
    table.tail = "".join(lines[number:])
    return table
