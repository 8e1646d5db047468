"""A row under a form's options that suggests some of them, each with its reason below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from cryorefine.errors import UserError
from napari_cryorefine.latest import Latest

if TYPE_CHECKING:
    from cryorefine.tomo.suggestions import Suggestion
    from napari_cryorefine.page import OptionsPage


class SuggestTool(QWidget):
    """Asks for the particle's diameter and fills in what follows from it; everything can be changed after.

    Parameters
    ----------
    page : OptionsPage
        The options.
    suggest : callable
        Takes the values of the page and the diameter in A, and returns option -> suggestion.
    diameter : str
        Option of the page that holds the diameter; without one, the tool has a box of its own.
    """

    def __init__(
        self,
        page: OptionsPage,
        suggest: Callable[[dict[str, Any], float], dict[str, Suggestion]],
        diameter: str = "",
    ) -> None:
        super().__init__()
        self._page, self._suggest, self._name = page, suggest, diameter
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(10, 5000)
        self.diameter.setValue(200)
        self.diameter.setDecimals(0)
        self.diameter.setSuffix(" Å across")
        self.diameter.setToolTip("Diameter of the particle, as of the mask that it will be refined in")
        self.button = QPushButton("Suggest…")
        self.button.setToolTip(
            "Fill in what follows from the particle and the files named above; change it at will"
        )
        self.button.clicked.connect(lambda: self.ask())
        self.told = QLabel()
        self.told.setWordWrap(True)
        self.told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.told.hide()
        self._worker = Latest(self._work, self)
        self._worker.made.connect(self._fill)
        self._worker.failed.connect(self._complain)
        row = QHBoxLayout()
        if not diameter:
            row.addWidget(self.diameter)
        row.addWidget(self.button)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.told)

    @property
    def busy(self) -> bool:
        """Whether something is being worked out."""
        return self._worker.busy

    def ask(self) -> None:
        """Work out the suggestions for what stands on the page, and fill them in."""
        values = self._page.asdict()
        diameter = values[self._name] if self._name else self.diameter.value()
        if not diameter:
            self._complain(UserError("The suggestions need the diameter of the particle; give it first."))
            return
        self._tell("Looking at the files…")
        self._worker.ask((values, float(diameter)))

    def close_down(self) -> None:
        """Drop what is being worked out."""
        self._worker.forget()

    def _work(self, request: tuple[dict[str, Any], float]) -> Iterator[dict[str, Suggestion]]:
        yield self._suggest(*request)

    def _fill(self, found: dict[str, Suggestion]) -> None:
        for name, suggestion in found.items():
            box: Any = self._page[name]
            value = type(box.value)(suggestion.value) if box.value is not None else suggestion.value
            self._page.take(name, value, suggestion.reason)
        labels = ", ".join(self._page[name].label for name in found)
        self._tell(f"Filled in, with the reason below each: {labels}." if found else "")

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self._tell(self._page.by_labels(str(error)))

    def _tell(self, text: str) -> None:
        self.told.setText(text)
        self.told.setVisible(bool(text))
