"""The lines of a text file, one after another, in memory that does not grow with the file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from cryorefine.errors import UserError

_BLOCK = 1 << 23  # bytes read at a time


class Lines:
    """Goes through the lines of a STAR file; a context that closes it.

    Parameters
    ----------
    file : pathlib.Path
        The file: UTF-8, or Latin-1 where a line is no UTF-8; lines end as on any system.

    Attributes
    ----------
    number : int
        Lines that have been passed.
    block : bytes
        Whole lines, the present one among them.
    at : int
        Where it begins in the block.
    large : bool
        Whether the file has more than one block.

    Raises
    ------
    UserError
        When the file cannot be read, or holds binary data.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._handle = open(file, "rb")
        except FileNotFoundError:
            raise UserError(f"{file} does not exist; check the name and the folder.") from None
        except IsADirectoryError:
            raise UserError(f"{file} is a folder; choose a STAR file.") from None
        except PermissionError:
            raise UserError(f"{file} may not be read; change its permissions.") from None
        self.number = self.at = self._start = 0
        self._read()
        self.large = len(self.block) >= _BLOCK
        if b"\0" in self.block[:4096]:
            self._handle.close()
            raise UserError(f"{file} is not a STAR file but binary data; choose a STAR file.")

    def __enter__(self) -> Lines:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._handle.close()

    def peek(self) -> str | None:
        """Return the present line without its end, or None behind the last."""
        if self.at == len(self.block) and not self._read():
            return None
        end = self.block.find(b"\n", self.at)
        line = self.block[self.at : end if end >= 0 else None]
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            return line.decode("latin-1")

    def step(self) -> None:
        """Pass the present line."""
        end = self.block.find(b"\n", self.at)
        self.skip(end + 1 if end >= 0 else len(self.block), 1)

    def skip(self, at: int, lines: int) -> None:
        """Pass a number of lines, up to a place in the block."""
        self.at = at
        self.number += lines

    def mark(self) -> tuple[int, int, int]:
        """Return the place of the present line, for :meth:`back`."""
        return self._start, self.at, self.number

    def back(self, mark: tuple[int, int, int]) -> None:
        """Return to a line that has been passed."""
        start, at, number = mark
        if start != self._start:
            self._handle.seek(start)
            self._read()
        self.at, self.number = at, number

    def _read(self) -> bool:
        self._start = self._handle.tell()
        block = self._handle.read(_BLOCK)
        if len(block) == _BLOCK:
            block += self._handle.readline()
        if self._start == 0:
            block = block.removeprefix(b"\xef\xbb\xbf")
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.block, self.at = block, 0
        return bool(block)
