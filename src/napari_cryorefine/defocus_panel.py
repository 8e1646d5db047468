"""The dock beside micrographs or tomograms: which one, what colours its particles, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from cryorefine.errors import UserError
from napari_cryorefine.defocus_layers import micrograph_image
from napari_cryorefine.latest import Latest
from napari_cryorefine.particle_table import ParticleTable

if TYPE_CHECKING:
    from napari_cryorefine.defocus_layers import MicrographView

DOCK = "Particles"
_READ_EVERY, _READ_AT_ONCE = 250, 10  # milliseconds, and micrographs
SHOWN = ("Particles in the picture", "Selected particles", "All particles")


class DefocusPanel(QWidget):
    """Moves a :class:`MicrographView`, and lists, selects and writes particles.

    Parameters
    ----------
    view : MicrographView
        What it belongs to.
    """

    def __init__(self, view: MicrographView) -> None:
        super().__init__()
        self.view = view
        self._seen = False
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(view.viewer.reset_view)
        self._listing = QTimer(self)
        self._listing.setSingleShot(True)
        self._listing.timeout.connect(self._list)
        self._reading = QTimer(self)
        self._reading.setInterval(_READ_EVERY)
        self._reading.timeout.connect(self._read_some)
        self._reading.start()
        self._images = Latest(_read_image, self)
        self._images.made.connect(lambda made: view.put_image(*made))
        self._images.failed.connect(self._complain)
        view.read_image = self._images.ask
        self._build()
        view.shown.connect(self._on_shown)
        self._connect()
        self._fill()

    def follow(self) -> None:
        """Show what the view has begun to follow."""
        self._connect()
        self._fill()

    def show_micrograph(self, number: int) -> None:
        """Go to a micrograph."""
        self.view.show(number)

    @property
    def busy(self) -> bool:
        """Whether a micrograph is being read."""
        return self._images.busy

    def select_outliers(self) -> None:
        """Select the particles that are far from the others of their micrograph, of all micrographs."""
        fits = self.view.fits
        found = fits.outliers(self.colouring.currentText(), self.sigmas.value())
        self._say(f"{found.sum()} of {len(fits)} particles are outliers.")
        fits.select(found)
        if found.any():
            self.listed.setCurrentText(SHOWN[1])

    def write(self, path: Path, *, selected: bool) -> None:
        """Write the selected particles, or all but those, as a STAR file."""
        fits = self.view.fits
        rows = fits.selected if selected else ~fits.selected
        try:
            fits.write(path, rows)
        except UserError as error:
            self._say(str(error))
        else:
            self._say(f"{rows.sum()} particles are in {path}.")

    def fit_view(self) -> None:
        """Fit the micrograph into what docks leave of the window, once they have found their places."""
        self._settled.start()

    def showEvent(self, event: Any) -> None:
        """Fit the micrograph beside this dock when it appears for the first time."""
        super().showEvent(event)
        if not self._seen:
            self._seen = True
            self.fit_view()

    def sizeHint(self) -> QSize:
        """Ask for room for the first columns of the table."""
        return QSize(430, 600)

    def _build(self) -> None:
        self.slider = QSlider(Qt.Orientation.Horizontal)
        place = "tomogram" if self.view.fits.in_space else "micrograph"
        self.slider.setToolTip(f"Go through the {place}s")
        self.slider.valueChanged.connect(self.show_micrograph)
        self.names = QComboBox()
        self.names.setToolTip(f"Go to a {place} by its name")
        self.names.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.names.setMinimumContentsLength(18)
        self.names.activated.connect(self.show_micrograph)
        self.colouring = QComboBox()
        self.colouring.setToolTip(
            "The value that colours the particles: orange is high and blue is low; of changes, red is more "
            "and blue is less"
        )
        self.colouring.currentTextChanged.connect(self._on_colouring)
        self.listed = QComboBox()
        self.listed.addItems(SHOWN)
        self.listed.setToolTip("Which particles the table lists")
        self.listed.currentTextChanged.connect(lambda: self._list())
        self.table = ParticleTable(self.view.fits, self._on_rows)
        self.table.doubleClicked.connect(self._go_to_row)
        self.table.setToolTip("Rows are selected as points are; double-click goes to the micrograph of a row")
        self.sigmas = QDoubleSpinBox()
        self.sigmas.setRange(1.0, 20.0)
        self.sigmas.setSingleStep(0.5)
        self.sigmas.setValue(4.0)
        self.sigmas.setSuffix(" σ")
        self.sigmas.setToolTip("How far from the median of its micrograph a particle is an outlier")
        self.outliers = _button(
            "Select outliers", "Of all micrographs, in the value that colours them", self.select_outliers
        )
        self.clear = _button("Clear", "Select nothing", self._clear)
        self.save = _button("Write selected…", "As a STAR file", lambda: self._ask(selected=True))
        self.save_rest = _button(
            "Write all but selected…", "As a STAR file, e.g. for the next refinement", self._ask
        )
        self.count, self.status = QLabel(), QLabel()
        self.status.setWordWrap(True)

        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        for row, (text, widget) in enumerate(
            ((place.capitalize(), self.names), ("Colour", self.colouring), ("Table", self.listed))
        ):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(widget, row, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.slider)
        layout.addLayout(grid)
        layout.addWidget(self.table, 1)
        for widgets in (
            (self.outliers, self.sigmas, self.clear, self.count),
            (self.save, self.save_rest),
        ):
            row_layout = QHBoxLayout()
            for widget in widgets:
                row_layout.addWidget(widget)
            layout.addLayout(row_layout)
        layout.addWidget(self.status)

    def _connect(self) -> None:
        self.view.fits.selection_changed.connect(self._on_selection)
        self.view.fits.values_changed.connect(self._on_values)

    def _fill(self) -> None:
        fits = self.view.fits
        with QSignalBlocker(self.names), QSignalBlocker(self.slider), QSignalBlocker(self.colouring):
            self.names.clear()
            self.names.addItems([Path(name).name for name in fits.micrographs])
            self.slider.setRange(0, len(fits.micrographs) - 1)
            self._offer_colourings()
        self._on_shown(self.view.number)
        self._on_selection()

    def _offer_colourings(self) -> None:
        columns = self.view.fits.columns
        known = [self.colouring.itemText(i) for i in range(self.colouring.count())]
        if known != columns:
            with QSignalBlocker(self.colouring):
                self.colouring.clear()
                self.colouring.addItems(columns)
                self.colouring.setCurrentText(self.view.colouring)

    def _on_shown(self, number: int) -> None:
        with QSignalBlocker(self.names), QSignalBlocker(self.slider):
            self.names.setCurrentIndex(number)
            self.slider.setValue(number)
        if self.listed.currentText() == SHOWN[0]:
            self._list()

    def _on_values(self, number: int) -> None:
        self._offer_colourings()
        if self.listed.currentText() != SHOWN[0]:
            self._listing.start()  # once for all that come in together
        elif number == self.view.number:
            self._list()

    def _on_colouring(self, name: str) -> None:
        if name:
            self.view.colour_by(name)

    def _on_selection(self) -> None:
        fits = self.view.fits
        self.count.setText(f"{fits.selected.sum()} of {len(fits)} selected")
        self.save.setEnabled(bool(fits.selected.any()))
        if self.listed.currentText() == SHOWN[1] and not self.table.hasFocus():
            self._list()
        else:
            self.table.mark()

    def _on_rows(self, rows: NDArray[np.int64], within: NDArray[np.int64]) -> None:
        """Take what was selected in the table, and go to where it is."""
        if len(rows) == 1:
            number = int(self.view.fits.micrograph[rows[0]])
            if number != self.view.number:
                self.view.show(number)
        if self.listed.currentText() != SHOWN[1]:  # there a click would empty the table that it is made in
            self.view.fits.select(rows, within=within)

    def _read_some(self) -> None:
        """Read new values of a few micrographs that are not shown, so that the table knows them too."""
        for number in self.view.fits.expected[:_READ_AT_ONCE]:
            self.view.fits.read_expected(number)

    def _go_to_row(self, index: Any) -> None:
        self.view.show(int(self.view.fits.micrograph[self.table.rows[index.row()]]))

    def _list(self) -> None:
        fits = self.view.fits
        kind = self.listed.currentText()
        if kind == SHOWN[0]:
            rows = fits.members[self.view.number]
        else:
            rows = np.flatnonzero(fits.selected) if kind == SHOWN[1] else np.arange(len(fits))
        self.table.show_rows(fits, rows, of_one=kind == SHOWN[0])

    def _clear(self) -> None:
        self.view.fits.select(np.zeros(len(self.view.fits), bool))

    def _ask(self, *, selected: bool = False) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Write particles", str(Path.cwd() / "particles.star"), "STAR files (*.star)"
        )
        if path:
            self.write(Path(path), selected=selected)

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self._say(str(error))

    def _say(self, text: str) -> None:
        self.status.setText(text)


def _read_image(path: Path) -> Iterator[tuple[Path, NDArray[np.float32], int]]:
    """Read a micrograph, in a thread."""
    yield (path, *micrograph_image(path))


def _button(text: str, tip: str, action: Any) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda: action())
    return button
