"""The layers of a tomogram in a viewer: one set of them, whichever tomogram is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari_cryorefine._compat import show_true_hand
from napari_cryorefine.layer_data import LayerData
from napari_cryorefine.layers import own_layer, show_layer
from napari_cryorefine.tomography_layers import DIRECTIONS, PARTICLES, PROJECTED, STACK, TILTS, TOMOGRAM

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cryorefine.tomogram_panel import TomogramPanel

DOCK = "Tomograms"
_watched: WeakSet[Any] = WeakSet()


def show_layers(viewer: ViewerModel, layers: list[LayerData]) -> list[Any]:
    """Show layers in place of those of the same roles, which keep how a person has set them.

    Returns
    -------
    list of Layer
    """
    show_true_hand(viewer)
    shown = []
    for data, keywords, kind in layers:
        layer = own_layer(viewer, keywords["metadata"]["role"])
        if layer is None:
            layer = getattr(viewer, f"add_{kind}")(data, **keywords)
        else:
            _replace(layer, data, keywords, kind)
        shown.append(layer)
    return shown


def remove_others(viewer: ViewerModel, layers: list[LayerData]) -> None:
    """Remove what the last tomogram had and this one has not, and the stack of its particle."""
    kept = {keywords["metadata"]["role"] for _, keywords, _ in layers}
    for role in {TILTS, PROJECTED, TOMOGRAM, PARTICLES, DIRECTIONS, STACK} - kept:
        if (layer := own_layer(viewer, role)) is not None:
            viewer.layers.remove(layer)


def hide_tilts_in_3d(viewer: ViewerModel) -> None:
    """Hide what belongs to the tilt series in 3D, where it would be as deep as the tomogram."""
    hidden: list[str] = []

    def on_ndisplay() -> None:
        for role in (TILTS, PROJECTED, STACK):
            layer = own_layer(viewer, role)
            if layer is None:
                continue
            if viewer.dims.ndisplay == 3 and layer.visible:
                hidden.append(role)
                show_layer(layer, False)
            elif viewer.dims.ndisplay == 2 and role in hidden:
                hidden.remove(role)
                show_layer(layer, True)

    viewer.dims.events.ndisplay.connect(on_ndisplay, position="first")


def watch_for_tomograms() -> None:
    """Open the dock in the viewer that is being used as soon as it shows a tomogram.

    Readers and samples call this; they never see the viewer.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None or viewer in _watched or getattr(viewer, "window", None) is None:
        return
    _watched.add(viewer)

    def on_inserted(event: Any) -> None:
        if "tomography" in event.value.metadata:
            show_panel(viewer)

    viewer.layers.events.inserted.connect(on_inserted)


def show_panel(viewer: Any) -> TomogramPanel:
    """Open the dock in a viewer, unless it is open, and return what is in it."""
    from napari_cryorefine.tomogram_panel import TomogramPanel

    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, TomogramPanel):
            return widget
    panel = TomogramPanel(viewer)
    viewer.window.add_dock_widget(panel, name=DOCK, area="right")
    return panel


def _replace(layer: Any, data: Any, keywords: dict[str, Any], kind: str) -> None:
    if kind == "points":
        layer.selected_data = set()
    layer.data = data
    for attribute in ("scale", "translate", "name", "size"):
        if attribute in keywords:
            setattr(layer, attribute, keywords[attribute])
    if "features" in keywords:
        layer.features = keywords["features"]
    if kind == "image":
        layer.reset_contrast_limits_range()
        layer.contrast_limits = keywords["contrast_limits"]
    layer.metadata.update(keywords["metadata"])
