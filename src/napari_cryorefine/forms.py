"""The form of a job: its options, Run and Cancel, how far it has come and what came out."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from cryorefine.errors import UserError
from cryorefine.jobs.alias import checked_alias, drop_alias, give_alias
from cryorefine.jobs.base import Event, Figures, Job, Notice, Progress
from cryorefine.jobs.events import to_text
from cryorefine.jobs.folder import status
from cryorefine.jobs.pipeline_record import record_alias
from napari_cryorefine.job_log import LogWindow, log_text, show_error_with_log
from napari_cryorefine.layer_files import LayerFiles
from napari_cryorefine.more_menu import MoreButton
from napari_cryorefine.page import OptionsPage
from napari_cryorefine.progress import Stopwatch, duration_text, figures_text
from napari_cryorefine.remembered import Remembered
from napari_cryorefine.results import event_steps, results_steps
from napari_cryorefine.runs import FolderRun, Outcome, ThreadRun, process_words
from napari_cryorefine.shower import Shower
from napari_cryorefine.tabbed import TabbedPanel, make_button
from napari_cryorefine.warm import warm_up

if TYPE_CHECKING:
    from napari.components import ViewerModel

OWN_PROCESS = ("refine3d", "ctf-refine", "pseudo-subtomo", "reconstruct-particle")
"""Jobs of minutes or hours, which must outlive napari."""


class JobForm(TabbedPanel):
    """The form of one job.

    Parameters
    ----------
    module : module
        The job's module, with ``JOB``, ``Options`` and ``run``.
    viewer : napari.Viewer or ViewerModel, optional
        Where results are shown and maps may be taken from.

    Attributes
    ----------
    page : OptionsPage
        The options, a container of magicgui: ``form.page["symmetry"].value = "D2"``.
    folder : Path or None
        The folder of the job that was run or watched last.
    """

    def __init__(self, module: ModuleType, viewer: ViewerModel | None = None) -> None:
        super().__init__()
        warm_up(viewer)
        self.job: Job = module.JOB
        self.module, self._viewer = module, viewer
        self.folder: Path | None = None
        self._layers = LayerFiles(viewer)
        self._run: ThreadRun | FolderRun | None = None
        self._shower = Shower(self)
        self._shower.failed.connect(lambda error: self.complain(str(error)))
        self._clock = Stopwatch()
        self.setObjectName(self.job.name)

        summary = QLabel(self.job.summary + ".")
        summary.setWordWrap(True)
        self.page = OptionsPage(module, self._layer_files)
        layout = QVBoxLayout(self)
        layout.addWidget(summary)
        layout.addWidget(self.page.root_native_widget, 1)
        self._build_foot(layout)
        QShortcut("Ctrl+Return", self, self.run, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        self._remembered = Remembered(self.page)
        if self._remembered.recall():
            self.say("The form is as it was left in this folder; More > Restore defaults empties it.")

    def close_down(self) -> None:
        """Take away what the form shows only while it is open, and keep what stands on it."""
        self._remembered.keep_if_changed()

    def add_tool(self, tool: QWidget) -> None:
        """Put a widget between the options and the buttons, for the tab key as well."""
        self.layout().insertWidget(2, tool)
        before = self.page.last_control
        for control in (tool, *tool.findChildren(QWidget)):
            if control.window() is self.window() and control.focusPolicy() & Qt.FocusPolicy.TabFocus:
                QWidget.setTabOrder(before, control)
                before = control
        QWidget.setTabOrder(before, self.alias)

    @property
    def is_running(self) -> bool:
        """Whether a job that this form started or watches is running, or its results are being shown."""
        return self._run is not None or self._shower.busy

    def run(self) -> None:
        """Start the job with what is in the boxes."""
        if self.is_running:
            return
        self._remembered.keep()
        try:
            folder = self.page.folder()
            self._alias = checked_alias(self.alias.text()) if self.alias.text().strip() else ""
            if folder is not None:
                if status(folder) == "running":
                    raise UserError(f"{folder} is in use by a running job; choose another output folder.")
                paths = {name: path for name, path in self.page.asdict().items() if isinstance(path, Path)}
                with self._layers.saved(paths.values(), folder) as saved:
                    self.page.update({name: saved.get(path, path) for name, path in paths.items()})
                    options = self.page.job_options()
            else:
                options = self.page.job_options()
        except UserError as error:
            self.complain(str(error))
            return
        self.page.typed.clear()  # what was typed has served; the next run may be filled anew
        self._remembered.keep()
        self.folder = folder
        if self.job.name in OWN_PROCESS and folder is not None:
            self._follow(FolderRun(folder, process_words(self.job, options)))
        else:
            self._follow(ThreadRun(self.module.run, options, folder))

    def cancel(self) -> None:
        """Ask the running job to stop."""
        if self._run is not None:
            self.cancel_button.setEnabled(False)
            self.say("Stopping…")
            self._run.cancel()

    def watch(self, folder: Path) -> None:
        """Follow a job that runs already, in a terminal or on another machine; show one that has ended."""
        state = status(folder)
        self.folder, self._alias = folder, ""
        if state == "running":
            self._follow(FolderRun(folder))
        elif state == "succeeded":
            self._show_results(Outcome(folder))
        else:
            self.complain(
                f"No job runs in {folder} ({state}); choose the folder of a running or finished job."
            )

    def load(self, path: Path) -> None:
        """Fill the form from a job.star of this program or of RELION."""
        try:
            notices = self.page.load(path)
        except UserError as error:
            self.complain(str(error))
        else:
            self.say(f"Loaded {path}. {notices}".strip())

    def say(self, text: str) -> None:
        """Write a sentence below the buttons."""
        self.status.setText(text)

    def complain(self, sentence: str, *, with_log: bool = False) -> None:
        """Say what is wrong in a sentence, here and as a notification, perhaps with the log at hand."""
        self.say(sentence)
        if with_log:
            show_error_with_log(sentence, self.show_log)
        else:
            show_error(sentence)

    def show_log(self) -> LogWindow:
        """Open a window with what the last job of this form has said."""
        window = LogWindow(self.folder or Path(), self)
        window.show()
        return window

    def _ask_and_watch(self) -> None:
        title = f"Folder of a {self.job.title} job"
        if folder := QFileDialog.getExistingDirectory(self, title, str(Path.cwd())):
            self.watch(Path(folder))

    def _ask_and_load(self) -> None:
        title = f"job.star of a {self.job.title} job"
        path, _ = QFileDialog.getOpenFileName(self, title, str(Path.cwd()), "Job files (*job.star)")
        if path:
            self.load(Path(path))

    def _follow(self, run: ThreadRun | FolderRun) -> None:
        self._run = run
        run.event.connect(self._on_event)
        run.ended.connect(self._on_ended)
        self._busy(True)
        self.bar.setRange(0, 0)
        self.figures.setText("")
        self.say("Starting…")
        run.start()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.bar.setRange(0, event.total)
            self.bar.setValue(event.done)
            left = self._clock.seconds_left(event)
            self.say(to_text(event) + (f", {duration_text(left)} left" if left else ""))
        elif isinstance(event, Notice):
            (show_warning if event.warning else show_info)(event.message)
        elif isinstance(event, Figures):
            self.figures.setText(figures_text(event))
        self._take_alias()
        if self._viewer is not None:
            folder = self._run.folder if isinstance(self._run, FolderRun) else None
            self._shower.show(event_steps(self._viewer, event, folder))

    def _take_alias(self) -> None:
        """Give the job its alias as soon as it has a folder."""
        if self._alias and self.folder is not None and self.folder.is_dir():
            alias, self._alias = self._alias, ""
            try:
                give_alias(self.folder, alias)
                record_alias(self.folder)
            except UserError as error:
                self.complain(str(error))

    def _on_ended(self, outcome: Outcome) -> None:
        self._run = None
        self._busy(False)
        self._take_alias()
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        if outcome.cancelled:
            self.say("Stopped.")
        elif outcome.error is not None:
            sentence = self.page.by_labels(str(outcome.error))
            if not isinstance(outcome.error, UserError):
                sentence = f"{self.job.title} failed: {sentence or type(outcome.error).__name__}."
            if self.folder is not None and self.alias.text():
                drop_alias(self.folder)  # the next attempt will have it
                record_alias(self.folder)
            logged = outcome.folder is not None and bool(log_text(outcome.folder))
            self.complain(sentence, with_log=logged)
        else:
            self.bar.setValue(1)
            self.alias.clear()
            self._show_results(outcome)

    def _show_results(self, outcome: Outcome) -> None:
        self.say(f"Done: {outcome.folder}" if outcome.folder else "Done.")
        if outcome.result is not None:
            self.figures.setText(figures_text(outcome.result))
        self.page.suggest_output()
        if outcome.folder is not None and self._viewer is not None:
            self._shower.show(results_steps(self._viewer, outcome.folder))

    def _busy(self, busy: bool) -> None:
        self.cancel_button.setEnabled(busy)
        for widget in (self.run_button, self.load_button, self.watch_button, self.alias):
            widget.setEnabled(not busy)

    def _layer_files(self) -> dict[str, Path]:
        return self._layers.offer(self.page.folder())

    def _build_foot(self, layout: QVBoxLayout) -> None:
        """Add what stays in sight while the options scroll: buttons, bar and words."""
        self._alias = ""
        self.alias = QLineEdit()
        self.alias.setPlaceholderText("none")
        self.alias.setToolTip(
            "A name of your own for this job, e.g. first3dref: a link of that name will lead to its folder"
        )
        alias_row, label = QHBoxLayout(), QLabel("Alias")
        label.setBuddy(self.alias)
        layout.addLayout(alias_row)  # first: what is shown before it has its place is a window of its own
        for widget in (label, self.alias):
            alias_row.addWidget(widget)
            widget.setVisible(bool(self.job.folder))
        self.run_button = make_button("Run", "Start the job (Ctrl+Return)", self.run)
        self.cancel_button = make_button("Cancel", "Stop the job at its next step", self.cancel)
        self.load_button = make_button(
            "Load…", "Take the options from a job.star, also of RELION", self._ask_and_load
        )
        self.watch_button = make_button(
            "Watch…",
            "Follow a job that was started before, in a terminal or on another machine",
            self._ask_and_watch,
        )
        row = QHBoxLayout()
        layout.addLayout(row)
        self.more_button = MoreButton(self)
        for button in (
            self.run_button,
            self.cancel_button,
            self.load_button,
            self.watch_button,
            self.more_button,
        ):
            row.addWidget(button)
        self.load_button.setVisible(bool(self.job.folder))
        self.watch_button.setVisible(self.job.name in OWN_PROCESS)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        layout.addWidget(self.bar)
        self.status, self.figures = QLabel(), QLabel()
        for label in (self.status, self.figures):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            layout.addWidget(label)
        self._busy(False)
