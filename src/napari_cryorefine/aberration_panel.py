"""The dock of aberrations: what was observed and what was fitted, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF, QSize
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from cryorefine.jobs.ctf_refine_report import shown_limit

if TYPE_CHECKING:
    from cryorefine.jobs.ctf_refine_images import AberrationPicture

DOCK = "Aberrations"


class AberrationPanel(QWidget):
    """Images of the aberrations of one optics group, over spatial frequency in 1/A.

    Attributes
    ----------
    pictures : list of AberrationPicture
        Of all groups.
    shown : list of AberrationPicture
        Of the group that is shown.
    """

    def __init__(self, theme: str = "dark") -> None:
        super().__init__()
        self.pictures: list[AberrationPicture] = []
        self.shown: list[AberrationPicture] = []
        self._names: Sequence[str] = ()
        self._theme = theme
        self.group = QComboBox()
        self.group.setToolTip("Optics group")
        self.group.currentIndexChanged.connect(lambda: self._draw())
        self.values = QLabel()
        self.values.setWordWrap(True)
        self.canvas = pg.GraphicsLayoutWidget()
        self.canvas.setMinimumHeight(200)
        row = QHBoxLayout()
        row.addWidget(QLabel("Optics group"))
        row.addWidget(self.group)
        row.addWidget(self.values, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(row)
        layout.addWidget(self.canvas, 1)
        self.paint(theme)

    def show_pictures(self, pictures: Sequence[AberrationPicture], names: Sequence[str] = ()) -> None:
        """Show images in place of those before.

        Parameters
        ----------
        pictures : sequence of AberrationPicture
            Of all optics groups.
        names : sequence of str
            Names of the optics groups.
        """
        self.pictures, self._names = list(pictures), names
        groups = sorted({picture.group for picture in pictures})
        known = [self.group.itemData(i) for i in range(self.group.count())]
        if groups != known:
            self.group.blockSignals(True)
            self.group.clear()
            for number in groups:
                self.group.addItem(names[number - 1] if number <= len(names) else str(number), number)
            self.group.blockSignals(False)
        self._draw()

    def say(self, text: str) -> None:
        """Tell the values that were fitted."""
        self.values.setText(text)

    def sizeHint(self) -> QSize:
        """Ask for little height: the micrograph above is what most people look at."""
        return QSize(700, 270)

    def paint(self, theme: str) -> None:
        """Take the colours of one of napari's themes, dark or light."""
        from napari.utils.theme import get_theme

        self._theme = theme
        self.canvas.setBackground(get_theme(theme).background.as_hex())
        self._draw()

    def _draw(self) -> None:
        from napari.utils.theme import get_theme

        text = get_theme(self._theme).text.as_hex()
        number = self.group.currentData()
        self.shown = [picture for picture in self.pictures if picture.group == number]
        self.canvas.clear()
        for picture in self.shown:
            limit = shown_limit(picture)
            degrees = 180 / np.pi if picture.unit == "radians" else 1.0
            images = []
            for data, what in ((picture.observed, "observed"), (picture.fitted, "fitted")):
                plot = self.canvas.addPlot(title=f"{picture.title}: {what}")
                plot.setTitle(f"{picture.title}: {what}", color=text, size="9pt")
                images.append(_image(plot, data * degrees, picture.pixel_size, text))
            # not pyqtgraph's own copy, which other docks may have changed
            bar = pg.ColorBarItem(
                values=(-limit * degrees, limit * degrees),
                colorMap=_colours(),
                interactive=False,
                width=10,
                label="degrees" if picture.unit == "radians" else "px",
            )
            bar.setImageItem(images)
            bar.axis.setPen(text)
            bar.axis.setTextPen(text)
            self.canvas.addItem(bar)


def _image(plot: pg.PlotItem, data: np.ndarray, pixel_size: float, text: str) -> pg.ImageItem:
    """Draw one image over frequency; where nothing is known the background is seen."""
    image = pg.ImageItem(axisOrder="row-major")
    image.setImage(data.astype(np.float32))
    box = data.shape[0]
    pixel = 1 / (box * pixel_size) if pixel_size > 0 else 1.0
    place = QRectF(-(box // 2 + 0.5) * pixel, -(box // 2 + 0.5) * pixel, box * pixel, box * pixel)
    image.setRect(place)
    plot.addItem(image)
    plot.setAspectLocked(True)
    plot.hideAxis("left")  # the same as below
    plot.setRange(rect=place, padding=0)
    plot.setMenuEnabled(False)
    axis = plot.getAxis("bottom")
    axis.enableAutoSIPrefix(False)
    axis.setLabel("1/Å" if pixel_size > 0 else "px", color=text)
    axis.setPen(text)
    axis.setTextPen(text)
    return image


def _colours() -> pg.ColorMap:
    return pg.ColorMap((0.0, 0.5, 1.0), [(40, 70, 220), (245, 245, 245), (220, 40, 40)])
