"""Drawings as PDF: lines, dots, pixels and text, enough for plots, written in milliseconds.

Matplotlib draws them as well, but takes longer to load and to lay out two plots than everything else
that post-processing does. Its typeface (DejaVu Sans) is embedded, so that a drawing looks the same
everywhere and may be printed. PDF 1.7 is ISO 32000-1:2008.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Sequence

from cryorefine.io.files import write_whole
from cryorefine.io.truetype import Font, sans

Colour = tuple[float, float, float]
BLACK: Colour = (0.0, 0.0, 0.0)


class Page:
    """One page; lengths are in points (1/72 inch) from the lower left corner.

    Parameters
    ----------
    width, height : float
        Size of the page.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.characters: set[str] = set()
        self.images: list[tuple[int, int, bytes]] = []
        self._marks: list[str] = []

    def line(
        self,
        points: Iterable[tuple[float, float]],
        width: float = 1.0,
        colour: Colour = BLACK,
        dash: Sequence[float] = (),
        within: tuple[float, float, float, float] | None = None,
    ) -> None:
        """Draw a line through points (x, y); one that is not finite leaves a gap.

        ``within`` is the rectangle (x, y, width, height) outside of which nothing is drawn.
        """
        words = ["q"]
        if within is not None:
            words.append(f"{_numbers(within)} re W n")
        words.append(f"{_numbers(colour)} RG {_numbers([width])} w [{_numbers(dash)}] 0 d 1 j")
        pen = "m"
        for point in points:
            if all(map(math.isfinite, point)):
                words.append(f"{_numbers(point)} {pen}")
                pen = "l"
            else:
                pen = "m"
        self._marks.append("\n".join([*words, "S Q"]))

    def dots(
        self, points: Iterable[tuple[float, float]], diameter: float, colours: Iterable[Sequence[float]]
    ) -> None:
        """Draw filled circles about points (x, y), each in its own colour (red, green, blue; 0 to 1)."""
        words = [f"q 1 J {_numbers([diameter])} w"]  # the round end of a line without length
        for point, colour in zip(points, colours, strict=True):
            place = _numbers(point)
            words.append(f"{_numbers(colour)} RG {place} m {place} l S")
        self._marks.append("\n".join([*words, "Q"]))

    def pixels(
        self, rectangle: tuple[float, float, float, float], shape: tuple[int, int], content: bytes
    ) -> None:
        """Fill a rectangle (x, y, width, height) with an image.

        ``content`` holds red, green and blue of each pixel, a byte each, rows from the top; ``shape`` is the
        number of rows and columns.
        """
        x, y, width, height = rectangle
        place = _numbers((width, 0, 0, height, x, y))
        self._marks.append(f"q {place} cm /I{len(self.images)} Do Q")
        self.images.append((*shape, content))

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 10.0,
        align: float = 0.0,
        upwards: bool = False,
        colour: Colour = BLACK,
    ) -> None:
        """Write words from a point on the base line; ``align`` 0.5 centres them there, 1 ends them there."""
        font = sans()
        self.characters.update(words)
        back = align * size * font.width(words)
        place = (0, 1, -1, 0, x, y - back) if upwards else (1, 0, 0, 1, x - back, y)
        glyphs = "".join(f"{font.glyph(character):04x}" for character in words)
        self._marks.append(
            f"BT {_numbers(colour)} rg /F {_numbers([size])} Tf {_numbers(place)} Tm <{glyphs}> Tj ET"
        )

    def content(self) -> bytes:
        """Return the drawing in PDF's own language."""
        return "\n".join(self._marks).encode("ascii")


def write_pdf(path: str | os.PathLike[str], pages: Sequence[Page]) -> None:
    """Write pages into a file, which appears under its name when it is whole.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    font = 3
    objects += _font_objects(sans(), sorted(set().union(*(page.characters for page in pages))), font)
    kids = []
    for page in pages:
        objects.append(_stream(page.content()))
        contents = len(objects)
        named = ""
        for image, (rows, columns, content) in enumerate(page.images):
            size = b"/Type /XObject /Subtype /Image /Width %d /Height %d " % (columns, rows)
            objects.append(_stream(content, size + b"/ColorSpace /DeviceRGB /BitsPerComponent 8 "))
            named += f"/I{image} {len(objects)} 0 R "
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {_numbers((page.width, page.height))}] "
            f"/Resources << /Font << /F {font} 0 R >> /XObject << {named}>> >> "
            f"/Contents {contents} 0 R >>".encode()
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(pages)} >>".encode()
    body = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start, count = len(body), len(objects) + 1
    body += b"xref\n0 %d\n0000000000 65535 f \n" % count
    body += b"".join(b"%010d 00000 n \n" % place for place in places)
    body += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, start)
    with write_whole(path) as temporary:
        temporary.write_bytes(body)


def _font_objects(font: Font, characters: Sequence[str], first: int) -> list[bytes]:
    """Return the objects of an embedded font that holds some characters; the first of them has a number."""
    name = b"CRYORE+DejaVuSans"
    glyphs = {font.glyph(character): character for character in characters}
    widths = " ".join(f"{glyph} [{1000 * font.width(glyphs[glyph]):.0f}]" for glyph in sorted(glyphs))
    meaning = "\n".join(
        f"<{glyph:04x}> <{character.encode('utf-16-be').hex()}>" for glyph, character in glyphs.items()
    )
    to_unicode = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapType 2 def\n"
        "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        f"{len(glyphs)} beginbfchar\n{meaning}\nendbfchar\n"
        "endcmap CMapName currentdict /CMap defineresource pop end end"
    )
    file = font.subset(glyphs)
    box = " ".join(f"{1000 * edge:.0f}" for edge in font.box)
    return [
        b"<< /Type /Font /Subtype /Type0 /BaseFont /%s /Encoding /Identity-H /DescendantFonts [%d 0 R] "
        b"/ToUnicode %d 0 R >>" % (name, first + 1, first + 4),
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /%s /FontDescriptor %d 0 R /CIDToGIDMap /Identity "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /W [%s] >>"
        % (name, first + 2, widths.encode()),
        b"<< /Type /FontDescriptor /FontName /%s /Flags 4 /FontBBox [%s] /ItalicAngle 0 /Ascent %d "
        b"/Descent %d /CapHeight 729 /StemV 80 /FontFile2 %d 0 R >>"
        % (name, box.encode(), 1000 * font.ascent, 1000 * font.descent, first + 3),
        _stream(file, b"/Length1 %d " % len(file)),
        _stream(to_unicode.encode("ascii")),
    ]


def _stream(content: bytes, more: bytes = b"") -> bytes:
    packed = zlib.compress(content)
    return b"<< /Length %d %s/Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), more, packed)


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3f}".rstrip("0").rstrip(".") for value in values)
