"""Particles of one micrograph or tomogram at their places, coloured by any of their values.

Only these are ever in the layer, however many particles the file has; the micrograph lies under them
where it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from psygnal import Signal

from napari_cryorefine._compat import show_true_hand
from napari_cryorefine.layer_data import LayerData, layer_keywords
from napari_cryorefine.layers import own_layer
from napari_cryorefine.particle_columns import CHANGE
from napari_cryorefine.particle_fits import ParticleFits

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Points
    from numpy.typing import NDArray

_LARGEST = 1500
"""Micrographs are shown averaged to at most this many pixels, which shows their particles better too."""
_EMPTY = 64  # pixels along the edge of an empty field
_MARK = "#ff2fd6"
_SHARE = 1 / 55  # of the field: the diameter of a point
_watched: WeakSet[Any] = WeakSet()
_IN_SPACE = 100.0  # A: the diameter of a point in a tomogram


def colormap_of(name: str) -> Any:
    """Return the colours of a value: RELION's blue to orange, but blue over white to red for changes."""
    from napari.utils.colormaps import Colormap

    colours = ["#3b4cff", "#f4f4f4", "#e03030"] if name == CHANGE else ["#2166f0", "#c8c8c8", "#f08a00"]
    return Colormap(colours, name=f"cryorefine {'change' if name == CHANGE else 'defocus'}")


def particle_layers(fits: ParticleFits, role: str) -> list[LayerData]:
    """Return the layers that a :class:`MicrographView` of that role takes up, for a reader to hand on.

    The field, where particles lie on micrographs, and the points of the first micrograph or tomogram;
    both without colours or image, which the view gives them.
    """
    ndim = fits.places.shape[1]
    layers: list[LayerData] = []
    if not fits.in_space:
        keywords = layer_keywords(None, 1.0, name="micrograph", kind="micrograph", ndim=2)
        keywords["metadata"]["role"] = f"{role} micrograph"
        field, settings = _empty_field(fits)
        layers.append((field, keywords | settings, "image"))
    keywords = layer_keywords(fits.file.path, 1.0, name="particles", kind="particles", ndim=ndim)
    keywords["metadata"] |= {"role": f"{role} particles", "fits": fits}
    keywords["blending"] = "translucent_no_depth"
    layers.append((fits.places[fits.members[0]], keywords, "points"))
    return layers


