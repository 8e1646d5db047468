"""What the monitor draws: the FSC of every iteration, and how a refinement's numbers went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal

from cryorefine.jobs.base import Curve
from cryorefine.jobs.refinement_history import Iteration
from napari_cryorefine.plots import COLORS, CurvePlot

LOW = tuple(round(3.8 - 0.2 * step, 1) for step in range(14))
_FAINT = 55  # of 255: where many curves lie over one another they are seen all the same


class FscHistory(CurvePlot):
    """The FSC of every iteration, that of the chosen one strong and with its threshold."""

    def __init__(self, theme: str = "dark") -> None:
        self._others: Any = None
        self._color = "#888888"
        super().__init__("FSC", theme)
        self.plot.setMinimumHeight(120)
        self._others = self.plot.plot(pen=self._faint(), connect="finite")
        self._others.setZValue(-1000)

    @property
    def faint(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The curves of all iterations, one behind the other with a gap between them."""
        x, y = self._others.getData()
        return (np.zeros(0), np.zeros(0)) if x is None else (x, y)

    def show_iterations(self, iterations: Sequence[Iteration]) -> None:
        """Draw all of them faintly."""
        gap = np.array([np.nan])
        x = [part for one in iterations for part in (one.frequency, gap)]
        y = [part for one in iterations for part in (one.fsc, gap)]
        # One curve with gaps is drawn faster than many.
        self._others.setData(np.concatenate(x) if x else [], np.concatenate(y) if y else [])

    def show_chosen(self, one: Iteration) -> None:
        """Draw one of them over the others."""
        if np.isfinite(one.fsc).any():
            self.show_curve(Curve("FSC", one.frequency.tolist(), {one.name: one.fsc.tolist()}))

    def paint(self, theme: str) -> None:
        """Take the colours of one of napari's themes, dark or light."""
        from napari.utils.theme import get_theme

        super().paint(theme)
        self._color = get_theme(theme).text.as_hex()
        if self._others is not None:
            self._others.setPen(self._faint())

    def sizeHint(self) -> QSize:
        """Ask for a square or so."""
        return QSize(330, 230)

    def _faint(self) -> Any:
        color = pg.mkColor(self._color)
        color.setAlpha(_FAINT)
        return pg.mkPen(color, width=1)


@dataclass(frozen=True)
class _Scale:
    """How a number becomes a height in a plot, and how a height is written beside the axis."""

    height: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    text: Callable[[float], str]
    places: tuple[float, ...] = ()


def _plain(value: float) -> str:
    return f"{value:.3g}"


_DECADES = tuple(factor * 10.0**power for power in range(-3, 5) for factor in (1, 2, 5))
_LINEAR = _Scale(lambda values: values, _plain)
_LOGARITHMIC = _Scale(np.log10, _plain, _DECADES)
_INVERSE = _Scale(lambda values: 1 / values, _plain, (60, 40, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, *LOW))


@dataclass(frozen=True)
class _Trend:
    """One small plot: its title and the numbers that it shows, in the order of the colours."""

    title: str
    lines: tuple[Callable[[Iteration], float], ...]
    scale: _Scale = _LINEAR


_TIMES = (("Seconds", 1.0), ("Minutes", 60.0), ("Hours", 3600.0))
TRENDS = (
    _Trend("Resolution (Å)", (lambda one: one.resolution,), _INVERSE),
    _Trend(
        "Angles (°)",
        (lambda one: one.angular_step, lambda one: one.accuracy_angle, lambda one: one.change_angle),
        _LOGARITHMIC,
    ),
    _Trend(
        "Offsets (Å)",
        (lambda one: one.offset_step, lambda one: one.accuracy_offset, lambda one: one.change_offset),
        _LOGARITHMIC,
    ),
    _Trend("Largest weight", (lambda one: one.largest_weight,)),
    _Trend("Minutes", (lambda one: one.seconds,)),
)
LINES = ("step", "accuracy", "change")
"""What the lines of angles and offsets are, in the order of their colours."""
_TREND_COLORS = (COLORS[0], COLORS[1], COLORS[2])


