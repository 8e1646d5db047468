"""The form of a job, made from its options: boxes in groups, Run and Cancel, how far it has come."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from cryorefine.errors import UserError
from cryorefine.jobs.base import Event, Figures, Job, Notice, Progress, describe, flag_of, value_types
from cryorefine.jobs.check import checked
from cryorefine.jobs.events import to_text
from cryorefine.jobs.folder import status, suggest_folder
from napari_cryorefine.boxes import Box, PathBox, make_box
from napari_cryorefine.layers import source_path
from napari_cryorefine.progress import Stopwatch, duration_text, figures_text
from napari_cryorefine.results import open_results, show_event
from napari_cryorefine.runs import FolderRun, Outcome, ThreadRun, process_words

if TYPE_CHECKING:
    from napari.components import ViewerModel

OWN_PROCESS = ("refine3d",)
"""Jobs of minutes or hours, which must outlive napari."""
_UNIT_IN_LABEL = re.compile(r" \((A|Å|px|pix)\)$")  # the form says it behind the box
UNITS = {"A": "Å", "A/px": "Å/px", "A^2": "Å²", "degrees": "°"}


class JobForm(QWidget):
    """The form of one job.

    Parameters
    ----------
    module : module
        The job's module, with ``JOB``, ``Options`` and ``run``.
    viewer : napari.Viewer or ViewerModel, optional
        Where results are shown and maps may be taken from.

    Attributes
    ----------
    boxes : dict of str to Box
        The box of each option, with ``get`` and ``set``.
    """

    def __init__(self, module: ModuleType, viewer: ViewerModel | None = None) -> None:
        super().__init__()
        self.job: Job = module.JOB
        self.boxes: dict[str, Box] = {}
        self._module, self._viewer = module, viewer
        self._run: ThreadRun | FolderRun | None = None
        self._clock = Stopwatch()
        self._suggested: Path | None = None
        self.setObjectName(self.job.name)

        layout = QVBoxLayout(self)
        summary = QLabel(self.job.summary + ".")
        summary.setWordWrap(True)
        layout.addWidget(summary)
        layout.addWidget(self._scroll(self._grid()), 1)
        layout.addLayout(self._foot())
        self._suggest_output()

    def values(self) -> dict[str, Any]:
        """Return what is in the boxes, by option.

        Raises
        ------
        UserError
            If a number cannot be read, or a box that must be filled is empty.
        """
        values = {name: box.get() for name, box in self.boxes.items()}
        types = value_types(self._module.Options)
        for name, (field, description) in describe(self._module.Options).items():
            needed = field.default is dataclasses.MISSING or not types[name][1]
            if values[name] is None and needed:
                raise UserError(f"{self.job.title}: '{description.label}' is empty; fill it in.")
        return values

    def options(self) -> Any:
        """Return the checked options of the job as they stand in the form.

        Raises
        ------
        UserError
            If something is missing or cannot be, named by its label on the form.
        """
        values = self.values()
        if values.get("continue_from") and values["output"] == self._suggested:
            values["output"] = None  # goes on in its own folder unless the person has named another
        try:
            return checked(self._module.Options(**values))
        except UserError as error:
            raise UserError(self._by_labels(str(error))) from None

    def fill(self, values: dict[str, Any]) -> None:
        """Put values into the boxes, by option."""
        for name, value in values.items():
            self.boxes[name].set(value)

    def run(self) -> None:
        """Start the job with what is in the boxes."""
        try:
            options = self.options()
            folder = self._folder(options)
        except UserError as error:
            self._complain(str(error))
            return
        if self.job.name in OWN_PROCESS and folder is not None:
            self._follow(FolderRun(folder, process_words(self.job, options)))
        else:
            self._follow(ThreadRun(self._module.run, options, folder))

    def watch(self, folder: Path) -> None:
        """Follow a job that runs already, in a terminal or on another machine; show one that has ended."""
        state = status(folder)
        if state == "running":
            self._follow(FolderRun(folder))
        elif state == "succeeded":
            self._show_results(Outcome(folder))
        else:
            self._complain(
                f"No job runs in {folder} ({state}); choose the folder of a running or finished job."
            )

    def ask_and_watch(self) -> None:
        """Let the person choose the folder of the job to watch."""
        title = f"Folder of a {self.job.title} job"
        if folder := QFileDialog.getExistingDirectory(self, title, str(Path.cwd())):
            self.watch(Path(folder))

    def cancel(self) -> None:
        """Ask the running job to stop."""
        if self._run is not None:
            self.cancel_button.setEnabled(False)
            self._say("Stopping…")
            self._run.cancel()

    @property
    def is_running(self) -> bool:
        """Whether a job that this form started or watches is running."""
        return self._run is not None

    def _follow(self, run: ThreadRun | FolderRun) -> None:
        self._run = run
        run.event.connect(self._on_event)
        run.ended.connect(self._on_ended)
        self._busy(True)
        self.bar.setRange(0, 0)
        self.figures.setText("")
        self._say("Starting…")
        run.start()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, Notice):
            (show_warning if event.warning else show_info)(event.message)
        elif isinstance(event, Figures):
            self.figures.setText(figures_text(event))
        if self._viewer is not None:
            show_event(self._viewer, event, self._run.folder if isinstance(self._run, FolderRun) else None)

    def _show_progress(self, event: Progress) -> None:
        self.bar.setRange(0, event.total)
        self.bar.setValue(event.done)
        left = self._clock.seconds_left(event)
        self._say(to_text(event) + (f", {duration_text(left)} left" if left else ""))

    def _on_ended(self, outcome: Outcome) -> None:
        self._run = None
        self._busy(False)
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        if outcome.cancelled:
            self._say("Stopped.")
        elif isinstance(outcome.error, UserError):
            self._complain(self._by_labels(str(outcome.error)))
        elif outcome.error is not None:
            log = f" The whole story is in {outcome.folder / 'run.err'}." if outcome.folder else ""
            self._complain(f"{self.job.title} failed: {outcome.error or type(outcome.error).__name__}.{log}")
        else:
            self.bar.setValue(1)
            self._show_results(outcome)

    def _show_results(self, outcome: Outcome) -> None:
        self._say(f"Done: {outcome.folder}" if outcome.folder else "Done.")
        if outcome.result is not None:
            self.figures.setText(figures_text(outcome.result))
        self._suggest_output()
        if outcome.folder is not None and self._viewer is not None:
            try:
                open_results(self._viewer, outcome.folder)
            except UserError as error:
                self._complain(str(error))

    def _folder(self, options: Any) -> Path | None:
        """Return the folder that the job works in, None for a job that has none."""
        if not self.job.folder:
            return None
        folder: Path | None = options.output or getattr(options, "continue_from", None)
        if folder is not None and status(folder) == "running":
            raise UserError(f"{folder} is in use by a running job; choose another output folder.")
        return folder

    def _suggest_output(self) -> None:
        """Name the next free job folder, unless there stands one that is still free."""
        box = self.boxes.get("output")
        if self.job.folder and isinstance(box, PathBox) and (not box.get() or status(box.get()) != "empty"):
            self._suggested = suggest_folder(self.job, Path())
            box.set(self._suggested)

    def _by_labels(self, sentence: str) -> str:
        """Name options in a sentence as the form does rather than as the command line does."""
        described = describe(self._module.Options).items()
        flags = {flag_of(name, description): description.label for name, (_, description) in described}
        for flag in sorted(flags, key=len, reverse=True):
            sentence = sentence.replace(flag, f"'{flags[flag].rstrip('?')}'")
        return sentence

    def _busy(self, busy: bool) -> None:
        self.run_button.setEnabled(not busy)
        self.watch_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)

    def _complain(self, sentence: str) -> None:
        self._say(sentence)
        show_error(sentence)

    def _say(self, text: str) -> None:
        self.status.setText(text)

    def _layers(self) -> dict[str, Path]:
        """Return the files of the image layers, by name, newest first."""
        found = {}
        for layer in reversed(self._viewer.layers if self._viewer is not None else []):
            path = source_path(layer)
            if path is not None and path.is_file() and layer.metadata.get("cryorefine") != "outline":
                found[layer.name] = path
        return found

    def _grid(self) -> QWidget:
        """Make the boxes: a path under its label, everything else beside it, the unit behind."""
        page = QWidget()
        grid = QGridLayout(page)
        grid.setContentsMargins(2, 2, 8, 2)
        grid.setColumnStretch(1, 1)
        types = value_types(self._module.Options)
        group = ""
        for name, (field, description) in describe(self._module.Options).items():
            row = grid.rowCount()
            if description.group != group:
                group = description.group
                grid.addWidget(_heading(group), row, 0, 1, 3)
                row += 1
            value_type, optional = types[name]
            box = make_box(name, description, value_type, optional=optional, layers=self._layers)
            if field.default is not dataclasses.MISSING:
                box.set(field.default)
            box.setObjectName(name)
            self.boxes[name] = box
            label = QLabel(_UNIT_IN_LABEL.sub("", description.label))
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
        return page

    def _scroll(self, page: QWidget) -> QScrollArea:
        area = QScrollArea()
        area.setWidget(page)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setMinimumWidth(page.sizeHint().width() + 16)
        return area

    def _foot(self) -> QVBoxLayout:
        self.run_button, self.cancel_button = QPushButton("Run"), QPushButton("Cancel")
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.cancel_button.setEnabled(False)
        self.watch_button = QPushButton("Watch…")
        self.watch_button.setToolTip(
            "Follow a job that was started before, in a terminal or on another machine"
        )
        self.watch_button.clicked.connect(self.ask_and_watch)
        self.watch_button.setVisible(self.job.name in OWN_PROCESS)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.status, self.figures = QLabel(), QLabel()
        foot = QVBoxLayout()
        buttons = QHBoxLayout()
        for button in (self.run_button, self.cancel_button, self.watch_button):
            buttons.addWidget(button)
        foot.addLayout(buttons)
        foot.addWidget(self.bar)
        for label in (self.status, self.figures):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            foot.addWidget(label)
        return foot


def _heading(text: str) -> QLabel:
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 8, 0, 0)
    return label
