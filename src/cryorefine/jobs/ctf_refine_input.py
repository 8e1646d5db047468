"""What CtfRefine starts from, read and checked: the reference of a PostProcess job, and the particles."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.files import folders_of_names
from cryorefine.io.particles import ParticleFile, column, group_index, read_particles
from cryorefine.io.star import Columns, read_columns
from cryorefine.jobs.volumes import read_mask, read_pair
from cryorefine.refine.ctf_refinement.expectation import last_shell
from cryorefine.refine.loading import load_particles
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FEWEST = 20
"""Least number of particles from which values of their optics group can be fitted."""

_CORRECTED = "rlnFourierShellCorrelationCorrected"
_POSES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_SHIFTS = ("rlnOriginXAngst", "rlnOriginYAngst")
_PIXEL_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Reference:
    """Half maps, mask and FSC that a postprocess.star names.

    Attributes
    ----------
    half_maps : pair of ndarray, shape (z, y, x)
        Unfiltered half maps.
    mask : ndarray, shape (z, y, x)
        The mask, between 0 and 1.
    fsc : ndarray, shape (box // 2 + 1,)
        FSC by shell, corrected for the mask.
    pixel_size : float
        A/px of the half maps, as their header says.
    path : Path
        The file.
    half_map_path : Path
        The first half map.
    """

    half_maps: tuple[F32, F32]
    mask: F32
    fsc: F64
    pixel_size: float
    path: Path
    half_map_path: Path


def read_reference(path: Path) -> Reference:
    """Read a postprocess.star of this program or of RELION, and the maps that it names.

    Raises
    ------
    UserError
        If it is no such file, was made without a mask, or a map is missing or does not fit.
    """
    blocks = read_columns(path)
    general = blocks.get("general", Columns())
    table = blocks.get("fsc", {})
    names = ("rlnUnfilteredMapHalf1", "rlnUnfilteredMapHalf2")
    if isinstance(general, Columns) or "fsc" not in blocks or not all(name in general for name in names):
        raise UserError(f"{path} is no result of PostProcess; give its postprocess.star with --postprocess.")
    mask_name = str(general.get("rlnMaskName", "")).strip()
    if mask_name in ("", "None") or _CORRECTED not in table:
        raise UserError(
            f"{path} was made without a mask; run PostProcess with a solvent mask and give its "
            "postprocess.star."
        )
    halves = [_named_in(path, str(general[name]), "half map") for name in names]
    if halves[0] == halves[1]:
        raise UserError(
            f"{path} names {general[names[0]]} as both half maps; run PostProcess with the two half "
            "maps of one refinement."
        )
    _warn_of_swapped(path, halves)
    first, second = read_pair(
        (halves[0], halves[1]), remedy="run PostProcess with the two half maps of one refinement"
    )
    box = first.data.shape[0]
    mask = read_mask(_named_in(path, mask_name, "mask"), first)
    fsc = _numbers(path, table[_CORRECTED])
    if len(fsc) != box // 2 + 1:
        raise UserError(
            f"The FSC in {path} has {len(fsc)} shells, which does not suit the box of {box} px of "
            f"{halves[0]}; run PostProcess again."
        )
    return Reference((first.data, second.data), mask, fsc, first.pixel_size, path, halves[0])


def _warn_of_swapped(path: Path, halves: Sequence[Path]) -> None:
    """Warn of half maps whose names say that each is the other one."""
    named = ["half1" in half.name and "half2" not in half.name for half in halves]
    other = ["half2" in half.name and "half1" not in half.name for half in halves]
    if other[0] and named[1]:
        warnings.warn(
            f"{path} names {halves[0].name} as half map 1 and {halves[1].name} as half map 2; if they are "
            "swapped, particles are compared with their own noise: run PostProcess again.",
            UserWarningMessage,
            stacklevel=2,
        )


def insist_on_detail(reference: Reference, minimum_resolution: float) -> None:
    """Refuse maps that show nothing finer than the coarsest detail that is compared.

    Raises
    ------
    UserError
        If no shell is left between the two.
    """
    edge = reference.half_maps[0].shape[0] * reference.pixel_size
    last = last_shell(reference.fsc)
    if last <= np.ceil(edge / minimum_resolution):
        seen = f"agree down to {edge / last:.3g} A" if last else "do not agree anywhere"
        raise UserError(
            f"The half maps of {reference.path} {seen}, which leaves nothing finer than "
            f"--minimum-resolution {minimum_resolution:g} A to compare; give a coarser one, or better maps."
        )


def read_refined_particles(path: Path, reference: Reference) -> tuple[ParticleFile, ParticleSet]:
    """Read refined particles and insist that they belong to the reference.

    Raises
    ------
    UserError
        If they have no poses, halves or coordinates of a CTF, or other pixels or boxes than the map.
    """
    file = read_particles(path, ["rlnImageName", "rlnMicrographName", "rlnDefocusU"])
    _insist_on_poses(file, path)
    _insist_on_halves(file, path)
    file, particles = load_particles(file, path, seed=0, ctf_correction=True)
    used = [particles.optics[i] for i in particles.used_optics]
    for optics in used:
        if optics.ctf_premultiplied:
            raise UserError(
                f"Optics group {optics.name} of {path} holds images multiplied by their CTF; extract them "
                "without, so that the CTF can be measured."
            )
    _insist_on_grid(used, path, reference)
    return file, particles


def insist_on_coma(file: ParticleFile, particles: ParticleSet, path: Path) -> None:
    """Refuse optics groups in which a tilt of the beam would not be seen.

    Raises
    ------
    UserError
        If a group that has particles is without spherical aberration.
    """
    for group in particles.used_optics:
        optics = particles.optics[group]
        if optics.spherical_aberration == 0:
            raise UserError(
                f"Optics group {optics.name} of {path} has a spherical aberration of 0, with which a tilted "
                "beam makes no coma that could be given in mrad; set rlnSphericalAberration to a small "
                "value, such as 0.01, and refine again."
            )


def insist_on_enough(file: ParticleFile, particles: ParticleSet, path: Path) -> None:
    """Refuse optics groups from which nothing can be learned about their optics.

    Raises
    ------
    UserError
        If a group has particles, but fewer than :data:`FEWEST`.
    """
    counts = np.bincount(group_index(file), minlength=len(particles.optics))
    for optics, count in zip(particles.optics, counts, strict=True):
        if 0 < count < FEWEST:
            raise UserError(
                f"Optics group {optics.name} of {path} has {count} particles, too few to fit beam tilt, "
                f"aberrations or magnification (at least {FEWEST}); join it with another group or remove it."
            )


def has_optics_table(path: Path) -> bool:
    """Tell whether a particle file has a table of optics groups, as from RELION 3.1 on."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        return any(line.strip() == "data_optics" for line in lines)


def _numbers(path: Path, values: Any) -> F64:
    """Return an FSC as numbers; a shell without power, which some programs call NaN, has none."""
    try:
        return np.nan_to_num(np.asarray(values, np.float64), posinf=0.0, neginf=0.0)
    except ValueError:
        raise UserError(
            f"{path} has values of {_CORRECTED} that are no numbers; run PostProcess again."
        ) from None


def _named_in(path: Path, name: str, what: str) -> Path:
    """Return a file named in another, which may be relative to its project's folder."""
    for folder in folders_of_names(path):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{path} names the {what} {name}, which is missing; run from the project's folder, or run "
        "PostProcess again."
    )