def _empty_field(fits: ParticleFits) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return a field as large as all particles need, and the settings of its layer."""
    scale = tuple(size / _EMPTY for size in fits.extent())
    # The first pixel's centre is half a pixel from its edge.
    place = {"scale": scale, "translate": tuple(width / 2 for width in scale)}
    return np.full((_EMPTY, _EMPTY), 0.22, np.float32), {"contrast_limits": (0.0, 1.0)} | place


class MicrographView:
    """Shows one micrograph at a time in two layers: the image or an empty field, and its particles.

    Of particles in tomograms it shows one tomogram at a time, in one layer. Selecting points selects
    particles and the other way round.

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
        The value that colours the points, one of ``fits.columns``, the first to begin with.
    read_image : callable, optional
        Set by whoever has a thread to read in: takes the file of a micrograph, and hands what
        :func:`micrograph_image` makes of it to :meth:`put_image`.
    shown : Signal
        Number of the micrograph, when another one is shown.
    """

    shown = Signal(int)

    def __init__(self, viewer: ViewerModel, fits: ParticleFits, role: str = "") -> None:
        self.viewer, self.fits, self.role = viewer, fits, role
        self.number, self.colouring = 0, ""
        self.read_image: Callable[[Path], None] | None = None
        self._files: dict[int, Path | None] = {}
        self._drawing = self._selecting = False
        self._empty = not fits.in_space
        show_true_hand(viewer)
        viewer.dims.ndisplay = 3 if fits.in_space else 2
        layers = [
            own_layer(viewer, keywords["metadata"]["role"])
            or getattr(viewer, f"add_{kind}")(data, **keywords)
            for data, keywords, kind in particle_layers(fits, role)
        ]
        self.field: Image | None = None if fits.in_space else layers[0]
        self.points: Points = layers[-1]
        self.points.metadata.update(view=self, fits=None)
        _show_colour_bar(self.points)
        self.points.selected_data.events.items_changed.connect(self._on_points_selected)
        self.points.mouse_drag_callbacks.append(self._on_click)
        self._connect()
        self.show(0)
        for layer in layers:
            layer.opacity = 1.0
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
        for layer, part in ((self.field, "micrograph"), (self.points, "particles")):
            if layer is not None:
                layer.metadata["role"] = f"{role} {part}"
                layer.visible = True
        self.points.metadata["path"] = str(fits.file.path)
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
        columns = self.fits.columns
        if self.colouring not in columns:
            self.colouring = columns[0] if columns else ""
        name = Path(self.fits.micrographs[self.number]).name
        rows = self.fits.members[self.number]
        points = self.points
        self._drawing = True
        try:
            points.selected_data = set()
            points.data = self.fits.places[rows]
            points.features = self.fits.features(self.number)
            # Rings leave in sight what they are about.
            points.symbol = "disc" if self._bare else "ring"
            points.size = self._diameter()
            if self.colouring:
                self._colour()
            points.name = f"{self.colouring or 'particles'} of {name}"
        finally:
            self._drawing = False
        self._mark()

    def _colour(self) -> None:
        """Colour the points by their values."""
        limits = self.fits.limits(self.colouring, self.number)
        # The limits first: napari would take the values' own range, and fail where all are equal.
        self.points.face_contrast_limits = (limits.low, limits.high)
        self.points.face_color = self.colouring
        self.points.face_colormap = colormap_of(self.colouring)

    def _mark(self) -> None:
        """Show which particles are selected: napari's own selection, and a border that stays."""
        chosen = self.fits.selected[self.fits.members[self.number]]
        self._selecting = True
        try:
            self.points.border_color = np.where(chosen[:, None], _rgba(_MARK), (0.0, 0.0, 0.0, 0.6))
            self.points.border_width = np.where(chosen, 0.3, 0.06 if self._bare else 0.03)
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

    @property
    def _bare(self) -> bool:
        """Whether there is no image under the points."""
        return self._empty or self.field is None

    def _diameter(self) -> float:
        if self.field is None:
            return _IN_SPACE
        return max(self._size()) * (_SHARE if self._empty else 2 * _SHARE)

    def _show_field(self) -> None:
        """Show the micrograph, or an empty field as large as all particles need."""
        if self.field is None:
            return
        path = self._file()
        name = Path(self.fits.micrographs[self.number]).stem
        if path is None or self.read_image is not None:
            self._clear_field(f"{name} (not here)" if path is None else name)
        if path is None:
            return
        if self.read_image is not None:
            self.read_image(path)
        else:
            self._put_field(*micrograph_image(path))

    def put_image(self, path: Path, data: NDArray[np.float32], step: int) -> None:
        """Show the image of a micrograph, unless another one has been gone to."""
        if self.field is not None and path == self._file():
            self._put_field(data, step)
            self._draw()

    def _put_field(self, data: NDArray[np.float32], step: int) -> None:
        assert self.field is not None
        before = self._size()
        # The pixels that coordinates are counted in, so that points lie on their particles.
        pixel = float(self.fits.pixel_size[self.fits.members[self.number][0]])
        self.field.data = data
        self.field.scale = (step * pixel, step * pixel)
        self.field.translate = ((step - 1) / 2 * pixel,) * 2
        low, high = (float(v) for v in np.percentile(data[::4, ::4], (1, 99)))
        self.field.contrast_limits = (low, high if high > low else low + 1)
        self._empty = False
        self._name_field(Path(self.fits.micrographs[self.number]).stem, str(self._file()))
        self._fit(before)

    def _clear_field(self, name: str) -> None:
        assert self.field is not None
        if not self._empty:  # every setting of a layer makes napari look at all of them anew
            before = self._size()
            self.field.data, settings = _empty_field(self.fits)
            for setting, value in settings.items():
                setattr(self.field, setting, value)
            self._empty = True
            self._fit(before)
        self._name_field(name, "")

    def _name_field(self, name: str, path: str) -> None:
        assert self.field is not None
        self.field.name = name
        self.field.metadata["path"] = path

    def _fit(self, before: tuple[float, float]) -> None:
        """Fit the view when the field has become another size."""
        if not np.allclose(before, self._size(), rtol=0.02):
            self.viewer.reset_view()

    def _size(self) -> tuple[float, float]:
        assert self.field is not None
        height, width = np.array(self.field.data.shape) * self.field.scale
        return float(height), float(width)

    def _file(self) -> Path | None:
        if self.number not in self._files:
            self._files[self.number] = find_micrograph(
                self.fits.micrographs[self.number], Path(self.fits.file.path or "")
            )
        return self._files[self.number]


