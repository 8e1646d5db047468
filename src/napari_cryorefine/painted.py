"""Masks painted by hand: begun from a preview, painted and erased with napari's tools, then softened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from cryorefine.io.mrc import Map
from cryorefine.maps.masks import add_soft_edge
from napari_cryorefine.latest import Latest
from napari_cryorefine.layer_data import AXES, MASK_COLOR, UNITS
from napari_cryorefine.layer_files import layer_map
from napari_cryorefine.layers import add_mask

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_cryorefine.mask_preview import Regions

BRUSH = 10


class PaintedMasks:
    """The labels layers of a viewer that are masks in the making.

    Parameters
    ----------
    viewer : napari.Viewer or ViewerModel
        Where they are.
    say : callable
        Tells the person a sentence.
    """

    def __init__(self, viewer: ViewerModel, say: Callable[[str], None]) -> None:
        self._viewer, self._say = viewer, say
        self._softener = Latest(_softened)
        self._softener.made.connect(self._show)

    @property
    def busy(self) -> bool:
        """Whether a mask is being softened."""
        return self._softener.busy

    def begin(self, regions: Regions) -> None:
        """Make a labels layer of a mask's core and take up the brush, which paints in all three axes."""
        from napari.utils.colormaps import DirectLabelColormap

        colors = {0: "transparent", None: MASK_COLOR}  # all labels are mask
        layer = self._viewer.add_labels(
            (regions.labels == 1).astype(np.uint8),
            name="painted mask",
            scale=(regions.pixel_size,) * 3,
            units=UNITS,
            axis_labels=AXES,
            opacity=0.4,
            colormap=DirectLabelColormap(color_dict=colors),
        )
        layer.n_edit_dimensions = 3
        layer.brush_size = BRUSH
        layer.mode = "paint"
        self._viewer.layers.selection.active = layer
        self._say("Paint with the brush, take away with the eraser, then soften.")

    def soften(self, width: float) -> None:
        """Give the selected labels layer, or the only one there is, a soft edge of some voxels.

        Raises
        ------
        UserError
            If its voxels are not cubes.
        """
        layer = self._chosen()
        if layer is None:
            self._say("Select the labels layer that you have painted.")
            return
        self._softener.ask((layer.name, layer_map(layer), width))

    def _chosen(self) -> Labels | None:
        from napari.layers import Labels

        painted = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and layer.metadata.get("cryorefine") != "outline" and layer.ndim == 3
        ]
        active = self._viewer.layers.selection.active
        return active if active in painted else painted[0] if len(painted) == 1 else None

    def _show(self, made: tuple[str, Map]) -> None:
        name, mask = made
        if not mask.data.any():
            self._say(f"Nothing is painted in {name}.")
            return
        add_mask(self._viewer, mask, name=f"{name} softened", role=f"{name} softened")
        if name in self._viewer.layers:
            self._viewer.layers[name].visible = False
        self._say(f"{name} softened is a mask now: other forms take it from their Layers menu.")


def _softened(request: tuple[str, Map, float]) -> Iterator[tuple[str, Map]]:
    name, painted, width = request
    yield name, Map(add_soft_edge(painted.data > 0, width), painted.pixel_size)
