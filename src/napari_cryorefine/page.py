"""The options of a job as a magicgui container: in groups, each under its label, with its unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from magicgui.types import Undefined
from magicgui.widgets import ComboBox, Container
from magicgui.widgets.bases import BaseValueWidget, RangedWidget
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QFrame, QGridLayout, QLabel, QScrollArea, QWidget

from cryorefine.errors import UserError
from cryorefine.jobs.base import Field, Job, describe, flag_of, value_types
from cryorefine.jobs.check import checked
from cryorefine.jobs.folder import status, suggest_folder
from napari_cryorefine.boxes import make_box
from napari_cryorefine.path_box import PathEdit, shortened
from napari_cryorefine.reasons import ReasonLine, in_print
from napari_cryorefine.sections import MANY, SectionHeading, heading_label

UNITS = {"A": "Å", "A/px": "Å/px", "A^2": "Å²", "A^3": "Å³", "e/A^2": "e/Å²", "degrees": "°"}


class OptionsPage(Container[BaseValueWidget[Any]]):
    """A container with a widget for each option of a job, made from its Options class.

    It is scripted like every container of magicgui: ``page["symmetry"].value = "D2"``,
    ``page.asdict()``, ``page.update(symmetry="D2")``, ``page.changed.connect(...)``. Brackets reach
    every option; as an attribute, ``page.extend`` is what lists have.

    Parameters
    ----------
    module : module
        The job's module, with ``JOB`` and ``Options``.
    layers : callable
        Returns the names and files of the layers that a map may be taken from.

    Attributes
    ----------
    typed : set of str
        The options that were set since the last run, by hand or by a script rather than by :meth:`give`.
    reasons : dict of str to ReasonLine
        The line below each option that says where its value is from.
    last_control : QWidget
        The last one that the tab key goes through.
    """

    def __init__(self, module: ModuleType, layers: Callable[[], dict[str, Path]] = dict) -> None:
        self.job: Job = module.JOB
        self.options_type: type = module.Options
        self.typed: set[str] = set()
        self.reasons: dict[str, ReasonLine] = {}
        self._giving = False
        self._suggested: Path | None = None
        self._project = Path()
        types = value_types(module.Options)
        boxes = []
        described = describe(module.Options)
        for name in (name for group in _by_group(module.Options).values() for name in group):
            field, description = described[name]
            value_type, optional = types[name]
            value = Undefined if field.default is dataclasses.MISSING else field.default
            boxes.append(
                make_box(name, description, value_type, optional=optional, value=value, layers=layers)
            )
        super().__init__(widgets=boxes, labels=False, scrollable=True)
        self._lay_out()
        self.suggest_output()
        for box in boxes:
            box.changed.connect(partial(self._on_changed, box.name))

    def give(self, option: str, value: Any, reason: str) -> bool:
        """Fill in a value and say where it is from, unless the person has set another one.

        What was typed since the last run stays; the value is then offered below it, to be taken by a click.

        Parameters
        ----------
        option : str
            The option.
        value : object
            Its value.
        reason : str
            Where it is from, in a few words or a sentence.

        Returns
        -------
        bool
            Whether the value stands on the page now.
        """
        box = self[option]
        value = shortened(value) if isinstance(value, Path) else value
        if option in self.typed and box.value != value:
            self.reasons[option].offer(value, reason, lambda: self.take(option, value, reason))
            return False
        self.take(option, value, reason)
        return True

    def readable(self) -> dict[str, Any]:
        """Return what stands on the page; a number that is half typed counts as none."""
        values = {}
        for box in self:
            try:
                values[box.name] = box.value
            except UserError:
                values[box.name] = None
        return values

    def take(self, option: str, value: Any, reason: str) -> None:
        """Fill in a value and say where it is from, whatever was there."""
        box = self[option]
        self._giving = True
        try:
            box.value = value
        finally:
            self._giving = False
        self.typed.discard(option)
        self.reasons[option].tell(reason)

    def _on_changed(self, option: str, _: Any = None) -> None:
        if not self._giving:
            self.typed.add(option)
            self.reasons[option].forget()

    def job_options(self, **others: Any) -> Any:
        """Return the checked options of the job as they stand on the page.

        Parameters
        ----------
        **others
            Values in place of those on the page.

        Raises
        ------
        UserError
            If something is missing or cannot be, named by its label on the page.
        """
        values = {
            name: value.strip() if isinstance(value, str) else value
            for name, value in (self.asdict() | others).items()
        }
        types = value_types(self.options_type)
        for name, (_, description) in describe(self.options_type).items():
            if values[name] is None and not types[name][1]:
                raise UserError(f"{self.job.title}: '{description.label}' is empty; fill it in.")
        if self._goes_on():
            values["output"] = None
        try:
            return checked(self.options_type(**values))
        except UserError as error:
            raise UserError(self.by_labels(str(error))) from None

    def folder(self) -> Path | None:
        """Return the folder of the job, or None where it has none or none is named yet."""
        if not self.job.folder:
            return None
        folder: Path | None = self["continue_from" if self._goes_on() else "output"].value
        return folder

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
        names = [name for name in describe(self.options_type) if name != "output"]
        values = {name: getattr(file.options, name) for name in names}
        self.update({k: shortened(v) if isinstance(v, Path) else v for k, v in values.items()})
        return " ".join(file.notices)

    def restore_defaults(self) -> None:
        """Put every option back to its default, and suggest a folder anew."""
        for name, (field, _) in describe(self.options_type).items():
            self[name].value = None if field.default is dataclasses.MISSING else field.default
        self.suggest_output()
        self.typed.clear()

    def suggest_output(self) -> None:
        """Name the next free job folder, unless there stands one that is still free."""
        if not self.job.folder:
            return
        box = self["output"]
        named = box.value
        if named is None or status(named) != "empty":
            self._suggested = shortened(suggest_folder(self.job, self._project))
            box.value = self._suggested

    def use_project(self, folder: Path) -> None:
        """Suggest folders of this project rather than of the current folder, from now on."""
        self._project = Path() if folder.resolve() == Path.cwd() else folder
        self["output"].value = None
        self.suggest_output()

    def by_labels(self, sentence: str) -> str:
        """Name options in a sentence as the page does, not the command line, and units by their signs."""
        described = describe(self.options_type).items()
        flags = {flag_of(name, description): description.label for name, (_, description) in described}
        for flag in sorted(flags, key=len, reverse=True):
            sentence = sentence.replace(flag, f"'{flags[flag].rstrip('?')}'")
        return in_print(sentence)

    def _goes_on(self) -> bool:
        """Whether a job is continued in its own folder: the person has named no other."""
        source = self.get_widget("continue_from")
        return bool(source and source.value and self["output"].value == self._suggested)

    def _lay_out(self) -> None:
        """Give each widget its place: a path under its label, everything else beside it, the unit behind."""
        area = self.root_native_widget
        area.setFrameShape(QFrame.Shape.NoFrame)
        layout = self.native.layout()
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        layout.addLayout(grid)  # first: what is shown before it has its place is a window of its own
        groups = _by_group(self.options_type)
        last: Any = None
        followed = []
        for group, descriptions in groups.items():
            boxes = [self[name] for name in descriptions]
            row = grid.rowCount()
            if last is not None and len(self) > MANY:
                heading: QWidget = SectionHeading(group, boxes)
                followed.append((last, heading))
            else:
                heading = heading_label(group)
            grid.addWidget(heading, row, 0, 1, 3)
            for box in boxes:
                layout.removeWidget(box.native)
                row = grid.rowCount()
                label, unit_label = QLabel(), None
                if isinstance(box, PathEdit):
                    grid.addWidget(label, row, 0, 1, 3)
                    grid.addWidget(box.native, row + 1, 0, 1, 3)
                else:
                    grid.addWidget(label, row, 0)
                    grid.addWidget(box.native, row, 1)
                    if unit := descriptions[box.name].unit:
                        unit_label = QLabel(UNITS.get(unit, unit))
                        grid.addWidget(unit_label, row, 2)
                self.reasons[box.name] = reason = ReasonLine(box)
                grid.addWidget(reason, grid.rowCount(), 0, 1, 3)
                _Row(box, label, unit_label, reason)
                last = box.choose_btn.native if isinstance(box, PathEdit) else box.native
        # On the right there is room for the scroll bar, which Qt lays over what is too wide by its width.
        self.margins = (2, 2, 20, 2)
        layout.addStretch(1)
        self.last_control: QWidget = last
        for before, heading in followed:
            QWidget.setTabOrder(before, heading)
        _WideEnough(area, self.native)


class _WideEnough(QObject):
    """Keeps a scrolled page from being cut off at its right: napari's style makes boxes wider later."""

    def __init__(self, area: QScrollArea, page: QWidget) -> None:
        super().__init__(page)
        self._area, self._page = area, page
        self._widen()
        page.installEventFilter(self)

    def eventFilter(self, watched: Any, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Show, QEvent.Type.StyleChange, QEvent.Type.LayoutRequest):
            self._widen()
        return False

    def _widen(self) -> None:
        needed = self._page.minimumSizeHint().width() + 16
        self._area.setMinimumWidth(max(self._area.minimumWidth(), needed))


