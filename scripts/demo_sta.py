"""From tilt series to a sharpened map: subtomogram averaging by the functions that scripts use.

``make demo-sta`` runs this in a folder of its own, which is then a project such as RELION's. The tilt
series are simulated, so every map is compared with the truth.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryorefine.compute.blas import prefer_wide_kernels

prefer_wide_kernels()

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from cryorefine.io.mrc import Map, read_map  # noqa: E402
from cryorefine.jobs import mask_create, pseudo_subtomo, reconstruct_particle, refine3d  # noqa: E402
from cryorefine.maps.density import threshold_for_mass  # noqa: E402
from cryorefine.maps.filters import lowpass  # noqa: E402
from cryorefine.maps.fourier import rescale  # noqa: E402
from cryorefine.maps.fsc import fourier_shell_correlation, resolution  # noqa: E402
from cryorefine.maps.mask_recipe import MaskRecipe, mask_from_recipe  # noqa: E402
from cryorefine.sample import sample_folder  # noqa: E402
from cryorefine.terminal import watch  # noqa: E402

SYMMETRY, MASS, DIAMETER = "D2", 465.0, 190.0
BOX = {2: (64, 32), 1: (128, 64)}
"""Box and cropped box in px, by binning: wide enough for what defocus carries away, then cut."""


@dataclass(frozen=True)
class Step:
    """What a step made: its map, its resolution by the job itself in A, and its agreement with the truth."""

    name: str
    map: Path
    resolution: float | None
    mean_fsc: float
    true_resolution: float


def process(project: Path) -> Iterator[Step]:
    """Go the whole way in a project folder, first with pixels of twice the size, then with all of them.

    Half maps go from step to step in the optimisation set, each to its own half; those of the last
    reconstruction are what the resolution is told by.
    """
    shutil.copytree(sample_folder("betagal_tilts"), project, dirs_exist_ok=True)
    os.chdir(project)
    start = reconstruct(Path("optimisation_set.star"), "Reconstruct/job001", binning=2)
    yield compared("Reconstruct, bin 2, as picked", start.merged, None)
    mask = make_mask(start.merged, "MaskCreate/job002", lowpass=25)
    extracted = extract(start.optimisation_set, "Extract/job003", binning=2)
    refined = refine(extracted.optimisation_set, "Refine3D/job004", mask, lowpass=25, sampling=7.5)
    yield compared("Refine3D, bin 2", refined.map, refined.resolution)

    assert refined.optimisation_set is not None
    finer = reconstruct(refined.optimisation_set, "Reconstruct/job005", binning=1)
    yield compared("Reconstruct, bin 1", finer.merged, None)
    mask = make_mask(finer.merged, "MaskCreate/job006", lowpass=15)
    extracted = extract(finer.optimisation_set, "Extract/job007", binning=1)
    refined = refine(extracted.optimisation_set, "Refine3D/job008", mask, lowpass=13, sampling=3.7)
    yield compared("Refine3D, bin 1", refined.map, refined.resolution)

    assert refined.optimisation_set is not None
    last = reconstruct(refined.optimisation_set, "Reconstruct/job009", binning=1, fsc_mask=mask)
    yield compared("Reconstruct and PostProcess, bin 1", last.merged, last.resolution)


def reconstruct(
    entries: Path, folder: str, *, binning: int, fsc_mask: Path | None = None
) -> reconstruct_particle.Result:
    """Make half maps of the particles as they are aligned."""
    box, crop = BOX[binning]
    return watch(
        reconstruct_particle.run(
            reconstruct_particle.Options(
                optimisation_set=entries,
                output=Path(folder),
                binning=binning,
                box_size=box,
                crop_size=crop,
                symmetry=SYMMETRY,
                fsc_mask=fsc_mask,
            )
        )
    )


def extract(entries: Path, folder: str, *, binning: int) -> pseudo_subtomo.Result:
    """Cut the particles out of the tilt images."""
    box, crop = BOX[binning]
    return watch(
        pseudo_subtomo.run(
            pseudo_subtomo.Options(
                optimisation_set=entries,
                output=Path(folder),
                binning=binning,
                box_size=box,
                crop_size=crop,
            )
        )
    )


def make_mask(density: Path, folder: str, *, lowpass: float) -> Path:
    """Make a soft mask that encloses the particle's mass and a little more."""
    return watch(
        mask_create.run(
            mask_create.Options(
                input=density,
                output=Path(folder),
                lowpass=lowpass,
                threshold_from="mass",
                mass=1.2 * MASS,
                keep_largest=1,
                extend=1,
                soft_edge=4,
            )
        )
    ).mask


def refine(entries: Path, folder: str, mask: Path, *, lowpass: float, sampling: float) -> refine3d.Result:
    """Refine the particles' poses from the reference half maps of the set."""
    return watch(
        refine3d.run(
            refine3d.Options(
                optimisation_set=entries,
                output=Path(folder),
                reference_mask=mask,
                absolute_greyscale=True,
                initial_lowpass=lowpass,
                symmetry=SYMMETRY,
                mask_diameter=DIAMETER,
                solvent_flattened_fsc=True,
                initial_angular_sampling=sampling,
                local_search_from=sampling,
                finer_sampling_faster=True,
            )
        )
    )


def compared(name: str, path: Path, own: float | None) -> Step:
    """Compare a map with the truth behind the truth's own mask."""
    found, truth = read_map(path), read_map("truth.mrc")
    size = len(found.data)
    density = rescale(truth.data, size)
    mask = solvent_mask(Map(density, found.pixel_size))
    fsc = fourier_shell_correlation(found.data * mask, density * mask)
    return Step(
        name,
        Path(os.path.relpath(path)),
        own,
        float(fsc[1:-1].mean()),
        resolution(fsc, size, found.pixel_size, 0.5),
    )


def solvent_mask(truth: Map) -> NDArray[np.float32]:
    """Return a soft mask around a map without noise."""
    smooth, pixel = lowpass(truth.data, truth.pixel_size, 15.0), truth.pixel_size
    level = threshold_for_mass(smooth, pixel, 1.2 * MASS).value
    return mask_from_recipe(smooth, MaskRecipe(level, extend=4 / pixel, soft_edge=6 / pixel))


def main(project: Path) -> None:
    """Make the project anew, process it, say what came out and show it if there is a display."""
    began = time.monotonic()
    if project.exists():
        shutil.rmtree(project)
    project.mkdir(parents=True)
    project = project.resolve()
    steps = []
    for step in process(project):
        steps.append((step, time.monotonic() - began))
        print(f"{step.name}: mean FSC to the truth {step.mean_fsc:.3f}\n")
    print(f"Finished in {(time.monotonic() - began) / 60:.1f} minutes. The results are in {project}:\n")
    print(f"{'step':36} {'after':>7} {'resolution':>11} {'true one':>9} {'mean FSC':>9}   map")
    for step, seconds in steps:
        own = "" if step.resolution is None else f"{step.resolution:.1f} Å"
        print(
            f"{step.name:36} {seconds:5.0f} s {own:>11} {step.true_resolution:7.1f} Å {step.mean_fsc:9.3f}   "
            f"{step.map}"
        )
    print("\nThe true one is where the FSC to the truth drops below 0.5; means are over all shells.")
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        show()
    else:
        print("There is no display here; where there is one, napari opens on the particles and maps.")


def show() -> None:
    """Open napari on the particles as refined and on the last half maps."""
    import napari

    viewer = napari.Viewer()
    viewer.open("Reconstruct/job009/optimisation_set.star", plugin="napari-cryorefine")
    napari.run()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-sta"))
