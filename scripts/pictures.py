"""Pictures for the README and the manual, from real results: run ``make demo`` first.

Each is taken from a napari window as it stands on the screen, or on a virtual one where there is
none (Debian package xvfb).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
FORMS = {
    "Rescale map": ("form_rescale_map.png", ""),
    "Refine3D": ("form_refine3d.png", "Refine3D/job001"),
    "MaskCreate": ("form_mask_create.png", "MaskCreate/job002"),
    "PostProcess": ("form_postprocess.png", "PostProcess/job003"),
    "CtfRefine": ("form_ctf_refine.png", "CtfRefine/job004"),
    "LocalRes": ("form_local_resolution.png", "LocalRes/job005"),
    "Directional FSC": ("form_directional_fsc.png", "DirectionalFsc/job006"),
    "Orientation distribution": ("form_orientations.png", "Orientations/job007"),
    "Confidence map": ("form_confidence.png", "Confidence/job008"),
}
"""Name of each form, its picture and the job that fills it."""
LARGEST = 230_000
"""What a picture may take, in bytes, unless nothing helps."""
VIEW = (12.0, 35.0, 8.0)
"""A view in which the four subunits of beta-galactosidase are seen, in degrees."""


def settle(seconds: float = 1.0) -> None:
    """Let Qt draw what has been asked of it."""
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        # What is to be deleted goes by itself only where the application's own loop runs.
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        time.sleep(0.01)


def forms(project: Path) -> None:
    """Picture each form, filled as for the demo."""
    import napari

    viewer = napari.Viewer()
    for name, (file, job) in FORMS.items():
        picture_form(viewer, name, project / job / "job.star", file)
    viewer.close()


def picture_form(viewer: napari.Viewer, name: str, job_file: Path, file: str) -> None:
    """Picture a form, filled from a job file if there is one, as high as its boxes need."""
    from qtpy.QtWidgets import QScrollArea

    dock, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", name)
    if job_file.is_file():
        form.load(job_file)
        form.status.clear()
    viewer.window.resize(1500, 900)
    settle()  # the style of napari makes boxes higher
    page = form.findChild(QScrollArea)
    viewer.window.resize(1500, 900 + page.widget().sizeHint().height() - page.viewport().height())
    settle()
    form.grab().save(str(PICTURES / file))
    viewer.window.remove_dock_widget(dock)


def extraction_form() -> None:
    """Picture the form of the extraction with the sizes that are suggested for the tilt series that ship."""
    import napari

    here = Path.cwd()
    os.chdir(ROOT / "sample_data/betagal_tilts")
    viewer = napari.Viewer()
    viewer.window.resize(1500, 1050)
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "Extract subtomos")
    form.page.update(optimisation_set=Path("optimisation_set.star"), binning=2.0)
    form.page["output"].value = Path("Extract/job003")
    form.suggest_tool.diameter.setValue(190)
    form.suggest_tool.ask()
    wait_for(form.suggest_tool)
    settle()
    form.grab().save(str(PICTURES / "form_pseudo_subtomo.png"))
    viewer.close()
    os.chdir(here)


def mask(project: Path) -> None:
    """Picture the mask over the refined map, in a section and in 3D."""
    import napari

    from napari_cryorefine import open_results

    viewer = napari.Viewer()
    viewer.window.resize(1300, 900)
    open_results(viewer, project / "Refine3D/job001")
    open_results(viewer, project / "MaskCreate/job002")
    viewer.window.remove_dock_widget("all")
    viewer.layers.selection = [viewer.layers["run_class001"]]
    settle()
    viewer.screenshot(str(PICTURES / "mask_section.png"), canvas_only=False, flash=False)
    show_solid(viewer)
    viewer.screenshot(str(PICTURES / "mask_3d.png"), canvas_only=False, flash=False)
    viewer.close()


def mask_preview(project: Path) -> None:
    """Picture the mask that follows its form, over a section and in 3D."""
    import napari

    from napari_cryorefine.layers import add_map

    viewer = napari.Viewer()
    viewer.window.resize(1400, 1050)
    refined = project / "Refine3D/job001/run_class001.mrc"
    density = add_map(viewer, refined)
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "MaskCreate")
    form.page.update(input=Path("Refine3D/job001/run_class001.mrc"), extend=2.0, soft_edge=4.0)
    form.tool.preview.value = True
    wait_for(form.tool)
    form.tool.take_suggestion()
    wait_for(form.tool)
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.1
    settle()
    viewer.screenshot(str(PICTURES / "mask_preview.png"), canvas_only=False, flash=False)
    density.visible = False
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.scene.camera.angles = VIEW
    viewer.scene.camera.zoom *= 1.2
    wait_for(form.tool)
    form.tool.solid.value = "3D: all"
    wait_for(form.tool)
    viewer.screenshot(str(PICTURES / "mask_preview_boundaries.png"), canvas_only=False, flash=False)
    viewer.close()


def tried_out(project: Path) -> None:
    """Picture masks and fits being tried before PostProcess is run."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1050)
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "PostProcess")
    form.page.update(
        half_map=Path("Refine3D/job001/run_half1_class001_unfil.mrc"), mask=Path("MaskCreate/job002/mask.mrc")
    )
    form.explore()
    explorer = viewer.window.dock_widgets["Try masks and fits"]
    wait_for(explorer)
    viewer.reset_view()
    settle()
    viewer.screenshot(str(PICTURES / "try_masks_and_fits.png"), canvas_only=False, flash=False)
    viewer.close()


