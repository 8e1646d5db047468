"""The monitor's buttons: stop a refinement, go on with it, with another mask or from an earlier iteration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QPushButton, QWidget

from cryorefine.errors import UserError
from cryorefine.jobs.folder import request_abort, request_stop, suggest_folder
from cryorefine.jobs.signs_of_life import release
from napari_cryorefine.layer_files import LayerFiles
from napari_cryorefine.runs import FolderRun, Outcome, process_words

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from cryorefine.jobs.refinement_history import Iteration
    from napari_cryorefine.monitor_reading import Reading

AS_BEFORE, A_FILE = "Mask as before", "Mask from a file…"
NOTHING_TO_GO_ON = "There are no checkpoints here; a refinement of RELION's is gone on with by RELION."
MASK_TIP = (
    "A mask in place of the one that the refinement has. From the next iteration on, the half maps are "
    "masked with it before particles are compared with them, and solvent-flattened FSCs are measured in it. "
    "Poses and half sets stay. Lists the maps of all layers."
)


class Steering(QWidget):
    """What can be done with the job that is shown.

    Attributes
    ----------
    opened : Signal
        Folder of a job that has begun and is to be followed from now on.
    done : Signal
        Something has been asked for: look again.
    """

    opened = Signal(object)
    done = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._layers = LayerFiles(viewer)
        self._reading: Reading | None = None
        self._chosen: Iteration | None = None
        self._run: FolderRun | None = None
        self._file: Path | None = None
        self.stop_after = _button(
            "Stop after this iteration",
            "Stops when the running iteration is whole; nothing is lost",
            self.stop_later,
        )
        self.stop_now = _button(
            "Stop now",
            "Stops within seconds. The running iteration is lost; those before it stay, and the refinement "
            "can go on from them",
            self.stop,
        )
        self.release_button = _button(
            "It is dead: release the folder",
            "Takes the lock away, so that the refinement can go on here. A process that lives after all "
            "stops by itself within half a minute",
            self.release,
        )
        self.mask_choice = _MaskChoice(self._list_masks)
        self.mask_choice.setToolTip(MASK_TIP)
        self.mask_choice.activated.connect(lambda _: self._mask_chosen())
        self.continue_button = _button("Continue", "", self.proceed)
        self.words = QLabel()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.stop_after,
            self.stop_now,
            self.release_button,
            self.mask_choice,
            self.continue_button,
        ):
            row.addWidget(widget)
        row.addWidget(self.words, 1)
        self.tell(None, None)

    @property
    def starting(self) -> bool:
        """Whether a job has been started and has not made its folder its own yet."""
        return self._run is not None

    def tell(self, reading: Reading | None, chosen: Iteration | None) -> None:
        """Show the buttons that fit the state of a job and the iteration that is shown."""
        self._reading, self._chosen = reading, chosen
        state = reading.life.state if reading is not None else ""
        ours = reading is not None and bool(reading.continuable)
        running = state == "running"
        stopping = reading is not None and reading.life.stopping
        silent = (
            reading is not None and running and not reading.life.here and "No sign" in reading.life.sentence
        )
        self.stop_after.setVisible(running)
        self.stop_after.setEnabled(not stopping)
        self.stop_now.setVisible(running)
        self.release_button.setVisible(silent)
        can = ours and not running and chosen is not None and not self.starting
        for widget in (self.mask_choice, self.continue_button):
            widget.setVisible(ours and not running)
            widget.setEnabled(can)
        if can:
            self._tell_continue()
        elif reading is not None and not ours and reading.iterations and not running:
            self.words.setText(NOTHING_TO_GO_ON)

    def close_down(self) -> None:
        """Stop waiting for a job that has been started; it goes on."""
        if self._run is not None:
            self._run.leave()
            self._run = None

    def stop_later(self) -> None:
        """Ask the job to stop when its iteration is whole."""
        if self._reading is not None:
            self._ask(request_stop, "It stops when this iteration is whole.")

    def stop(self) -> None:
        """Ask the job to stop at once."""
        self._ask(request_abort, "Stopping…")

    def release(self) -> None:
        """Take the lock away from a process of another machine."""
        self._ask(release, "The folder is free.")

    def proceed(self) -> None:
        """Go on from the iteration that is shown, with the mask that is chosen."""
        from cryorefine.jobs.refine3d import JOB, Options

        if self._reading is None or self._chosen is None or self.starting:
            return
        folder, output = self._reading.folder, self._output()
        branch = output != folder
        mask: Path | None = self.mask_choice.currentData()
        try:
            with self._layers.saved([mask] if mask is not None else [], output) as saved:
                options = Options(
                    continue_from=folder,
                    continue_iteration=self._chosen.number if branch else None,
                    output=output,
                    reference_mask=saved.get(mask, mask) if mask is not None else None,
                )
        except UserError as error:
            self._complain(str(error))
            return
        self.words.setText("Starting…")
        self._run = FolderRun(output, process_words(JOB, options))
        self._run.event.connect(lambda _: self._began(output))
        self._run.ended.connect(self._ended)
        self._run.start()
        self.tell(self._reading, self._chosen)

    def _output(self) -> Path:
        """Where the job would go on: in its own folder from its last iteration, else in a new one."""
        assert self._reading is not None
        assert self._chosen is not None
        folder, iterations = self._reading.folder, self._reading.iterations
        if self._chosen.number == self._reading.continuable[-1] and not iterations[-1].final:
            return folder
        if folder.name.startswith("job") and folder.name[3:].isdigit():
            from cryorefine.jobs.refine3d import JOB

            return suggest_folder(JOB, folder.parent.parent)
        return folder.with_name(f"{folder.name}_from_it{self._chosen.number:03d}")

    def _tell_continue(self) -> None:
        assert self._reading is not None
        assert self._chosen is not None
        number = self._chosen.number
        possible = number in self._reading.continuable
        self.continue_button.setEnabled(possible)
        self.mask_choice.setEnabled(possible)
        self.words.setText("")
        if not possible:
            self.continue_button.setText("Continue")
            self.words.setText(
                "A finished refinement goes on from an earlier iteration: choose one with the slider."
                if self._chosen.final
                else "This iteration has left no checkpoint to go on from: choose another."
            )
            return
        output = self._output()
        verb = "Continue" if self.mask_choice.currentData() is None else "Change mask and continue"
        place = "" if output == self._reading.folder else f" as {output.parent.name}/{output.name}"
        self.continue_button.setText(f"{verb} from iteration {number}{place}")
        self.continue_button.setToolTip(
            f"Goes on after iteration {number} in a process of its own, which napari may be closed over. "
            + ("What is here stays as it is" if place else "The next iterations come into the same folder")
        )

    def _began(self, folder: Path) -> None:
        """Follow the job as soon as it says something, through its folder like any other."""
        if self._run is not None:
            self._run.leave()
            self._run = None
            self.words.setText("")
            self.mask_choice.setCurrentIndex(0)
            self.opened.emit(folder)

    def _ended(self, outcome: Outcome) -> None:
        if self._run is None:
            return
        self._run = None
        self.words.setText("")
        if outcome.error is not None:
            self._complain(str(outcome.error))
        self.done.emit()

    def _ask(self, request: Any, words: str) -> None:
        if self._reading is None:
            return
        try:
            request(self._reading.folder)
        except OSError as error:
            self._complain(f"{self._reading.folder} cannot be written to ({error.strerror}).")
        else:
            self.words.setText(words)
            self.done.emit()

    def _complain(self, sentence: str) -> None:
        self.words.setText(sentence)
        show_error(sentence)

    def _list_masks(self) -> None:
        chosen = self.mask_choice.currentData()
        self.mask_choice.clear()
        self.mask_choice.addItem(AS_BEFORE, None)
        if self._reading is not None and self._chosen is not None:
            for name, path in self._layers.offer(self._output()).items():
                if not name.startswith("half "):
                    self.mask_choice.addItem(f"Mask: {name}", path)
        if self._file is not None:
            self.mask_choice.addItem(f"Mask: {self._file.name}", self._file)
        self.mask_choice.addItem(A_FILE, None)
        self.mask_choice.setCurrentIndex(
            max(0, self.mask_choice.findData(chosen)) if chosen is not None else 0
        )

    def _mask_chosen(self) -> None:
        if self.mask_choice.currentText() == A_FILE:
            path, _ = QFileDialog.getOpenFileName(self, "Mask", str(Path.cwd()), "Masks (*.mrc *.map)")
            self.use_mask(Path(path) if path else None)
        elif self._reading is not None and self._chosen is not None:
            self._tell_continue()

    def use_mask(self, path: Path | None) -> None:
        """Choose the mask of a file, or the one that the refinement has."""
        self._file = path
        self._list_masks()
        self.mask_choice.setCurrentIndex(max(0, self.mask_choice.findData(path)) if path is not None else 0)
        if self._reading is not None and self._chosen is not None:
            self._tell_continue()


class _MaskChoice(QComboBox):
    """A choice that is listed anew whenever it is opened."""

    def __init__(self, refresh: Any) -> None:
        super().__init__()
        self._refresh = refresh
        self.addItem(AS_BEFORE, None)

    def showPopup(self) -> None:
        """List what there is, then open."""
        self._refresh()
        super().showPopup()


def _button(text: str, tip: str, action: Any) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda: action())
    return button
