"""One box of a form for each type of option; every box has ``get``, ``set`` and the signal ``changed``.

Made for numbers that must come back exactly as they went in: 0.143 stays 0.143, 1e-7 stays 1e-7,
and a box left empty stays None.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QLocale, Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QSpinBox, QWidget

from cryorefine.errors import UserError
from napari_cryorefine.path_box import PathBox

if TYPE_CHECKING:
    from cryorefine.jobs.base import Field

LARGEST = 1e12
LARGEST_WHOLE = 2**31 - 1


def exact_text(value: float) -> str:
    """Return the shortest text that reads back as the same number, without a trailing ".0"."""
    return repr(float(value)).removesuffix(".0")


class NumberBox(QDoubleSpinBox):
    """A number with its arrows, whatever its digits."""

    changed = Signal(object)

    def __init__(self, description: Field) -> None:
        super().__init__()
        self.setLocale(QLocale.c())  # a decimal point everywhere, as in STAR files
        self.setDecimals(25)  # Qt rounds to these; what is shown is exact_text
        self.setRange(
            -LARGEST if description.minimum is None else description.minimum,
            LARGEST if description.maximum is None else description.maximum,
        )
        self.setSingleStep(description.step or 1.0)
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.valueChanged.connect(self.changed.emit)

    def get(self) -> float:
        """Return the number in the box, also while it is being typed."""
        self.interpretText()
        return float(self.value())

    def set(self, value: float) -> None:
        """Put a number into the box, all its digits."""
        self.setValue(float(value))

    def textFromValue(self, value: float) -> str:
        """Show every digit of the number and no more."""
        return exact_text(value)

    def valueFromText(self, text: str) -> float:
        """Read what Python reads, 1e-7 included."""
        return float(text)

    def validate(self, text: str, position: int) -> tuple[Any, str, int]:
        """Accept a number in range; let everything that may become one be typed."""
        try:
            inside = self.minimum() <= float(text) <= self.maximum()
        except ValueError:
            typing = set(text) <= set("0123456789.eE+-")
            state = QValidator.State.Intermediate if typing else QValidator.State.Invalid
        else:
            state = QValidator.State.Acceptable if inside else QValidator.State.Intermediate
        return state, text, position

    def stepBy(self, steps: int) -> None:
        """Step without the dust of binary fractions (0.143 + 0.001 is 0.144)."""
        self.setValue(round(self.get() + steps * self.singleStep(), 12))

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the form, which scrolls, unless this box was clicked."""
        _wheel(self, QDoubleSpinBox, event)


class WholeNumberBox(QSpinBox):
    """A whole number with its arrows."""

    changed = Signal(object)

    def __init__(self, description: Field) -> None:
        super().__init__()
        self.setRange(
            -LARGEST_WHOLE if description.minimum is None else int(description.minimum),
            LARGEST_WHOLE if description.maximum is None else int(description.maximum),
        )
        self.setSingleStep(int(description.step or 1))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.valueChanged.connect(self.changed.emit)

    def get(self) -> int:
        """Return the number in the box, also while it is being typed."""
        self.interpretText()
        return int(self.value())

    def set(self, value: int) -> None:
        """Put a number into the box."""
        self.setValue(int(value))

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the form, which scrolls, unless this box was clicked."""
        _wheel(self, QSpinBox, event)


class TextBox(QLineEdit):
    """A line of text."""

    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.textChanged.connect(self.changed.emit)

    def get(self) -> str:
        """Return the text without spaces around it."""
        return self.text().strip()

    def set(self, value: str) -> None:
        """Put a text into the box."""
        self.setText(value)
        self.setCursorPosition(0)


class OptionalNumberBox(QLineEdit):
    """A number that may be left out: an empty box is None."""

    changed = Signal(object)

    def __init__(self, description: Field, number: type) -> None:
        super().__init__()
        self._description, self._number = description, number
        self.setPlaceholderText("not set")
        self.textChanged.connect(self.changed.emit)

    def get(self) -> float | int | None:
        """Return the number, or None.

        Raises
        ------
        UserError
            If the text is not a number, or one outside the option's range.
        """
        text, what = self.text().strip(), self._description
        if not text:
            return None
        try:
            value: float | int = self._number(text)
        except ValueError:
            raise UserError(f"{what.label}: '{text}' is not a number; give one or leave it empty.") from None
        if what.minimum is not None and value < what.minimum:
            raise UserError(f"{what.label}: {text} is too small; give at least {exact_text(what.minimum)}.")
        if what.maximum is not None and value > what.maximum:
            raise UserError(f"{what.label}: {text} is too large; give at most {exact_text(what.maximum)}.")
        return value

    def set(self, value: float | None) -> None:
        """Put a number into the box, or empty it."""
        self.setText("" if value is None else exact_text(value))


class SwitchBox(QCheckBox):
    """Yes or no."""

    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.toggled.connect(self.changed.emit)

    def get(self) -> bool:
        """Return whether it is ticked."""
        return self.isChecked()

    def set(self, value: bool) -> None:
        """Tick it or not."""
        self.setChecked(bool(value))


class ChoiceBox(QComboBox):
    """One of a few values."""

    changed = Signal(object)

    def __init__(self, description: Field, value_type: type) -> None:
        super().__init__()
        self.addItems(list(description.choices))
        self._type = value_type
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.currentIndexChanged.connect(self.changed.emit)

    def get(self) -> Any:
        """Return the chosen value, in the option's type."""
        return self._type(self.currentText())

    def set(self, value: Any) -> None:
        """Choose the entry that stands for a value."""
        for index in range(self.count()):
            if self._type(self.itemText(index)) == value:
                self.setCurrentIndex(index)
                return
        raise ValueError(f"{value} is none of the choices")

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the form, which scrolls, unless this box was clicked."""
        _wheel(self, QComboBox, event)


Box = NumberBox | WholeNumberBox | TextBox | OptionalNumberBox | SwitchBox | ChoiceBox | PathBox


def make_box(
    name: str,
    description: Field,
    value_type: type,
    *,
    optional: bool,
    layers: Callable[[], dict[str, Path]] | None = None,
) -> Box:
    """Make the box that suits an option.

    Parameters
    ----------
    name : str
        Name of the option; ``output`` is a path that need not exist yet.
    description : Field
        How the option is described.
    value_type : type
        Path, bool, int, float or str.
    optional : bool
        Whether it may be None.
    layers : callable, optional
        Returns the names and files of the layers that a map may be taken from.

    Returns
    -------
    Box
        A widget with ``get``, ``set`` and the signal ``changed``.
    """
    box: Box
    if value_type is Path:
        box = PathBox(description, save=name == "output", layers=layers)
    elif description.choices:
        box = ChoiceBox(description, value_type)
    elif value_type is bool:
        box = SwitchBox()
    elif value_type in (int, float) and optional:
        box = OptionalNumberBox(description, value_type)
    elif value_type is float:
        box = NumberBox(description)
    elif value_type is int:
        box = WholeNumberBox(description)
    else:
        box = TextBox()
    box.setToolTip(description.help)
    return box


def _wheel(box: QWidget, base: Any, event: Any) -> None:
    if box.hasFocus():
        base.wheelEvent(box, event)
    else:
        event.ignore()
