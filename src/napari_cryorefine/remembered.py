"""What stood on a form when it was last used in a project, kept as JSON among the person's settings."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QStandardPaths, QTimer

from cryorefine.errors import UserError
from cryorefine.jobs.base import describe

if TYPE_CHECKING:
    from napari_cryorefine.page import OptionsPage

PROJECTS = 50
"""How many projects are remembered; those used last are."""
NOT_KEPT = ("output", "continue_from")
"""Each run has another folder."""
_TYPED = "(typed)"
"""Stands among the values of a project, with the names of those that were typed since the last run."""
_PAUSE = 500  # ms after the last change


def settings_folder() -> Path:
    """Return the folder of the person's settings of this program."""
    base = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericConfigLocation)
    return Path(base) / "cryorefine" / "forms"


class Remembered(QObject):
    """Keeps the values of a form that differ from its defaults, for the current folder.

    Parameters
    ----------
    page : OptionsPage
        The options of a job.
    """

    def __init__(self, page: OptionsPage) -> None:
        super().__init__(page.native)
        self._page = page
        self._project = str(Path.cwd())
        self._file = settings_folder() / f"{page.job.name}.json"
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self.keep)
        page.changed.connect(self._timer.start, check_nargs=False, max_args=0)

    def recall(self) -> bool:
        """Put back what was kept, but for values that no longer fit; return whether there was anything."""
        values = self._read().get(self._project, {})
        typed = values.pop(_TYPED, list(values))
        for name, value in values.items():
            box = self._page.get_widget(name)
            if box is None:
                continue
            try:
                box.value = value
            except (ValueError, TypeError, UserError):
                continue
        self._page.typed = {name for name in typed if self._page.get_widget(name) is not None}
        self._timer.stop()
        return bool(values)

    def keep(self) -> None:
        """Write what stands on the form now."""
        self._timer.stop()
        values = self._values()
        kept = {project: of_it for project, of_it in self._read().items() if project != self._project}
        typed = sorted(self._page.typed.difference(NOT_KEPT))
        if values or typed:
            kept[self._project] = values | {_TYPED: typed}
        kept = dict(list(kept.items())[-PROJECTS:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            beside.replace(self._file)
        except OSError:
            pass  # settings that cannot be kept are no reason to stop anybody's work

    def keep_if_changed(self) -> None:
        """Write what has changed and is still to be written."""
        if self._timer.isActive():
            self.keep()

    def _values(self) -> dict[str, Any]:
        values = {}
        for name, (field, _) in describe(self._page.options_type).items():
            if name in NOT_KEPT:
                continue
            try:
                value = self._page[name].value
            except UserError:
                continue  # half a number
            default = None if field.default is dataclasses.MISSING else field.default
            if value != default:
                values[name] = str(value) if isinstance(value, Path) else value
        return values

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}
