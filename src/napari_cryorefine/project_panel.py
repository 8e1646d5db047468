"""The dock that lists the jobs of a project, shows what came of them and opens the form of the next one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from cryorefine.errors import UserError
from cryorefine.io.pipeline import PIPELINE_FILE
from cryorefine.jobs.lineage import job_of
from cryorefine.jobs.project import Project, ProjectJob, read_project, start_pipeline
from cryorefine.jobs.registry import load
from napari_cryorefine.job_views import FORMS, open_form, show_job
from napari_cryorefine.latest import Latest
from napari_cryorefine.shower import Shower
from napari_cryorefine.tabbed import TabbedPanel, make_button

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryorefine.forms import JobForm

_COLUMNS = ("Job", "Alias", "Status", "Last written")
_REFRESH_SECONDS = 3.0


class ProjectPanel(TabbedPanel):
    """Open a project folder, look at its jobs, run the next one.

    Parameters
    ----------
    viewer : napari.Viewer
        Where results are shown and forms are opened.

    Attributes
    ----------
    project : Project or None
        What is listed now; that of the current folder at first.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._folder = Path.cwd()
        self.project: Project | None = None
        self._reader = Latest(_read, self)
        self._reader.made.connect(self._take)
        self._reader.failed.connect(lambda error: self.message.setText(str(error)))
        self._shower = Shower(self)
        self._shower.failed.connect(lambda error: self.message.setText(str(error)))
        self._timer = QTimer(self)
        self._timer.setInterval(int(_REFRESH_SECONDS * 1000))
        self._timer.timeout.connect(self.refresh)
        self._build()
        self.refresh()

    @property
    def busy(self) -> bool:
        """Whether the folder is being read, or results are being shown."""
        return self._reader.busy or self._shower.busy

    def open(self, folder: Path) -> None:
        """List the jobs of another folder, or of that of a pipeline; a mistake is told below."""
        self._folder = folder.parent if folder.name == PIPELINE_FILE else folder
        self.refresh()

    def refresh(self) -> None:
        """Read the folder anew, in a thread; also done every few seconds while the dock is in sight."""
        if not self._reader.busy or self.project is None or self.project.folder != self._folder:
            self._reader.ask(self._folder)

    @property
    def chosen(self) -> ProjectJob | None:
        """The job whose row is selected."""
        rows = self.table.selectedItems()
        job: ProjectJob | None = rows[0].data(0, Qt.ItemDataRole.UserRole) if rows else None
        return job

    def choose(self, name: str) -> None:
        """Select the row of a job, e.g. "Refine3D/job012"."""
        for item in self._items():
            if item.text(0) == name:
                self.table.setCurrentItem(item)

    def show_results(self) -> None:
        """Show what the selected job has made; one that runs is followed in its form."""
        job = self.chosen
        if job is None:
            return
        self.message.setText("")
        show_job(self._viewer, job, self._shower)

    def use_options(self) -> None:
        """Open the form of the selected job with its options, to be run as the next job."""
        job = self.chosen
        if job is None or not (name := job_of(job)):
            return
        form = self.open_form(name)
        if not form.is_running:
            form.load(job.folder / "job.star")

    def open_form(self, name: str) -> JobForm:
        """Open the form of a kind of job, its output folder numbered as the next one of this project."""
        return open_form(self._viewer, name, self._folder)

    def start_pipeline(self) -> None:
        """Make the folder a project of RELION's; jobs that begin from now on are shown there too."""
        try:
            start_pipeline(self._folder)
        except UserError as error:
            self.message.setText(str(error))
        self.refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Keep the list fresh while it is seen."""
        super().showEvent(event)
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Read nothing that nobody looks at."""
        super().hideEvent(event)
        self._timer.stop()

    def sizeHint(self) -> QSize:
        """Ask for room for the names of jobs, and for some twelve of them."""
        return QSize(430, 420)

    def _take(self, project: Project) -> None:
        """Show a project that has been read, if it differs from the one that is shown."""
        if project.folder != self._folder or project == self.project:
            return
        chosen = self.chosen.name if self.chosen else ""
        self.project = project
        self.table.clear()
        for job in project.jobs:
            item = QTreeWidgetItem([job.name, job.alias, job.status, _time_text(job.time)])
            item.setData(0, Qt.ItemDataRole.UserRole, job)
            item.setToolTip(0, f"{job.folder}\n{job.label}".strip())
            self.table.addTopLevelItem(item)
        self.choose(chosen)
        self._filter()
        self.place.setText(project.folder.name or str(project.folder))
        self.place.setToolTip(str(project.folder))
        self.start_button.setVisible(not project.of_relion)
        self.message.setText(project.warning or ("" if project.jobs else "No job has run in this folder."))

    def _filter(self) -> None:
        words = self.filter.text().lower().split()
        for item in self._items():
            text = " ".join(item.text(column) for column in range(3)).lower()
            item.setHidden(not all(word in text for word in words))

    def _items(self) -> Iterator[QTreeWidgetItem]:
        for row in range(self.table.topLevelItemCount()):
            yield self.table.topLevelItem(row)

    def _choice_changed(self) -> None:
        job = self.chosen
        self.results_button.setEnabled(job is not None)
        self.options_button.setEnabled(job is not None and bool(job_of(job)))

    def _ask(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of a project", str(self._folder)):
            self.open(Path(folder))

    def _build(self) -> None:
        self.open_button = make_button("Open…", "The folder of a project, with or without RELION", self._ask)
        self.place = QLabel()
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter, e.g. refine succeeded")
        self.filter.setToolTip("Show jobs whose name, alias or status holds all of these words")
        self.filter.setClearButtonEnabled(True)
        self.filter.textChanged.connect(lambda _: self._filter())
        self.table = QTreeWidget()
        self.table.setHeaderLabels(_COLUMNS)
        self.table.setRootIsDecorated(False)
        self.table.setUniformRowHeights(True)
        self.table.setStyleSheet("QTreeView::item { padding: 3px 2px; }")
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setAllColumnsShowFocus(True)
        header = self.table.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.table.itemActivated.connect(lambda *_: self.show_results())
        self.table.itemSelectionChanged.connect(self._choice_changed)
        self.results_button = make_button(
            "Show results", "Maps, masks and curves of the selected job (Enter)", self.show_results
        )
        self.options_button = make_button(
            "Use options", "The form of the selected job, filled as it was for that job", self.use_options
        )
        self.kind = QComboBox()
        for name, title in FORMS.items():
            if load(name).JOB.folder:
                self.kind.addItem(title, name)
        self.kind.setToolTip("What the next job is to do")
        self.next_button = make_button(
            "Next job…",
            "Open the form; its output folder has the number that RELION would give it",
            lambda: self.open_form(self.kind.currentData()),
        )
        self.start_button = make_button(
            "Make RELION project",
            "Write default_pipeline.star: jobs that begin from now on are shown by RELION too",
            self.start_pipeline,
        )
        self.start_button.hide()
        self.message = QLabel()
        self.message.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addLayout(_row(self.open_button, self.place, self.start_button, stretched=1))
        layout.addWidget(self.filter)
        layout.addWidget(self.table, 1)
        layout.addLayout(_row(self.results_button, self.options_button))
        layout.addLayout(_row(self.kind, self.next_button, stretched=0))
        layout.addWidget(self.message)
        self._choice_changed()


def _read(folder: Path) -> Iterator[Project]:
    yield read_project(folder)


def _time_text(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _row(*widgets: QWidget, stretched: int = -1) -> QHBoxLayout:
    row = QHBoxLayout()
    for place, widget in enumerate(widgets):
        row.addWidget(widget, 1 if place == stretched else 0)
    return row
