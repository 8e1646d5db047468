"""Curves over spatial frequency, with resolutions in angstroms on the axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from cryorefine.jobs.base import Curve
from cryorefine.maps.fsc import GOLD_STANDARD, resolution_shell

COLORS = ("#3b9bff", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
"""Near Okabe and Ito's, apart for colour-blind eyes; they show on dark and on light."""


class ResolutionAxis(pg.AxisItem):
    """An axis of spatial frequency whose ticks are written as resolutions in A.

    Parameters
    ----------
    squared : bool
        Whether the axis is the square of the frequency, as in a Guinier plot.
    """

    def __init__(self, *, squared: bool = False) -> None:
        super().__init__("bottom")
        self.squared = squared
        self.setLabel("Resolution (Å)")
        self.enableAutoSIPrefix(False)

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        """Write each frequency as the resolution in A that it stands for."""
        return [resolution_text(value, squared=self.squared) for value in values]


def resolution_text(frequency: float, *, squared: bool = False) -> str:
    """Return "20", "6.7" or "2.94" for a spatial frequency in 1/A (or its square), "∞" for 0."""
    if frequency <= 0:
        return "∞" if frequency == 0 else ""
    resolution = frequency**-0.5 if squared else 1 / frequency
    digits = 0 if resolution >= 20 else 1 if resolution >= 5 else 2
    return f"{resolution:.{digits}f}"


class CurvePanel(QWidget):
    """All families of curves that a viewer shows, side by side, each under its name."""

    def __init__(self, theme: str = "dark") -> None:
        super().__init__()
        self.plots: dict[str, CurvePlot] = {}
        self._theme = theme
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)

    def show_curve(self, curve: Curve) -> None:
        """Draw a family of curves in place of the last one of its name."""
        if curve.name not in self.plots:
            self.plots[curve.name] = CurvePlot(curve.name, self._theme)
            self._row.addWidget(self.plots[curve.name], 1)
        self.plots[curve.name].show_curve(curve)

    def paint(self, theme: str) -> None:
        """Take the colours of one of napari's themes."""
        self._theme = theme
        for plot in self.plots.values():
            plot.paint(theme)


