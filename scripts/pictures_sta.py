"""Pictures of tilt series and tomograms for the manual, from real results: run ``make demo-sta`` first."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pictures import PICTURES, ROOT, on_a_screen, picture_form, settle, show_solid, shrink, wait_for

LAST = "Reconstruct/job009"


def tomograms() -> None:
    """Picture a tomogram beside its tilt series and a particle's tilts, in sections and in 3D."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1500, 800)
    settle()
    viewer.open(f"{LAST}/optimisation_set.star", plugin="napari-cryorefine")
    panel = viewer.window.dock_widgets["Tomograms"]
    panel.particle.setCurrentText("TS_01/3")
    wait_for(panel)
    viewer.reset_view()
    settle()
    viewer.screenshot(str(PICTURES / "tomograms.png"), canvas_only=False, flash=False)
    for layer in viewer.layers:
        if layer.name in ("half1", "half2", "mask"):
            layer.visible = False
    viewer.dims.ndisplay = 3
    settle()
    viewer.scene.camera.angles = (12.0, 25.0, 8.0)
    viewer.scene.camera.center = (320, 540, 540)
    viewer.scene.camera.zoom *= 1.5
    settle(2)
    viewer.screenshot(str(PICTURES / "tomograms_3d.png"), canvas_only=False, flash=False)
    viewer.close()


def averaged() -> None:
    """Picture the map at the end of the way with its FSC and Guinier plots."""
    import napari

    from napari_cryorefine import open_results

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    open_results(viewer, Path(LAST) / "PostProcess")
    show_solid(viewer)
    viewer.scene.camera.zoom *= 0.75
    viewer.screenshot(str(PICTURES / "averaged.png"), canvas_only=False, flash=False)
    viewer.close()


def reconstruction_form() -> None:
    """Picture the form of the reconstruction, filled as for the last one."""
    import napari

    viewer = napari.Viewer()
    picture_form(viewer, "Reconstruct particle", Path(LAST) / "job.star", "form_reconstruct_particle.png")
    viewer.close()


def main(project: Path) -> None:
    """Take all pictures of a finished project of ``make demo-sta``."""
    if not (project / LAST / "optimisation_set.star").is_file():
        sys.exit(f"{project} holds no finished demo; run make demo-sta first.")
    on_a_screen()
    os.chdir(project)
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()
    tomograms()
    averaged()
    reconstruction_form()
    names = ("tomograms", "tomograms_3d", "averaged", "form_reconstruct_particle")
    shrink([PICTURES / f"{name}.png" for name in names])
    print(f"The pictures are in {PICTURES}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo-sta")
