"""What a map is - density, mask, local resolution, half of a pair - and how it is shown at first sight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from cryorefine.io.mrc import Map
from napari_cryorefine.layer_data import LayerData, layer_keywords, map_layer, mask_keywords, mask_regions
from napari_cryorefine.layers import link_half_maps, outline_keywords, show_by_dimension
from napari_cryorefine.local_resolution_layers import RESOLUTION, resolution_colormap
from napari_cryorefine.outlines import MaskOutlines

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import NDArray

_watched: WeakSet[Any] = WeakSet()


def shown_map(source: Map) -> list[LayerData]:
    """Return the layers of a map or image that somebody opens.

    A mask is a translucent body in 3D and the outlines of its core and of its soft edge over slices.
    Local resolution has its colours, blue is good. All else is density.
    """
    data, keywords, kind = map_layer(source)
    if data.ndim == 3 and looks_like_mask(data):
        keywords |= mask_keywords(keywords)
        outline = layer_keywords(
            source.path, source.pixel_size, name=f"{keywords['name']} outline", kind="outline"
        )
        outline["metadata"]["outline_of"] = str(source.path)
        outlines: Any = MaskOutlines(mask_regions(np.asarray(data)))
        return [(data, keywords, kind), (outlines, outline | outline_keywords(), "image")]
    if data.ndim == 3 and source.path is not None and Path(source.path).name in RESOLUTION:
        known = data[data > 0]
        if len(known):
            limits = tuple(float(each) for each in np.percentile(known, (2, 98)))
            keywords |= {"colormap": resolution_colormap(), "contrast_limits": limits, "rendering": "mip"}
            keywords["metadata"]["display_range"] = (limits, keywords["iso_threshold"])
    return [(data, keywords, kind)]


def looks_like_mask(data: NDArray[Any]) -> bool:
    """Tell whether a map is a mask: from 0 to 1, and most of it is one or the other."""
    step = tuple(slice(None, None, max(1, size // 64)) for size in data.shape)
    sample = np.asarray(data[step], dtype=np.float32)
    if sample.size == 0 or sample.min() < 0 or sample.max() > 1 + 1e-5:
        return False
    core, outside = np.mean(sample >= 1 - 1e-5), np.mean(sample == 0)
    return bool(core > 0 and outside > 0 and core + outside > 0.5)


def watch_for_kinds(viewer: ViewerModel) -> None:
    """Look after maps that readers hand to a viewer: outlines over slices only, half maps together."""
    if viewer in _watched:
        return
    _watched.add(viewer)

    def on_inserted(event: Any) -> None:
        layer = event.value
        of = layer.metadata.get("outline_of")
        others = [each for each in viewer.layers if each is not layer]
        if of:
            bodies = [each for each in others if each.metadata.get("path") == of]
            if bodies:
                show_by_dimension(viewer, bodies[-1:], [layer])
        elif layer.metadata.get("cryorefine") == "map" and "role" not in layer.metadata:
            partner = _partner(layer.metadata["path"])
            for other in others:
                if partner and other.metadata.get("path") == partner and "role" not in other.metadata:
                    first = other if "half1" in Path(partner).name else layer
                    link_half_maps(viewer, first, layer if first is other else other)
                    break

    viewer.layers.events.inserted.connect(on_inserted)


def _partner(path: str) -> str:
    """Return the name of the other half map, empty for what is no half map."""
    name = Path(path).name
    for here, there in (("half1", "half2"), ("half2", "half1")):
        if here in name:
            return str(Path(path).with_name(name.replace(here, there)))
    return ""
