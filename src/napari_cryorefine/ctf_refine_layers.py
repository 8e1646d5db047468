"""What CtfRefine makes, in a viewer: micrographs with their particles, the table, and the aberrations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from napari_cryorefine.defocus_layers import MicrographView, show_fits, view_in
from napari_cryorefine.particle_fits import read_fits

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from cryorefine.io.particles import ParticleFile

PARTICLES = "particles_ctf_refine.star"


def show_ctf_particles(viewer: ViewerModel, path: Path, folder: Path, job: str) -> MicrographView | None:
    """Show particles on their micrographs, in place of those that were shown before.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show them. Without a window there are layers and no docks.
    path : Path
        The particles, before or after the job.
    folder : Path
        The job's folder.
    job : str
        Its name, e.g. "CtfRefine/job024".

    Returns
    -------
    MicrographView or None
        None where the particles have no places on micrographs.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    fits = read_fits(path, _input_of(folder) if path.name == PARTICLES else None)
    if fits is None:
        return None
    return show_fits(viewer, fits, job)


def update_micrograph(viewer: ViewerModel, path: Path, micrograph: str) -> None:
    """Take notice of new values of one micrograph while the job runs; they are read when they are shown."""
    view = view_in(viewer)
    if view is not None:
        view.fits.expect(path, micrograph)
        view.fits.read_expected(view.number)


def update_aberrations(viewer: ViewerModel, path: Path) -> None:
    """Take notice of new images of aberrations while the job runs."""
    from cryorefine.jobs.ctf_refine_images import group_of

    panel = _aberration_panel(viewer, make=False)
    if panel is None:
        show_aberrations(viewer, path.parent)
    else:
        panel.update_group(path.parent, group_of(path))


def tell_beam_tilts(viewer: ViewerModel, values: Mapping[str, Any]) -> None:
    """Tell the beam tilts of a running job beside their images."""
    tilts = [f"{name}: {value}" for name, value in values.items() if name.startswith("beam tilt")]
    panel = _aberration_panel(viewer, make=False)
    if tilts and panel is not None:
        panel.say("; ".join(tilts))


def show_aberrations(viewer: ViewerModel, folder: Path) -> None:
    """Show the aberrations that a job has found in their dock; without a window there is none."""
    from cryorefine.jobs.ctf_refine_images import groups_in

    if not groups_in(folder):
        return
    panel = _aberration_panel(viewer, make=True)
    if panel is None:
        return
    view = view_in(viewer)
    names, texts = [], []
    if view is not None:
        file = view.fits.file
        names = [str(name) for name in file.optics.get("rlnOpticsGroupName", [])]
        # While a job runs, the file is still the one that it started from.
        texts = optics_texts(file) if file.path == folder / PARTICLES else []
    panel.show_folder(folder, names, texts)


def open_ctf_refinement(viewer: ViewerModel, folder: Path, job: str) -> bool:
    """Show what a CtfRefine job of this program or of RELION has left; return whether there was anything."""
    path = folder / PARTICLES
    if not path.is_file():
        return False
    show_ctf_particles(viewer, path, folder, job)
    show_aberrations(viewer, folder)
    return True


def optics_texts(file: ParticleFile) -> list[str]:
    """Return the beam tilt of each optics group with its uncertainty, in words."""
    if "rlnBeamTiltX" not in file.optics:
        return []
    texts = []
    for _, row in file.optics.iterrows():
        values = []
        for axis in "XY":
            error = float(row.get(f"cryorefineBeamTilt{axis}Uncertainty", float("nan")))
            text = f"{row[f'rlnBeamTilt{axis}']:.3f}"
            values.append(f"{text} ± {error:.3f}" if math.isfinite(error) else text)
        texts.append(f"beam tilt ({', '.join(values)}) mrad")
    return texts


def _aberration_panel(viewer: ViewerModel, *, make: bool) -> Any:
    """Return the dock of aberrations, or None where there is none or no window to put it in."""
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    from napari_cryorefine.aberration_panel import DOCK, AberrationPanel
    from napari_cryorefine.defocus_panel import DOCK as PARTICLES_DOCK

    panel: Any = window.dock_widgets.get(DOCK)
    if panel is None and make:
        panel = AberrationPanel(viewer.theme)
        viewer.events.theme.connect(lambda: panel.paint(viewer.theme))
        window.add_dock_widget(panel, name=DOCK, area="bottom")
        particles: Any = window.dock_widgets.get(PARTICLES_DOCK)
        if particles is not None:
            particles.fit_view()
    return panel


def _input_of(folder: Path) -> Path | None:
    """Return the particles that a job started from, as its job.star names them."""
    from cryorefine.jobs.relion_job import read_job

    if not (folder / "job.star").is_file():
        return None
    try:
        particles = getattr(read_job(folder / "job.star").options, "particles", None)
    except UserError:
        return None
    return particles if isinstance(particles, Path) else None
