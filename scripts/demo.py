"""From real particles to a sharpened map: the whole way, by the functions that scripts use.

``make demo`` runs this in a folder of its own. The folder is then a project such as RELION's:
job folders inside it, file names relative to it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from cryorefine.compute.blas import prefer_wide_kernels

prefer_wide_kernels()

from cryorefine.jobs import mask_create, postprocess, refine3d  # noqa: E402
from cryorefine.sample import sample_folder  # noqa: E402
from cryorefine.terminal import watch  # noqa: E402


def process(project: Path) -> tuple[refine3d.Result, mask_create.Result, postprocess.Result]:
    """Refine the sample particles in a project folder, mask the map and sharpen it."""
    shutil.copytree(sample_folder("betagal"), project, dirs_exist_ok=True)
    os.chdir(project)

    refined = watch(
        refine3d.run(
            refine3d.Options(
                particles=Path("particles.star"),
                reference=Path("reference_5a1a.mrc"),
                output=Path("Refine3D/job001"),
                initial_lowpass=50,
                symmetry="D2",
                mask_diameter=200,
            )
        )
    )
    masked = watch(
        mask_create.run(
            mask_create.Options(
                input=refined.map,
                output=Path("MaskCreate/job002"),
                lowpass=15,
                threshold=0.02,
                extend=2,
                soft_edge=4,
            )
        )
    )
    sharpened = watch(
        postprocess.run(
            postprocess.Options(
                half_map=refined.half_maps[0],
                mask=masked.mask,
                output=Path("PostProcess/job003"),
                mtf=Path("mtf_k2_200kV.star"),
                mtf_pixel_size=0.885,
                autob_lowest_resolution=15,
            )
        )
    )
    return refined, masked, sharpened


def main(project: Path) -> None:
    """Make the project anew, process the particles, say what came out and show it if there is a display."""
    began = time.monotonic()
    if project.exists():
        shutil.rmtree(project)
    project.mkdir(parents=True)
    project = project.resolve()
    refined, masked, sharpened = process(project)
    print(f"""
Finished in {(time.monotonic() - began) / 60:.1f} minutes. The results are in {project}:
  refined map    {os.path.relpath(refined.map)}
  mask           {masked.mask}
  sharpened map  {sharpened.map}
Resolution without a mask  {refined.resolution:.2f} A
Resolution with the mask   {sharpened.resolution:.2f} A
B-factor                   {sharpened.b_factor:.0f} A^2""")
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        show()
    else:
        print("There is no display here; where there is one, napari opens on these maps.")


def show() -> None:
    """Open napari on the three job folders."""
    import napari

    from napari_cryorefine import open_results

    viewer = napari.Viewer(ndisplay=3)
    for folder in ("Refine3D/job001", "MaskCreate/job002", "PostProcess/job003"):
        open_results(viewer, Path(folder))
    napari.run()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
