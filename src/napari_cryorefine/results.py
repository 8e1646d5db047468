"""What jobs make, as layers and plots: while they run, when they end, and from their folders later."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.jobs.base import Curve, Event, Figures, Product
from napari_cryorefine.ctf_refine_layers import (
    open_ctf_refinement,
    show_ctf_particles,
    tell_beam_tilts,
    update_aberrations,
    update_micrograph,
)
from napari_cryorefine.curves import directional_curves, postprocess_curves, refinement_curves
from napari_cryorefine.layer_data import MASK_SOURCE, STACKS
from napari_cryorefine.layers import add_half_maps, add_map, add_mask, add_stack, source_path
from napari_cryorefine.local_resolution_layers import local_resolution_steps
from napari_cryorefine.sky import DIRECTIONAL_FSC, open_directions
from napari_cryorefine.steps import Steps, at_once

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


CURVES_DOCK = "FSC and Guinier plots"


def show_event(viewer: ViewerModel, event: Event, folder: Path | None) -> None:
    """Show what an event carries: a product as a layer, a curve in its dock, others not at all.

    A product takes the place of the last one of its kind and job, so that a refinement shows its
    newest maps; the half maps of an iteration are shown when both of them are there.
    """
    at_once(event_steps(viewer, event, folder))


def event_steps(viewer: ViewerModel, event: Event, folder: Path | None) -> Steps[None]:
    """Do what :func:`show_event` does, map by map."""
    if isinstance(event, Curve):
        show_curve(viewer, event)
    elif isinstance(event, Figures):
        tell_beam_tilts(viewer, event.values)
    elif isinstance(event, Product) and event.path.exists():
        job = job_name(folder or event.path.parent)
        if event.kind == "mask":
            add_mask(viewer, (yield event.path), role=job)
        elif event.kind == "half_map":
            yield from _show_half_map(viewer, event.path, job)
        elif event.kind == "local_resolution":
            yield from local_resolution_steps(viewer, event.path.parent, job)
        elif event.kind == "ctf_particles":
            show_ctf_particles(viewer, event.path, folder or event.path.parent, job)
        elif event.kind == "defocus_fit":
            update_micrograph(viewer, event.path, event.name)
        elif event.kind == "aberrations":
            update_aberrations(viewer, event.path)
        elif event.kind == "map" and event.path.suffix in STACKS:
            add_stack(viewer, event.path)
        elif event.kind == "map":
            yield from _show_map(viewer, event.path, job)


def show_curve(viewer: ViewerModel, curve: Curve) -> None:
    """Draw curves in the dock below the canvas, which is made if it is not there; needs a window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return
    from napari_cryorefine.plots import CurvePanel

    panel: Any = window.dock_widgets.get(CURVES_DOCK)
    if panel is None:
        panel = CurvePanel(viewer.theme)
        viewer.events.theme.connect(lambda: panel.paint(viewer.theme))
        window.add_dock_widget(panel, name=CURVES_DOCK, area="bottom")
    panel.show_curve(curve)


def open_results(viewer: ViewerModel, folder: Path | str) -> list[Any]:
    """Show the maps, masks and curves of a finished job.

    Parameters
    ----------
    viewer : napari.Viewer or ViewerModel
        Where to show them. Without a window there are layers and no plots.
    folder : path
        Folder of a job of this program, or of a Refine3D, MaskCreate or PostProcess job of RELION.

    Returns
    -------
    list of Layer
        The layers that were added.

    Raises
    ------
    UserError
        If the folder is missing or holds no results of such a job.
    """
    return at_once(results_steps(viewer, Path(folder)))


def results_steps(viewer: ViewerModel, folder: Path) -> Steps[list[Any]]:
    """Do what :func:`open_results` does, map by map."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of a job, e.g. Refine3D/job001.")
    before = list(viewer.layers)
    job = job_name(folder)
    shown = yield from _open_refinement(viewer, folder, job)
    shown |= yield from _open_reconstruction(viewer, folder, job)
    shown |= yield from _open_postprocess(viewer, folder, job)
    shown |= yield from local_resolution_steps(viewer, folder, job)
    shown |= yield from _open_confidence(viewer, folder, job)
    shown |= open_ctf_refinement(viewer, folder, job)
    if shown:
        _hide_others(viewer, before, job)
    if (folder / "mask.mrc").is_file():
        add_mask(viewer, (yield folder / "mask.mrc"), role=job)
        shown = True
    shown |= open_directions(viewer, folder)
    # Extracted particles are looked at one by one, with their tomograms.
    shown |= (folder / "Subtomograms").is_dir()
    if (folder / DIRECTIONAL_FSC).is_file():
        for curve in directional_curves(folder / DIRECTIONAL_FSC):
            show_curve(viewer, curve)
    if not shown:
        raise UserError(
            f"{folder} holds no results that can be shown; give the folder of a job that has finished."
        )
    return [layer for layer in viewer.layers if layer not in before]


def job_name(folder: Path) -> str:
    """Return the last two parts of a job folder's path, e.g. "Refine3D/job001"."""
    return "/".join(folder.resolve().parts[-2:])


