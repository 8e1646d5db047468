"""Drawings as PDF: readers open them, find the words in them, and see the lines where they were drawn."""

import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest

from cryorefine.io.pdf import Page, write_pdf
from cryorefine.io.truetype import sans


@pytest.fixture
def page():
    page = Page(200, 100)
    page.line([(20, 10), (180, 10), (180, np.nan), (20, 90), (180, 90)], 4.0, (1.0, 0.0, 0.0))
    page.line([(0, 50), (200, 50)], 6.0, (0.0, 0.0, 1.0), within=(100, 0, 100, 100))
    page.dots([(40, 70), (60, 70)], 8.0, [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0)])
    page.pixels((120, 64, 20, 20), (2, 2), bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]))
    page.text(100, 60, "B = −12.5 ± 3 Å²", 12, 0.5)
    return page


def test_the_table_of_objects_points_at_them(page, tmp_path):
    write_pdf(tmp_path / "a.pdf", [page, page])
    content = (tmp_path / "a.pdf").read_bytes()
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", content)[1])
    places = [int(line[:10]) for line in content[start:].split(b"\n")[3:] if line.endswith(b" n ")]
    assert places
    for number, place in enumerate(places, 1):
        assert content[place:].startswith(b"%d 0 obj\n" % number)
    assert b"/Count 2 " in content


def test_the_embedded_font_holds_what_is_used_and_no_more(page, tmp_path):
    """An accented letter is put together from others, which have to come along."""
    whole = len(sans()._tables[b"glyf"])
    subset = sans().subset([sans().glyph("Ä")])
    assert len(zlib.compress(subset)) < whole / 10
    assert sans()._outline(sans().glyph("A")) in subset
    assert sans()._outline(sans().glyph("q")) not in subset


def test_widths_are_those_of_the_font():
    assert sans().width("") == 0
    assert sans().width("ii") == pytest.approx(2 * sans().width("i"))
    assert sans().width("m") > 3 * sans().width("i")
    assert sans().glyph("\N{SNOWMAN}") != sans().glyph("\U0010ffff") == 0


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")
def test_another_program_reads_the_words_and_sees_the_lines(page, tmp_path):
    write_pdf(tmp_path / "a.pdf", [page])
    words = subprocess.run(["pdftotext", "a.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
    assert words.stdout.decode().split() == ["B", "=", "−12.5", "±", "3", "Å²"]
    assert not words.stderr
    subprocess.run(["pdftoppm", "-r", "72", "a.pdf", "a"], cwd=tmp_path, check=True)
    header, pixels = next(tmp_path.glob("a*.ppm")).read_bytes().split(b"\n255\n", 1)
    assert header.split() == [b"P6", b"200", b"100"]
    image = np.frombuffer(pixels, np.uint8).reshape(100, 200, 3)
    assert (image[89, 100] == (255, 0, 0)).all()  # rows run downwards
    assert (image[9, 100] == (255, 0, 0)).all()
    assert (image[30, 180] == 255).all()  # the gap
    assert (image[49, 150] == (0, 0, 255)).all()
    assert (image[49, 50] == 255).all()  # cut off by the rectangle
    assert (image[29, 40] == (0, 255, 0)).all()
    assert (image[29, 60] == (255, 0, 255)).all()
    assert (image[29, 50] == 255).all()
    corners = [image[row, column].tolist() for row in (20, 31) for column in (124, 135)]
    assert corners == [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
