"""What the live tools will need, loaded in a thread while the first form is being filled in.

Imports and compiled kernels that are first met in the thread of the window keep it from answering
for a second or more.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QApplication

from napari_cryorefine.layer_data import layer_keywords

if TYPE_CHECKING:
    from napari.components import ViewerModel

MODULES = (
    "pandas",  # of the features that every Labels layer has
    "scipy.spatial.transform",
    "scipy.ndimage",
    "skimage.measure",
    "cryorefine.jobs.mask_create",
    "cryorefine.jobs.postprocess_explore",
    "napari_cryorefine.mask_tool",
    "napari_cryorefine.explorer",
)

_TINY = np.zeros((2, 2, 2), np.uint8)
_begun = threading.Event()


def warm_up(viewer: ViewerModel | None) -> None:
    """Begin to load what the tools need; does nothing the second time, or where there is no window."""
    if _begun.is_set() or getattr(viewer, "window", None) is None:
        return
    _begun.set()
    loader = threading.Thread(target=_load, name="cryorefine warm-up")
    loader.start()
    _Rest(loader)


class _Rest(QObject):
    """Makes a layer of each kind, one at a time, once the thread has ended.

    napari loads much at the first of a kind, and its registry of units must not be made in two threads.
    """

    def __init__(self, loader: threading.Thread) -> None:
        super().__init__(QApplication.instance())
        self._loader, self._left = loader, [_make_image, _make_labels, _make_surface]
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._next)
        self._timer.start(200)

    def _next(self) -> None:
        if self._loader.is_alive():
            return
        if self._left:
            self._left.pop(0)()
        else:
            self._timer.stop()
            self.deleteLater()


def _load() -> None:
    for name in MODULES:
        import_module(name)
    _make_mask()


def _make_mask() -> None:
    """Preview a mask around a small ball, so that every step of it, and every compiled kernel, is there."""
    from pathlib import Path

    from cryorefine.io.mrc import Map
    from cryorefine.jobs import mask_create
    from cryorefine.maps.masks import soft_sphere
    from napari_cryorefine.mask_preview import MaskMaker, Wish

    ball = Map(soft_sphere((16, 16, 16), 4.0, 2.0), 1.0)
    options = mask_create.Options(input=Path(), output=Path(), lowpass=4.0, threshold=0.5, extend=1.0)
    for _ in MaskMaker()(Wish(options, ball, parts=("density",))):
        pass


def _make_image() -> None:
    from napari.layers import Image

    Image(_TINY, **layer_keywords(None, 1.0, name="", kind="map"))


def _make_labels() -> None:
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    colormap = DirectLabelColormap(color_dict={1: "red", None: "transparent"})
    Labels(_TINY, colormap=colormap, **layer_keywords(None, 1.0, name="", kind="outline"))


def _make_surface() -> None:
    from napari.layers import Surface

    Surface((np.eye(3), np.array([[0, 1, 2]])), **layer_keywords(None, 1.0, name="", kind="surface"))
