"""The dock that shows one tomogram at a time, with its tilt series, and the tilts of one particle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
)

from cryorefine.errors import UserError
from napari_cryorefine._compat import call_soon
from napari_cryorefine.latest import Latest
from napari_cryorefine.layer_data import LayerData
from napari_cryorefine.layers import own_layer
from napari_cryorefine.tabbed import TabbedPanel
from napari_cryorefine.tomography import Tomography, tilt_angles, tilt_text
from napari_cryorefine.tomography_layers import (
    PARTICLES,
    PROJECTED,
    STACK,
    TILTS,
    TiltSections,
    first_tomogram,
    stack_of_particle,
    tomogram_layers,
)
from napari_cryorefine.tomography_scene import hide_tilts_in_3d, remove_others, show_layers
from napari_cryorefine.turns import Turns

if TYPE_CHECKING:
    import napari.viewer

_NO_PARTICLE = "none"


class TomogramPanel(TabbedPanel):
    """Choose a tomogram, read off its tilts, look at a particle.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the layers are. A tomography that it shows already is taken up.

    Attributes
    ----------
    tomography : Tomography or None
        What is shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.tomography: Tomography | None = None
        self._shown, self._seen = "", False
        self._followed: WeakSet[Any] = WeakSet()
        self._loader = Latest(_load, self)
        self._loader.made.connect(self._show)
        self._loader.failed.connect(self._complain)
        self._turns = Turns(self)
        self._reader = Latest(_read_ahead, self)
        self._reader.made.connect(self._say)
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip("An optimisation_set.star or a tomograms.star")
        self.open_button.clicked.connect(self._ask)
        self.tomogram, self.particle = QComboBox(), QComboBox()
        self.tomogram.setToolTip("The tomogram that is shown; only its particles are")
        self.particle.setToolTip(
            "The particle whose tilts are shown beside the tilt series; or select one in the picture"
        )
        self.tomogram.currentIndexChanged.connect(lambda _: self._choose())
        self.particle.currentIndexChanged.connect(lambda _: self._choose_particle())
        row = QHBoxLayout()
        self.previous, self.next = QToolButton(), QToolButton()
        for button, arrow, step in (
            (self.previous, Qt.ArrowType.LeftArrow, -1),
            (self.next, Qt.ArrowType.RightArrow, 1),
        ):
            button.setArrowType(arrow)
            button.clicked.connect(lambda _=False, step=step: self.move(step))
        for widget in (self.previous, self.tomogram, self.next):
            row.addWidget(widget, 1 if widget is self.tomogram else 0)
        self.count, self.tilt = QLabel(), QLabel()
        self.message = QLabel()
        for label in (self.count, self.tilt, self.message):
            label.setWordWrap(True)
        form = QFormLayout()
        form.addRow(self.open_button)
        form.addRow("Tomogram", row)
        form.addRow("", self.count)
        form.addRow("Particle", self.particle)
        form.addRow("", self.tilt)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.message)
        layout.addStretch(1)
        viewer.dims.events.current_step.connect(self._tell_tilt)
        viewer.layers.events.inserted.connect(lambda event: self._adopt(event.value))
        hide_tilts_in_3d(viewer)
        for layer in list(viewer.layers):
            self._adopt(layer)

    @property
    def busy(self) -> bool:
        """Whether something is being read or shown."""
        return self._loader.busy or self._reader.busy or self._turns.busy

    def open(self, path: Path) -> None:
        """Show the first tomogram of a file; a mistake in it is told below."""
        self._say("Reading…")
        self._loader.ask(path)

    def showEvent(self, event: QShowEvent) -> None:
        """Fit the pictures beside this dock when it appears for the first time."""
        super().showEvent(event)
        if not self._seen:
            self._seen = True
            call_soon(self, self._fit)

    def _fit(self) -> None:
        if self.tomography is not None:
            self._viewer.reset_view()

    def sizeHint(self) -> QSize:
        """Ask for little width: the pictures stand side by side."""
        return QSize(280, 260)

    def move(self, step: int) -> None:
        """Show the next tomogram or the one before."""
        place = self.tomogram.currentIndex() + step
        if 0 <= place < self.tomogram.count():
            self.tomogram.setCurrentIndex(place)

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Tomograms", str(Path.cwd()), "STAR files (*.star)")
        if path:
            self.open(Path(path))

    def _take(self, tomography: Tomography, name: str) -> None:
        """Fill the boxes for a tomogram."""
        if tomography is not self.tomography:
            self.tomography = tomography
            _fill(self.tomogram, tomography.names)
        self._shown = name
        _fill_in(self.tomogram, name)
        place = self.tomogram.currentIndex()
        self.previous.setEnabled(place > 0)
        self.next.setEnabled(place + 1 < self.tomogram.count())
        rows = tomography.rows(name)
        named = [] if tomography.particles is None else [str(n) for n in tomography.particles.names[rows]]
        _fill(self.particle, [_NO_PARTICLE, *named])
        width, height, depth = tomography.extent(name) / 10
        self.count.setText(f"{len(rows)} particles, {width:.0f} × {height:.0f} × {depth:.0f} nm")

    def _follow(self) -> None:
        """Follow the layers as they are now: the tilt that is seen, and particles that are selected."""
        self._say("" if own_layer(self._viewer, TILTS) else "The tilt images are not there.")
        self._tell_tilt()
        for role in (PARTICLES, PROJECTED):
            layer = own_layer(self._viewer, role)
            if layer is not None and layer not in self._followed:
                self._followed.add(layer)
                layer.selected_data.events.items_changed.connect(
                    lambda *_, layer=layer: self._on_selected(layer)
                )

    def _choose(self) -> None:
        if self.tomography is not None and self.tomogram.currentText() != self._shown:
            self._say("Reading…")
            self._loader.ask((self.tomography, self.tomogram.currentText()))

    def _choose_particle(self) -> None:
        if self.tomography is None or self.particle.currentIndex() <= 0:
            return
        number = self.particle.currentIndex() - 1
        self._mark(number)
        self._loader.ask((self.tomography, int(self.tomography.rows(self._shown)[number])))

    def _mark(self, number: int) -> None:
        """Select a particle in space."""
        layer = own_layer(self._viewer, PARTICLES)
        if layer is not None and set(layer.selected_data) != {number}:
            layer.selected_data = {number}

    def _show(self, made: tuple[Tomography, str, list[Any]]) -> None:
        tomography, name, layers = made
        if any(keywords["metadata"]["role"] == STACK for _, keywords, _ in layers):
            first = own_layer(self._viewer, STACK) is None
            show_layers(self._viewer, layers)
            if first:
                self._viewer.reset_view()
            self._say("")
        else:
            self.show_tomogram(tomography, name, layers)

    def show_tomogram(self, tomography: Tomography, name: str, layers: list[LayerData]) -> None:
        """Show a tomogram in place of the one that is shown, layer by layer.

        Parameters
        ----------
        tomography : Tomography
            The set that it is of.
        name : str
            Its name.
        layers : list of LayerData
            Its layers.
        """
        other = tomography is not self.tomography
        self._take(tomography, name)
        remove_others(self._viewer, layers)
        self._turns.forget()
        self._turns.add(*(partial(show_layers, self._viewer, [layer]) for layer in layers))
        self._turns.add(partial(self._on_all_shown, other=other))

    def _on_all_shown(self, *, other: bool) -> None:
        self._read_tilts(untilted=other)
        if other:
            self._viewer.reset_view()
        self._follow()

    def _read_tilts(self, *, untilted: bool) -> None:
        """Read all tilts in a thread, the one that is seen first; perhaps move to the one nearest to 0."""
        layer, dims = own_layer(self._viewer, TILTS), self._viewer.dims
        if layer is None or self.tomography is None:
            return
        if untilted:
            angles = np.sort(tilt_angles(self.tomography.tomograms[layer.metadata["tomogram"]]))
            dims.set_current_step(dims.ndim - 4, int(np.argmin(np.abs(angles))))
        self._reader.ask((layer.data, dims.current_step[-4]))

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self._say(str(error))

    def _say(self, sentence: str) -> None:
        self.message.setText(sentence)

    def _tell_tilt(self) -> None:
        layer = own_layer(self._viewer, TILTS)
        if layer is None or self.tomography is None or self._viewer.dims.ndim < 4:
            self.tilt.setText("")
            return
        series = self.tomography.tomograms[layer.metadata["tomogram"]]
        step = int(np.clip(self._viewer.dims.point[-4] + 0.5, 0, len(series) - 1))
        self.tilt.setText(tilt_text(series, step))

    def _adopt(self, layer: Any) -> None:
        """Take up what a reader or the sample has shown, in place of what was there."""
        tomography = layer.metadata.get("tomography")
        if not isinstance(tomography, Tomography):
            return
        role, name = layer.metadata["role"], layer.metadata["tomogram"]
        for other in list(self._viewer.layers):
            if other is not layer and other.metadata.get("role") == role:
                self._viewer.layers.remove(other)
        if (tomography, name) != (self.tomography, self._shown):
            self._take(tomography, name)
        if role == TILTS:
            self._read_tilts(untilted=True)
        self._follow()

    def _on_selected(self, layer: Any) -> None:
        if self.tomography is None or len(layer.selected_data) != 1:
            return
        row = layer.metadata["rows"][next(iter(layer.selected_data))]
        number = int(np.searchsorted(self.tomography.rows(self._shown), row))
        self.particle.setCurrentIndex(number + 1)


def _load(request: Any) -> Iterator[tuple[Tomography, str, list[Any]]]:
    """Read what is asked for, in a thread: a file, a tomogram of it, or the tilts of a particle."""
    if isinstance(request, Path):
        yield first_tomogram(request)
        return
    tomography, wanted = request
    if isinstance(wanted, str):
        yield tomography, wanted, tomogram_layers(tomography, wanted)
    elif (stack := stack_of_particle(tomography, wanted)) is not None:
        assert tomography.particles is not None
        yield tomography, str(tomography.particles.tomogram_names[wanted]), [stack]


def _read_ahead(request: tuple[TiltSections, int]) -> Iterator[str]:
    """Read the tilt images in a thread, so that the slider need not wait for them."""
    sections, step = request
    for number in sections.read_ahead(step):
        yield f"Reading tilt images: {number} of {sections.shape[0]}" if number < sections.shape[0] else ""


def _fill(box: QComboBox, texts: list[str]) -> None:
    box.blockSignals(True)
    box.clear()
    box.addItems(texts)
    box.blockSignals(False)


def _fill_in(box: QComboBox, text: str) -> None:
    box.blockSignals(True)
    box.setCurrentText(text)
    box.blockSignals(False)
