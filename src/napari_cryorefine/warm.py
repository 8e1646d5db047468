"""What the live tools will need, loaded in a thread while the first form that has one is being filled in.

Imports and compiled kernels that are first met in the thread of the window keep it from answering
for a second or more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QApplication

from napari_cryorefine.collector import collect_when_idle
from napari_cryorefine.layer_data import layer_keywords

if TYPE_CHECKING:
    from napari.components import ViewerModel

MODULES = (
    "pandas",  # of the features that layers of points and labels have
    "skimage.measure",
    "cryorefine.jobs.mask_create",
    "cryorefine.jobs.postprocess_explore",
    "napari_cryorefine.mask_tool",
    "napari_cryorefine.explorer",
    "napari_cryorefine.defocus_panel",
    "napari_cryorefine.tomography_layers",
    "napari_cryorefine.plots",
    "vispy.geometry.triangulation",
)

FOR_LAYERS = ("scipy.spatial.transform", "scipy.ndimage")
"""What napari loads with the first layer of all."""
SWITCH = 5e-4
"""Seconds after which a thread that computes in Python lets the window go on. Each of the hundreds of calls
of OpenGL that draw a frame may have to wait so long; Python's 5 ms would add up to a second."""
PAUSE = 1000
"""Milliseconds after which, and between which, something is loaded: what a person does comes first."""
_TINY = np.zeros((2, 2, 2), np.uint8)
_begun = threading.Event()
_loading = threading.Lock()


def warm_up(viewer: ViewerModel | None) -> None:
    """Begin to load what the tools need; does nothing the second time, or where there is no window."""
    if _begun.is_set() or getattr(viewer, "window", None) is None:
        return
    _begun.set()
    collect_when_idle()
    sys.setswitchinterval(SWITCH)
    _Stages(
        [
            (load_for_layers, True),
            (take_what_is_loaded, False),
            (_load, True),
            (_make_image, False),
            (_make_others, True),
        ]
    )


def load_for_layers() -> None:
    """Load what napari needs for the first layer of all; in any thread, and once.

    It takes half a second, in which the window would stand still.
    """
    with _loading:
        _units.make()
        for name in FOR_LAYERS:
            import_module(name)


def take_what_is_loaded() -> None:
    """Have napari use what :func:`load_for_layers` has made; in the thread of the window."""
    _units.take()


class _Units:
    """The registry of units, which the first layer of all would make in the thread of the window."""

    _made: Any = None

    def make(self) -> None:
        """Read the definitions of all units, unless it is done; in any thread."""
        from pint import UnitRegistry

        if self._made is None:
            self._made = UnitRegistry(on_redefinition="raise")  # as that is of napari and of pint

    def take(self) -> None:
        """Have it used from now on, unless one is in use: units of two registries do not go together."""
        import pint
        from pint.registry import LazyRegistry

        if isinstance(pint.get_application_registry().get(), LazyRegistry):
            pint.set_application_registry(self._made)


_units = _Units()


class _Stages(QObject):
    """Does one thing after the other, in a thread or in that of the window.

    Parameters
    ----------
    stages : list of (callable, bool)
        What to do, and whether in a thread.
    """

    def __init__(self, stages: list[tuple[Callable[[], None], bool]]) -> None:
        super().__init__(QApplication.instance())
        self._left = stages
        self._thread: threading.Thread | None = None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._next)
        self._timer.start(PAUSE)

    def _next(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        if not self._left:
            self._timer.stop()
            self.deleteLater()
            return
        stage, in_thread = self._left.pop(0)
        if in_thread:
            self._thread = threading.Thread(target=stage, name="cryorefine warm-up")
            self._thread.start()
        else:
            stage()


def _load() -> None:
    for name in MODULES:
        import_module(name)
    _make_polygon()
    with suppress(RuntimeError):  # napari is being closed, and no more threads are given
        _make_mask()


def _make_polygon() -> None:
    """Make what napari draws over layers of labels, which loads a triangulation and patterns of dashes."""
    from vispy.visuals import PolygonVisual

    PolygonVisual(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), border_method="agg")


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

    Image(_TINY, **_keywords("map"))


def _make_others() -> None:
    """Make one of each kind of layer, in no viewer; napari compiles what colours labels."""
    from napari.layers import Labels, Points, Surface
    from napari.utils.colormaps import DirectLabelColormap

    colormap = DirectLabelColormap(color_dict={1: "red", None: "transparent"})
    Points(np.eye(3), features={"number": np.arange(3.0)}, face_color="number", **_keywords("particles"))
    Surface((np.eye(3), np.array([[0, 1, 2]])), **_keywords("surface"))
    Labels(_TINY, colormap=colormap, **_keywords("painted"))


def _keywords(kind: str) -> dict[str, Any]:
    return layer_keywords(None, 1.0, name="", kind=kind)
