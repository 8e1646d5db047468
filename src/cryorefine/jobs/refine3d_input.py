"""What a refinement starts from: files given one by one, or named by an optimisation set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.io.optimisation_set import OptimisationSet, write_optimisation_set
from cryorefine.jobs.refine3d import Options
from cryorefine.jobs.vocabulary_tomo import entries_of
from cryorefine.refine.references import half_map_pair


@dataclass(frozen=True)
class Inputs:
    """Files of a refinement.

    Attributes
    ----------
    particles : Path
        Particle STAR file.
    references : tuple of Path
        The starting map, or one for each half set; empty where a refinement is continued.
    mask, tomograms, trajectories : Path or None
        Solvent mask, and what belongs to subtomograms.
    entries : OptimisationSet or None
        All that is known of subtomograms, to be passed on.
    notice : str
        What was taken from the optimisation set; empty if nothing.
    """

    particles: Path
    references: tuple[Path, ...]
    mask: Path | None
    tomograms: Path | None = None
    trajectories: Path | None = None
    entries: OptimisationSet | None = None
    notice: str = ""


def find_inputs(options: Options) -> Inputs:
    """Fill what the options leave blank from the optimisation set.

    Raises
    ------
    UserError
        If particles or a reference are given nowhere, or one of two half maps is missing.
    """
    if options.optimisation_set is None and options.tomograms is None:
        assert options.particles is not None
        return Inputs(options.particles, _given(options), options.reference_mask)
    entries = entries_of(options)
    assert entries.particles is not None
    references, mask, taken = _given(options), options.reference_mask, []
    if not references and options.continue_from is None:
        if entries.reference_half1 is None:
            raise UserError(
                f"{options.optimisation_set} names no reference map (rlnTomoReferenceMap1File); give one "
                "with --reference, e.g. half1.mrc of a reconstruct-particle job."
            )
        if entries.reference_half2 is None:
            references = half_map_pair(entries.reference_half1)
        else:
            references = (entries.reference_half1, entries.reference_half2)
        taken.append(" and ".join(str(path) for path in references))
    if mask is None and entries.reference_mask is not None:
        mask = entries.reference_mask
        taken.append(f"the mask {mask}")
    if options.solvent_flattened_fsc and mask is None:
        raise UserError(
            f"--solvent-flattened-fsc needs a mask, and {options.optimisation_set} names none; give one with "
            "--reference-mask."
        )
    notice = f"From {options.optimisation_set}: {', and '.join(taken)}." if taken else ""
    return Inputs(
        entries.particles, references, mask, entries.tomograms, entries.trajectories, entries, notice
    )


def _given(options: Options) -> tuple[Path, ...]:
    return () if options.reference is None else half_map_pair(options.reference)


def write_set(inputs: Inputs, files: Mapping[str, Path]) -> Path | None:
    """Write the optimisation set that goes with an iteration's files, and return its path.

    It names the particles with their new poses, the half maps and the mask, so that the next job needs
    nothing else.
    """
    if inputs.entries is None:
        return None
    data = files["data"]
    path = data.with_name(data.name.replace("data.star", "optimisation_set.star"))
    # The FSC that the set may name is that of other maps.
    entries = replace(inputs.entries, reference_fsc=None).with_entries(
        particles=data,
        reference_half1=files["half1"],
        reference_half2=files["half2"],
        reference_mask=inputs.mask,
    )
    write_optimisation_set(path, entries)
    return path
