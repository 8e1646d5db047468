"""The widget for a file or a folder: magicgui's FileEdit that keeps paths as they are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode, Undefined
from magicgui.widgets import FileEdit
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton, QWidget

MAP_KINDS = ("map", "mask", "half_map")
STAR_KINDS = ("particles", "star")
FILTERS = {
    **dict.fromkeys(MAP_KINDS, "Maps (*.mrc *.map *.mrcs *.rec);;All files (*)"),
    **dict.fromkeys(STAR_KINDS, "STAR files (*.star);;All files (*)"),
}


class PathEdit(FileEdit):
    """A file or folder: typed, dropped, browsed for or, for maps and STAR files, taken from a layer.

    A relative path stays relative, as in RELION's projects, and an empty line is None.

    Parameters
    ----------
    kind : str
        What the path holds, as in :class:`cryorefine.jobs.base.Field`.
    save : bool
        Whether it is a file to be written, which need not exist.
    layers : callable, optional
        Returns the names and files of the layers that a map or a STAR file may be taken from.
    value : Path or str, optional
        What it holds at first.
    **keywords
        As of every widget of magicgui: name, label, tooltip and so on.
    """

    def __init__(
        self,
        kind: str = "",
        *,
        save: bool = False,
        layers: Callable[[], dict[str, Path]] | None = None,
        value: Any = Undefined,
        **keywords: Any,
    ) -> None:
        mode = FileDialogMode.OPTIONAL_FILE if save else FileDialogMode.EXISTING_FILE
        if kind == "folder":
            mode = FileDialogMode.EXISTING_DIRECTORY
        filters = FILTERS.get(kind, "All files (*)")
        super().__init__(mode, filters, value, nullable=True, annotation=Path | None, **keywords)
        self._layers = layers
        self._drops = _Drops(self)
        self.choose_btn.text, self.choose_btn.tooltip = "Browse…", "Choose from the disk"
        self.choose_btn.changed.disconnect()
        self.choose_btn.changed.connect(self.browse)
        row = self.native.layout()
        row.setSpacing(4)
        self.native.setFocusProxy(self.line_edit.native)
        self._star = kind in STAR_KINDS
        if layers is not None and kind in (*MAP_KINDS, *STAR_KINDS) and not save:
            self.layer_menu = QMenu(self.native)
            self.layer_menu.aboutToShow.connect(self._list_layers)
            button = QPushButton("Layers")
            button.setToolTip("Take the file of a layer" if self._star else "Take the map of a layer")
            button.setMenu(self.layer_menu)
            row.insertWidget(1, button)
            QWidget.setTabOrder(self.line_edit.native, button)
            QWidget.setTabOrder(button, self.choose_btn.native)

    def get_value(self) -> Path | None:
        """Return the path, or None where none is given."""
        text = self.line_edit.value.strip()
        return Path(text).expanduser() if text else None

    def set_value(self, value: Any) -> None:
        """Put a path into the line, or empty it."""
        self.line_edit.value = "" if value is None else str(value)

    def browse(self) -> None:
        """Ask for the file or folder in a dialogue that starts where the line points to."""
        window, start = self.native, str(self.value or Path.cwd())
        if self.mode is FileDialogMode.EXISTING_DIRECTORY:
            chosen = QFileDialog.getExistingDirectory(window, self.label, start)
        else:
            saves = self.mode is FileDialogMode.OPTIONAL_FILE
            ask = QFileDialog.getSaveFileName if saves else QFileDialog.getOpenFileName
            chosen, _ = ask(window, self.label, start, self.filter or "")
        if chosen:
            self.value = shortened(Path(chosen))

    def _list_layers(self) -> None:
        self.layer_menu.clear()
        layers = self._layers() if self._layers else {}
        found = {name: path for name, path in layers.items() if (path.suffix == ".star") == self._star}
        if self._star:  # one file may have many layers
            found = {str(shortened(path)): path for path in found.values()}
        for name, path in found.items():
            self.layer_menu.addAction(name, partial(self.set_value, shortened(path)))
        if not found:
            nothing = "No layer was read from a STAR file" if self._star else "No layer holds a map"
            self.layer_menu.addAction(nothing).setEnabled(False)


class _Drops(QObject):
    """Takes a dropped file as its path; Qt's line would refuse it, or take its file:// address."""

    KINDS = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)

    def __init__(self, edit: PathEdit) -> None:
        line = edit.line_edit.native
        super().__init__(line)
        self._edit = edit
        line.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: Any) -> bool:
        if event.type() not in self.KINDS:
            return False
        files = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if not files:
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self._edit.value = shortened(Path(files[0]))
        return True


def shortened(path: Path) -> Path:
    """Relative to the current folder where the file is inside it, as RELION writes its paths."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
