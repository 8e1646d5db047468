"""What CtfRefine needs to go on after a kill: the values at the end of the last whole round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.files import write_whole
from cryorefine.refine.ctf_refinement import OpticsValues, ParticleValues
from cryorefine.refine.particle_set import ParticleSet

F64 = NDArray[np.float64]

FILE = "ctf_refine_checkpoint.npz"
_TRANSFER = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift", "b_factor", "scale")
_OPTICS = ("beam_tilt", "odd_aberrations", "even_aberrations", "magnification")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Values of all particles and optics groups after a round.

    Attributes
    ----------
    round : int
        The round, from 1.
    particles : dict of str to ndarray
        CTF values by name, shape (particles,) each.
    optics : list of dict
        Of each group, by name.
    """

    round: int
    particles: dict[str, F64]
    optics: list[dict[str, F64]]

    def applied_to(self, particles: ParticleSet) -> ParticleSet:
        """Return the particles with these values."""
        groups = []
        for group, values in zip(particles.optics, self.optics, strict=True):
            tilt = values["beam_tilt"]
            groups.append(
                replace(
                    group,
                    beam_tilt=(float(tilt[0]), float(tilt[1])),
                    odd_aberrations=tuple(values["odd_aberrations"].tolist()),
                    even_aberrations=tuple(values["even_aberrations"].tolist()),
                    magnification=tuple(values["magnification"].tolist()),
                )
            )
        return replace(particles, ctf=replace(particles.ctf, **self.particles), optics=tuple(groups))


class Recorder:
    """Gathers what a round reports and writes it when it is whole.

    Parameters
    ----------
    path : Path
        The file.
    particles : ParticleSet
        The particles as the job began with them.
    """

    def __init__(self, path: Path, particles: ParticleSet) -> None:
        self.path = path
        self.optics: Sequence[OpticsValues] = ()
        self._values = {name: np.array(particles.ctf.column(name)) for name in _TRANSFER}
        self._given = particles

    def take(self, rows: NDArray[np.int64], values: ParticleValues) -> None:
        """Take the values of some particles."""
        for name, column in self._values.items():
            column[rows] = getattr(values, name)

    def write(self, round: int) -> None:
        """Write the values at the end of a round."""
        arrays: dict[str, F64] = {f"particles/{name}": column for name, column in self._values.items()}
        for number, group in enumerate(self.optics or self._given.optics):
            for name in _OPTICS:
                arrays[f"optics/{number}/{name}"] = np.asarray(getattr(group, name), np.float64)
        with write_whole(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, round=np.array(round), **arrays)  # type: ignore[arg-type]


def read_checkpoint(folder: Path, particles: ParticleSet) -> Checkpoint | None:
    """Read how far a job had come; None if no round was whole.

    Raises
    ------
    UserError
        If it is about other particles.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with np.load(path) as stored:
        values = {name: stored[f"particles/{name}"] for name in _TRANSFER}
        optics = [
            {name: stored[f"optics/{number}/{name}"] for name in _OPTICS}
            for number in range(len(particles.optics))
            if f"optics/{number}/beam_tilt" in stored
        ]
        done = int(stored["round"])
    if len(values["defocus_u"]) != len(particles) or len(optics) != len(particles.optics):
        raise UserError(
            f"{path} is about {len(values['defocus_u'])} particles, but the particle file now has "
            f"{len(particles)}; restore the file or start a new job."
        )
    return Checkpoint(done, values, optics)