class _Row(QObject):
    """Keeps a widget's label and unit beside it: with its text and help, and in sight when it is."""

    def __init__(
        self, box: BaseValueWidget[Any], label: QLabel, unit: QLabel | None, reason: ReasonLine
    ) -> None:
        super().__init__(box.native)
        self._label, self._unit, self._reason = label, unit, reason
        label.setText(box.label)
        label.setToolTip(box.tooltip or "")
        label.setBuddy(box.native)
        box.label_changed.connect(label.setText, check_nargs=False)
        self._keeps_wheel = isinstance(box, RangedWidget | ComboBox)
        if self._keeps_wheel:
            box.native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        box.native.installEventFilter(self)
        self._show(not box.native.isHidden())

    def _show(self, shown: bool) -> None:
        self._label.setVisible(shown)
        if self._unit is not None:
            self._unit.setVisible(shown)
        self._reason.setVisible(shown and bool(self._reason.text()))

    def eventFilter(self, watched: Any, event: QEvent) -> bool:
        kind = event.type()
        if kind == QEvent.Type.Wheel and self._keeps_wheel and not watched.hasFocus():
            event.ignore()  # the page scrolls; a number changes only where it was clicked before
            return True
        if kind in (QEvent.Type.ShowToParent, QEvent.Type.HideToParent):
            self._show(not watched.isHidden())
        elif kind == QEvent.Type.ToolTipChange:
            self._label.setToolTip(watched.toolTip())
        return False


def _by_group(options_type: type) -> dict[str, dict[str, Field]]:
    """Return group -> option -> description, groups and options as they come first."""
    groups: dict[str, dict[str, Field]] = {}
    for name, (_, description) in describe(options_type).items():
        groups.setdefault(description.group, {})[name] = description
    return groups
