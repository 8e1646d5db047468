"""The options of a job as a page of boxes: in groups, each under its label, with its unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from cryorefine.errors import UserError
from cryorefine.jobs.base import Job, describe, flag_of, value_types
from cryorefine.jobs.check import checked
from cryorefine.jobs.folder import status, suggest_folder
from napari_cryorefine.boxes import Box, make_box
from napari_cryorefine.path_box import PathBox

UNITS = {"A": "Å", "A/px": "Å/px", "A^2": "Å²", "degrees": "°"}


class OptionsPage(QWidget):
    """A box for each option of a job, made from its Options class.

    Parameters
    ----------
    module : module
        The job's module, with ``JOB`` and ``Options``.
    layers : callable
        Returns the names and files of the layers that a map may be taken from.

    Attributes
    ----------
    boxes : dict of str to Box
        The box of each option, with ``get`` and ``set``.
    """

    def __init__(self, module: ModuleType, layers: Callable[[], dict[str, Path]] = dict) -> None:
        super().__init__()
        self.job: Job = module.JOB
        self.boxes: dict[str, Box] = {}
        self._options_type: type = module.Options
        self._suggested: Path | None = None
        self._build(layers)
        self.suggest_output()

    def values(self) -> dict[str, Any]:
        """Return what is in the boxes, by option.

        Raises
        ------
        UserError
            If a number cannot be read, or a box that must be filled is empty.
        """
        values = {name: box.get() for name, box in self.boxes.items()}
        types = value_types(self._options_type)
        for name, (_, description) in describe(self._options_type).items():
            if values[name] is None and not types[name][1]:
                raise UserError(f"{self.job.title}: '{description.label}' is empty; fill it in.")
        return values

    def options(self) -> Any:
        """Return the checked options of the job as they stand on the page.

        Raises
        ------
        UserError
            If something is missing or cannot be, named by its label on the page.
        """
        values = self.values()
        if values.get("continue_from") and values["output"] == self._suggested:
            values["output"] = None  # goes on in its own folder unless the person has named another
        try:
            return checked(self._options_type(**values))
        except UserError as error:
            raise UserError(self.by_labels(str(error))) from None

    def fill(self, values: dict[str, Any]) -> None:
        """Put values into the boxes, by option."""
        for name, value in values.items():
            self.boxes[name].set(value)

    def load(self, path: Path) -> str:
        """Fill the page from a job.star of this program or of RELION; the output folder stays.

        Returns
        -------
        str
            What the file asks for that is left out, in sentences; mostly empty.

        Raises
        ------
        UserError
            If it is no job file, or one of another type of job.
        """
        from cryorefine.jobs.relion_job import read_job

        file = read_job(path)
        if file.name != self.job.name:
            raise UserError(f"{path} is a job of type {file.name}; open it in that form.")
        self.fill({name: getattr(file.options, name) for name in self.boxes if name != "output"})
        return " ".join(file.notices)

    def suggest_output(self) -> None:
        """Name the next free job folder, unless there stands one that is still free."""
        box = self.boxes.get("output")
        if not self.job.folder or not isinstance(box, PathBox):
            return
        named = box.get()
        if named is None or status(named) != "empty":
            self._suggested = suggest_folder(self.job, Path())
            box.set(self._suggested)

    def by_labels(self, sentence: str) -> str:
        """Name options in a sentence as the page does rather than as the command line does."""
        described = describe(self._options_type).items()
        flags = {flag_of(name, description): description.label for name, (_, description) in described}
        for flag in sorted(flags, key=len, reverse=True):
            sentence = sentence.replace(flag, f"'{flags[flag].rstrip('?')}'")
        return sentence

    def _build(self, layers: Callable[[], dict[str, Path]]) -> None:
        """Make the boxes: a path under its label, everything else beside it, the unit behind."""
        grid = QGridLayout(self)
        grid.setContentsMargins(2, 2, 8, 2)
        grid.setColumnStretch(1, 1)
        types = value_types(self._options_type)
        group = ""
        for name, (field, description) in describe(self._options_type).items():
            row = grid.rowCount()
            if description.group != group:
                group = description.group
                grid.addWidget(_heading(group), row, 0, 1, 3)
                row += 1
            value_type, optional = types[name]
            box = make_box(name, description, value_type, optional=optional, layers=layers)
            if field.default is not dataclasses.MISSING:
                box.set(field.default)
            box.setObjectName(name)
            self.boxes[name] = box
            label = QLabel(description.label)
            label.setToolTip(description.help)
            label.setBuddy(box)
            if isinstance(box, PathBox):
                grid.addWidget(label, row, 0, 1, 3)
                grid.addWidget(box, row + 1, 0, 1, 3)
            else:
                grid.addWidget(label, row, 0)
                grid.addWidget(box, row, 1)
                grid.addWidget(QLabel(UNITS.get(description.unit, description.unit)), row, 2)
        grid.setRowStretch(grid.rowCount(), 1)


def _heading(text: str) -> QLabel:
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 8, 0, 0)
    return label