def _insist_on_poses(file: ParticleFile, path: Path) -> None:
    missing = [label for label in (*_POSES, *_SHIFTS) if label not in file]
    if missing:
        raise UserError(
            f"The particles of {path} have no poses ({missing[0]} is missing); give the run_data.star of a "
            "Refine3D job."
        )
    if not any(np.any(column(file, label)) for label in _POSES):
        raise UserError(
            f"The particles of {path} have no poses (all angles are 0); give the run_data.star of a Refine3D "
            "job."
        )


def _insist_on_halves(file: ParticleFile, path: Path) -> None:
    half = column(file, "rlnRandomSubset", 0.0)
    if not np.isin(half, (1, 2)).all():
        raise UserError(
            f"The particles of {path} belong to no half set (rlnRandomSubset is missing or neither 1 nor 2); "
            "give the run_data.star of a Refine3D job."
        )


def _insist_on_grid(used: list[OpticsGroup], path: Path, reference: Reference) -> None:
    """Refuse particles of which no optics group has the grid of the maps; groups may have other pixels."""
    box, pixel_size = reference.half_maps[0].shape[0], reference.pixel_size
    alike = [group for group in used if abs(group.pixel_size / pixel_size - 1) <= _PIXEL_TOLERANCE]
    if not alike:
        raise UserError(
            f"The particles of {path} have {used[0].pixel_size:.6g} A/px but {reference.half_map_path} has "
            f"{pixel_size:.6g} A/px; give the postprocess.star of these particles' own refinement."
        )
    if all(group.box != box for group in alike):
        raise UserError(
            f"The particles of {path} have boxes of {alike[0].box} px but {reference.half_map_path} has one "
            f"of {box} px; give the postprocess.star of these particles' own refinement."
        )
