"""The dock that leads from particles to a sharpened map: every step, how it stands, and its form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from cryorefine.io.pipeline import PIPELINE_FILE
from cryorefine.jobs.workflow import WORKFLOWS, Step, Workflow
from cryorefine.jobs.workflow_plan import Plan, read_plan
from cryorefine.jobs.workflow_starts import Start
from cryorefine.jobs.workflow_values import Given
from napari_cryorefine.job_log import LogWindow
from napari_cryorefine.job_views import open_form, show_job
from napari_cryorefine.latest import Latest
from napari_cryorefine.layers import add_map
from napari_cryorefine.shower import Shower
from napari_cryorefine.step_row import StepRow
from napari_cryorefine.tabbed import TabbedPanel, make_button
from napari_cryorefine.warm import warm_up

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryorefine.forms import JobForm
    from napari_cryorefine.steps import Steps

REFRESH_SECONDS = 3.0
NOTHING = (
    "Nothing to start from lies in this folder. Open particles and a map (File > Open, File > Open Sample), "
    "a project (Open… above), or fill in a form by hand."
)


@dataclass(frozen=True)
class _Wish:
    """What is to be read: a workflow in a folder, with the jobs that were picked."""

    folder: Path
    workflow: str
    chosen: dict[str, str]
    layers: dict[str, Start]


@dataclass(frozen=True)
class _Snapshot:
    """What has been read for a wish."""

    wish: _Wish
    plan: Plan


@dataclass(frozen=True)
class _Filling:
    """A form that is to be filled, and what stands on it, of which some was typed."""

    form: JobForm
    step: Step
    wish: _Wish
    values: dict[str, Any]
    typed: dict[str, Any]


class WorkflowPanel(TabbedPanel):
    """Every step of single-particle and subtomogram refinement, with its form filled from the steps before.

    Parameters
    ----------
    viewer : napari.Viewer
        Where forms are opened and results are shown.

    Attributes
    ----------
    rows : dict of str to StepRow
        The rows of the workflow that is shown, by the keys of its steps.
    tabs : QTabBar
        Single particles, subtomograms.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        warm_up(viewer)
        self._viewer = viewer
        self._folder = Path()
        self._chosen: dict[str, str] = {}
        self._snapshot: _Snapshot | None = None
        self._any_workflow = True
        self.rows: dict[str, StepRow] = {}
        self._reader = Latest(_read, self)
        self._reader.made.connect(self._take)
        self._reader.failed.connect(lambda error: self._say(str(error)))
        self._fillers: dict[str, Latest] = {}
        self._shower = Shower(self)
        self._shower.failed.connect(lambda error: self._say(str(error)))
        self._timer = QTimer(self)
        self._timer.setInterval(int(REFRESH_SECONDS * 1000))
        self._timer.timeout.connect(self.refresh)
        self._build()
        self._show_workflow()
        self.refresh()

    @property
    def busy(self) -> bool:
        """Whether the project is being read, a form filled or a result shown."""
        fillers = self._fillers.values()
        return self._reader.busy or self._shower.busy or any(filler.busy for filler in fillers)

    @property
    def workflow(self) -> Workflow:
        """The workflow that is shown."""
        return WORKFLOWS[self.tabs.tabData(self.tabs.currentIndex())]

    def open(self, folder: Path) -> None:
        """Show how far another project has come; its folder, or its default_pipeline.star."""
        folder = folder.parent if folder.name == PIPELINE_FILE else folder
        self._folder = Path() if folder.resolve() == Path.cwd() else folder
        self._chosen.clear()
        self._any_workflow = True
        self.refresh()

    def refresh(self) -> None:
        """Read the project anew, in a thread; also done every few seconds while the dock is in sight."""
        wish = self._wish("" if self._any_workflow else self.workflow.name)
        if not self._reader.busy or self._snapshot is None or self._snapshot.wish != wish:
            self._reader.ask(wish)

    def open_step(self, key: str) -> JobForm:
        """Open the form of a step and fill it from the steps before; what was typed there stays."""
        step = self.workflow.step(key)
        form = open_form(self._viewer, step.job, self._folder)
        self._say("")
        if form.is_running:
            self._say(f"{step.title} is running; its form can be filled when it has ended.")
        else:
            values = form.page.readable()
            typed = {name: value for name, value in values.items() if name in form.page.typed}
            wish = self._wish(self.workflow.name)
            self._filler_of(step).ask(_Filling(form, step, wish, values, typed))
        return form

    def show_step(self, key: str) -> None:
        """Show what the job of a step has made, or what it said where it failed."""
        state = self.rows[key].state
        self._say("")
        if state.job is None:
            if state.product is not None:
                self._shower.show(_map_steps(self._viewer, state.product))
        elif state.status in ("failed", "interrupted", "aborted"):
            LogWindow(state.job.folder, self).show()
        else:
            show_job(self._viewer, state.job, self._shower)

    def pick(self, key: str, name: str) -> None:
        """Look at another job of a step, and let the next steps take their files from it."""
        self._chosen[key] = name
        self.refresh()

    def show_tab(self, name: str) -> None:
        """Show the workflow of that name, "single-particles" or "subtomograms"."""
        self.tabs.setCurrentIndex(list(WORKFLOWS).index(name))

    def showEvent(self, event: QShowEvent) -> None:
        """Keep the states fresh while they are seen."""
        super().showEvent(event)
        self.refresh()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Read nothing that nobody looks at."""
        super().hideEvent(event)
        self._timer.stop()

    def close_down(self) -> None:
        """Drop what is being read."""
        self._timer.stop()
        self._reader.forget()
        for filler in self._fillers.values():
            filler.forget()
        self._shower.forget()

    def sizeHint(self) -> QSize:
        """Ask for room for the names of jobs, and for all steps."""
        return QSize(430, 620)

    def _wish(self, workflow: str) -> _Wish:
        return _Wish(self._folder, workflow, dict(self._chosen), _starts_of(self._viewer))

    def _take(self, snapshot: _Snapshot) -> None:
        """Show what has been read, unless something else is asked for by now."""
        plan = snapshot.plan
        if snapshot.wish.folder != self._folder:
            return
        if self._any_workflow:
            self._any_workflow = False
            self.show_tab(plan.workflow.name)
        if plan.workflow is not self.workflow:
            return
        self._snapshot = snapshot
        for state in plan.states:
            self.rows[state.step.key].show_state(state, is_next=state.step is plan.next)
        folder = plan.project.folder.resolve()
        self.place.setText(f"{folder.name}{' (RELION project)' if plan.project.of_relion else ''}")
        self.place.setToolTip(str(folder))
        if plan.project.warning or plan.is_empty or self.message.text() == NOTHING:
            self._say(plan.project.warning or (NOTHING if plan.is_empty else ""))

    def _filler_of(self, step: Step) -> Latest:
        """Return what fills the form of a step: each has its own, for some take their time."""
        if step.job not in self._fillers:
            self._fillers[step.job] = filler = Latest(_fill, self)
            filler.made.connect(self._give)
            filler.failed.connect(lambda error: self._say(str(error)))
        return self._fillers[step.job]

    def _give(self, found: tuple[JobForm, list[Given]]) -> None:
        form, given = found
        if form.parent() is None or form.is_running:
            return  # it has been closed, or started, in the meantime
        kept = [one.option for one in given if not form.page.give(one.option, one.value, one.reason)]
        if kept:
            form.say("What you typed is kept; below it stands what the steps before would give.")

    def _show_workflow(self) -> None:
        """Make the rows of the workflow that is shown."""
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self.rows = {}
        last: QWidget = self.tabs
        for number, step in enumerate(self.workflow.steps, start=1):
            row = StepRow(step, number)
            row.opened.connect(partial(self.open_step, step.key))
            row.shown.connect(partial(self.show_step, step.key))
            row.picked.connect(partial(self.pick, step.key))
            row.left.connect(partial(self._go, number - 1))
            layout.addWidget(row)
            self.rows[step.key] = row
        layout.addStretch(1)
        self.area.setWidget(content)
        for row in self.rows.values():
            for control in row.controls():
                QWidget.setTabOrder(last, control)
                last = control

    def _go(self, place: int, by: int) -> None:
        rows = list(self.rows.values())
        if 0 <= place + by < len(rows):
            rows[place + by].setFocus(Qt.FocusReason.TabFocusReason)
            self.area.ensureWidgetVisible(rows[place + by])

    def _turn(self) -> None:
        self._snapshot = None
        self._chosen.clear()
        self._show_workflow()
        self.refresh()

    def _say(self, sentence: str) -> None:
        self.message.setText(sentence)
        self.message.setVisible(bool(sentence))

    def _ask(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of a project", str(self._folder)):
            self.open(Path(folder))

    def _build(self) -> None:
        self.open_button = make_button("Open…", "The folder of a project, with or without RELION", self._ask)
        self.place = QLabel()
        self.tabs = QTabBar()
        self.tabs.setExpanding(True)
        self.tabs.setDrawBase(False)
        for workflow in WORKFLOWS.values():
            self.tabs.setTabData(self.tabs.addTab(workflow.title), workflow.name)
        self.tabs.currentChanged.connect(lambda _: self._turn())
        self.tabs.tabBarClicked.connect(lambda _: setattr(self, "_any_workflow", False))
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.hide()
        top = QHBoxLayout()
        top.addWidget(self.open_button)
        top.addWidget(self.place, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(self.tabs)
        layout.addWidget(self.area, 1)
        layout.addWidget(self.message)


def _read(wish: _Wish) -> Iterator[_Snapshot]:
    """Read how far a project has come; runs in the thread."""
    yield _Snapshot(wish, _read_plan(wish))


def _read_plan(wish: _Wish) -> Plan:
    return read_plan(wish.folder, wish.workflow, wish.chosen, wish.layers)


def _fill(filling: _Filling) -> Iterator[tuple[JobForm, list[Given]]]:
    """Find the values of a form; runs in the thread. What has to be worked out comes second."""
    plan = _read_plan(filling.wish)  # a job may have ended since the panel looked
    given = plan.values(filling.step)
    yield filling.form, given
    values = filling.values | {one.option: one.value for one in given} | filling.typed
    yield filling.form, list(plan.suggestions(filling.step, values))


def _starts_of(viewer: Any) -> dict[str, Start]:
    """Return the files of layers that a workflow may start from: those opened last, results left out."""
    starts: dict[str, Start] = {}
    for layer in viewer.layers:
        about = layer.metadata
        path = Path(about.get("path") or "")
        if about.get("particles"):
            starts["particles"] = Start(Path(about["particles"]), "of the layers that are open")
        if about.get("cryorefine") == "map" and not about.get("role") and path.suffix == ".mrc":
            starts["reference"] = Start(path, f"the layer {layer.name}")
        elif path.suffix == ".star" and "optimisation_set" in path.name:
            starts["optimisation set"] = Start(path, f"the layer {layer.name}")
        elif about.get("cryorefine") == "particles" and path.suffix == ".star":
            starts["particles"] = Start(path, f"the layer {layer.name}")
    return starts


def _map_steps(viewer: Any, path: Path) -> Steps[None]:
    add_map(viewer, (yield path))
