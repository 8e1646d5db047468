"""Files of a refinement, named and laid out as RELION's auto-refinement does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine import __version__
from cryorefine.io.files import write_whole
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.particles import ParticleFile, write_particles
from cryorefine.io.star import write_star
from cryorefine.refine.angular_distribution import bild
from cryorefine.refine.checkpoints import checkpoint_of, checkpoints
from cryorefine.refine.engine import IterationDone, Settings
from cryorefine.refine.output_models import ModelPart, half_part, joined_part, model_blocks
from cryorefine.refine.output_tables import optimiser_blocks, output_grid, particle_file, sampling_blocks
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.state import State, leave_out_maps, save_state

_WHOLE_CHECKPOINTS = 2
"""Checkpoints that hold their maps as well; those before take them from run_itNNN_half*_class001.mrc."""


def write_iteration(
    folder: Path,
    outcome: IterationDone,
    file: ParticleFile,
    particles: ParticleSet,
    settings: Settings,
    command: str,
) -> dict[str, Path]:
    """Write the files of one iteration, ``run_itNNN_*``; the checkpoint comes last.

    Whoever sees the checkpoint finds all other files of its iteration whole. The last iteration,
    in which the halves are joined, gets its checkpoint from :func:`write_final`.

    Parameters
    ----------
    folder : Path
        Folder of the job.
    outcome : IterationDone
        The iteration.
    file : ParticleFile
        Particles as they were read.
    particles : ParticleSet
        The same particles in arrays.
    settings : Settings
        Of the refinement.
    command : str
        How the job was started; a comment in optimiser.star.

    Returns
    -------
    dict of str to Path
        Files by name: half1, half2, unfil1, unfil2, angdist1, angdist2, model1, model2, data,
        sampling, optimiser, checkpoint.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    state, result = outcome.state, outcome.result
    root = folder / f"run_it{state.iteration:03d}"
    files = {}
    for half in (1, 2):
        name = f"{root.name}_half{half}_class001"
        # Joined halves are one map; what is left of the two sets are their unfiltered maps.
        density = state.halves[half - 1].reference
        if result.unfiltered is not None:
            files[f"unfil{half}"] = folder / f"{name}_unfil.mrc"
            write_map(files[f"unfil{half}"], result.unfiltered[half - 1], state.pixel_size)
            density = density if result.joined is None else result.unfiltered[half - 1]
        files[f"half{half}"] = folder / f"{name}.mrc"
        write_map(files[f"half{half}"], density, state.pixel_size)
        part = half_part(state, half, settings)
        files[f"angdist{half}"] = _write_bild(folder / f"{name}_angdist.bild", part, state, settings)
        files[f"model{half}"] = folder / f"{root.name}_half{half}_model.star"
        reference = _shown(files[f"half{half}"], particles)
        write_star(files[f"model{half}"], model_blocks(part, outcome, particles, settings, reference))
    files |= _write_common(
        root, state, file, particles, settings, command, [files["model1"], files["model2"]]
    )
    if result.joined is None:
        files["checkpoint"] = _write_checkpoint(folder, state)
    return files


def write_final(
    folder: Path,
    outcome: IterationDone,
    file: ParticleFile,
    particles: ParticleSet,
    settings: Settings,
    command: str,
) -> dict[str, Path]:
    """Write the files of a finished refinement, ``run_*``, from its last iteration.

    The parameters are those of :func:`write_iteration`; the checkpoint comes last here too.

    Returns
    -------
    dict of str to Path
        Files by name: map, half1, half2 (unfiltered), angdist, model, data, sampling, optimiser,
        checkpoint.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    state, result = outcome.state, outcome.result
    if result.joined is None or result.unfiltered is None:
        raise ValueError(f"iteration {state.iteration} has not joined the halves")
    files = {"map": folder / "run_class001.mrc"}
    write_map(files["map"], result.joined, state.pixel_size)
    for half in (1, 2):
        files[f"half{half}"] = folder / f"run_half{half}_class001_unfil.mrc"
        write_map(files[f"half{half}"], result.unfiltered[half - 1], state.pixel_size)
    part = joined_part(state, particles, settings)
    files["angdist"] = _write_bild(folder / "run_class001_angdist.bild", part, state, settings)
    files["model"] = folder / "run_model.star"
    reference = _shown(files["map"], particles)
    write_star(files["model"], model_blocks(part, outcome, particles, settings, reference))
    files |= _write_common(folder / "run", state, file, particles, settings, command, [files["model"]])
    files["checkpoint"] = _write_checkpoint(folder, state)
    return files


def _write_common(
    root: Path,
    state: State,
    file: ParticleFile,
    particles: ParticleSet,
    settings: Settings,
    command: str,
    models: list[Path],
) -> dict[str, Path]:
    """Write data, sampling and optimiser, of which a refinement has one for both halves."""
    files = {name: root.with_name(f"{root.name}_{name}.star") for name in ("data", "sampling", "optimiser")}
    write_particles(files["data"], particle_file(file, particles, state))
    write_star(files["sampling"], sampling_blocks(state, settings))
    names = {"rlnOutputRootName": _shown(root.with_name("run"), particles)}
    for label, model in zip(("rlnModelStarFile", "rlnModelStarFile2"), models, strict=False):
        names[label] = _shown(model, particles)
    names["rlnExperimentalDataStarFile"] = _shown(files["data"], particles)
    if particles.tomograms is not None:
        names["rlnTomoTomogramsFile"] = _shown(particles.tomograms, particles)
        motion = particles.trajectories
        names["rlnTomoTrajectoriesFile"] = "" if motion is None else _shown(motion, particles)
    names["rlnOrientSamplingStarFile"] = _shown(files["sampling"], particles)
    names["rlnSolventMaskName"] = "None"
    if settings.mask is not None:
        names["rlnSolventMaskName"] = _shown(_write_mask(root.parent, settings.mask, state), particles)
    write_star(
        files["optimiser"],
        optimiser_blocks(state, settings, names),
        comments=[f"cryorefine {__version__}", " ".join(command.split())],
    )
    return files


def _write_bild(path: Path, part: ModelPart, state: State, settings: Settings) -> Path:
    extent = part.model.reference.shape[0] * state.pixel_size
    text = bild(part.distribution, output_grid(state, settings), extent=extent)
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="ascii")
    return path


def _write_mask(folder: Path, mask: NDArray[np.float32], state: State) -> Path:
    """Keep the solvent mask as it is used, on the grid of the maps; it may change in a continuation."""
    path = folder / "run_solvent_mask.mrc"
    if not (path.exists() and np.array_equal(read_map(path).data, mask)):
        write_map(path, mask, state.pixel_size)
    return path


def _shown(path: Path, particles: ParticleSet) -> str:
    """Name of a file as RELION would give it: relative to the folder that image names are relative to."""
    whole, root = Path(os.path.abspath(path)), Path(os.path.abspath(particles.root))
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)


def _write_checkpoint(folder: Path, state: State) -> Path:
    path = checkpoint_of(folder, state.iteration)
    save_state(path, state)
    for _, old in checkpoints(folder)[:-_WHOLE_CHECKPOINTS]:
        leave_out_maps(old)
    return path
