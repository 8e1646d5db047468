"""The line below a box that says where its value is from, or what there is instead of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

from magicgui.widgets.bases import BaseValueWidget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

ACCENT = "#3d8fe0"
"""Colour that is readable on dark and on light."""


class ReasonLine(QLabel):
    """A line in small print, hidden while there is nothing to say.

    Parameters
    ----------
    box : BaseValueWidget
        The box that it stands below, whose tooltip tells the reason as well.
    """

    def __init__(self, box: BaseValueWidget[Any]) -> None:
        super().__init__()
        self._box, self._help = box, box.tooltip or ""
        self._take: Callable[[], None] | None = None
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setIndent(6)
        self.setStyleSheet("font-size: 11px;")
        self.linkActivated.connect(lambda _: self.take())
        self.hide()

    def tell(self, reason: str) -> None:
        """Say where the value in the box is from."""
        reason = in_print(reason)
        self._show(f"↳ {escape(reason, quote=False)}", f"Filled in: {reason}")

    def offer(self, value: Any, reason: str, take: Callable[[], None]) -> None:
        """Say that there is another value than that in the box, which a click takes."""
        reason = in_print(reason)
        other = escape(f"{reason}: {value}", quote=False)
        link = f'<a href="take" style="color: {ACCENT}">take it</a>'
        self._show(f"yours is kept; {other} {link}", f"There is also {value}, {reason}")
        self._take = take

    def take(self) -> None:
        """Take what is offered."""
        if self._take is not None:
            self._take()

    def forget(self) -> None:
        """Say nothing any more."""
        if self.text():
            self.clear()
            self.hide()
            self._take = None
            self._box.tooltip = self._help

    def _show(self, text: str, tip: str) -> None:
        self._take = None
        self.setText(text)
        self._box.tooltip = f"{self._help}\n\n{tip}".strip()
        self.setVisible(not self._box.native.isHidden())


def in_print(reason: str) -> str:
    """Return a reason with the signs of its units, which the terminal is spared."""
    return re.sub(r"(?<=\d) um\b", " µm", re.sub(r"(?<=\d) A\b", " Å", reason))
