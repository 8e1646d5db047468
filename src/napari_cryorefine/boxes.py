"""One magicgui widget for each type of option.

magicgui's own serve for switches, choices and texts. Numbers get widgets of ours, because they must
come back exactly as they went in: magicgui's FloatSpinBox rounds to two decimals, its SpinBox takes
the keyboard's focus when it is set and may be left blank, and neither can be empty for None.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.backends._qtpy.widgets import QBaseRangedWidget  # adapts any spin box of Qt
from magicgui.types import Undefined
from magicgui.widgets import CheckBox, ComboBox, LineEdit
from magicgui.widgets.bases import BaseValueWidget, RangedWidget
from qtpy.QtCore import QLocale
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QDoubleSpinBox

from cryorefine.errors import UserError
from napari_cryorefine.path_box import PathEdit

if TYPE_CHECKING:
    from cryorefine.jobs.base import Field

LARGEST = 1e12
LARGEST_WHOLE = 2**31 - 1


def exact_text(value: float) -> str:
    """Return the shortest text that reads back as the same number, without a trailing ".0"."""
    return repr(float(value)).removesuffix(".0")


class NumberEdit(RangedWidget[float]):
    """A number with its arrows, whatever its digits.

    Parameters
    ----------
    number : type
        float, or int for whole numbers.
    min, max, step : float
        As of every ranged widget of magicgui.
    smallest : str
        The word that is shown for the minimum; empty for the number.
    **keywords
        As of every widget of magicgui: value, name, label, tooltip and so on.
    """

    def __init__(self, number: type[float] = float, *, smallest: str = "", **keywords: Any) -> None:
        super().__init__(
            widget_type=_QtNumberEdit, annotation=number, backend_kwargs={"number": number}, **keywords
        )
        self.native.setSpecialValueText(smallest)


class OptionalNumberEdit(LineEdit):
    """A number that may be left out: an empty line is None.

    Parameters
    ----------
    number : type
        float, or int for whole numbers.
    min, max : float, optional
        The range.
    **keywords
        As of every widget of magicgui: value, name, label, tooltip and so on.
    """

    def __init__(
        self,
        number: type[float] = float,
        *,
        min: float | None = None,
        max: float | None = None,
        **keywords: Any,
    ) -> None:
        self._number, self.min, self.max = number, min, max
        super().__init__(annotation=number | None, nullable=True, **keywords)
        self.native.setPlaceholderText("not set")

    def get_value(self) -> Any:
        """Return the number, or None.

        Raises
        ------
        UserError
            If the text is not a number, or one outside the range.
        """
        text = super().get_value().strip()
        if not text:
            return None
        try:
            value = self._number(text)
        except ValueError:
            raise UserError(f"{self.label}: '{text}' is not a number; give one or leave it empty.") from None
        if self.min is not None and value < self.min:
            raise UserError(f"{self.label}: {text} is too small; give at least {exact_text(self.min)}.")
        if self.max is not None and value > self.max:
            raise UserError(f"{self.label}: {text} is too large; give at most {exact_text(self.max)}.")
        return value

    def set_value(self, value: float | None) -> None:
        """Put a number into the line, or empty it."""
        super().set_value("" if value is None else exact_text(value))

    def _on_value_change(self, value: Any = None) -> None:
        """Emit numbers rather than texts, and nothing while a text is not yet a number."""
        try:
            value = self.get_value()
        except UserError:
            return
        self.changed.emit(value)


def make_box(
    name: str,
    description: Field,
    value_type: type,
    *,
    optional: bool,
    value: Any = Undefined,
    layers: Callable[[], dict[str, Path]] | None = None,
) -> BaseValueWidget[Any]:
    """Make the widget that suits an option.

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
    value : object, optional
        What it holds at first.
    layers : callable, optional
        Returns the names and files of the layers that a map may be taken from.

    Returns
    -------
    BaseValueWidget
        A widget of magicgui, named and labelled like the option.
    """
    common = {"name": name, "label": description.label, "tooltip": description.help, "value": value}
    low, high, step = description.minimum, description.maximum, description.step
    if value_type is Path:
        return PathEdit(description.kind, save=name == "output", layers=layers, **common)
    if description.choices:
        choices = [(choice, value_type(choice)) for choice in description.choices]
        return ComboBox(choices=choices, annotation=value_type, **common)
    if value_type is bool:
        box = CheckBox(annotation=bool, **common)
        box.text = ""  # its label stands beside it, like those of the others
        return box
    if value_type in (int, float):
        if optional:
            return OptionalNumberEdit(value_type, min=low, max=high, **common)
        largest = LARGEST_WHOLE if value_type is int else LARGEST
        return NumberEdit(
            value_type,
            min=-largest if low is None else low,
            max=largest if high is None else high,
            step=step or 1,
            smallest=description.smallest,
            **common,
        )
    return LineEdit(annotation=str, **common)


class _NumberBox(QDoubleSpinBox):
    """A spin box that shows and takes every digit of a number."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.number: type[float] = float
        self.setLocale(QLocale.c())  # a decimal point everywhere, as in STAR files
        self.setDecimals(25)  # Qt rounds to these; what is shown is exact_text
        self.setKeyboardTracking(False)

    def textFromValue(self, value: float) -> str:
        """Show every digit of the number and no more."""
        return exact_text(value)

    def valueFromText(self, text: str) -> float:
        """Read what Python reads, 1e-7 included."""
        return self.minimum() if self._is_smallest(text) else float(self.number(text))

    def validate(self, text: str, position: int) -> tuple[Any, str, int]:
        """Accept a number in range; let everything that may become one be typed."""
        word = self.specialValueText().lower()
        if text and word.startswith(text.strip().lower()):
            done = self._is_smallest(text)
            return QValidator.State.Acceptable if done else QValidator.State.Intermediate, text, position
        try:
            inside = self.minimum() <= self.number(text) <= self.maximum()
        except ValueError:
            typing = set(text) <= set("0123456789+-" if self.number is int else "0123456789.eE+-")
            state = QValidator.State.Intermediate if typing else QValidator.State.Invalid
        else:
            state = QValidator.State.Acceptable if inside else QValidator.State.Intermediate
        return state, text, position

    def _is_smallest(self, text: str) -> bool:
        return bool(self.specialValueText()) and text.strip().lower() == self.specialValueText().lower()

    def stepBy(self, steps: int) -> None:
        """Step without the dust of binary fractions (0.143 + 0.001 is 0.144)."""
        self.interpretText()
        self.setValue(round(self.value() + steps * self.singleStep(), 12))


class _QtNumberEdit(QBaseRangedWidget):
    """What magicgui asks of a backend, for our spin box."""

    _qwidget: _NumberBox

    def __init__(self, number: type[float] = float, **keywords: Any) -> None:
        super().__init__(_NumberBox, **keywords)
        self._number = self._qwidget.number = number

    def _mgui_get_value(self) -> float:
        self._qwidget.interpretText()  # also while it is being typed
        return self._number(self._qwidget.value())

    def _mgui_bind_change_callback(self, callback: Callable[[float], None]) -> None:
        self._qwidget.valueChanged.connect(lambda value: callback(self._number(value)))

    def _pre_set_hook(self, value: float) -> float:
        return self._number(value)