class CurvePlot(QWidget):
    """A family of curves: FSC against resolution, or a Guinier plot against resolution squared.

    The threshold of an FSC can be moved; it tells the resolution at which the first curve crosses it.
    A Guinier plot may have a range that is moved or drawn out at its ends.

    Attributes
    ----------
    range_moved : Signal
        Lowest and highest resolution of the range in A; 0 for the highest where it reaches the end.
    """

    range_moved = Signal(float, float)

    def __init__(self, name: str, theme: str = "dark") -> None:
        super().__init__()
        self.guinier = "guinier" in name.lower()
        self.is_fsc = "fsc" in name.lower()
        self._items: dict[str, pg.PlotDataItem] = {}
        self._range: Any = None
        self.plot = pg.PlotWidget(
            axisItems={"bottom": ResolutionAxis(squared=self.guinier)}, enableMenu=False
        )
        self.plot.setMinimumHeight(160)
        self.plot.showGrid(x=True, y=True, alpha=0.15)
        self.plot.getAxis("left").enableAutoSIPrefix(False)
        self.legend = self.plot.addLegend(offset=(-8, 8), labelTextSize="9pt")
        if self.is_fsc:
            self.plot.setLabel("left", "FSC")
            self.plot.setYRange(-0.1, 1.1, padding=0)
            self.legend.setOffset((8, -44))  # good curves leave the lower left free
            self.threshold = pg.InfiniteLine(
                GOLD_STANDARD, angle=0, label="0.143", movable=True, bounds=(0.0, 0.99)
            )
            self.threshold.setToolTip("Drag it up or down to read the resolution at another threshold")
            self.threshold.label.setPosition(0.6)
            self.threshold.sigPositionChanged.connect(self._read_out)
            self.plot.addItem(self.threshold)
        elif self.guinier:
            self.plot.setLabel("left", "ln amplitude")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.plot, 1)
        self.paint(theme)

    @property
    def curves(self) -> Mapping[str, tuple[Any, Any]]:
        """What is drawn now: label -> (x, y); x is 1/A, or 1/A^2 in a Guinier plot."""
        return {label: item.getData() for label, item in self._items.items()}

    def show_curve(self, curve: Curve) -> None:
        """Draw a family of curves in place of the last one."""
        frequency = np.asarray(curve.frequency, dtype=float)
        x = frequency**2 if self.guinier else frequency
        if list(self._items) != list(curve.values):
            for item in self._items.values():
                self.plot.removeItem(item)
            self._items = {}
            for number, label in enumerate(curve.values):
                # The first FSC is the one that counts: broad, under others that run along it.
                pen = pg.mkPen(COLORS[number % len(COLORS)], width=5 if self.is_fsc and not number else 2)
                self._items[label] = self.plot.plot(name=label, pen=pen)
                self._items[label].setZValue(number if self.is_fsc else -number)
        for label, values in curve.values.items():
            y = np.array(values, dtype=float)
            good = np.isfinite(y) & np.isfinite(x)
            if self.guinier:
                # The mean, of a map whose mean is about 0: it would press all else into a corner.
                good &= x > 0
            self._items[label].setData(x[good], y[good])
        if len(x):
            self.plot.setXRange(0, float(x[-1]), padding=0.01)
        if self.is_fsc:
            self._read_out()

    def resolution_at(self, threshold: float) -> float | None:
        """Return the resolution in A at which the first curve drops below a threshold; None without one.

        Infinite where it never reaches the threshold.
        """
        if not self._items:
            return None
        frequency, correlation = next(iter(self._items.values())).getData()
        if frequency is None or not len(frequency):
            return None
        shell = resolution_shell(correlation, threshold)
        return 1 / frequency[shell] if shell and frequency[shell] > 0 else math.inf

    def show_range(self, lowest: float, highest: float) -> None:
        """Show the range of a fit between two resolutions in A; 0 for the highest means to the end."""
        if self._range is None:
            self._range = pg.LinearRegionItem(brush=(120, 160, 220, 45), hoverBrush=(120, 160, 220, 70))
            self._range.setZValue(-100)
            self._range.sigRegionChanged.connect(self._on_range)
            self.plot.addItem(self._range)
        end = self._end()
        with QSignalBlocker(self._range):
            self._range.setBounds((0, end))
            self._range.setRegion((min(1 / lowest**2, end), 1 / highest**2 if highest > 0 else end))

    def _on_range(self) -> None:
        left, right = self._range.getRegion()
        end = self._end()
        lowest = 1 / math.sqrt(max(left, end * 1e-4))
        self.range_moved.emit(lowest, 0.0 if right >= 0.999 * end else 1 / math.sqrt(right))

    def _end(self) -> float:
        """Return the square of the highest frequency that is drawn."""
        return max(float(item.getData()[0][-1]) for item in self._items.values())

    def _read_out(self) -> None:
        threshold = self.threshold.value()
        resolution = self.resolution_at(threshold)
        text = f"{threshold:.3g}"
        if resolution is not None:
            text += f": {resolution:.2f} Å" if math.isfinite(resolution) else ": not reached"
        self.threshold.label.setFormat(text)

    def sizeHint(self) -> QSize:
        """Ask for little height: the map above is what most people look at."""
        return QSize(420, 250)

    def paint(self, theme: str) -> None:
        """Take the colours of one of napari's themes, dark or light."""
        from napari.utils.theme import get_theme

        colors = get_theme(theme)
        background, text = colors.background.as_hex(), colors.text.as_hex()
        self.plot.setBackground(background)
        for name in ("bottom", "left"):
            self.plot.getAxis(name).setPen(text)
            self.plot.getAxis(name).setTextPen(text)
        self.legend.setLabelTextColor(text)
        for _, label in self.legend.items:
            label.setText(label.text, color=text)
        if self.is_fsc:
            self.threshold.setPen(pg.mkPen(text, style=Qt.PenStyle.DashLine))
            self.threshold.label.setColor(text)
