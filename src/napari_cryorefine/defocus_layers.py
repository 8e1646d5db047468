"""Particles of one micrograph at their places, coloured by defocus, over the micrograph where it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cryorefine._compat import show_true_hand
from napari_cryorefine.layer_data import layer_keywords
from napari_cryorefine.layers import own_layer
from napari_cryorefine.particle_fits import CHANGE, DEFOCUS, ParticleFits

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Points
    from numpy.typing import NDArray

_LARGEST = 1500
"""Micrographs are shown averaged to at most this many pixels, which shows their particles better too."""
_EMPTY = 64  # pixels along the edge of an empty field
_MARK = "#ff2fd6"
_SHARE = 1 / 55  # of the field: the diameter of a point


def colormap_of(name: str) -> Any:
    """Return the colours of a value: RELION's blue to orange, but blue over white to red for changes."""
    from napari.utils.colormaps import Colormap

    colours = ["#3b4cff", "#f4f4f4", "#e03030"] if name == CHANGE else ["#2166f0", "#c8c8c8", "#f08a00"]
    return Colormap(colours, name=f"cryorefine {'change' if name == CHANGE else 'defocus'}")


class MicrographView:
    """Shows one micrograph at a time in two layers: the image or an empty field, and its particles.

    Selecting points selects particles and the other way round.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show them.
    fits : ParticleFits
        The particles.
    role : str
        Names the layers among ours; layers of the same role are used again.

    Attributes
    ----------
    number : int
        The micrograph that is shown.
    colouring : str
        The value that colours the points, one of ``fits.columns``.
    shown : Signal
        Number of the micrograph, when another one is shown.
    """

    shown = Signal(int)

    def __init__(self, viewer: ViewerModel, fits: ParticleFits, role: str = "") -> None:
        self.viewer, self.fits, self.role = viewer, fits, role
        self.number, self.colouring = 0, DEFOCUS
        self._files: dict[int, Path | None] = {}
        self._drawing = self._selecting = self._empty = False
        show_true_hand(viewer)
        viewer.dims.ndisplay = 2
        self.field = self._field_layer()
        self.points = self._points_layer()
        self.points.metadata["view"] = self
        self.points.selected_data.events.items_changed.connect(self._on_points_selected)
        self.points.mouse_drag_callbacks.append(self._on_click)
        self._connect()
        self.show(0)
        viewer.layers.selection = {self.points}
        viewer.tooltip.visible = True
        viewer.reset_view()

    def follow(self, fits: ParticleFits, role: str) -> None:
        """Show other values; of the same particles, what is shown and selected stays as it is."""
        same = fits.micrographs == self.fits.micrographs and len(fits) == len(self.fits)
        self.fits.values_changed.disconnect(self._on_values)
        self.fits.selection_changed.disconnect(self._mark)
        if same:
            fits.selected[:] = self.fits.selected
        self.fits, self.role = fits, role
        self.field.metadata["role"], self.points.metadata["role"] = f"{role} micrograph", f"{role} particles"
        self.points.metadata["path"] = str(fits.file.path)
        self.field.visible = self.points.visible = True
        self._files.clear()
        self._empty = False
        self._connect()
        self.show(self.number if same else 0)

    def show(self, number: int) -> None:
        """Show another micrograph."""
        self.number = min(max(number, 0), len(self.fits.micrographs) - 1)
        self.fits.read_expected(self.number)
        self._show_field()
        self._draw()
        self.shown.emit(self.number)

    def colour_by(self, name: str) -> None:
        """Colour the points by another value."""
        self.colouring = name
        self._draw()

    def _connect(self) -> None:
        self.fits.values_changed.connect(self._on_values)
        self.fits.selection_changed.connect(self._mark)

    def _on_values(self, number: int) -> None:
        if number == self.number:
            self._draw()

    def _draw(self) -> None:
        """Put the particles of the micrograph into the layer, with their values and colours."""
        if self.colouring not in self.fits.columns:
            self.colouring = DEFOCUS
        name = Path(self.fits.micrographs[self.number]).name
        rows = self.fits.members[self.number]
        limits = self.fits.limits(self.colouring, self.number)
        points = self.points
        self._drawing = True
        try:
            points.selected_data = set()
            points.data = self.fits.places[rows]
            points.features = self.fits.features(self.number)
            # Rings leave in sight what they are about.
            points.symbol = "disc" if self._empty else "ring"
            points.size = max(self._size()) * (_SHARE if self._empty else 2 * _SHARE)
            # The limits first: napari would take the values' own range, and fail where all are equal.
            points.face_contrast_limits = (limits.low, limits.high)
            points.face_color = self.colouring
            points.face_colormap = colormap_of(self.colouring)
            points.name = f"{self.colouring} of {name}"
        finally:
            self._drawing = False
        self._mark()

    def _mark(self) -> None:
        """Show which particles are selected: napari's own selection, and a border that stays."""
        chosen = self.fits.selected[self.fits.members[self.number]]
        self._selecting = True
        try:
            self.points.border_color = np.where(chosen[:, None], _rgba(_MARK), (0.0, 0.0, 0.0, 0.6))
            self.points.border_width = np.where(chosen, 0.3, 0.06 if self._empty else 0.03)
            self.points.selected_data = set(np.flatnonzero(chosen).tolist())
        finally:
            self._selecting = False

    def _on_points_selected(self, *_: Any) -> None:
        if self._drawing or self._selecting:
            return
        rows = self.fits.members[self.number]
        picked = np.array(sorted(self.points.selected_data), dtype=np.int64)
        self.fits.select(rows[picked[picked < len(rows)]], within=rows)

    def _on_click(self, layer: Points, event: Any) -> Any:
        """Select the particle under the mouse; with Shift beside the others. Dragging moves the view."""
        if str(layer.mode) != "pan_zoom":
            return
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if dragged:
            return
        hit = layer.get_value(event.position, world=True)
        rows = self.fits.members[self.number]
        chosen = (
            set(np.flatnonzero(self.fits.selected[rows]).tolist()) if "Shift" in event.modifiers else set()
        )
        if hit is not None:
            chosen ^= {int(hit)}
        self.fits.select(rows[sorted(chosen)], within=rows)

    def _points_layer(self) -> Points:
        layer = own_layer(self.viewer, f"{self.role} particles")
        if layer is not None:
            return layer
        keywords = layer_keywords(self.fits.file.path, 1.0, name="particles", kind="particles", ndim=2)
        keywords["metadata"]["role"] = f"{self.role} particles"
        layer = self.viewer.add_points(np.zeros((0, 2)), blending="translucent_no_depth", **keywords)
        if hasattr(layer, "face_colorbar"):
            layer.face_colorbar.visible = True
        return layer

    def _field_layer(self) -> Image:
        layer = own_layer(self.viewer, f"{self.role} micrograph")
        if layer is not None:
            return layer
        keywords = layer_keywords(None, 1.0, name="micrograph", kind="micrograph", ndim=2)
        keywords["metadata"]["role"] = f"{self.role} micrograph"
        return self.viewer.add_image(np.zeros((2, 2), np.float32), contrast_limits=(0.0, 1.0), **keywords)

    def _show_field(self) -> None:
        """Show the micrograph, or an empty field as large as all particles need."""
        path = self._file()
        before = self._size()
        if path is not None:
            data, step = micrograph_image(path)
            # The pixels that coordinates are counted in, so that points lie on their particles.
            pixel = float(self.fits.pixel_size[self.fits.members[self.number][0]])
            self.field.data = data
            self.field.scale = (step * pixel, step * pixel)
            self.field.translate = ((step - 1) / 2 * pixel,) * 2
            low, high = (float(v) for v in np.percentile(data, (1, 99)))
            self.field.contrast_limits = (low, high if high > low else low + 1)
        elif not self._empty:  # every setting of a layer makes napari look at all of them anew
            height, width = self.fits.extent()
            self.field.data = np.full((_EMPTY, _EMPTY), 0.22, np.float32)
            self.field.contrast_limits = (0.0, 1.0)
            self.field.scale = scale = (height / _EMPTY, width / _EMPTY)
            # The first pixel's centre is half a pixel from its edge.
            self.field.translate = tuple(width / 2 for width in scale)
        self._empty = path is None
        self.field.name = Path(self.fits.micrographs[self.number]).stem + ("" if path else " (not here)")
        self.field.metadata["path"] = str(path) if path else ""
        if not np.allclose(before, self._size(), rtol=0.02):
            self.viewer.reset_view()

    def _size(self) -> tuple[float, float]:
        height, width = np.array(self.field.data.shape) * self.field.scale
        return float(height), float(width)

    def _file(self) -> Path | None:
        if self.number not in self._files:
            self._files[self.number] = find_micrograph(
                self.fits.micrographs[self.number], self.fits.file.path or Path()
            )
        return self._files[self.number]


def find_micrograph(name: str, beside: Path) -> Path | None:
    """Return the file of a micrograph that an STAR file names, or None where it is not there."""
    for folder in (Path(), *beside.absolute().parents):
        if (folder / name).is_file():
            return folder / name
    return None


def micrograph_image(path: Path) -> tuple[NDArray[np.float32], int]:
    """Read a micrograph, averaged over squares of pixels to a size that screens can show.

    Returns
    -------
    data : ndarray of float32, shape (y, x)
    step : int
        Edge of those squares in px.
    """
    from cryorefine.io.mrc import read_layout

    whole = read_layout(path).memory_map()[0]
    step = max(1, -(-max(whole.shape) // _LARGEST))
    height, width = (size // step * step for size in whole.shape)
    squares = whole[:height, :width].reshape(height // step, step, width // step, step)
    return squares.mean(axis=(1, 3), dtype=np.float32), step


def _rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)
