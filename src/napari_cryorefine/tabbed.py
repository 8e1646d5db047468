"""Docks of ours that stand as tabs in one place: one above the other they would be too low."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QDockWidget, QMainWindow, QPushButton, QWidget

from napari_cryorefine._compat import call_soon

if TYPE_CHECKING:
    from collections.abc import Callable


class TabbedPanel(QWidget):
    """A widget whose dock becomes a tab beside those of its kind that are open."""

    def changeEvent(self, event: QEvent) -> None:
        """Notice when napari opens the dock, or closes it: then it takes the widget out, without a parent."""
        super().changeEvent(event)
        if event.type() != QEvent.Type.ParentChange:
            return
        if self.parent() is None:
            self.close_down()
        else:
            call_soon(self, self._join_others)

    def close_down(self) -> None:
        """Take away what is shown only while the dock is open."""

    def come_forward(self) -> None:
        """Show the dock, in front of the other tabs, and give it the keyboard."""
        dock = self._dock()
        if dock is not None:
            dock.show()
            dock.raise_()
            call_soon(dock, dock.raise_)  # once the tabs are there
        self.setFocus()

    def _join_others(self) -> None:
        dock = self._dock()
        window = dock.parent() if dock is not None else None
        if not isinstance(window, QMainWindow) or dock.isFloating():
            return
        # Tabs are narrow: napari's "MaskCreate (napari-cryorefine)" would be cut off.
        dock.setWindowTitle(dock.windowTitle().partition(" (")[0])
        area = window.dockWidgetArea(dock)
        for panel in window.findChildren(TabbedPanel):
            other = panel._dock()
            if panel is not self and other is not None and window.dockWidgetArea(other) == area:
                if not other.isFloating() and other not in window.tabifiedDockWidgets(dock):
                    window.tabifyDockWidget(other, dock)
                call_soon(dock, dock.raise_)  # once the tabs are there
                return

    def _dock(self) -> Any:
        parent = self.parent()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parent()
        return parent


def make_button(text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
    """Return a button that does something when it is clicked."""
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda: action())
    return button