def wait_for(tool: Any) -> None:
    """Let a tool finish what it makes in its thread, and Qt draw it."""
    while tool.busy:
        settle(0.1)
    settle()


def sharpened(project: Path) -> None:
    """Picture the sharpened map with its FSC and Guinier plots: the end of the way, and the README."""
    import napari

    from napari_cryorefine import open_results

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    for job in ("Refine3D/job001", "MaskCreate/job002", "PostProcess/job003"):
        open_results(viewer, project / job)
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "PostProcess")
    form.load(project / "PostProcess/job003/job.star")
    form.status.clear()
    viewer.layers.selection = [viewer.layers["postprocess_masked"]]
    show_solid(viewer)
    viewer.screenshot(str(PICTURES / "sharpened.png"), canvas_only=False, flash=False)
    viewer.close()


def refined_ctf(project: Path) -> None:
    """Picture particles on their micrograph and the beam tilt, of simulated images that have one."""
    import napari

    from cryorefine.jobs import ctf_refine
    from napari_cryorefine import open_results

    data = Path(os.path.relpath(ROOT.parent / "shared/data/sim_betagal_ctf"))  # the form shows it
    folder = project / "CtfRefine/job004"
    if not data.is_dir():
        print(f"{data} is not here; the picture of CtfRefine stays as it is.")
        return
    run_once(
        ctf_refine,
        particles=data / "refined.star",
        postprocess=data / "relion5/post.star",
        output=folder,
        fit_defocus="per-particle",
        fit_beamtilt=True,
        symmetry="D2",
    )
    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    open_results(viewer, folder)
    panel = viewer.window.dock_widgets["Particles"]
    settle()
    viewer.screenshot(str(PICTURES / "ctf_refine.png"), canvas_only=False, flash=False)
    panel.colouring.setCurrentText("Change (Å)")
    panel.sigmas.setValue(2.0)
    panel.select_outliers()
    panel.show_micrograph(8)
    settle()
    viewer.screenshot(str(PICTURES / "ctf_refine_outliers.png"), canvas_only=False, flash=False)
    viewer.close()


def resolved(project: Path) -> None:
    """Picture local resolution, resolution by direction, and the views of the particles."""
    import napari

    from cryorefine.jobs import confidence, directional_fsc, local_resolution, orientations
    from napari_cryorefine import open_results

    half_map, mask = Path("Refine3D/job001/run_half1_class001_unfil.mrc"), Path("MaskCreate/job002/mask.mrc")
    local, directional, views = (
        Path(folder) for folder in ("LocalRes/job005", "DirectionalFsc/job006", "Orientations/job007")
    )
    run_once(local_resolution, half_map=half_map, mask=mask, output=local, smooth=True, bfactor=-150.0)
    run_once(directional_fsc, half_map=half_map, mask=mask, output=directional, symmetry="D2")
    run_once(orientations, particles=Path("Refine3D/job001/run_data.star"), output=views, symmetry="D2")
    run_once(confidence, half_map=half_map, mask=mask, output=Path("Confidence/job008"))
    for picture in (directional / "directional_fsc.png", views / "orientations.png"):
        shutil.copy(picture, PICTURES)  # as the jobs draw them
    viewer = napari.Viewer()
    viewer.window.resize(1300, 900)
    open_results(viewer, local)
    settle()
    viewer.screenshot(str(PICTURES / "local_resolution_section.png"), canvas_only=False, flash=False)
    show_solid(viewer)
    viewer.screenshot(str(PICTURES / "local_resolution_surface.png"), canvas_only=False, flash=False)
    viewer.close()

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    open_results(viewer, project / "PostProcess/job003")
    viewer.window.remove_dock_widget("all")
    open_results(viewer, directional)
    settle()
    show_solid(viewer)
    viewer.scene.camera.zoom *= 0.8
    settle()
    viewer.screenshot(str(PICTURES / "directional_fsc_sphere.png"), canvas_only=False, flash=False)
    viewer.close()

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    open_results(viewer, project / "Refine3D/job001")
    viewer.window.remove_dock_widget("all")
    open_results(viewer, views)
    settle()
    viewer.screenshot(str(PICTURES / "orientations_sky.png"), canvas_only=False, flash=False)
    viewer.close()


