"""The dock with the map of the sky."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF, QSize
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from cryorefine.errors import UserError
from cryorefine.geometry.sky import mollweide_image, mollweide_position
from napari_cryorefine.latest import Latest
from napari_cryorefine.sky import Sky, add_direction_sphere, direction_text, read_sky

if TYPE_CHECKING:
    import napari.viewer


class SkyPanel(QWidget):
    """A Mollweide map of particle views or of directional resolution, read off under the mouse.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        Where the sphere of a directional FSC is shown.
    theme : str
        Theme of napari's, where there is no viewer to tell it.
    bare : bool
        Leave out what opens files and counts anew: a part of another dock.

    Attributes
    ----------
    sky : Sky or None
        What is shown now.
    """

    def __init__(
        self, viewer: napari.viewer.Viewer | None = None, *, theme: str = "dark", bare: bool = False
    ) -> None:
        super().__init__()
        self._bare = bare
        self._reader = Latest(_read, self)
        self._reader.made.connect(self._take)
        self._reader.failed.connect(self._refuse)
        self.sky: Sky | None = None
        self._viewer = viewer
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip(
            "A STAR file of refined particles, or directional_fsc.star or orientations.star of a job"
        )
        self.open_button.clicked.connect(self._ask)
        self.symmetry = QLineEdit("C1")
        self.symmetry.setToolTip("Point group by whose symmetry mates particles are counted, e.g. D2")
        self.symmetry.setMaximumWidth(60)
        self.symmetry.editingFinished.connect(self._recount)
        self.title, self.reading = QLabel(), QLabel()
        row = QHBoxLayout()
        self._symmetry_label = QLabel("Symmetry")
        for widget in (self.open_button, self._symmetry_label, self.symmetry):
            row.addWidget(widget)
            if bare:
                widget.hide()
        row.addWidget(self.title, 1)
        row.addWidget(self.reading)

        self.plot = pg.PlotWidget(enableMenu=False)
        self.plot.setMinimumHeight(160)
        self.plot.setAspectLocked(True)
        self.plot.hideAxis("left")
        self.plot.hideAxis("bottom")
        self.plot.getPlotItem().layout.setContentsMargins(0, 8, 0, 8)  # for the bar's first and last number
        self.image = pg.ImageItem(axisOrder="row-major")
        self.plot.addItem(self.image)
        self.bar = pg.ColorBarItem(interactive=False, width=12)
        self.bar.setImageItem(self.image, insert_in=self.plot.getPlotItem())
        self._draw_grid()
        self.plot.scene().sigMouseMoved.connect(self._read)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(row)
        layout.addWidget(self.plot, 1)
        self.paint(viewer.theme if viewer is not None else theme)
        if viewer is not None:
            viewer.events.theme.connect(lambda: self.paint(viewer.theme))

    @property
    def busy(self) -> bool:
        """Whether a file is being read."""
        return self._reader.busy

    def open(self, path: Path) -> None:
        """Show a file, with the sphere that goes with it; a mistake is told in place of the title."""
        self.title.setText(f"Reading {path.name}…")
        self._reader.ask((path, self.symmetry.text()))

    def _take(self, sky: Sky) -> None:
        if sky.low_is_good and self._viewer is not None:
            add_direction_sphere(self._viewer, sky)
        self.show_sky(sky)

    def _refuse(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.title.setText(str(error))

    def show_sky(self, sky: Sky) -> None:
        """Draw values on the sphere in place of the last ones."""
        self.sky = sky
        picture = mollweide_image(sky.values)[::-1]  # the first row is the top, but y grows upwards
        low, high = float(np.nanmin(picture)), float(np.nanmax(picture))
        high = max(high, low + 1e-6)
        self.image.setImage(picture, levels=(low, high))
        self.image.setRect(QRectF(-2, -1, 4, 2))
        # not pyqtgraph's own copy, which stays reversed
        colours = pg.colormap.get("viridis" if sky.low_is_good else "magma", skipCache=True)
        if sky.low_is_good:
            colours.reverse()
        self.bar.setColorMap(colours)
        self.bar.setLevels((low, high))
        self._label_bar(sky)
        self.title.setText(sky.title if self._bare else f"{sky.path.name}: {sky.title}")
        if sky.symmetry:
            self.symmetry.setText(sky.symmetry)
        for widget in (self.symmetry, self._symmetry_label):
            widget.setVisible(bool(sky.symmetry))
        self.symmetry.setEnabled(sky.recounts)

    def sizeHint(self) -> QSize:
        """Ask for little height: the map above is what most people look at."""
        return QSize(520, 270)

    def paint(self, theme: str) -> None:
        """Take the colours of one of napari's themes, dark or light."""
        from napari.utils.theme import get_theme

        colors = get_theme(theme)
        self.plot.setBackground(colors.background.as_hex())
        self._text = colors.text.as_hex()
        self.bar.axis.setPen(self._text)
        self.bar.axis.setTextPen(self._text)
        for tilt in self._tilts:
            tilt.setColor(self._text)
        if self.sky is not None:
            self._label_bar(self.sky)

    def _label_bar(self, sky: Sky) -> None:
        self.bar.getAxis("left").setLabel(sky.label, color=self._text)

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Directions", str(Path.cwd()), "STAR files (*.star)")
        if path:
            self.open(Path(path))

    def _recount(self) -> None:
        if self.sky is not None and self.symmetry.isModified():
            self.symmetry.setModified(False)
            self.open(self.sky.path)

    def _read(self, position: Any) -> None:
        place = self.plot.getPlotItem().vb.mapSceneToView(position)
        self.reading.setText(direction_text(self.sky, place.x(), place.y()) if self.sky is not None else "")

    def _draw_grid(self) -> None:
        """Draw meridians and parallels 30 degrees apart, and say where some of them are."""
        tilts, rots = np.linspace(0, 180, 91), np.linspace(-180, 180 - 1e-9, 181)
        lines = [(np.full(91, rot - 1e-9 if rot > 0 else rot), tilts) for rot in range(-180, 181, 30)]
        lines += [(rots, np.full(181, tilt)) for tilt in range(30, 180, 30)]
        gap = np.array([np.nan])
        places = [mollweide_position(rot, tilt) for rot, tilt in lines]
        across, up = (np.concatenate([part for place in places for part in (place[k], gap)]) for k in (0, 1))
        # One line with gaps is drawn faster than many.
        self.plot.plot(across, up, pen=pg.mkPen("#8888", width=1), connect="finite")
        self._tilts = []
        for tilt in (30, 60, 90, 120, 150):
            across, up = mollweide_position(-180, tilt)
            label = pg.TextItem(f"{tilt}°", anchor=(1.1, 0.5))
            label.setPos(float(across), float(up))
            self.plot.addItem(label)
            self._tilts.append(label)


def _read(wish: tuple[Path, str]) -> Iterator[Sky]:
    yield read_sky(*wish)
