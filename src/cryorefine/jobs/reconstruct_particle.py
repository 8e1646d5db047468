"""Reconstruct particle: half maps and a map from subtomograms as they are aligned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary, vocabulary_tomo
from cryorefine.jobs.base import Figures, Job, Notice, Product, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    from cryorefine.io.optimisation_set import OptimisationSet

JOB = Job(
    name="reconstruct-particle",
    title="Reconstruct particle",
    folder="Reconstruct",
    relion_label="relion.reconstructparticletomo",
    summary="Make half maps and a map from subtomograms as they are aligned",
)

_STAGE = "Reconstructing"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one reconstruction is asked to do."""

    optimisation_set: Path | None = vocabulary_tomo.optimisation_set()
    particles: Path | None = vocabulary_tomo.particles()
    tomograms: Path | None = vocabulary_tomo.tomograms()
    trajectories: Path | None = vocabulary_tomo.trajectories()
    output: Path = option(
        label="Output folder",
        help="The folder of this job, e.g. Reconstruct/job011; half1.mrc, half2.mrc, merged.mrc and "
        "optimisation_set.star are written there.",
        kind="folder",
    )
    fsc_mask: Path | None = option(
        None,
        label="FSC Solvent mask",
        help="A soft mask in the box of the maps. With one, the maps are post-processed as well: the "
        "resolution is told, and mask and FSC go into the optimisation set.",
        kind="mask",
    )
    source: str = option(
        "auto",
        label="Images come from",
        help="'tilt-images' cuts particles out of the tilt images; 'stacks' takes the extracted stacks; "
        "'auto' takes the tilt images if they are there and stacks otherwise.",
        group="Reconstruct",
        choices=("auto", "tilt-images", "stacks"),
    )
    binning: float = vocabulary_tomo.binning()
    box_size: int = vocabulary_tomo.box_size()
    crop_size: int | None = vocabulary_tomo.crop_size()
    max_dose: float | None = vocabulary_tomo.max_dose()
    snr: float | None = option(
        None,
        label="Wiener SNR constant",
        help="Signal-to-noise ratio of a Wiener filter; weights below a thousandth of their shell's mean are "
        "raised to it unless given.",
        group="Reconstruct",
        minimum=1e-9,
        step=0.01,
        relion="snr",
    )
    symmetry: str = option(
        "C1",
        label="Symmetry",
        help="Point group of the particle, e.g. C6, D2, O or I1.",
        group="Reconstruct",
        relion="sym_name",
    )
    sums: bool = option(
        False,
        label="Also write data and weights?",
        help="Write data_half1.mrc, weight_half1.mrc and so on: the symmetrised sum of the images in real "
        "space, and its weights with the origin of Fourier space in the middle.",
        group="Reconstruct",
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()

    def check(self) -> None:
        """Say what is missing or does not go together."""
        from cryorefine.geometry.symmetry import point_group

        vocabulary.check_device(self.device)
        vocabulary_tomo.check_input(self)
        vocabulary_tomo.check_boxes(self.box_size, self.crop_size)
        point_group(self.symmetry)


@dataclass(frozen=True)
class Result:
    """What a finished reconstruction leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    merged : Path
        merged.mrc, of all particles.
    half_maps : tuple of Path
        half1.mrc and half2.mrc; empty where the particles have no halves.
    optimisation_set : Path
        optimisation_set.star, with the half maps as references.
    particles : int
        How many particles went into the map.
    pixel_size : float
        Of the maps, in A.
    resolution : float or None
        Behind the mask, in A (FSC = 0.143), where one was given.
    """

    output: Path
    merged: Path
    half_maps: tuple[Path, ...]
    optimisation_set: Path
    particles: int
    pixel_size: float
    resolution: float | None


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Reconstruct the particle; yields events and returns the result."""
    from cryorefine.compute.place import Place
    from cryorefine.io.optimisation_set import write_optimisation_set
    from cryorefine.jobs import reconstruct_particle_work as work

    place = Place(options.device)
    yield Progress(_STAGE, 0, 0, "reading the tables")
    entries = vocabulary_tomo.entries_of(options)
    inputs = work.read_inputs(options, entries)
    for sentence, warning in inputs.notices:
        yield Notice(sentence, warning=warning)
    if not inputs.halves:
        message = f"{inputs.without_halves}, so only merged.mrc is made"
        if options.fsc_mask is not None:
            raise UserError(
                f"{message}, which has no FSC; leave --fsc-mask out or refine the particles first."
            )
        yield Notice(message + ".", warning=True)
    if options.fsc_mask is not None:
        _check_mask(options.fsc_mask, inputs.crop, inputs.pixel_size)
    sums = yield from work.insert_all(options, inputs, _STAGE)
    yield Progress(_STAGE, inputs.count, inputs.count + 1, "solving for the maps")
    maps = work.write_maps(options, inputs, sums, place)
    for sentence in place.notices:
        yield Notice(sentence, warning=True)
    yield Progress(_STAGE, inputs.count + 1, inputs.count + 1)
    for name, path in maps.items():
        yield Product("half_map" if name.startswith("half") else "map", path, name)
    half_maps = tuple(path for name, path in maps.items() if name.startswith("half"))
    after = entries
    if inputs.halves:
        after = after.with_entries(reference_half1=half_maps[0], reference_half2=half_maps[1])
    resolution = None
    if options.fsc_mask is not None:
        resolution, after = yield from _post_process(options, half_maps[0], after)
    optimisation_set = options.output / "optimisation_set.star"
    write_optimisation_set(optimisation_set, after)
    yield Figures({"particles": inputs.count, "pixel size (A)": inputs.pixel_size})
    return Result(
        options.output,
        maps["merged"],
        half_maps,
        optimisation_set,
        inputs.count,
        inputs.pixel_size,
        resolution,
    )


def _check_mask(mask: Path, box: int, pixel_size: float) -> None:
    """Refuse a mask of another grid before the work is done rather than after it."""
    from cryorefine.io.mrc import read_layout
    from cryorefine.io.pixel_sizes import insist_on_pixel_size

    remedy = "give a mask of this binning and box"
    shape = read_layout(mask).shape
    if shape != (box,) * 3:
        raise UserError(
            f"{mask} has {' x '.join(map(str, shape[::-1]))} px, but the maps will have a box of {box} px; "
            f"{remedy}."
        )
    insist_on_pixel_size(mask, pixel_size, "what is reconstructed", remedy)


def _post_process(
    options: Options, half_map: Path, entries: OptimisationSet
) -> Run[tuple[float, OptimisationSet]]:
    """Measure the resolution behind the mask, as RELION 4 did in this job."""
    import shutil

    from cryorefine.jobs import postprocess

    folder = options.output / "PostProcess"
    # Left by a run that was interrupted; the maps it belonged to are gone.
    shutil.rmtree(folder, ignore_errors=True)
    result = yield from postprocess.run(
        postprocess.Options(
            half_map=half_map,
            mask=options.fsc_mask,
            output=folder,
            # The resolution is sought; binned maps have no shells to fit a B-factor to.
            bfactor=0.0,
            threads=options.threads,
            device=options.device,
        )
    )
    yield Notice(f"The resolution behind the mask is {result.resolution:.2f} A.")
    return result.resolution, entries.with_entries(reference_mask=options.fsc_mask, reference_fsc=result.star)
