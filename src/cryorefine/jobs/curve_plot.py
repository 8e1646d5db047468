"""Plots of curves as pages of a PDF: axes with ticks, a second scale on top, lines, and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryorefine.io.pdf import BLACK, Colour, Page

BLUE: Colour = (0.12, 0.47, 0.71)
ORANGE: Colour = (1.0, 0.5, 0.05)
GREEN: Colour = (0.17, 0.63, 0.17)
RED: Colour = (0.84, 0.15, 0.16)
GREY: Colour = (0.45, 0.45, 0.45)
LIGHT: Colour = (0.8, 0.8, 0.8)
DASHES = (4.0, 2.5)

_WIDTH, _HEIGHT = 504.0, 346.0
_LEFT, _BOTTOM, _RIGHT, _TOP = 52.0, 42.0, 488.0, 292.0
_TICK, _SIZE, _SMALL = 3.5, 10.0, 9.0


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes
    ----------
    x, y : sequence of float
        Points; a value that is not finite leaves a gap.
    name : str
        In the legend; none without one.
    colour : tuple of float
        Red, green and blue, 0 to 1.
    width : float
        Points.
    dashed : bool
        Whether the line is broken.
    """

    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    colour: Colour = BLACK
    width: float = 1.2
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """A page with one pair of axes.

    Attributes
    ----------
    title, x_label, y_label : str
        What stands above, below and beside.
    x_range, y_range : tuple of float
        Ends of the axes.
    lines : sequence of Line
        The curves, the first one lowest.
    top_ticks : sequence of (float, str)
        Places and words of a second scale above.
    top_label : str
        What it shows.
    """

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    lines: Sequence[Line]
    top_ticks: Sequence[tuple[float, str]] = field(default=())
    top_label: str = ""


def draw(plot: Plot) -> Page:
    """Draw a plot on a page of its own, 7 by 4.8 inches."""
    page = Page(_WIDTH, _HEIGHT)
    frame = (_LEFT, _BOTTOM, _RIGHT - _LEFT, _TOP - _BOTTOM)

    def x_of(value: float) -> float:
        return _LEFT + (value - plot.x_range[0]) / (plot.x_range[1] - plot.x_range[0]) * frame[2]

    def y_of(value: float) -> float:
        return _BOTTOM + (value - plot.y_range[0]) / (plot.y_range[1] - plot.y_range[0]) * frame[3]

    for line in plot.lines:
        points = ((x_of(x), y_of(y)) for x, y in zip(line.x, line.y, strict=True))
        page.line(points, line.width, line.colour, DASHES if line.dashed else (), frame)
    corners = [(_LEFT, _BOTTOM), (_RIGHT, _BOTTOM), (_RIGHT, _TOP), (_LEFT, _TOP), (_LEFT, _BOTTOM)]
    page.line(corners, 0.8)
    for value, words in ticks(*plot.x_range):
        page.line([(x_of(value), _BOTTOM), (x_of(value), _BOTTOM - _TICK)], 0.8)
        page.text(x_of(value), _BOTTOM - _TICK - _SMALL, words, _SMALL, 0.5)
    for value, words in ticks(*plot.y_range):
        page.line([(_LEFT, y_of(value)), (_LEFT - _TICK, y_of(value))], 0.8)
        page.text(_LEFT - _TICK - 2, y_of(value) - 0.35 * _SMALL, words, _SMALL, 1.0)
    for value, words in plot.top_ticks:
        page.line([(x_of(value), _TOP), (x_of(value), _TOP + _TICK)], 0.8)
        page.text(x_of(value), _TOP + _TICK + 3, words, _SMALL, 0.5)
    middle = (_LEFT + _RIGHT) / 2
    page.text(middle, _BOTTOM - 32, plot.x_label, _SIZE, 0.5)
    page.text(middle, _TOP + 18, plot.top_label, _SIZE, 0.5)
    page.text(middle, _TOP + 36, plot.title, _SIZE + 2, 0.5)
    page.text(14, (_BOTTOM + _TOP) / 2, plot.y_label, _SIZE, 0.5, upwards=True)
    _legend(page, [line for line in plot.lines if line.name])
    return page


def ticks(low: float, high: float, most: int = 7) -> list[tuple[float, str]]:
    """Return round numbers between two values, at most so many, and how they are written."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step)))
    if not math.isclose(step * 10**digits, round(step * 10**digits)):
        digits += 1
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # A true minus sign, as wide as a plus.
    return [
        (n * step, f"{n * step:.{digits}f}".replace("-", "\N{MINUS SIGN}")) for n in range(first, last + 1)
    ]


def _legend(page: Page, lines: Sequence[Line]) -> None:
    """Name the curves in the upper right corner, which curves that fall leave free."""
    from cryorefine.io.truetype import sans

    if not lines:
        return
    left = _RIGHT - 10 - _SMALL * max(sans().width(line.name) for line in lines)
    for row, line in enumerate(lines):
        y = _TOP - 16 - 14 * row
        dash = DASHES if line.dashed else ()
        page.line([(left - 30, y + 3), (left - 6, y + 3)], line.width, line.colour, dash)
        page.text(left, y, line.name, _SMALL)
