"""logfile.pdf of CtfRefine: what was found in words, the aberrations, and every micrograph's particles."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.pdf import Page, write_pdf
from cryorefine.jobs.ctf_refine_images import AberrationPicture
from cryorefine.jobs.curve_plot import ticks

if TYPE_CHECKING:
    from cryorefine.refine.ctf_refinement import Finding

F64 = NDArray[np.float64]

BLUE_TO_ORANGE = ("#2166f0", "#c8c8c8", "#f08a00")
"""Colours from low to high defocus."""

_BLUE_TO_RED = ("#053061", "#4393c3", "#f7f7f7", "#d6604d", "#67001f")
"""Colours from negative to positive phases (ColorBrewer's RdBu)."""

_UNKNOWN = 217
"""Grey of pixels of which nothing is known."""

_PAPER = (595.0, 842.0)
_PER_PAGE = (3, 2)
_LINES, _LETTERS = 54, 96
_INK = (0.4, 0.4, 0.4)


def write_logfile(
    path: Path,
    findings: Sequence[Finding],
    pictures: Sequence[AberrationPicture],
    micrographs: Sequence[tuple[str, NDArray[np.int64]]],
    places: F64,
    defocus: F64,
) -> Iterator[int]:
    """Write the PDF; yields how many micrographs are drawn.

    Parameters
    ----------
    path : Path
        The PDF.
    findings : sequence of Finding
        Sentences for the last page.
    pictures : sequence of AberrationPicture
        Observed and fitted aberrations.
    micrographs : sequence of (str, ndarray of int)
        Name and particles of each.
    places : ndarray, shape (particles, 2)
        x and y in A; without places (NaN) no micrographs are drawn.
    defocus : ndarray, shape (particles,)
        Mean defocus in A.
    """
    # RELION's order: aberrations first; the words come last, where the micrographs end.
    pages = [_aberration_page(picture) for picture in pictures]
    rows, columns = _PER_PAGE
    known = [] if np.isnan(places).all() else list(micrographs)
    extent = np.nanmax(places, axis=0) * 1.02 if known else np.ones(2)
    for first in range(0, len(known), rows * columns):
        some = known[first : first + rows * columns]
        pages.append(_micrograph_page(some, places, defocus, extent))
        yield first + len(some)
    pages += _word_pages(findings)
    write_pdf(path, pages)


def shown_limit(picture: AberrationPicture) -> float:
    """Return the largest value that the colours of a picture show: of the fit where something was seen."""
    seen = np.isfinite(picture.observed)
    if not seen.any():
        return 1.0
    limit = float(np.percentile(np.abs(picture.fitted[seen]), 98))
    if picture.unit == "radians":
        return float(np.clip(limit, 0.25, np.pi))
    return max(limit, 1e-3)


def _colours(share: F64, scale: Sequence[str]) -> F64:
    """Return red, green and blue (0 to 1) of shares from 0 to 1, shape (..., 3)."""
    parts = np.array([[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in scale])
    stops = np.linspace(0, 1, len(scale))
    return np.stack([np.interp(share, stops, part) for part in parts.T], axis=-1)


def _filled(
    page: Page, rectangle: tuple[float, float, float, float], share: F64, scale: Sequence[str]
) -> None:
    """Fill a rectangle with the colours of an image, rows upwards; grey where it is NaN."""
    colours = np.rint(255 * _colours(np.nan_to_num(share), scale)).astype(np.uint8)
    colours[np.isnan(share)] = _UNKNOWN
    page.pixels(rectangle, (share.shape[0], share.shape[1]), colours[::-1].tobytes())


def _frame(page: Page, rectangle: tuple[float, float, float, float]) -> None:
    x, y, width, height = rectangle
    page.line([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)], 0.6, _INK)


def _aberration_page(picture: AberrationPicture) -> Page:
    page = Page(_PAPER[0], 300)
    box = picture.fitted.shape[0]
    edge = 0.5 / picture.pixel_size if picture.pixel_size > 0 else box / 2
    limit, side, bottom = shown_limit(picture), 228.0, 40.0
    for left, data, what in ((44.0, picture.observed, "observed"), (288.0, picture.fitted, "fitted")):
        panel = (left, bottom, side, side)
        _filled(page, panel, 0.5 + data / (2 * limit), _BLUE_TO_RED)
        _frame(page, panel)
        title = f"{picture.title}, optics group {picture.group}: {what}"
        page.text(left + side / 2, bottom + side + 8, title, 8, 0.5)
        for value, words in ticks(-edge, edge, 5):
            at = (value + edge) / (2 * edge) * side
            page.line([(left + at, bottom), (left + at, bottom - 3)], 0.6, _INK)
            page.text(left + at, bottom - 11, words, 7, 0.5)
            if left < 50:
                page.line([(left, bottom + at), (left - 3, bottom + at)], 0.6, _INK)
                page.text(left - 5, bottom + at - 2.5, words, 7, 1.0)
        words = "spatial frequency x (1/Å)" if picture.pixel_size > 0 else f"x (of {box} px)"
        page.text(left + side / 2, bottom - 24, words, 8, 0.5)
    angle = picture.unit == "radians"
    shown = np.rad2deg(limit) if angle else limit
    bar = (528.0, bottom, 10.0, side)
    _filled(page, bar, np.linspace(0, 1, 128)[:, None], _BLUE_TO_RED)
    _frame(page, bar)
    for value, words in ticks(-shown, shown, 6):
        at = bottom + (value + shown) / (2 * shown) * side
        page.line([(538, at), (541, at)], 0.6, _INK)
        page.text(543, at - 2.5, words, 7)
    words = "phase (degrees)" if angle else "displacement (px)"
    page.text(582, bottom + side / 2, words, 8, 0.5, upwards=True)
    return page


def _micrograph_page(
    micrographs: Sequence[tuple[str, NDArray[np.int64]]], places: F64, defocus: F64, extent: F64
) -> Page:
    page = Page(*_PAPER)
    rows, columns = _PER_PAGE
    width, height = 0.92 * _PAPER[0] / columns, 0.94 * _PAPER[1] / rows
    scale = min(0.76 * width / extent[0], 0.84 * height / extent[1])
    size = scale * extent
    for number, (name, members) in enumerate(micrographs):
        left = 0.04 * _PAPER[0] + number % columns * width
        bottom = 0.97 * _PAPER[1] - number // columns * height - 0.1 * height - size[1]
        low, high = float(defocus[members].min()), float(defocus[members].max())
        share = (defocus[members] - low) / max(high - low, 1e-9)
        x, y = left + scale * places[members, 0], bottom + scale * places[members, 1]
        page.dots(zip(x, y, strict=True), 3.5, _colours(share, BLUE_TO_ORANGE))
        _frame(page, (left, bottom, float(size[0]), float(size[1])))
        page.text(left, bottom + size[1] + 5, f"{name} ({len(members)} particles)", 7)
        bar = left + size[0] + 7
        _filled(page, (bar, bottom, 11, float(size[1])), np.linspace(0, 1, 64)[:, None], BLUE_TO_ORANGE)
        for value, at in ((high, size[1] - 5), ((low + high) / 2, size[1] / 2 - 2), (low, 1)):
            page.text(bar + 14, bottom + at, f"{value:.0f} Å", 6)
    words = f"fields of {extent[0]:.0f} x {extent[1]:.0f} Å, y upwards"
    page.text(0.04 * _PAPER[0], 0.01 * _PAPER[1], words, 6, colour=(0.3, 0.3, 0.3))
    return page


def _word_pages(findings: Sequence[Finding]) -> Iterator[Page]:
    lines = [("", "CtfRefine"), ("", "")]
    for finding in findings:
        mark = "!" if finding.warning else "\N{BULLET}" if finding.supported else "×"
        for number, words in enumerate(textwrap.wrap(finding.message, _LETTERS)):
            lines.append(("" if number else mark, words))
    for first in range(0, len(lines), _LINES):
        page = Page(*_PAPER)
        for row, (mark, words) in enumerate(lines[first : first + _LINES]):
            y = 0.94 * _PAPER[1] - 14 * row
            page.text(0.08 * _PAPER[0], y, mark, 9)
            page.text(0.08 * _PAPER[0] + (12 if first + row else 0), y, words, 9 if first + row else 12)
        yield page
