"""What a job has said, in a window of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari.utils.notifications import Notification, NotificationSeverity, notification_manager
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QPlainTextEdit, QVBoxLayout, QWidget

LARGEST = 200_000
"""Characters of a file that are shown: the last ones."""


def log_text(folder: Path) -> str:
    """Return what stands in a job's run.out and run.err, each under its name; empty if nothing does."""
    parts = []
    for name in ("run.out", "run.err"):
        file = folder / name
        text = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
        if text:
            parts.append(f"{name}\n\n{text[-LARGEST:]}")
    return "\n\n\n".join(parts)


class LogWindow(QDialog):
    """The log of a job, its end in sight.

    Parameters
    ----------
    folder : Path
        The job's folder.
    parent : QWidget, optional
        The form that it belongs to.
    """

    def __init__(self, folder: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Log of {folder}")
        self.resize(760, 480)
        self.text = QPlainTextEdit(log_text(folder) or "Nothing has been said yet.")
        self.text.setReadOnly(True)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addWidget(buttons)

    def showEvent(self, event: object) -> None:
        """Begin at the end, where the reason of a failure stands."""
        super().showEvent(event)
        bar = self.text.verticalScrollBar()
        bar.setValue(bar.maximum())


def show_error_with_log(sentence: str, show_log: Callable[[], None]) -> None:
    """Notify of an error, with a button that shows the log."""
    actions = (("Show log", lambda _: show_log()),)
    notification_manager.dispatch(Notification(sentence, NotificationSeverity.ERROR, actions=actions))