def _open_refinement(viewer: ViewerModel, folder: Path, job: str) -> Steps[bool]:
    halves = [folder / f"run_half{half}_class001_unfil.mrc" for half in (1, 2)]
    joined = folder / "run_class001.mrc"
    if all(half.is_file() for half in halves):
        loaded = [(yield halves[0]), (yield halves[1])]
        for layer in add_half_maps(viewer, *loaded, role=job):
            layer.visible = not joined.is_file()
    if joined.is_file():
        yield from _show_map(viewer, joined, job)
    model = folder / "run_model.star"
    if model.is_file():
        for curve in refinement_curves(model):
            show_curve(viewer, curve)
    return joined.is_file() or all(half.is_file() for half in halves)


def _open_reconstruction(viewer: ViewerModel, folder: Path, job: str) -> Steps[bool]:
    halves, merged = [folder / f"half{half}.mrc" for half in (1, 2)], folder / "merged.mrc"
    if not merged.is_file():
        return False
    if all(half.is_file() for half in halves):
        loaded = [(yield halves[0]), (yield halves[1])]
        for layer in add_half_maps(viewer, *loaded, role=job):
            layer.visible = False
    yield from _show_map(viewer, merged, job)
    yield from _open_postprocess(viewer, folder / "PostProcess", job)
    return True


def _open_postprocess(viewer: ViewerModel, folder: Path, job: str) -> Steps[bool]:
    masked, whole = folder / "postprocess_masked.mrc", folder / "postprocess.mrc"
    if whole.is_file():
        (yield from _show_map(viewer, whole, job)).visible = not masked.is_file()
    if masked.is_file():
        yield from _show_map(viewer, masked, job)
    table = folder / "postprocess.star"
    if table.is_file():
        for curve in postprocess_curves(table):
            show_curve(viewer, curve)
    return whole.is_file()


def _open_confidence(viewer: ViewerModel, folder: Path, job: str) -> Steps[bool]:
    significant, confidence = folder / "significant.mrc", folder / "confidence.mrc"
    if not (significant.is_file() and confidence.is_file()):
        return False
    (yield from _show_map(viewer, confidence, job)).visible = False
    yield from _show_map(viewer, significant, job)
    return True


def _show_map(viewer: ViewerModel, path: Path, job: str) -> Steps[Image]:
    """Show a map in place of that of the last iteration, if it has one."""
    return add_map(viewer, (yield path), role=f"{job} {re.sub('_it[0-9]+', '', path.stem)}")


def source_steps(viewer: ViewerModel, path: Path) -> Steps[None]:
    """Show the map that a mask is made from below all else, unless a layer of the person's shows it."""
    for layer in viewer.layers:
        shown = source_path(layer)
        if shown is not None and shown.resolve() == path.resolve():
            layer.visible = layer.visible or MASK_SOURCE in layer.metadata
            return
    layer = add_map(viewer, (yield path))
    layer.metadata[MASK_SOURCE] = True
    viewer.layers.move(viewer.layers.index(layer), 0)


def _show_half_map(viewer: ViewerModel, path: Path, job: str) -> Steps[None]:
    """Show both half maps once the second of them is there."""
    number = 1 if "half1" in path.name else 2
    partner = path.with_name(path.name.replace(f"half{number}", f"half{3 - number}"))
    if number == 2 and partner.is_file():
        add_half_maps(viewer, (yield partner), (yield path), role=job)


def _hide_others(viewer: ViewerModel, layers: list[Layer], job: str) -> None:
    """Hide what earlier jobs showed, so that the new result is what is seen; the person's own stay."""
    for layer in layers:
        if layer.metadata.get("role") and not layer.metadata["role"].startswith(f"{job} "):
            layer.visible = False