def listed(project: Path) -> None:
    """Picture the dock of a project, the results of one of its jobs and the form of the next one."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cryorefine", "Project")
    settle()
    panel.choose("PostProcess/job003")
    panel.show_results()
    while panel.busy:
        settle(0.1)
    settle()
    show_solid(viewer)
    viewer.screenshot(str(PICTURES / "project.png"), canvas_only=False, flash=False)
    viewer.close()


def monitored(project: Path) -> None:
    """Picture the monitor at an iteration of the finished refinement."""
    import napari

    from napari_cryorefine.monitor import show_monitor

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    panel = show_monitor(viewer, project / "Refine3D/job001")
    wait_for(panel)
    panel.choose(panel.chosen.number - 1)
    wait_for(panel)
    viewer.reset_view()
    settle()
    viewer.screenshot(str(PICTURES / "monitor.png"), canvas_only=False, flash=False)
    viewer.close()


def worked_through(project: Path) -> None:
    """Picture the workflow with a result of it, and a form that is filled from the steps before."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cryorefine", "Workflow")
    wait_for(panel)
    panel.show_step("postprocess")
    wait_for(panel)
    show_solid(viewer)
    viewer.screenshot(str(PICTURES / "workflow.png"), canvas_only=False, flash=False)
    viewer.window.remove_dock_widget(viewer.window.dock_widgets["FSC and Guinier plots"])
    viewer.layers.clear()
    viewer.window.resize(1500, 1250)
    form = panel.open_step("refine3d-again")
    wait_for(panel)
    form.grab().save(str(PICTURES / "workflow_form.png"))
    viewer.close()


def run_once(module: Any, **options: Any) -> None:
    """Run a job, unless it has been run before."""
    from cryorefine.jobs import finish

    if not (options["output"] / "RELION_JOB_EXIT_SUCCESS").exists():
        finish(module.run(module.Options(**options)))


def show_solid(viewer: napari.Viewer) -> None:
    """Turn to 3D and draw isosurfaces, also where OpenGL is slow."""
    from napari.layers import Image

    viewer.dims.ndisplay = 3
    settle()  # before a frame takes seconds
    for layer in viewer.layers:
        if isinstance(layer, Image) and layer.visible:
            layer.rendering = "iso"
    viewer.reset_view()
    viewer.scene.camera.angles = VIEW
    viewer.scene.camera.zoom *= 1.3


def shrink(paths: Iterable[Path]) -> None:
    """Store pictures in less space: the finest of three ways that comes below 230 kB.

    Colours rounded to every fourth of 256 shades look the same, those rounded to every eighth nearly
    so; those of a window's areas, the most frequent ones, are kept. Where that is too large, the
    picture gets a palette of the most frequent colours and of others, chosen from those there are, each
    counted by the square root of its pixels: that keeps the colours of thin lines.
    """
    import numpy as np
    from PIL import Image

    for path in paths:
        picture = Image.open(path)
        if picture.mode == "P":
            continue  # done before
        pixels = np.asarray(picture.convert("RGB"))
        colours, places, counts = np.unique(
            pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
        )
        for step in (4, 8):
            rounded = np.minimum((colours.astype(int) + step // 2) // step * step, 255).astype(np.uint8)
            frequent = np.argsort(counts)[-32:]
            rounded[frequent] = colours[frequent]
            Image.fromarray(rounded[places].reshape(pixels.shape)).save(path, optimize=True)
            if path.stat().st_size <= LARGEST:
                break
        else:
            others = np.argsort(counts)[:-32]
            counted = np.repeat(colours[others], np.ceil(np.sqrt(counts[others])).astype(int), axis=0)
            chosen = Image.fromarray(counted[np.newaxis]).quantize(
                224, method=Image.Quantize.MEDIANCUT, kmeans=4
            )
            palette = Image.new("P", (1, 1))
            palette.putpalette([*colours[frequent].ravel().tolist(), *(chosen.getpalette() or [])[: 3 * 224]])
            picture.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE).save(
                path, optimize=True
            )


def on_a_screen() -> None:
    """Start again on a virtual screen where there is no other."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        if shutil.which("xvfb-run") is None:
            sys.exit("There is no display; install xvfb (apt-get install xvfb xauth).")
        os.execvp("xvfb-run", ["xvfb-run", "-a", "-s", "-screen 0 1600x2400x24", sys.executable, *sys.argv])


def main(project: Path) -> None:
    """Take all pictures of a finished demo project."""
    if not (project / "PostProcess/job003/postprocess.star").is_file():
        sys.exit(f"{project} holds no finished demo; run make demo first.")
    on_a_screen()
    PICTURES.mkdir(parents=True, exist_ok=True)
    project = project.resolve()
    os.chdir(project)
    extraction_form()
    takes = (mask, mask_preview, tried_out, sharpened, resolved, refined_ctf, forms)
    for take in (*takes, listed, worked_through, monitored):
        os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # forms as they are the first time
        take(project)
    shrink(PICTURES.glob("*.png"))
    print(f"The pictures are in {PICTURES}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo")
