"""Maps that no window should hold whole: slices from the file, and a coarser copy of them in 3D.

A map of 1024³ voxels has four gigabytes. Its slices are read from the file as they are looked at; in 3D
a copy that is averaged over cubes of voxels takes its place, made in a thread the first time it is wanted.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from cryorefine.io.mrc import Map, read_layout, read_map
from napari_cryorefine.layer_data import map_layer
from napari_cryorefine.layers import show_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

LARGE = 640**3
"""Voxels above which a map is large: a gigabyte."""
COARSE = 384
"""Longest edge of what is shown of a large map in 3D, in voxels."""
_watched: WeakSet[Any] = WeakSet()


def read_for_display(path: Path, *, pixel_size: float | None = None) -> Map:
    """Read a map as :func:`.read_map` does; of a large one the voxels stay in the file.

    Parameters
    ----------
    path : Path
        The MRC file.
    pixel_size : float, optional
        A per voxel, used instead of the header's.

    Raises
    ------
    UserError
        As :func:`.read_map`, which alone looks at every voxel.
    """
    layout = read_layout(path)
    known = layout.pixel_size if pixel_size is None else pixel_size
    if math.prod(layout.shape) <= LARGE or layout.axes != (1, 2, 3) or known <= 0:
        return read_map(path, pixel_size=pixel_size)
    return Map(layout.memory_map(), known, path, layout.place)


def large_keywords(viewer: ViewerModel | None, source: Map) -> dict[str, Any]:
    """Return what a large map's layer has besides, and have the viewer look out for it; else nothing."""
    if viewer is None or source.data.ndim != 3 or source.data.size <= LARGE:
        return {}
    watch_for_large_maps(viewer)
    return {"large": True}


def coarse(data: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Average a map over cubes of voxels; what is left at the far ends is left out.

    Parameters
    ----------
    data : numpy.ndarray
        Shape (z, y, x); read a layer of cubes at a time.
    factor : int
        Edge of the cubes in voxels.
    """
    depth, height, width = (size // factor for size in data.shape)
    result = np.empty((depth, height, width), np.float32)
    for z in range(depth):
        part = data[z * factor : (z + 1) * factor, : height * factor, : width * factor]
        cubes = part.reshape(factor, height, factor, width, factor)
        result[z] = cubes.mean(axis=(0, 2, 4), dtype=np.float32)
    return result


def watch_for_large_maps(viewer: ViewerModel) -> None:
    """Have 3D show coarser copies of the large maps that are added to a viewer from now on."""
    if viewer in _watched:
        return
    _watched.add(viewer)

    def on_inserted(event: Any) -> None:
        if event.value.metadata.get("large") and "coarse" not in event.value.metadata:
            CoarseCopy(viewer, event.value)

    viewer.layers.events.inserted.connect(on_inserted)


class CoarseCopy:
    """Shows a coarser copy of a large map in 3D, in its place.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where the map is.
    layer : napari.layers.Image
        Its layer.

    Attributes
    ----------
    copy : napari.layers.Image or None
        The layer of the copy, once there is one.
    """

    def __init__(self, viewer: ViewerModel, layer: Image) -> None:
        self._viewer, self._layer = viewer, layer
        self._shown, self._making = True, False
        self.copy: Image | None = None
        layer.metadata["coarse"] = self
        ndisplay = viewer.dims.events.ndisplay
        # What goes away is hidden before napari slices its layers for the other dimension.
        ndisplay.connect(self._before, position="first")
        ndisplay.connect(self._after, position="last")
        viewer.layers.events.removed.connect(self._on_removed)
        if viewer.dims.ndisplay == 3:
            self._after()

    def _before(self) -> None:
        seen = self._layer if self._viewer.dims.ndisplay == 3 else self.copy
        if seen is not None and seen in self._viewer.layers:
            self._shown = seen.visible
            show_layer(seen, False)

    def _after(self) -> None:
        if self._viewer.dims.ndisplay == 2:
            show_layer(self._layer, self._shown)
        elif self._shown:
            self._show_copy()

    def _on_removed(self, event: Any) -> None:
        if event.value is not self._layer:
            return
        ndisplay = self._viewer.dims.events.ndisplay
        ndisplay.disconnect(self._before)
        ndisplay.disconnect(self._after)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        if self.copy is not None and self.copy in self._viewer.layers:
            self._viewer.layers.remove(self.copy)

    def _show_copy(self) -> None:
        if self.copy is not None and self.copy in self._viewer.layers:
            show_layer(self.copy, True)
            return
        factor = -(-max(self._layer.data.shape) // COARSE)
        if getattr(self._viewer, "window", None) is None:
            self._add((coarse(self._layer.data, factor), factor))
        elif not self._making:
            from napari.qt.threading import create_worker
            from napari.utils.notifications import show_info

            self._making = True
            size = " × ".join(str(n) for n in self._layer.data.shape[::-1])
            voxel = factor * self._layer.scale[-1]
            show_info(f"{self._layer.name} has {size} voxels: in 3D it is shown averaged to {voxel:.4g} Å.")
            data = self._layer.data
            create_worker(
                lambda: (coarse(data, factor), factor),
                _connect={"returned": self._add},
                _progress={"desc": f"Averaging {self._layer.name}", "total": 0},
            )

    def _add(self, made: tuple[NDArray[np.float32], int]) -> None:
        self._making = False
        layer = self._layer
        if layer not in self._viewer.layers:
            return
        data, factor = made
        name = f"{layer.name}, averaged over {factor}³"
        _, keywords, _ = map_layer(Map(data, factor * float(layer.scale[-1])), name=name)
        middle = (factor - 1) / 2 * layer.scale  # of the first cube
        keywords |= {"translate": layer.translate + middle, "colormap": layer.colormap}
        keywords["visible"] = self._viewer.dims.ndisplay == 3
        self.copy = self._viewer.add_image(data, **keywords)
