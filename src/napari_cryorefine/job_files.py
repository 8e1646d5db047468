"""Opening STAR files by what they are: a job file opens its form, a pipeline its project, others layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer

from cryorefine.errors import UserError
from cryorefine.io.pipeline import PIPELINE_FILE
from napari_cryorefine.layer_data import LayerData
from napari_cryorefine.readers import NO_LAYERS, Reader, get_particle_reader


def get_star_reader(path: str | Sequence[str]) -> Reader:
    """Return what opens STAR files (npe2's reader command)."""
    name = Path(path if isinstance(path, str) else path[0]).name
    if name.endswith("job.star"):
        return _opener(_open_form)
    if name == PIPELINE_FILE:
        return _opener(_open_workflow)
    return get_particle_reader(path)


def _opener(action: Callable[[Any, Path], object]) -> Reader:
    def read(path: str | Sequence[str]) -> list[LayerData]:
        import napari

        file = Path(path if isinstance(path, str) else path[0])
        viewer = napari.current_viewer()
        if viewer is None:
            raise UserError(f"{file} can be opened in a window of napari only; start one first.")
        # Once napari has done with the file: docks that open while it reads would not get the keyboard.
        QTimer.singleShot(0, lambda: _tell_failure(action, viewer, file))
        return NO_LAYERS

    return read


def _tell_failure(action: Callable[[Any, Path], object], viewer: Any, file: Path) -> None:
    from napari.utils.notifications import show_error

    try:
        action(viewer, file)
    except UserError as error:
        show_error(str(error))


def _open_form(viewer: Any, file: Path) -> None:
    from napari_cryorefine.job_views import open_job_file

    if open_job_file(viewer, file) is None:
        raise UserError(f"The form that {file} belongs to is running a job; open it again afterwards.")


def _open_workflow(viewer: Any, file: Path) -> None:
    from napari_cryorefine.job_views import PLUGIN

    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Workflow")
    panel.open(file)
    panel.come_forward()
