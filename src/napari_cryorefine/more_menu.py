"""What else can be done with a form: copied as a command or as Python, emptied, its job's log read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QMenu, QPushButton

from cryorefine.errors import UserError
from cryorefine.jobs.script import as_command, as_python

if TYPE_CHECKING:
    from napari_cryorefine.forms import JobForm


class MoreButton(QPushButton):
    """The button with the menu.

    Parameters
    ----------
    form : JobForm
        The form that it belongs to.
    """

    def __init__(self, form: JobForm) -> None:
        super().__init__("More")
        self._form = form
        self.setToolTip("Copy this job as a command or as Python, restore the defaults, read the log")
        menu = QMenu(self)
        self.copy_command = menu.addAction("Copy as command", self._copy_command)
        self.copy_python = menu.addAction("Copy as Python", self._copy_python)
        menu.addSeparator()
        self.restore = menu.addAction("Restore defaults", form.page.restore_defaults)
        self.log = menu.addAction("Show log", form.show_log)
        menu.aboutToShow.connect(self._refresh)
        self.setMenu(menu)

    def _refresh(self) -> None:
        self.log.setEnabled(self._form.folder is not None)

    def _copy_command(self) -> None:
        self._copy("command", lambda options: as_command(self._form.job, options))

    def _copy_python(self) -> None:
        self._copy("Python", lambda options: as_python(self._form.module, options))

    def _copy(self, what: str, text_of: Callable[[Any], str]) -> None:
        try:
            options = self._form.page.job_options()
        except UserError as error:
            self._form.complain(str(error))
            return
        QGuiApplication.clipboard().setText(text_of(options))
        self._form.say(f"Copied as {what}; paste it where you like.")
