"""The state of a refinement between two iterations, and its exact copy on disc."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.files import write_whole
from cryorefine.io.mrc import read_map
from cryorefine.refine.schedule import Schedule

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HalfModel:
    """What one half set has estimated.

    Attributes
    ----------
    reference : ndarray of float32, shape (box, box, box)
        Map that the next iteration compares with.
    sigma2_noise : ndarray, shape (optics groups, shells)
        Noise power of a real or imaginary part of FFT / box^2.
    direction_prior : ndarray, shape (directions,)
        Probability of each direction of the grid; empty in local searches.
    scale : ndarray, shape (groups,)
        Intensity scale of each group.
    ssnr, sigma2, tau2 : ndarray, shape (shells,)
        Signal-to-noise ratio, and power of noise and signal, of the reconstruction.
    sigma_offset : float
        Width of the prior on shifts in A.
    mean_norm : float
        Mean norm correction.
    mean_largest_weight : float
        Mean over particles of their largest posterior weight.
    log_likelihood : float
        Sum over particles.
    """

    reference: F32
    sigma2_noise: F64
    direction_prior: F64
    scale: F64
    ssnr: F64
    sigma2: F64
    tau2: F64
    sigma_offset: float
    mean_norm: float
    mean_largest_weight: float
    log_likelihood: float


@dataclass(frozen=True, eq=False)
class PoseTable:
    """Per-particle results, rows as in the particle file, shapes (n,) unless said otherwise.

    ``poses`` (n, 3, 3); ``offsets`` in A, (n, dimensions).
    """

    poses: F64
    offsets: F64
    norm: F64
    log_likelihood: F64
    largest_weight: F64
    significant: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TransferTable:
    """CTF values that a refinement has found by itself.

    ``defocus_u`` and ``defocus_v`` in A and ``defocus_angle`` in degrees, shape (n,); ``beam_tilt``
    (x, y) in mrad of every optics group, shape (groups, 2).
    """

    defocus_u: F64
    defocus_v: F64
    defocus_angle: F64
    beam_tilt: F64


@dataclass(frozen=True, eq=False)
class State:
    """Everything that the next iteration depends on.

    Attributes
    ----------
    iteration : int
        Iterations done.
    pixel_size : float
        A per voxel of the maps.
    halves : tuple of HalfModel
        Half sets 1 and 2.
    table : PoseTable
        Results of all particles.
    half : ndarray of int, shape (n,)
        Half set of each particle.
    fsc : ndarray, shape (shells,)
        Correlation of the halves.
    schedule : Schedule
        Sampling, sizes and convergence.
    transfer : TransferTable or None
        CTF values, where the refinement estimates them as well.
    """

    iteration: int
    pixel_size: float
    halves: tuple[HalfModel, HalfModel]
    table: PoseTable
    half: NDArray[np.int64]
    fsc: F64
    schedule: Schedule
    transfer: TransferTable | None = None


_VERSION = 1
_MAPS = ("half1.reference", "half2.reference")


def save_state(path: Path, state: State) -> None:
    """Write a state so that :func:`load_state` gives back every bit of it (NumPy archive, no pickles)."""
    arrays: dict[str, Any] = {"half": state.half, "fsc": state.fsc}
    numbers: dict[str, Any] = {
        "version": _VERSION,
        "iteration": state.iteration,
        "pixel_size": state.pixel_size,
        "schedule": dataclasses.asdict(state.schedule),
    }
    parts: dict[str, Any] = {"table": state.table, "half1": state.halves[0], "half2": state.halves[1]}
    if state.transfer is not None:
        parts["transfer"] = state.transfer
    for prefix, part in parts.items():
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            (arrays if isinstance(value, np.ndarray) else numbers)[f"{prefix}.{field.name}"] = value
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, numbers=np.array(json.dumps(numbers)), **arrays)


def leave_out_maps(path: Path) -> None:
    """Make a checkpoint small: its maps are those of its iteration's files, bit for bit.

    One that is small already, or damaged, stays as it is.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if name not in _MAPS]
            if len(names) == len(archive.files):
                return
            arrays = {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_state(path: Path) -> State:
    """Read a state back; maps that it has left out are read from the files of its iteration.

    Raises
    ------
    UserError
        If the file is not a checkpoint of this program.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        numbers = json.loads(str(arrays.pop("numbers")))
        if numbers["version"] == _VERSION:
            # A file that is no checkpoint has no maps beside it, whose lack would be told instead.
            left_out = [name for name in _MAPS if name not in arrays] if "half" in arrays else []
            maps = {name: _map_beside(path, name.partition(".")[0]) for name in left_out}
            return _assemble(numbers, arrays | maps)
    # A damaged archive raises any of these, wherever its first wrong byte is.
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a checkpoint of a refinement; delete it to go on from the iteration before."
        ) from error
    raise UserError(f"{path} was written by another version of this program; finish that refinement with it.")


def _map_beside(path: Path, half: str) -> F32:
    name = path.name.replace("checkpoint.npz", f"{half}_class001.mrc")
    return read_map(path.with_name(name)).data


def _assemble(numbers: dict[str, Any], arrays: dict[str, Any]) -> State:
    merged = numbers | arrays

    def part(kind: type, prefix: str) -> Any:
        return kind(**{f.name: merged[f"{prefix}.{f.name}"] for f in dataclasses.fields(kind)})

    return State(
        iteration=numbers["iteration"],
        pixel_size=numbers["pixel_size"],
        halves=(part(HalfModel, "half1"), part(HalfModel, "half2")),
        table=part(PoseTable, "table"),
        half=arrays["half"],
        fsc=arrays["fsc"],
        schedule=Schedule(**numbers["schedule"]),
        transfer=part(TransferTable, "transfer") if "transfer.defocus_u" in arrays else None,
    )
