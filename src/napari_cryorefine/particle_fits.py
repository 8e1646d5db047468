"""Particles with their values, micrograph by micrograph or tomogram by tomogram: what tables and layers show.

Works on whole particle sets of hundreds of thousands; whoever draws takes one micrograph at a time.
Loads no Qt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cryorefine.particle_columns import CHANGE, DEFOCUS, DERIVED, FITTED, telling_columns

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from cryorefine.io.particles import ParticleFile

_LIVE = (*DERIVED, *FITTED)
_MAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


@dataclass(frozen=True)
class Limits:
    """Lowest and highest value of a scale of colours."""

    low: float
    high: float


class ParticleFits:
    """Particles, their values, and which of them somebody has selected.

    Parameters
    ----------
    file : ParticleFile
        The particles, with their coordinates on micrographs or in tomograms.
    before : ndarray, shape (particles,), optional
        Mean defocus in A before the fit, where the file does not tell the change itself.

    Attributes
    ----------
    micrographs : list of str
        Names of the micrographs or tomograms, in the order of the file.
    members : list of ndarray of int
        Particles of each micrograph.
    places : ndarray, shape (particles, 2) or (particles, 3)
        y and x in A on the micrograph; z, y and x in the tomogram.
    pixel_size : ndarray, shape (particles,)
        A/px of the micrographs.
    selected : ndarray of bool, shape (particles,)
        Which particles are selected; set it with :meth:`select`.
    in_space : bool
        Whether they lie in tomograms.
    values_changed : Signal
        Number of the micrograph whose values are new.
    selection_changed : Signal
        The selection is another.

    Raises
    ------
    UserError
        If the file does not tell where its particles lie.
    """

    values_changed = Signal(int)
    selection_changed = Signal()

    def __init__(self, file: ParticleFile, before: NDArray[np.float64] | None = None) -> None:
        self.file = file
        self.places, self.pixel_size = _places(file)
        self.in_space = self.places.shape[1] == 3
        names = _names(file)
        self.micrographs, self.micrograph = _in_order(names)
        order = np.argsort(self.micrograph, kind="stable")
        ends = np.cumsum(np.bincount(self.micrograph, minlength=len(self.micrographs)))
        self.members = np.split(order, ends[:-1])
        self.selected = np.zeros(len(names), bool)
        self._raw = {
            label: file.particles[label].to_numpy(np.float64, copy=True)
            for label in _LIVE
            if label in file.particles
        }
        if before is not None and "cryorefineDefocusChange" not in self._raw:
            self._raw["cryorefineDefocusChange"] = self._mean_defocus() - before
        self._others = telling_columns(file.particles)
        self._made: dict[str, NDArray[np.float64]] = {}
        self._number_of: dict[str, int] = {}
        self._expected: dict[int, Path] = {}

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.selected)

    @property
    def columns(self) -> list[str]:
        """Names of the values that there are, with their units; all have one number for each particle."""
        raw = self._raw
        names = [DEFOCUS] if "rlnDefocusU" in raw else []
        if "cryorefineDefocusChange" in raw:
            names.append(CHANGE)
        if {"rlnDefocusU", "rlnDefocusV"} <= set(raw):
            names.append("Astigmatism (Å)")
        if "rlnDefocusAngle" in raw:
            names.append("Angle (°)")
        return names + [name for label, name in FITTED.items() if label in raw] + list(self._others)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a value of every particle, shape (particles,)."""
        if name not in self._made:
            self._made[name] = self._column(name)
        return self._made[name]

    def _column(self, name: str) -> NDArray[np.float64]:
        if name == DEFOCUS:
            return self._mean_defocus()
        if name == CHANGE:
            return self._raw["cryorefineDefocusChange"]
        if name == "Astigmatism (Å)":
            return self._raw["rlnDefocusU"] - self._raw["rlnDefocusV"]
        if name == "Angle (°)":
            return self._raw["rlnDefocusAngle"]
        if name in self._others:
            return self.file.particles[self._others[name]].to_numpy(np.float64)
        return self._raw[next(label for label, shown in FITTED.items() if shown == name)]

    def features(self, micrograph: int) -> pd.DataFrame:
        """Return all values of one micrograph's particles, and which particles they are."""
        import pandas

        rows = self.members[micrograph]
        values: dict[str, Any] = {"Particle": rows + 1}
        values |= {name: self.column(name)[rows] for name in self.columns}
        return pandas.DataFrame(values)

    def limits(self, name: str, micrograph: int) -> Limits:
        """Return the range of colours for a value: of this micrograph; even about 0 for changes."""
        values = self.column(name)
        if name == CHANGE:
            known = np.abs(values[np.isfinite(values)])
            largest = float(np.percentile(known, 98)) if len(known) else 0.0
            return Limits(-max(largest, 1.0), max(largest, 1.0))
        here = values[self.members[micrograph]]
        here = here[np.isfinite(here)]
        low, high = (float(here.min()), float(here.max())) if len(here) else (0.0, 0.0)
        return Limits(low, high) if high > low else Limits(low - 0.5, high + 0.5)

    def extent(self) -> tuple[float, float]:
        """Return height and width in A of a field that holds every particle of every micrograph."""
        height, width = self.places[:, -2:].max(axis=0) * 1.03
        return float(height), float(width)

    def outliers(self, name: str, sigmas: float) -> NDArray[np.bool_]:
        """Tell which particles are far from the median of their micrograph.

        Parameters
        ----------
        name : str
            The value that is looked at.
        sigmas : float
            How far, in standard deviations about those medians (estimated from the median absolute
            deviation, which outliers do not move).

        Returns
        -------
        ndarray of bool, shape (particles,)
        """
        values = self.column(name)
        rest = np.zeros(len(values))
        for rows in self.members:
            rest[rows] = np.abs(values[rows] - _median(values[rows]))
        spread = _MAD * _median(rest)
        with np.errstate(invalid="ignore"):
            return np.asarray(rest > sigmas * spread) if spread > 0 else rest > 0

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64], within: Any = slice(None)) -> None:
        """Select particles in place of those that were selected.

        Parameters
        ----------
        rows : ndarray of bool, shape (particles,), or of int
            The particles.
        within : ndarray of int, optional
            Only among these particles the selection changes; the others keep theirs.
        """
        wanted = np.zeros(len(self), bool)
        wanted[rows] = True
        before = self.selected.copy()
        self.selected[within] = wanted[within]
        if not np.array_equal(before, self.selected):
            self.selection_changed.emit()

    def expect(self, path: Path, micrograph: str) -> None:
        """Take notice of new values of a micrograph, in its ``<micrograph>_defocus_fit.star``.

        A running job tells of thousands; each is read by :meth:`read_expected`, when it is wanted.
        """
        if not self._number_of:
            self._number_of = {name: number for number, name in enumerate(self.micrographs)}
        number = self._number_of.get(micrograph)
        if number is not None:
            self._expected[number] = path

    @property
    def expected(self) -> list[int]:
        """Micrographs whose new values have not been read."""
        return list(self._expected)

    def read_expected(self, micrograph: int) -> None:
        """Read the new values of one micrograph, if there are any."""
        path = self._expected.pop(micrograph, None)
        if path is None:
            return
        from cryorefine.io.star import read_star

        members = self.members[micrograph]
        names = self.file.particles["rlnImageName"].iloc[members].astype(str)
        row_of = dict(zip(names, members, strict=True))
        table: Any = next(iter(read_star(path).values()))
        rows = np.array([row_of.get(name, -1) for name in table["rlnImageName"].astype(str)])
        known = rows >= 0
        for label in _LIVE:
            if label in table:
                column = self._raw.setdefault(label, np.full(len(self), np.nan))
                column[rows[known]] = table[label].to_numpy(np.float64)[known]
        self._made.clear()
        self.values_changed.emit(micrograph)

    def write(self, path: Path, rows: NDArray[np.bool_]) -> None:
        """Write some of the particles with their optics groups as a STAR file.

        Raises
        ------
        UserError
            If there are none, or the place cannot be written.
        """
        from cryorefine.errors import UserError
        from cryorefine.io.particles import write_particles

        if not rows.any():
            raise UserError(f"No particle is left to be written to {path}; select others.")
        fitted = {label: values for label, values in self._raw.items() if not np.isnan(values).all()}
        table = self.file.particles.assign(**fitted)[rows]
        write_particles(path, self.file.replace(particles=table))

    def _mean_defocus(self) -> NDArray[np.float64]:
        u = self._raw["rlnDefocusU"]
        return (u + self._raw.get("rlnDefocusV", u)) / 2


