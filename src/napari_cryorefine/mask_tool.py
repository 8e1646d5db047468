"""The preview of MaskCreate: the mask follows the values on the form, or is painted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, PushButton, Slider
from qtpy.QtWidgets import QLabel

from cryorefine.errors import UserError
from cryorefine.jobs import mask_create
from cryorefine.maps.slabs import thread_count
from napari_cryorefine.latest import Latest
from napari_cryorefine.layer_data import MASK_COLOR, MASK_SOURCE, SOFT_EDGE_COLOR
from napari_cryorefine.layer_files import LayerFiles
from napari_cryorefine.layers import add_outline, add_surface, own_layer, show_by_dimension, show_layer
from napari_cryorefine.mask_preview import Isosurface, Levels, MaskMaker, Piece, Regions, Wish
from napari_cryorefine.painted import PaintedMasks
from napari_cryorefine.progress import volume_text

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cryorefine.page import OptionsPage

STEPS = 1000
COLORS = {"density": "#9fb8d0", "core": MASK_COLOR, "soft edge": SOFT_EDGE_COLOR}
OPACITIES = {"density": 1.0, "core": 0.45, "soft edge": 0.25}
"""Of surfaces inside one another; each is solid when it is shown alone."""
SOLIDS = {
    "3D: density": ("density",),
    "3D: core": ("core",),
    "3D: soft edge": ("soft edge",),
    "3D: all": ("density", "core", "soft edge"),
}
ROLE = "MaskCreate preview"
LEFT_OUT = ("output", "slab", "threads")
"""Options that do not change the mask."""


class MaskTool(Container[Any]):
    """Shows what the mask on a form will be like, while its values change.

    In 3D the surface of the filtered map follows the threshold, or the mask's own boundaries do; over
    slices the outlines of the mask's core and soft edge follow every value. Scripted like any container
    of magicgui: ``tool.preview.value = True``, ``tool.level.value = 400``,
    ``tool.solid.value = "3D: all"``.

    Parameters
    ----------
    page : OptionsPage
        The options of MaskCreate.
    viewer : napari.Viewer or ViewerModel
        Where the mask is shown.
    files : LayerFiles
        The maps of layers that have no file yet.
    """

    def __init__(self, page: OptionsPage, viewer: ViewerModel, files: LayerFiles) -> None:
        self.preview = CheckBox(
            name="preview",
            text="Preview",
            tooltip="Show the map's surface at the threshold in 3D, and the outlines of the mask over its "
            "slices: core in green, soft edge in orange. They follow the values above.",
        )
        self.level = Slider(
            name="level",
            min=0,
            max=STEPS,
            readout=False,
            enabled=False,
            tooltip="Moves the threshold: to the right the mask becomes smaller, by the same part with each "
            "step. It can be moved while the preview is shown.",
        )
        self.solid = ComboBox(
            name="solid",
            choices=list(SOLIDS),
            tooltip="What 3D shows: the surface of the filtered map at the threshold, that of the mask's "
            "core (where it is 1), that of its soft edge (where it becomes 0), or all, one inside another.",
        )
        self.paint = PushButton(
            name="paint",
            text="Paint…",
            tooltip="Make a labels layer of the mask's core, to paint and erase in with napari's own tools.",
        )
        self.soften = PushButton(
            name="soften",
            text="Soften painted mask",
            tooltip="Give the selected labels layer a soft edge as wide as said above.",
        )
        self.suggest = PushButton(
            name="suggest",
            text="Suggest threshold",
            tooltip="Take the threshold that noise of the solvent does not reach.",
            enabled=False,
        )
        top = Container(
            widgets=[self.preview, self.level, self.solid],
            layout="horizontal",
            labels=False,
            name="threshold_row",
        )
        hand = Container(
            widgets=[self.suggest, self.paint, self.soften],
            layout="horizontal",
            labels=False,
            name="hand_row",
        )
        super().__init__(widgets=[top, hand], labels=False)
        for box in (self, top, hand):
            box.margins = (0, 0, 0, 0)
        self.figures, self.words = QLabel(), QLabel()
        for label in (self.figures, self.words):
            label.setWordWrap(True)
            label.hide()
            self.native.layout().addWidget(label)
        self.paint.enabled = False
        self._page, self._viewer, self._files = page, viewer, files
        self._levels: Levels | None = None
        self._why = ""
        self._regions: Regions | None = None
        self._linked: Any = None
        self._stop_following_dimension: Callable[[], None] | None = None
        self._latest = Latest(MaskMaker())
        self._latest.made.connect(self._show)
        self._latest.failed.connect(self._complain)
        self._painted = PaintedMasks(viewer, self._say)
        self.preview.changed.connect(self._on_preview)
        self.level.changed.connect(self._on_level)
        self.solid.changed.connect(self._on_solid)
        self.suggest.changed.connect(self.take_suggestion)
        self.paint.changed.connect(self.paint_by_hand)
        self.soften.changed.connect(self.soften_painted)
        for box in page:
            if box.name not in LEFT_OUT:
                box.changed.connect(self._on_page)
        viewer.dims.events.ndisplay.connect(self._on_dimension)
        self.native.destroyed.connect(self._latest.forget)

    @property
    def busy(self) -> bool:
        """Whether something is still being made."""
        return self._latest.busy or self._painted.busy

    def take_suggestion(self) -> None:
        """Put the threshold that the map suggests on the form, and say why it does."""
        if self._levels is not None:
            value = _rounded(self._levels.suggested.value)
            self._page.update(threshold=value, threshold_from="given")
            self._why = f"A threshold of {value:g} {self._levels.suggested.reason}."
            self._ask()

    def paint_by_hand(self) -> None:
        """Make a labels layer of the previewed mask's core and take up the brush."""
        if self._regions is None:
            return
        regions = self._regions
        self.preview.value = False
        self._painted.begin(regions)

    def soften_painted(self) -> None:
        """Give the selected labels layer, or the only one there is, a soft edge."""
        try:
            self._painted.soften(self._page["soft_edge"].value)
        except UserError as error:
            self._complain(error)

    def close_down(self) -> None:
        """Take away what is shown and stop following: the form has been closed."""
        self.preview.value = False
        self._viewer.dims.events.ndisplay.disconnect(self._on_dimension)

    def _on_preview(self, on: bool) -> None:
        if on:
            self._say("Reading the map…")
            self._ask()
            return
        self._latest.forget()
        self.level.enabled = self.suggest.enabled = self.paint.enabled = False
        self._levels = self._regions = None
        self._why = ""
        self._unlink()
        for part in (*COLORS, "outline"):
            self._remove(part)
        self._tell_figures("")
        self._say("")

    def _remove(self, part: str) -> None:
        layer = own_layer(self._viewer, f"{ROLE} {part}")
        if layer is not None:
            self._viewer.layers.remove(layer)

    def _on_dimension(self) -> None:
        if self.preview.value:
            self._ask()

    def _on_solid(self) -> None:
        wanted = SOLIDS[self.solid.value]
        for part in COLORS:
            layer = own_layer(self._viewer, f"{ROLE} {part}")
            if layer is None:
                continue
            if part in wanted:
                layer.opacity = OPACITIES[part] if len(wanted) > 1 else 1.0
            else:
                self._remove(part)
        self._on_dimension()

    def _on_page(self) -> None:
        self._why = ""
        if self.preview.value:
            self._ask()

    def _on_level(self, step: int) -> None:
        if self._levels is not None:
            self._page.update(threshold=_rounded(self._levels.thresholds[step]), threshold_from="given")

    def _ask(self) -> None:
        try:
            values = {box.name: box.value for box in self._page}
            if values["input"] is None and values["new_box"] is None:
                self._say("Choose the input map first.")
                return
            # One core is left to the window, which would stutter otherwise.
            threads = values["threads"] or max(1, thread_count() - 1)
            options = mask_create.Options(**(values | {"output": Path(), "threads": threads}))
            unsaved = [
                None if path is None else self._files.promised(path)
                for path in (options.input, options.second_map)
            ]
            parts = SOLIDS[self.solid.value] if self._viewer.dims.ndisplay == 3 else ()
            self._latest.ask(Wish(options, *unsaved, parts=parts))
        except UserError as error:
            self._complain(error)

    def _show(self, piece: Piece) -> None:
        if not self.preview.value:
            return
        if isinstance(piece, Levels):
            self._follow_threshold(piece)
        elif isinstance(piece, Isosurface):
            self._show_surface(piece)
        elif isinstance(piece, Regions):
            self._show_regions(piece)
        else:
            sentences = [self._page.by_labels(sentence) for sentence in piece.sentences]
            self._say(" ".join((self._why, *sentences)).strip())

    def _follow_threshold(self, piece: Levels) -> None:
        """Put the slider where the threshold stands, without moving the threshold to a step of it."""
        self._levels = piece
        self._why = piece.reason or self._why
        self.level.enabled = self.suggest.enabled = True
        here = int(np.searchsorted(piece.thresholds, piece.threshold))
        with self.level.changed.blocked():
            self.level.value = min(here, STEPS)

    def _show_surface(self, piece: Isosurface) -> None:
        role = f"{ROLE} {piece.part}"
        layer = own_layer(self._viewer, role)
        if piece.part not in SOLIDS[self.solid.value]:
            return
        if not len(piece.faces):
            if layer is not None:
                layer.visible = False
            return
        new = layer is None
        layer = add_surface(
            self._viewer,
            piece.vertices,
            piece.faces,
            piece.voxel,
            name=f"mask preview {piece.part}",
            role=role,
            color=COLORS[piece.part],
        )
        if new and len(SOLIDS[self.solid.value]) > 1:
            layer.opacity = OPACITIES[piece.part]
        show_layer(layer, self._viewer.dims.ndisplay == 3)
        self._link()

    def _show_regions(self, piece: Regions) -> None:
        self._regions = piece
        self.paint.enabled = True
        outline = add_outline(
            self._viewer, piece.labels, piece.pixel_size, name="mask preview", role=f"{ROLE} outline"
        )
        show_layer(outline, self._viewer.dims.ndisplay == 2)
        self._link()
        lines = [f"In the mask: {volume_text(piece.volume)}"]
        if piece.enclosed is not None:
            lines.insert(0, f"At the threshold: {volume_text(piece.enclosed)}")
        self._tell_figures("\n".join(lines))

    def _link(self) -> None:
        """Have surfaces shown in 3D and outlines over slices; also where one was thrown away or is new."""
        solid = [own_layer(self._viewer, f"{ROLE} {part}") for part in COLORS]
        outline = own_layer(self._viewer, f"{ROLE} outline")
        # In 3D the surface of the map's density takes the place of the map.
        flat = [layer for layer in self._viewer.layers if layer is outline or MASK_SOURCE in layer.metadata]
        pair = [layer for layer in solid if layer is not None], flat
        if pair != self._linked:
            self._unlink()
            self._linked = pair
            self._stop_following_dimension = show_by_dimension(self._viewer, *pair)

    def _unlink(self) -> None:
        if self._stop_following_dimension is not None:
            self._stop_following_dimension()
            self._stop_following_dimension = None
        if self._linked is not None and self._viewer.dims.ndisplay == 3:
            for layer in self._linked[1]:
                show_layer(layer, MASK_SOURCE in layer.metadata)
        self._linked = None

    def _complain(self, error: Exception) -> None:
        self._say(self._page.by_labels(str(error)))

    def _tell_figures(self, text: str) -> None:
        self.figures.setText(text)
        self.figures.setVisible(bool(text))

    def _say(self, text: str) -> None:
        self.words.setText(text)
        self.words.setVisible(bool(text))


def _rounded(threshold: float) -> float:
    """Four digits are finer than a step of the slider."""
    return float(f"{threshold:.4g}")
