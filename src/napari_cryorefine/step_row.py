"""One step of the workflow panel: what it is, how it stands, and the buttons for it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from cryorefine.jobs.project import ProjectJob
from cryorefine.jobs.workflow import Step
from cryorefine.jobs.workflow_state import NOT_NEEDED, StepState
from napari_cryorefine.reasons import ACCENT
from napari_cryorefine.tabbed import make_button

_SIGNS = {
    "succeeded": ("✔", "#3fa45b", "done"),
    NOT_NEEDED: ("✔", "#3fa45b", "not needed"),
    "running": ("▶", ACCENT, "running"),
    "failed": ("✘", "#d9534f", "failed"),
    "aborted": ("■", "#c98a1b", "stopped"),
    "interrupted": ("✘", "#d9534f", "interrupted"),
    "scheduled": ("◷", "#8a8a8a", "scheduled"),
}
"""Status -> sign, its colour, which is readable on dark and on light, and the word for it."""
_NOTHING = ("○", "#8a8a8a", "not run")
_SHOWN = {"running": "Follow", "failed": "Log", "interrupted": "Log", "aborted": "Log"}
"""Status -> what the button beside the form shows, where that is not results."""
_TOLD_BELOW = ("failed", "interrupted")


class StepRow(QFrame):
    """The row of one step.

    Enter opens its form; the arrow keys go to the rows above and below.

    Parameters
    ----------
    step : Step
        The step.
    number : int
        Its place in the workflow, by which it is reached from the keyboard: Alt and the number.

    Attributes
    ----------
    opened : Signal
        The form is asked for.
    shown : Signal
        Results are asked for.
    picked : Signal
        Another job was picked to be looked at; its name.
    left : Signal
        An arrow key leads out of the row: -1 upwards, 1 downwards.
    """

    opened = Signal()
    shown = Signal()
    picked = Signal(str)
    left = Signal(int)

    def __init__(self, step: Step, number: int) -> None:
        super().__init__()
        self.step = step
        self.state = StepState(step)
        self._shown: tuple[StepState, bool] | None = None
        self.setObjectName("step")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setToolTip(f"{step.purpose}\nEnter opens its form, Alt+{number} comes here.")
        self.setAccessibleName(step.title)
        self.setAccessibleDescription(step.purpose)
        self.sign = QLabel()
        self.sign.setFixedWidth(18)
        self.name = QLabel(f"&{number}  {step.title}")
        self.name.setBuddy(self)
        self.name.setStyleSheet("font-weight: bold;")
        self.told = QElidingLabel()
        self.told.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.purpose = QLabel(step.purpose)
        self.purpose.setWordWrap(True)
        self.purpose.setStyleSheet("font-size: 11px;")
        self.jobs = QComboBox()
        self.jobs.setToolTip("The job that is looked at, and that the next steps take their files from")
        self.jobs.setAccessibleName(f"Job of {step.title}")
        self.jobs.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.jobs.activated.connect(lambda row: self.picked.emit(self.jobs.itemData(row) or ""))
        self.open_button = make_button(
            "Open form", "Its form, filled from the steps before (Enter)", self.opened.emit
        )
        self.show_button = make_button("Results", "Maps, masks and curves of this job", self.shown.emit)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(5)
        self.below = QLabel()
        self.below.setWordWrap(True)
        self.below.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._lay_out()
        self.show_state(self.state, is_next=False)

    def show_state(self, state: StepState, *, is_next: bool) -> None:
        """Show how the step stands, and whether it is the one to do next."""
        if self._shown == (state, is_next):
            return
        self._shown = (state, is_next)
        self.state = state
        sign, color, word = _SIGNS.get(state.status, _NOTHING)
        self.sign.setText(sign)
        self.sign.setStyleSheet(f"color: {color}; font-size: 15px;")
        below = state.status in _TOLD_BELOW
        percent = f"{state.percent} %" if state.percent is not None else ""
        headline = "" if below else state.headline
        self.purpose.setText(headline if state.status == NOT_NEEDED else self.step.purpose)
        if state.status == NOT_NEEDED:
            text = word
        elif state.status == "succeeded" and headline:
            text = headline
        else:
            text = ", ".join(filter(None, (word, headline, percent)))
        self.told.setText("next" if is_next and state.job is None else text)
        self.told.setToolTip(f"{word}: {state.headline}" if state.headline else word)
        self.below.setText(state.headline if below else "")
        self.below.setVisible(bool(self.below.text()))
        self.bar.setVisible(state.status == "running")
        self.bar.setRange(0, 0 if state.percent is None else 100)
        self.bar.setValue(state.percent or 0)
        self._list_jobs(state.jobs, state.job)
        self.purpose.setVisible(state.job is None)
        self.jobs.setVisible(state.job is not None)
        can_show = state.job is not None or state.product is not None
        self.show_button.setVisible(can_show)
        self.show_button.setText(_SHOWN.get(state.status, "Results"))
        self._mark(is_next)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open the form with Enter, go up and down with the arrows."""
        key = event.key()
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.opened.emit()
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self.left.emit(-1 if key == Qt.Key.Key_Up else 1)
        else:
            super().keyPressEvent(event)

    def mouseDoubleClickEvent(self, event: Any) -> None:
        """Open the form."""
        self.opened.emit()

    def controls(self) -> list[QWidget]:
        """Return what the tab key goes through, in order."""
        return [self, self.jobs, self.open_button, self.show_button]

    def _list_jobs(self, jobs: tuple[ProjectJob, ...], chosen: ProjectJob | None) -> None:
        texts = [_job_text(job) for job in jobs]
        if texts != [self.jobs.itemText(row) for row in range(self.jobs.count())]:
            if self.jobs.view().isVisible():
                return  # somebody is choosing
            with QSignalBlocker(self.jobs):
                self.jobs.clear()
                for job, text in zip(jobs, texts, strict=True):
                    self.jobs.addItem(text, job.name)
        if chosen in jobs:
            self.jobs.setCurrentIndex(jobs.index(chosen))

    def _mark(self, is_next: bool) -> None:
        edge = ACCENT if is_next else "transparent"
        self.setStyleSheet(
            "QFrame#step { border: none; "
            f"border-left: 3px solid {edge}; border-radius: 0; background: rgba(128, 128, 128, 28); }}"
            f"QFrame#step:focus {{ border: 1px solid {ACCENT}; border-left: 3px solid {ACCENT}; }}"
        )

    def _lay_out(self) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.sign)
        first.addWidget(self.name)
        first.addWidget(self.told, 1)
        for widget, stretch in (
            (self.purpose, 1),
            (self.jobs, 1),
            (self.open_button, 0),
            (self.show_button, 0),
        ):
            second.addWidget(widget, stretch)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 5)
        layout.setSpacing(3)
        layout.addLayout(first)
        layout.addLayout(second)
        layout.addWidget(self.bar)
        layout.addWidget(self.below)


def _job_text(job: ProjectJob) -> str:
    words = [job.name]
    if job.alias:
        words.append(job.alias)
    if job.status != "succeeded":
        words.append(_SIGNS.get(job.status, _NOTHING)[2])
    return "  ·  ".join(words)
