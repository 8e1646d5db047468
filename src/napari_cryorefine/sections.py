"""Sections of a long form that are opened and closed at their headings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets.bases import BaseValueWidget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QToolButton

MANY = 40
"""A form with more options than this begins with its sections closed."""


def heading_label(text: str) -> QLabel:
    """Return the heading of a section that is always open."""
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 8, 0, 0)
    return label


class SectionHeading(QToolButton):
    """The heading of a section; a click or the space bar opens and closes it.

    A section opens by itself when one of its options gets another value, so that nothing that
    matters is out of sight.

    Parameters
    ----------
    text : str
        The heading.
    boxes : sequence of BaseValueWidget
        The section's options.
    """

    def __init__(self, text: str, boxes: Sequence[BaseValueWidget[Any]]) -> None:
        super().__init__()
        self._boxes = boxes
        self.setText(text)
        self.setToolTip(", ".join(box.label for box in boxes))
        self.setCheckable(True)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setStyleSheet("QToolButton { font-weight: bold; border: none; background: transparent; }")
        self.toggled.connect(self._turn)
        self._turn(False)
        for box in boxes:
            box.changed.connect(lambda _: self.setChecked(True))

    def _turn(self, opened: bool) -> None:
        self.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        for box in self._boxes:
            box.visible = opened
