"""Where versions of napari and Qt's bindings differ, and the camera that shows maps in their true hand.

napari draws axis 0 towards the viewer, axis 1 downwards and axis 2 to the right. A map is an array
(z, y, x), so by default its y axis points down and it is seen as its mirror image in 3D. With y up
the axes are right-handed, as they are in IMOD and ChimeraX.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import Camera, ViewerModel
    from qtpy.QtCore import QObject

TRUE_HAND = ("towards", "up", "right")
"""Directions of the axes z, y, x on the screen that show a map in its true hand."""

_software: list[bool] = []
_shown: WeakSet[Any] = WeakSet()
_watched: WeakSet[Any] = WeakSet()


def camera_of(viewer: ViewerModel) -> Camera:
    """Return the camera, which moved from the viewer to its scene in napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def is_true_hand(viewer: ViewerModel) -> bool:
    """Tell whether the camera shows arrays (z, y, x) in their true hand rather than mirrored."""
    flips = [str(axis) != true for axis, true in zip(camera_of(viewer).orientation, TRUE_HAND, strict=True)]
    return sum(flips) % 2 == 0


def show_true_hand(viewer: ViewerModel) -> None:
    """Turn the y axis up when the first map is shown, unless the hand is true already.

    Done once for each viewer, so that somebody who turns the axes afterwards is left alone.
    """
    if viewer in _shown:
        return
    _shown.add(viewer)
    if not is_true_hand(viewer):
        camera_of(viewer).orientation = TRUE_HAND


def watch_current_viewer() -> None:
    """Have the viewer that is being used show our layers in their true hand as they arrive.

    Readers and samples hand layers to napari and never see the viewer; they call this instead.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None or viewer in _watched:
        return
    _watched.add(viewer)

    def on_inserted(event: Any) -> None:
        if "cryorefine" in event.value.metadata:
            show_true_hand(viewer)

    viewer.layers.events.inserted.connect(on_inserted)


def draws_in_software() -> bool:
    """Tell whether OpenGL runs on the processor, where isosurfaces take seconds a frame.

    False when there is no OpenGL context to ask, as in a session without a window. A thread is told what
    that of the window was told last.
    """
    if _software and threading.current_thread() is not threading.main_thread():
        return _software[0]
    try:
        from qtpy.QtGui import QOpenGLContext

        context = QOpenGLContext.currentContext()
        if context is None:
            return False
        renderer = str(context.functions().glGetString(0x1F01))  # GL_RENDERER
    except (ImportError, AttributeError, RuntimeError):
        return False
    _software[:] = [any(name in renderer.lower() for name in ("llvmpipe", "softpipe", "swrast", "software"))]
    return _software[0]


def call_soon(owner: QObject, function: Callable[[], object]) -> None:
    """Call a function as soon as Qt has done with the present event, unless its owner is gone by then.

    ``QTimer.singleShot`` takes an owner in PySide6, but not in PyQt6.
    """
    from qtpy.QtCore import QTimer

    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.timeout.connect(function)
    timer.timeout.connect(timer.deleteLater)
    timer.start(0)
