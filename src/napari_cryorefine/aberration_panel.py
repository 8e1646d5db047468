"""The dock of aberrations: what was observed and what was fitted, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF, QSize
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from cryorefine.jobs.ctf_refine_images import groups_in, read_pictures
from cryorefine.jobs.ctf_refine_report import shown_limit

if TYPE_CHECKING:
    from cryorefine.jobs.ctf_refine_images import AberrationPicture

DOCK = "Aberrations"


class AberrationPanel(QWidget):
    """Images of the aberrations of one optics group, over spatial frequency.

    Attributes
    ----------
    folder : Path
        The job's folder.
    shown : list of AberrationPicture
        Of the group that is shown.
    """

    def __init__(self, theme: str = "dark") -> None:
        super().__init__()
        self.folder = Path()
        self.shown: list[AberrationPicture] = []
        self._texts: Sequence[str] = ()
        self._theme = theme
        self.group = QComboBox()
        self.group.setToolTip("Optics group")
        self.group.currentIndexChanged.connect(lambda: self.refresh())
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

    def show_folder(self, folder: Path, names: Sequence[str] = (), texts: Sequence[str] = ()) -> None:
        """Show what a job's folder holds; of many optics groups only the one that is shown is ever read.

        Parameters
        ----------
        folder : Path
            The job's folder.
        names, texts : sequence of str
            Names of the optics groups, and their values in words.
        """
        groups = groups_in(folder)
        known = [self.group.itemData(i) for i in range(self.group.count())]
        if groups != known:
            number = self.group.currentData()
            self.group.blockSignals(True)
            self.group.clear()
            for group in groups:
                self.group.addItem(names[group - 1] if group <= len(names) else str(group), group)
            self.group.setCurrentIndex(max(0, self.group.findData(number)))
            self.group.blockSignals(False)
        self.folder, self._texts = folder, texts
        self.refresh()

    def update_group(self, folder: Path, group: int) -> None:
        """Take notice of new images of a group: they are read if they are what is shown."""
        if folder != self.folder or self.group.findData(group) < 0:
            names = [self.group.itemText(i) for i in range(self.group.count())]
            self.show_folder(folder, names if folder == self.folder else ())
        elif group == self.group.currentData():
            self.refresh()

    def refresh(self) -> None:
        """Read the images of the group that is shown, and draw them."""
        number = self.group.currentData()
        self.shown = read_pictures(self.folder, number) if number is not None else []
        if number is not None and number <= len(self._texts):
            self.values.setText(self._texts[number - 1])
        self._draw()

    def say(self, text: str) -> None:
        """Tell values while they are being fitted."""
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
            )
            bar.axis.setLabel("degrees" if picture.unit == "radians" else "px", color=text)
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
    axis.setLabel("Resolution (Å)" if pixel_size > 0 else "px", color=text)
    axis.setPen(None)  # the image is narrower than its place
    axis.setTextPen(text)
    if pixel_size > 0:
        axis.setTicks([_ticks(data, pixel)])
    return image


def _ticks(data: np.ndarray, pixel: float) -> list[tuple[float, str]]:
    """Return marks at the edges of what is known, half way there and in the middle, told in A."""
    known = np.flatnonzero(np.isfinite(data).any(axis=0))
    if not len(known):
        return []
    edge = np.abs(known - data.shape[1] // 2).max() * pixel
    return [(0.0, "∞"), *((part * edge, f"{1 / abs(part * edge):.3g}") for part in (-1, -0.5, 0.5, 1))]


def _colours() -> pg.ColorMap:
    return pg.ColorMap((0.0, 0.5, 1.0), [(40, 70, 220), (245, 245, 245), (220, 40, 40)])