def read_fits(path: Path, before: Path | None = None) -> ParticleFits | None:
    """Read particles of a CtfRefine job, of this program or of RELION.

    Returns None for particles that have no places on micrographs.

    Parameters
    ----------
    path : Path
        particles_ctf_refine.star, or any particles with micrographs and defocus.
    before : Path, optional
        The particles that the job started from; tells the change where the file does not.

    Raises
    ------
    UserError
        If the file is missing or holds no such particles.
    """
    from cryorefine.io.particles import read_particles
    from cryorefine.jobs.particle_places import mean_defocus

    file = read_particles(path)
    if not {"rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnDefocusU"} <= set(file.particles):
        return None
    if before is None or not before.is_file() or "cryorefineDefocusChange" in file.particles:
        return ParticleFits(file)
    old = read_particles(before)
    known = dict(zip(old.particles["rlnImageName"].astype(str), mean_defocus(old), strict=True))
    names = file.particles["rlnImageName"].astype(str)
    return ParticleFits(file, np.array([known.get(name, np.nan) for name in names]))


def _places(file: ParticleFile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where particles lie in A, (y, x) or (z, y, x), and the pixel size of each."""
    from cryorefine.errors import UserError
    from cryorefine.io.particles import column
    from cryorefine.jobs.particle_places import micrograph_pixel_size, places_in_angstrom
    from cryorefine.tomo.particles import CENTRED

    known = set(file.particles)
    if set(CENTRED) <= known:
        centred = np.stack([column(file, label) for label in reversed(CENTRED)], axis=1)
        return centred, np.ones(len(centred))
    if not {"rlnCoordinateX", "rlnCoordinateY"} <= known:
        raise UserError(
            f"{file.path} says nothing about where its particles lie (rlnCoordinateX and "
            "rlnCoordinateY); open their image stacks (.mrcs) instead."
        )
    pixel_size = micrograph_pixel_size(file)
    places = places_in_angstrom(file)[:, ::-1]
    if "rlnCoordinateZ" not in known:
        return places, pixel_size
    unbinned = column(file, "rlnTomoTiltSeriesPixelSize", 0.0)
    if (unbinned > 0).all():
        places, pixel_size = places * (unbinned / pixel_size)[:, None], unbinned
    return np.concatenate([(column(file, "rlnCoordinateZ") * pixel_size)[:, None], places], 1), pixel_size


def _names(file: ParticleFile) -> Any:
    """Return the name of each particle's micrograph or tomogram; one without a name holds all the others."""
    for label in ("rlnTomoName", "rlnMicrographName"):
        if label in file.particles:
            return file.particles[label].astype(str).to_numpy(dtype=object)
    return np.full(len(file.particles), "particles", dtype=object)


def _in_order(names: NDArray[np.object_]) -> tuple[list[str], NDArray[np.int64]]:
    known: dict[str, int] = {}
    numbers = np.array([known.setdefault(str(name), len(known)) for name in names], dtype=np.int64)
    return list(known), numbers


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
