"""The table of particles: rows are selected as points are, and sorted by any value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QTableView, QWidget

from napari_cryorefine.particle_fits import ParticleFits

_NUMBERS = ("Particle", "Micrograph")
_MOST_RUNS, _MOST_ROWS = 300, 10_000
"""Rows that Qt's selection is told of, and runs of them; more take it seconds and are coloured alone."""
_MARK = QColor(255, 47, 214, 70)


class ParticleTableModel(QAbstractTableModel):
    """Rows of a :class:`ParticleFits`; only what is in sight is ever made into text."""

    def __init__(self, fits: ParticleFits) -> None:
        super().__init__()
        self.fits = fits
        self.rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._columns: list[str] = []
        self._sorted_by: tuple[int, Qt.SortOrder] = (0, Qt.SortOrder.AscendingOrder)

    def show_rows(self, rows: NDArray[np.int64]) -> None:
        """Show these particles, in the order that was asked for last."""
        self.beginResetModel()
        self._columns = [*_NUMBERS, *self.fits.columns]
        if self.fits.in_space:
            self._columns[1] = "Tomogram"
        self.rows = self._in_order(rows)
        self.endResetModel()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort the rows by a column, those without a value last."""
        self.layoutAboutToBeChanged.emit()
        self._sorted_by = (column, order)
        self.rows = self._in_order(self.rows)
        self.layoutChanged.emit()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of particles in the table."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the name of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self._columns[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the text of one value."""
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.BackgroundRole:
            return QBrush(_MARK) if self.fits.selected[self.rows[index.row()]] else None
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        row, name = int(self.rows[index.row()]), self._columns[index.column()]
        if name == "Particle":
            return str(row + 1)
        if index.column() == 1:
            return Path(self.fits.micrographs[self.fits.micrograph[row]]).stem
        value = float(self.fits.column(name)[row])
        if np.isnan(value):
            return ""
        return f"{value:.1f}" if "Å)" in name else f"{value:.4g}"

    def _in_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        column, order = self._sorted_by
        name = self._columns[column] if column < len(self._columns) else "Particle"
        if name == "Particle":
            values = rows.astype(np.float64)
        elif column == 1:
            values = self.fits.micrograph[rows].astype(np.float64)
        else:
            values = self.fits.column(name)[rows]
        if order == Qt.SortOrder.DescendingOrder:
            values = -values  # NaN stays NaN, which argsort puts last
        return rows[np.argsort(values, kind="stable")]


class ParticleTable(QTableView):
    """The view of that table.

    Parameters
    ----------
    fits : ParticleFits
        The particles.
    chosen : callable
        Told which particles somebody has selected here: those selected, and those in the table.
    """

    def __init__(
        self,
        fits: ParticleFits,
        chosen: Callable[[NDArray[np.int64], NDArray[np.int64]], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._chosen, self._quiet = chosen, False
        self._model = ParticleTableModel(fits)
        self.setModel(self._model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.horizontalHeader().setResizeContentsPrecision(0)  # only what is in sight
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        self.selectionModel().selectionChanged.connect(self._on_selected)
        self._model.layoutChanged.connect(self.mark)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The particles in the table, from top to bottom."""
        return self._model.rows

    def show_rows(self, fits: ParticleFits, rows: NDArray[np.int64], *, of_one: bool) -> None:
        """Show some of the particles; ``of_one`` micrograph, whose name every row would repeat."""
        self._quiet = True
        self._model.fits = fits
        first = self._model.columnCount() == 0
        columns = self._model.columnCount()
        self._model.show_rows(rows)
        self._quiet = False
        self.setColumnHidden(1, of_one)
        if first or columns != self._model.columnCount():
            self.resizeColumnsToContents()
        self.mark()

    def mark(self) -> None:
        """Select the rows of the particles that are selected, and bring the first of them into sight."""
        selected = np.flatnonzero(self._model.fits.selected[self._model.rows])
        model, last = self._model, self._model.columnCount() - 1
        selection = QItemSelection()
        ends = np.flatnonzero(np.diff(selected) > 1)
        if 0 < len(selected) <= _MOST_ROWS and len(ends) < _MOST_RUNS:
            firsts, lasts = selected[np.r_[0, ends + 1]], selected[np.r_[ends, len(selected) - 1]]
            for first, final in zip(firsts.tolist(), lasts.tolist(), strict=True):
                selection.select(model.index(first, 0), model.index(final, last))
        self._quiet = True
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        self._quiet = False
        self.viewport().update()
        if len(selected):
            self.scrollTo(model.index(int(selected[0]), 0))

    def _on_selected(self, *_: Any) -> None:
        if self._quiet:
            return
        ranges = self.selectionModel().selection()
        picked = [np.arange(part.top(), part.bottom() + 1) for part in ranges]
        places = np.unique(np.concatenate(picked)) if picked else np.zeros(0, np.int64)
        self._chosen(self._model.rows[places], self._model.rows)