def show_fits(viewer: ViewerModel, fits: ParticleFits, role: str) -> MicrographView:
    """Show particles in place of those that are shown, with their dock where there is a window.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show them.
    fits : ParticleFits
        The particles.
    role : str
        Names their layers among ours.
    """
    view = _show_view(viewer, fits, role)
    _show_panel(viewer, view)
    return view


def _show_view(viewer: ViewerModel, fits: ParticleFits, role: str) -> MicrographView:
    view = view_in(viewer)
    if view is not None and view.fits.in_space == fits.in_space:
        view.follow(fits, role)
        return view
    _remove(viewer, view)
    return MicrographView(viewer, fits, role)


def _showing(viewer: ViewerModel, fits: ParticleFits, role: str) -> Iterator[None]:
    """Do what :func:`show_fits` does, layer by layer, so that a window can answer in between."""
    view = view_in(viewer)
    made = []
    if view is None or view.fits.in_space != fits.in_space:
        for data, keywords, kind in particle_layers(fits, role):
            # Transparent, and not for the readers' watch: the view fills them in and shows them. Each is
            # drawn once before, for what draws it is compiled then.
            keywords["metadata"].pop("fits", None)
            made.append(getattr(viewer, f"add_{kind}")(data, opacity=0.0, **keywords))
            yield
        _show_colour_bar(made[-1])
        yield
    view = _show_view(viewer, fits, role)
    for layer in made:
        if layer not in (view.field, view.points) and layer in viewer.layers:
            viewer.layers.remove(layer)  # others were opened meanwhile, and these are shown in their layers
    yield
    _show_panel(viewer, view)


def _show_colour_bar(points: Points) -> None:
    if hasattr(points, "face_colorbar"):
        points.face_colorbar.visible = True


def show_later(viewer: ViewerModel, path: Path) -> None:
    """Read particles in a thread and show them when they are there, or say what is wrong with them."""
    from napari_cryorefine.opening import open_later

    def read() -> ParticleFits:
        from cryorefine.io.particles import read_particles

        return ParticleFits(read_particles(path))

    open_later(path, read, lambda fits: _showing(viewer, fits, str(path)))


def view_in(viewer: ViewerModel) -> MicrographView | None:
    """Return the view whose layers are in this viewer."""
    views = (layer.metadata.get("view") for layer in viewer.layers)
    return next((view for view in views if isinstance(view, MicrographView)), None)


def watch_for_particles() -> None:
    """Give the viewer that is being used a view of the layers of :func:`particle_layers` when they arrive.

    Readers call this; they never see the viewer.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None or viewer in _watched:
        return
    _watched.add(viewer)

    def on_inserted(event: Any) -> None:
        fits = event.value.metadata.get("fits")
        if not isinstance(fits, ParticleFits):
            return
        _remove(viewer, view_in(viewer))
        role = event.value.metadata["role"].removesuffix(" particles")
        _show_panel(viewer, MicrographView(viewer, fits, role))

    viewer.layers.events.inserted.connect(on_inserted)


def _remove(viewer: ViewerModel, view: MicrographView | None) -> None:
    """Remove the layers of a view, which another one takes the place of."""
    for layer in (view.field, view.points) if view is not None else ():
        if layer in viewer.layers:
            viewer.layers.remove(layer)


def _show_panel(viewer: ViewerModel, view: MicrographView) -> None:
    window = getattr(viewer, "window", None)
    if window is None:
        return
    from napari_cryorefine.defocus_panel import DOCK, DefocusPanel

    panel: Any = window.dock_widgets.get(DOCK)
    if panel is not None and panel.view is view:
        panel.follow()
        return
    if panel is not None:
        window.remove_dock_widget(panel)
    window.add_dock_widget(DefocusPanel(view), name=DOCK, area="right", tabify=True)


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
