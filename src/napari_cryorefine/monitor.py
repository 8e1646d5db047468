"""The dock that follows a refinement: its maps, its numbers, its views; stops it and goes on with it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSignalBlocker, QSize, Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from cryorefine.jobs.base import Progress
from cryorefine.jobs.refinement_history import Iteration
from napari_cryorefine.job_log import LogWindow
from napari_cryorefine.latest import Latest
from napari_cryorefine.monitor_layers import BOTH, VIEWS, IterationMaps, choose_view, read_maps, show_maps
from napari_cryorefine.monitor_reading import Reader, Reading, figures_line, read_views, time_text
from napari_cryorefine.monitor_steering import Steering
from napari_cryorefine.progress import Stopwatch
from napari_cryorefine.reasons import ACCENT
from napari_cryorefine.results import job_name
from napari_cryorefine.turns import Turns
from napari_cryorefine.warm import warm_up

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryorefine.monitor_plots import FscHistory, TrendPlots
    from napari_cryorefine.sky import Sky
    from napari_cryorefine.sky_panel import SkyPanel

MONITOR_DOCK = "Monitor"
_RUNNING_MS, _QUIET_MS = 1000, 4000
"""How often the folder is looked at while its job runs, and when it does not."""


class Monitor(QWidget):
    """Follow a Refine3D job of this program or of RELION, running or finished, through its folder alone.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the half maps are shown.

    Attributes
    ----------
    reading : Reading or None
        What is known of the job.
    chosen : Iteration or None
        The iteration that is shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.reading: Reading | None = None
        self.chosen: Iteration | None = None
        self._folder: Path | None = None
        self._shown: Iteration | None = None
        self._clock = Stopwatch()
        self._reader = Latest(Reader(), self)
        self._reader.made.connect(self._take)
        self._reader.failed.connect(lambda error: self.state.setText(str(error)))
        self._maps = Latest(read_maps, self)
        self._maps.made.connect(self._show_maps)
        self._maps.failed.connect(lambda error: self.time.setText(str(error)))
        self._views = Latest(read_views, self)
        self._views.made.connect(self._show_views)
        self._views.failed.connect(lambda error: self.time.setText(str(error)))
        self._timer = QTimer(self)
        self._timer.setInterval(_QUIET_MS)
        self._timer.timeout.connect(self.refresh)
        self.fsc: FscHistory | None = None
        self.trends: TrendPlots | None = None
        self.sky: SkyPanel | None = None
        self._build()
        viewer.events.theme.connect(self._paint)
        self._turns = Turns(self)
        self._showing: Generator[None, None, None] | None = None
        # Loaded in a thread, then made one after the other: together they would keep the window waiting.
        self._loader = Latest(_load_plots, self)
        self._loader.idle.connect(self._build_plots)
        self._loader.ask(None)
        warm_up(viewer)

    @property
    def busy(self) -> bool:
        """Whether something is being read, shown or built."""
        makers = (self._reader, self._maps, self._views, self._loader, self._turns)
        return any(maker.busy for maker in makers)

    def open(self, folder: Path) -> None:
        """Follow the job of this folder from now on."""
        self._folder, self.reading, self.chosen, self._shown = folder, None, None, None
        self._maps.forget()
        self._views.forget()
        self._show_no_more()
        self.follow.setChecked(True)
        self.name.setText(job_name(folder))
        self.name.setToolTip(str(folder.resolve()))
        self.state.setText("Reading…")
        for label in (self.number, self.figures, self.time):
            label.setText("")
        for plot in (self.fsc, self.trends):
            if plot is not None:
                plot.show_iterations(())
        self.log_button.setEnabled(True)
        self._tell_dashboard("")
        self.steering.tell(None, None)
        self.refresh()

    def refresh(self) -> None:
        """Look at the folder, in a thread; done every second or so while the dock is in sight."""
        if self._folder is not None and (not self._reader.busy or self.reading is None):
            self._reader.ask(self._folder)

    def choose(self, number: int) -> None:
        """Show the iteration of this number, or the nearest one that is there."""
        if self.reading is not None and self.reading.iterations:
            distances = [abs(one.number - number) for one in self.reading.iterations]
            self.slider.setValue(distances.index(min(distances)))

    def show_log(self) -> LogWindow:
        """Open a window with what the job has said."""
        window = LogWindow(self._folder or Path(), self)
        window.show()
        return window

    def showEvent(self, event: QShowEvent) -> None:
        """Look at the folder while the dock is seen."""
        super().showEvent(event)
        self._timer.start()
        self.refresh()

    def hideEvent(self, event: QHideEvent) -> None:
        """Read nothing that nobody looks at; the job goes on."""
        super().hideEvent(event)
        self._timer.stop()

    def changeEvent(self, event: QEvent) -> None:
        """Notice when napari closes the dock: it takes the monitor out and leaves it without a parent."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close_down()

    def close_down(self) -> None:
        """Stop looking; the job goes on."""
        self._timer.stop()
        for worker in (self._reader, self._maps, self._views):
            worker.forget()
        self._show_no_more()
        self.steering.close_down()

    def sizeHint(self) -> QSize:
        """Ask for a row of plots under two lines."""
        return QSize(1100, 340)

    def _take(self, reading: Reading) -> None:
        """Show what has been read; the newest iteration, unless a person looks at an earlier one."""
        if reading.folder != self._folder:
            return
        before = self.reading.iterations if self.reading is not None else ()
        self.reading = reading
        running = reading.life.state in ("running", "unknown")
        self._timer.setInterval(_RUNNING_MS if running else _QUIET_MS)
        self.state.setText(reading.life.sentence)
        iterations = reading.iterations
        changed = iterations != before
        with QSignalBlocker(self.slider):
            self.slider.setRange(0, max(len(iterations) - 1, 0))
            self.slider.setEnabled(len(iterations) > 1)
        if changed:
            self._draw_iterations()
        if iterations:
            self._pick(self._place_of_chosen())
        else:
            self.figures.setText("No iteration is whole yet." if running else "There is no iteration here.")
        self._tell_time()
        self._tell_dashboard(reading.dashboard)
        self.steering.tell(reading, self.chosen)

    def _place_of_chosen(self) -> int:
        assert self.reading is not None
        numbers = [one.number for one in self.reading.iterations]
        if self.follow.isChecked() or self.chosen is None or self.chosen.number not in numbers:
            return len(numbers) - 1
        return numbers.index(self.chosen.number)

    def _pick(self, place: int) -> None:
        assert self.reading is not None
        iterations = self.reading.iterations
        one = iterations[place]
        with QSignalBlocker(self.slider):
            self.slider.setValue(place)
        anew = one is not self.chosen
        self.chosen = one
        self.number.setText(f"<b>{one.name}</b> of {iterations[-1].number}")
        self.figures.setText(figures_line(one))
        self._draw()
        if anew:
            if (
                self._shown is None
                or self._shown.half_maps != one.half_maps
                or self._shown.stamp != one.stamp
            ):
                self._maps.ask(one)
            if self.sky is not None:
                self._views.ask(one)

    def _draw(self) -> None:
        """Draw curves and mark the chosen iteration, in those plots that are there."""
        if self.reading is None or self.chosen is None:
            return
        if self.fsc is not None:
            self.fsc.show_chosen(self.chosen)
        if self.trends is not None:
            self.trends.mark(self.chosen.number)

    def _draw_iterations(self) -> None:
        if self.reading is None:
            return
        if self.fsc is not None:
            self.fsc.show_iterations(self.reading.iterations)
        if self.trends is not None:
            self.trends.show_iterations(self.reading.iterations)

    def _moved(self, place: int) -> None:
        """Go to the iteration that a person has moved the slider to."""
        if self.reading is not None and place < len(self.reading.iterations):
            self.follow.setChecked(place == len(self.reading.iterations) - 1)
            self._pick(place)
            self.steering.tell(self.reading, self.chosen)

    def _follow_newest(self, wanted: bool) -> None:
        if wanted and self.reading is not None and self.reading.iterations:
            self._pick(len(self.reading.iterations) - 1)
            self.steering.tell(self.reading, self.chosen)

    def _show_maps(self, maps: IterationMaps) -> None:
        if self.chosen is not None and maps.iteration.half_maps == self.chosen.half_maps:
            self._shown = maps.iteration
            self._show_no_more()
            self._showing = show_maps(self._viewer, maps, self.name.text(), self.view.currentText())
            self._turns.follow(self._showing, first=True)

    def _show_no_more(self) -> None:
        if self._showing is not None:
            self._showing.close()

    def _show_views(self, made: tuple[Iteration, Sky]) -> None:
        if self.sky is not None and self.chosen is not None and made[0].data == self.chosen.data:
            self.sky.show_sky(made[1])

    def _tell_time(self) -> None:
        reading = self.reading
        if reading is None or reading.life.state != "running":
            self.time.setText("")
            return
        progress = reading.progress
        left = self._clock.seconds_left(progress) if isinstance(progress, Progress) else None
        self.time.setText(time_text(reading, left))

    def _tell_dashboard(self, address: str) -> None:
        """Offer the page on which Dask shows its workers, while there is one, or say why there is none."""
        there = address.startswith("http")
        link = f'<a href="{escape(address)}" style="color: {ACCENT}">Dask dashboard</a>'
        self.dashboard.setText(link if there else "No Dask dashboard: install bokeh")
        self.dashboard.setToolTip(
            f"The workers and their tasks, in a browser: {address}" if there else f"Dask dashboard: {address}"
        )
        self.dashboard.setVisible(bool(address))

    def _ask(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of a Refine3D job", str(Path.cwd())):
            self.open(Path(folder))

    def _paint(self) -> None:
        for plot in (self.fsc, self.trends, self.sky):
            if plot is not None:
                plot.paint(self._viewer.theme)

    def _build_plots(self) -> None:
        self._turns.add(self._build_fsc, self._build_trends, *[self._add_trend] * 5, self._build_sky)

    def _build_fsc(self) -> None:
        from napari_cryorefine.monitor_plots import FscHistory

        self.fsc = FscHistory(self._viewer.theme)
        self._plots.insertWidget(0, self.fsc, 3)
        self._draw_iterations()
        self._draw()

    def _build_trends(self) -> None:
        from napari_cryorefine.monitor_plots import TrendPlots

        self.trends = TrendPlots(self._viewer.theme)
        self.trends.clicked.connect(self.choose)
        self._plots.insertWidget(1, self.trends, 4)

    def _add_trend(self) -> None:
        assert self.trends is not None
        self.trends.add_plot()
        if self.reading is not None:
            self.trends.show_iterations(self.reading.iterations)
        if self.chosen is not None:
            self.trends.mark(self.chosen.number)

    def _build_sky(self) -> None:
        from napari_cryorefine.sky_panel import SkyPanel

        self.sky = SkyPanel(theme=self._viewer.theme, bare=True)
        self._plots.insertWidget(2, self.sky, 4)
        if self.chosen is not None:
            self._views.ask(self.chosen)

    def _build(self) -> None:
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip(
            "The folder of a Refine3D job of this program or of RELION, e.g. Refine3D/job021"
        )
        self.open_button.clicked.connect(self._ask)
        self.log_button = QPushButton("Log")
        self.log_button.setToolTip("What the job has said: run.out and run.err")
        self.log_button.setEnabled(False)
        self.log_button.clicked.connect(lambda: self.show_log())
        self.name, self.state, self.time = QLabel("No job is open."), QLabel(), QLabel()
        self.name.setStyleSheet("font-weight: bold")
        for label in (self.state, self.time):
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.dashboard = QLabel()
        self.dashboard.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.dashboard.setOpenExternalLinks(True)
        self.dashboard.hide()
        self.number, self.figures = QLabel(), QLabel()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip("Iterations; arrow keys go one on, Home and End to the first and the last")
        self.slider.setPageStep(1)
        self.slider.setRange(0, 0)
        self.slider.setEnabled(False)
        self.slider.setMinimumWidth(160)
        self.slider.valueChanged.connect(self._moved)
        self.follow = QCheckBox("Newest")
        self.follow.setToolTip("Go to each new iteration as it comes")
        self.follow.setChecked(True)
        self.follow.clicked.connect(self._follow_newest)
        self.view = QComboBox()
        self.view.addItems(VIEWS)
        self.view.setCurrentText(BOTH)
        self.view.setToolTip(
            "What is seen of the half maps. Overlaid, they are grey where they agree, and blue or orange "
            "where one of them has more; so is their difference."
        )
        self.view.currentTextChanged.connect(self._change_view)
        self.steering = Steering(self._viewer)
        self.steering.opened.connect(self.open)
        self.steering.done.connect(self.refresh)
        top = QHBoxLayout()
        top.addWidget(self.open_button)
        top.addWidget(self.name)
        top.addWidget(self.state)
        top.addStretch(1)
        top.addWidget(self.time)
        top.addWidget(self.dashboard)
        top.addWidget(self.log_button)
        middle = QHBoxLayout()
        middle.addWidget(self.slider, 1)
        middle.addWidget(self.number)
        middle.addWidget(self.figures)
        middle.addWidget(self.follow)
        middle.addWidget(self.view)
        self._plots = QHBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.addLayout(top)
        layout.addLayout(middle)
        layout.addLayout(self._plots, 1)
        layout.addWidget(self.steering)

    def _change_view(self, view: str) -> None:
        choose_view(self._viewer, self.name.text(), view)


def _load_plots(_: None) -> Iterator[None]:
    import napari_cryorefine.monitor_plots
    import napari_cryorefine.sky_panel  # noqa: F401

    yield None


def show_monitor(viewer: napari.viewer.Viewer, folder: Path) -> Monitor:
    """Follow a job in the monitor of a viewer, which is opened below the canvas if it is not there."""
    window: Any = viewer.window
    panel: Any = next((one for one in window.dock_widgets.values() if isinstance(one, Monitor)), None)
    if panel is None:
        panel = Monitor(viewer)
        window.add_dock_widget(panel, name=MONITOR_DOCK, area="bottom")
    panel.open(folder)
    return panel  # type: ignore[no-any-return]
