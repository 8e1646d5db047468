"""Opening a job from any panel: its form, its results, its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.jobs.lineage import job_of
from napari_cryorefine.forms import OWN_PROCESS, JobForm
from napari_cryorefine.layers import add_map
from napari_cryorefine.results import job_name, results_steps

if TYPE_CHECKING:
    import napari.viewer

    from cryorefine.jobs.project import ProjectJob
    from napari_cryorefine.shower import Shower
    from napari_cryorefine.steps import Steps

PLUGIN = "napari-cryorefine"
FORMS = {
    "image-handler": "Rescale map",
    "refine3d": "Refine3D",
    "mask-create": "MaskCreate",
    "postprocess": "PostProcess",
    "ctf-refine": "CtfRefine",
    "pseudo-subtomo": "Extract subtomos",
    "reconstruct-particle": "Reconstruct particle",
    "local-resolution": "LocalRes",
    "directional-fsc": "Directional FSC",
    "orientations": "Orientation distribution",
    "confidence": "Confidence map",
}
"""Command name of a job -> name of its form in napari's menus."""


def open_form(viewer: napari.viewer.Viewer, name: str, project: Path | None = None) -> JobForm:
    """Open the form of a kind of job, or bring it to the front.

    Parameters
    ----------
    viewer : napari.Viewer
        Where it is docked.
    name : str
        Command name of the job.
    project : Path, optional
        The folder of a project: the output folder will have the number of its next job.
    """
    _, form = viewer.window.add_plugin_dock_widget(PLUGIN, FORMS[name])
    assert isinstance(form, JobForm)
    if project is not None and form.job.folder and not form.is_running:
        form.page.use_project(project)
    form.come_forward()
    return form


def open_job_file(viewer: napari.viewer.Viewer, path: Path) -> JobForm | None:
    """Open the form that a job.star belongs to, filled with its values, to be run as the next job there.

    Returns
    -------
    JobForm or None
        The form; None if it runs another job at this moment.

    Raises
    ------
    UserError
        If the file is no job file, or that of a job that is not ours.
    """
    from cryorefine.jobs.relion_job import read_job

    folder = path.resolve().parent
    of_project = re.fullmatch(r"job\d+", folder.name) is not None
    form = open_form(viewer, read_job(path).name, folder.parents[1] if of_project else None)
    if form.is_running:
        return None
    form.load(path)
    return form


def show_job(viewer: Any, job: ProjectJob, shower: Shower) -> None:
    """Show what a job has made; a refinement in the monitor, other long jobs that run in their form."""
    name = job_of(job)
    if name == "refine3d" and (job.status == "running" or any(job.folder.glob("run_it*_model.star"))):
        from napari_cryorefine.monitor import show_monitor

        show_monitor(viewer, job.folder)
        if (job.folder / "run_class001.mrc").is_file():
            shower.show(_joined_map(viewer, job.folder))
    elif job.status == "running" and name in OWN_PROCESS:
        form = open_form(viewer, name)
        if not form.is_running:
            form.watch(job.folder)
    else:
        shower.show(results_steps(viewer, job.folder))


def _joined_map(viewer: Any, folder: Path) -> Steps[None]:
    """Add the map of both halves to the layers, hidden: the monitor shows the halves themselves."""
    known = set(viewer.layers)
    layer = add_map(viewer, (yield folder / "run_class001.mrc"), role=f"{job_name(folder)} run_class001")
    if layer not in known:
        layer.visible = False