class TrendPlots(pg.GraphicsLayoutWidget):
    """Numbers of a refinement over its iterations; a click chooses an iteration.

    Attributes
    ----------
    clicked : Signal
        The number of the iteration that was clicked at.
    """

    clicked = Signal(int)

    def __init__(self, theme: str = "dark") -> None:
        super().__init__()
        self.setMinimumHeight(120)
        self.plots: list[Any] = []
        self.titles = [trend.title for trend in TRENDS]
        self.ci.layout.setContentsMargins(2, 2, 2, 2)
        self._lines: list[list[Any]] = []
        self._marks: list[Any] = []
        self.key = self.addLabel("", row=1, col=2)
        self.scene().sigMouseClicked.connect(self._on_click)
        self.paint(theme)

    def add_plot(self) -> None:
        """Add the next plot: all at once they would keep the window waiting."""
        place = len(self.plots)
        plot = self.addPlot(row=place // 3, col=place % 3, enableMenu=False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.showGrid(x=False, y=True, alpha=0.15)
        for name in ("left", "bottom"):
            plot.getAxis(name).enableAutoSIPrefix(False)
        plot.getAxis("left").setWidth(38)
        mark = pg.InfiniteLine(0, angle=90, movable=False)
        plot.addItem(mark)
        self.plots.append(plot)
        self._marks.append(mark)
        self._lines.append(
            [_line(plot, color) for color, _ in zip(_TREND_COLORS, TRENDS[place].lines, strict=False)]
        )
        self._paint_plot(place)

    def show_iterations(self, iterations: Sequence[Iteration]) -> None:
        """Draw the numbers of these iterations in place of the last ones."""
        numbers = np.array([one.number for one in iterations], float)
        for trend, lines, plot in zip(TRENDS, self._lines, self.plots, strict=False):
            shown: list[float] = []
            for value, line in zip(trend.lines, lines, strict=True):
                values = np.array([value(one) for one in iterations], float)
                good = np.isfinite(values) & ((values > 0) | (trend.scale is _LINEAR))
                heights = trend.scale.height(values[good])
                line.setData(numbers[good], heights)
                shown += heights.tolist()
            if len(shown):
                self._label(plot, trend.scale, min(shown), max(shown))
            if len(numbers):
                plot.setXRange(numbers[0] - 0.5, max(numbers[-1], numbers[0] + 1) + 0.5, padding=0)
        if len(self.plots) == len(TRENDS):
            self._times([one.seconds for one in iterations])

    def _label(self, plot: Any, scale: _Scale, low: float, high: float) -> None:
        """Fit a plot to its numbers and write at most four of those that are round beside it."""
        room = 0.08 * (high - low) or 0.05 * abs(high) or 0.1
        plot.setYRange(low - room, high + room, padding=0)
        if not scale.places:
            return
        heights = sorted((float(scale.height(np.array(place))), place) for place in scale.places)
        inside = [(height, place) for height, place in heights if low - room <= height <= high + room]
        inside = inside[:: max(1, -(-len(inside) // 4))]
        plot.getAxis("left").setTicks([[(height, scale.text(place)) for height, place in inside]])

    def _times(self, seconds: Sequence[float]) -> None:
        """Write times in the unit that suits the longest of them."""
        longest = max((value for value in seconds if np.isfinite(value)), default=0.0)
        title, unit = next((one for one in reversed(_TIMES) if longest >= 1.5 * one[1]), _TIMES[0])
        self.plots[-1].getAxis("left").setScale(1 / unit)
        self.titles[-1] = title
        self.plots[-1].setTitle(title, color=self._text, size="9pt")

    def mark(self, number: int) -> None:
        """Mark the chosen iteration."""
        for mark in self._marks:
            mark.setValue(number)

    def paint(self, theme: str) -> None:
        """Take the colours of one of napari's themes, dark or light."""
        from napari.utils.theme import get_theme

        colors = get_theme(theme)
        self._text = text = colors.text.as_hex()
        self.setBackground(colors.background.as_hex())
        for place in range(len(self.plots)):
            self._paint_plot(place)
        words = "<br>".join(
            f'<span style="color: {color}; font-weight: bold">—</span> {word}'
            for color, word in zip(_TREND_COLORS, LINES, strict=True)
        )
        self.key.setText(f"<div>angles and offsets:<br>{words}</div>", color=text, size="9pt", justify="left")

    def _paint_plot(self, place: int) -> None:
        plot = self.plots[place]
        plot.setTitle(self.titles[place], color=self._text, size="9pt")
        for name in ("left", "bottom"):
            plot.getAxis(name).setPen(self._text)
            plot.getAxis(name).setTextPen(self._text)
        self._marks[place].setPen(pg.mkPen(self._text, style=Qt.PenStyle.DotLine))

    def sizeHint(self) -> QSize:
        """Ask for three small plots in a row."""
        return QSize(520, 230)

    def _on_click(self, event: Any) -> None:
        for plot in self.plots:
            if plot.sceneBoundingRect().contains(event.scenePos()):
                place = plot.vb.mapSceneToView(event.scenePos())
                self.clicked.emit(round(place.x()))


def _line(plot: Any, color: str) -> Any:
    return plot.plot(
        pen=pg.mkPen(color, width=2), symbol="o", symbolSize=4, symbolPen=None, symbolBrush=color
    )
