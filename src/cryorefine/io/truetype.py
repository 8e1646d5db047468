"""TrueType fonts as far as embedding them asks: which glyph, how wide, and a file of a few glyphs alone.

Names of tables and fields are those of the OpenType specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_KEPT = (b"cvt ", b"fpgm", b"glyf", b"head", b"hhea", b"hmtx", b"loca", b"maxp", b"prep")
"""What a PDF needs of a font of its own."""

_MORE_COMPONENTS, _WIDE_ARGUMENTS = 0x20, 0x01
_SCALE_BYTES = {0x08: 2, 0x40: 4, 0x80: 8}


@lru_cache(maxsize=1)
def sans() -> Font:
    """Return DejaVu Sans, which comes with Matplotlib; Matplotlib itself is not loaded."""
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("Matplotlib, whose fonts are used, is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return Font((folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf").read_bytes())


class Font:
    """A TrueType font.

    Parameters
    ----------
    content : bytes
        The file.

    Attributes
    ----------
    box : tuple of float
        Left, lower, right and upper edge of all glyphs, in units of the font's size.
    ascent, descent : float
        Height of a line above and (negative) below the base line, in the same units.
    """

    def __init__(self, content: bytes) -> None:
        count = struct.unpack_from(">H", content, 4)[0]
        self._tables: dict[bytes, bytes] = {}
        for i in range(count):
            tag, _, offset, length = struct.unpack_from(">4sLLL", content, 12 + 16 * i)
            self._tables[tag] = content[offset : offset + length]
        head, hhea = self._tables[b"head"], self._tables[b"hhea"]
        self._units = struct.unpack_from(">H", head, 18)[0]
        left, lower, right, upper = (edge / self._units for edge in struct.unpack_from(">4h", head, 36))
        self.box = (left, lower, right, upper)
        self.ascent, self.descent = (value / self._units for value in struct.unpack_from(">2h", hhea, 4))
        self._metrics = struct.unpack_from(">H", hhea, 34)[0]
        glyphs = struct.unpack_from(">H", self._tables[b"maxp"], 4)[0]
        if struct.unpack_from(">h", head, 50)[0]:
            self._places = struct.unpack(f">{glyphs + 1}L", self._tables[b"loca"])
        else:
            self._places = tuple(2 * p for p in struct.unpack(f">{glyphs + 1}H", self._tables[b"loca"]))
        self._characters = self._character_map()

    def glyph(self, character: str) -> int:
        """Return the number of a character's glyph; 0, an empty box, where the font has none."""
        code = ord(character)
        for start, stop, delta, offset in self._characters:
            if start <= code <= stop:
                if offset is None:
                    return (code + delta) & 0xFFFF
                number: int = struct.unpack_from(">H", self._tables[b"cmap"], offset + 2 * (code - start))[0]
                return (number + delta) & 0xFFFF if number else 0
        return 0

    def width(self, words: str) -> float:
        """Return how wide a line of text is, in units of the font's size."""
        total = 0
        for character in words:
            index = min(self.glyph(character), self._metrics - 1)
            total += struct.unpack_from(">H", self._tables[b"hmtx"], 4 * index)[0]
        return float(total / self._units)

    def subset(self, glyphs: Iterable[int]) -> bytes:
        """Return a font file in which the other glyphs are empty; the numbers of glyphs stay."""
        kept, waiting = set[int](), {0, *glyphs}
        while waiting:
            kept |= waiting
            waiting = {part for glyph in waiting for part in self._components(glyph)} - kept
        outlines, places = bytearray(), []
        for glyph in range(len(self._places) - 1):
            places.append(len(outlines))
            if glyph in kept:
                outlines += self._outline(glyph)
                outlines += b"\0" * (-len(outlines) % 4)
        places.append(len(outlines))
        head = bytearray(self._tables[b"head"])
        struct.pack_into(">h", head, 50, 1)
        tables = {tag: self._tables[tag] for tag in _KEPT if tag in self._tables}
        tables |= {b"glyf": bytes(outlines), b"loca": struct.pack(f">{len(places)}L", *places)}
        tables[b"head"] = bytes(head)
        return _font_file(tables)

    def _outline(self, glyph: int) -> bytes:
        return self._tables[b"glyf"][self._places[glyph] : self._places[glyph + 1]]

    def _components(self, glyph: int) -> list[int]:
        """Return the glyphs that a glyph is put together from, as an accented letter is."""
        outline = self._outline(glyph)
        if not outline or struct.unpack_from(">h", outline)[0] >= 0:
            return []
        parts, place, flags = [], 10, _MORE_COMPONENTS
        while flags & _MORE_COMPONENTS:
            flags, part = struct.unpack_from(">HH", outline, place)
            parts.append(part)
            place += 4 + (4 if flags & _WIDE_ARGUMENTS else 2)
            place += sum(size for flag, size in _SCALE_BYTES.items() if flags & flag)
        return parts

    def _character_map(self) -> list[tuple[int, int, int, int | None]]:
        """Return (first and last code, delta, place of the numbers of glyphs) of each segment of codes."""
        cmap = self._tables[b"cmap"]
        for i in range(struct.unpack_from(">H", cmap, 2)[0]):
            platform, _, start = struct.unpack_from(">HHL", cmap, 4 + 8 * i)
            if platform in (0, 3) and struct.unpack_from(">H", cmap, start)[0] == 4:
                break
        else:
            raise ValueError("the font has no table of Unicode characters in format 4")
        count = struct.unpack_from(">H", cmap, start + 6)[0] // 2
        ends, starts, deltas, offsets = (
            struct.unpack_from(f">{count}H", cmap, start + 14 + 2 * count * i + (2 if i else 0))
            for i in range(4)
        )
        first = start + 16 + 6 * count
        return [
            (a, b, delta, first + 2 * i + offset if offset else None)
            for i, (a, b, delta, offset) in enumerate(zip(starts, ends, deltas, offsets, strict=True))
        ]


def _font_file(tables: dict[bytes, bytes]) -> bytes:
    count = len(tables)
    power = count.bit_length() - 1
    header = struct.pack(">LHHHH", 0x00010000, count, 16 << power, power, 16 * count - (16 << power))
    body = bytearray()
    directory = bytearray()
    for tag, content in sorted(tables.items()):
        padded = content + b"\0" * (-len(content) % 4)
        checksum = sum(struct.unpack(f">{len(padded) // 4}L", padded)) & 0xFFFFFFFF
        directory += struct.pack(">4sLLL", tag, checksum, 12 + 16 * count + len(body), len(content))
        body += padded
    return header + bytes(directory) + bytes(body)
