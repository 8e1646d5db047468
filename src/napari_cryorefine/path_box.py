"""The box of a form for a file or a folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QMenu, QPushButton, QWidget

if TYPE_CHECKING:
    from cryorefine.jobs.base import Field

MAP_KINDS = ("map", "mask", "half_map")
FILTERS = {
    **dict.fromkeys(MAP_KINDS, "Maps (*.mrc *.map *.mrcs *.rec);;All files (*)"),
    **dict.fromkeys(("particles", "star"), "STAR files (*.star);;All files (*)"),
}


class PathBox(QWidget):
    """A file or folder: typed, dropped, browsed for or, for maps, taken from a layer."""

    changed = Signal(object)

    def __init__(
        self, description: Field, *, save: bool = False, layers: Callable[[], dict[str, Path]] | None = None
    ) -> None:
        super().__init__()
        self._description, self._save, self._layers = description, save, layers
        self.line = _PathLine()
        self.line.textChanged.connect(self.changed.emit)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.line, 1)
        if layers is not None and description.kind in MAP_KINDS and not save:
            self.layer_menu = QMenu(self)
            self.layer_menu.aboutToShow.connect(self._list_layers)
            layers_button = _button("Layers", "Take the file of a layer")
            layers_button.setMenu(self.layer_menu)
            row.addWidget(layers_button)
        browse = _button("Browse…", "Choose from the disk")
        browse.clicked.connect(self.browse)
        row.addWidget(browse)

    def get(self) -> Path | None:
        """Return the path, or None where none is given."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def set(self, value: Path | str | None) -> None:
        """Put a path into the box, or empty it."""
        self.line.setText("" if value is None else str(value))

    def browse(self) -> None:
        """Ask for the file or folder in a dialogue that starts where the box points to."""
        title, start = self._description.label, str(self.get() or Path.cwd())
        if self._description.kind == "folder":
            chosen = QFileDialog.getExistingDirectory(self, title, start)
        else:
            ask = QFileDialog.getSaveFileName if self._save else QFileDialog.getOpenFileName
            chosen, _ = ask(self, title, start, FILTERS.get(self._description.kind, "All files (*)"))
        if chosen:
            self.set(_short(Path(chosen)))

    def _list_layers(self) -> None:
        self.layer_menu.clear()
        found = self._layers() if self._layers else {}
        for name, path in found.items():
            self.layer_menu.addAction(name, partial(self.set, _short(path)))
        if not found:
            self.layer_menu.addAction("No layer was read from a file").setEnabled(False)


class _PathLine(QLineEdit):
    """A line that takes a dropped file as its path rather than as a file:// address."""

    def dropEvent(self, event: Any) -> None:
        files = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if files:
            self.setText(str(_short(Path(files[0]))))
            event.acceptProposedAction()
        else:
            super().dropEvent(event)


def _short(path: Path) -> Path:
    """Relative to the current folder where the file is inside it, as RELION writes its paths."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button
