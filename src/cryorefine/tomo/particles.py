"""Particles of tomograms: where they lie, how they are turned, and which images show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.geometry.euler import matrices
from cryorefine.io.images import ImageReader
from cryorefine.io.particles import ParticleFile, column, group_index, read_particles, vector_of
from cryorefine.io.star import Columns
from cryorefine.io.tomograms import TiltSeries, TomogramSet
from cryorefine.io.trajectories import read_trajectories
from cryorefine.tomo.geometry import tomogram_positions

F64 = NDArray[np.float64]
Index = NDArray[np.int64]
CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
CORNER = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
ORIGIN = tuple(f"rlnOrigin{axis}Angst" for axis in "XYZ")
SUB_ANGLES = tuple(f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi"))
ANGLES = tuple(f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi"))
_DARK = 0.01
"""What an image that is not visible may hold, as a fraction of the contrast of one that is."""
_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize")


@dataclass(frozen=True, eq=False)
class Subtomograms:
    """Particles of tomograms, in the order of their file.

    Attributes
    ----------
    file : ParticleFile
        The tables; every particle has a name (rlnTomoParticleName) and an optics group.
    tomograms : TomogramSet
        Their tilt series.
    tomogram_names, names : ndarray of str, shape (n,)
        rlnTomoName and rlnTomoParticleName.
    centred : ndarray, shape (n, 3)
        Coordinates (x, y, z) in A from the tomogram's centre, without offsets.
    offsets : ndarray, shape (n, 3)
        rlnOriginX/Y/ZAngst: in A, in the particle's frame.
    sub_rotations : ndarray, shape (n, 3, 3)
        A_sub, from the particle's frame to the tomogram's.
    poses : ndarray, shape (n, 3, 3)
        A_particle, from the reference to the particle's frame.
    half : ndarray of int, shape (n,)
        Half set 1 or 2; 0 where the file has none.
    trajectories : dict of str to ndarray, or None
        Shifts in A by particle name, shape (tilts, 3).
    """

    file: ParticleFile
    tomograms: TomogramSet
    tomogram_names: NDArray[np.object_]
    names: NDArray[np.object_]
    centred: F64
    offsets: F64
    sub_rotations: F64
    poses: F64
    half: Index
    trajectories: dict[str, F64] | None = None

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.names)

    def by_tomogram(self) -> Iterator[tuple[TiltSeries, Index]]:
        """Yield every tilt series with the rows of its particles, in the order of first appearance."""
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.tomogram_names.tolist()):
            rows.setdefault(name, []).append(row)
        for name, mine in rows.items():
            yield self.tomograms[name], np.array(mine, dtype=np.int64)

    def positions(self, series: TiltSeries, rows: Index, *, apply_offsets: bool = True) -> F64:
        """Return positions in px from the tomogram's first voxel.

        Shape (n, 3); with trajectories (n, tilts, 3).

        Raises
        ------
        UserError
            When a particle has no trajectory, or one of another length.
        """
        offsets = self.offsets[rows] if apply_offsets else np.zeros((len(rows), 3))
        static = tomogram_positions(series, self.centred[rows], offsets, self.sub_rotations[rows])
        if self.trajectories is None:
            return static
        shifts = np.empty((len(rows), len(series), 3))
        for i, name in enumerate(self.names[rows]):
            trajectory = self.trajectories.get(name)
            if trajectory is None:
                raise UserError(
                    f"{_path(self.file)} has a particle {name} without a trajectory; use the motion.star "
                    "that belongs to these particles, or none."
                )
            if len(trajectory) != len(series):
                raise UserError(
                    f"The trajectory of {name} has {len(trajectory)} shifts but {series.name} has "
                    f"{len(series)} tilt images; use the motion.star that belongs to these tomograms."
                )
            shifts[i] = trajectory
        return static[:, None] + shifts / series.pixel_size

    def visible_frames(self, series: TiltSeries, rows: Index) -> NDArray[np.bool_]:
        """Return rlnTomoVisibleFrames, shape (n, tilts); everything is visible where the file has none.

        Raises
        ------
        UserError
            When a particle's list has another length than the tilt series.
        """
        if "rlnTomoVisibleFrames" not in self.file:
            return np.ones((len(rows), len(series)), dtype=bool)
        label = "rlnTomoVisibleFrames"
        texts = self.file.columns.words(label)[rows]
        known = {text: vector_of(self.file.path, label, text) > 0.5 for text in set(texts)}
        for name, text in zip(self.names[rows], texts, strict=True):
            if len(known[text]) != len(series):
                raise UserError(
                    f"{_path(self.file)} lists {len(known[text])} images in rlnTomoVisibleFrames of {name}, "
                    f"but the tilt series {series.name} has {len(series)}; use the tomograms.star that "
                    "belongs to the particles."
                )
        return np.array([known[text] for text in texts])

    def take(self, rows: Index) -> ParticleFile:
        """Return the tables of some of the particles."""
        return self.file.replace(particles=self.file.columns.take(rows))


def read_subtomograms(
    path: Path, tomograms: TomogramSet, trajectories: Path | None = None, *, complete: bool = True
) -> Subtomograms:
    """Read the particles of tomograms: picked, extracted or refined, of RELION 4 or 5.

    Parameters
    ----------
    path : Path
        Particle STAR file.
    tomograms : TomogramSet
        The tomograms they are in.
    trajectories : Path, optional
        motion.star.
    complete : bool
        Whether every tomogram's tilt series is read here, so that a fault in one shows before any work.

    Returns
    -------
    Subtomograms

    Raises
    ------
    UserError
        When a column or a tomogram is missing, or pixel sizes contradict each other.
    """
    file = read_particles(path, ["rlnTomoName"], lambda table: _make_optics(path, table, tomograms))
    tomogram_names = file.columns.words("rlnTomoName")
    file = _with_pixel_sizes(file, tomograms, tomogram_names)
    if "rlnTomoParticleName" not in file:
        # RELION's names: numbered from 1 within each tomogram.
        count: Counter[str] = Counter()
        names = np.empty(len(file), dtype=object)
        for row, tomogram in enumerate(tomogram_names.tolist()):
            count[tomogram] += 1
            names[row] = f"{tomogram}/{count[tomogram]}"
        file = file.replace(particles=file.columns.with_columns(rlnTomoParticleName=names))
    else:
        names = file.columns.words("rlnTomoParticleName")
        name, times = Counter(names.tolist()).most_common(1)[0]
        if times > 1:
            raise UserError(
                f"{path} has two particles named {name}; give each a name of its own "
                "in rlnTomoParticleName or remove the column."
            )
    if complete:
        for name in dict.fromkeys(tomogram_names):
            tomograms[name]
    return Subtomograms(
        file=file,
        tomograms=tomograms,
        tomogram_names=tomogram_names,
        names=names,
        centred=_centred(file, tomograms, tomogram_names),
        offsets=_columns(file, ORIGIN),
        sub_rotations=matrices(*_columns(file, SUB_ANGLES).T),
        poses=matrices(*_columns(file, ANGLES).T),
        half=column(file, "rlnRandomSubset", 0).astype(np.int64),
        trajectories=read_trajectories(trajectories) if trajectories is not None else None,
    )


def positions_in_stack(reader: ImageReader, stack: str, visible: NDArray[np.bool_], name: str) -> Index:
    """Return where each tilt is in a stack: RELION keeps the visible images alone, WarpTools all of them.

    WarpTools fills those that are not visible with next to nothing; a stack in which they hold as much as
    the others has been given the list of other images.

    Parameters
    ----------
    reader : ImageReader
        Of the stacks.
    stack : str
        Name of the stack.
    visible : ndarray of bool, shape (tilts,)
        rlnTomoVisibleFrames of its particle.
    name : str
        Name of the particle, for the error.

    Returns
    -------
    ndarray of int, shape (tilts,)
        Index in the stack; of no meaning where a tilt is not visible.

    Raises
    ------
    UserError
        When the stack holds another number of images, or images where none should be.
    """
    held = reader.count(stack)
    if held == np.count_nonzero(visible):
        return np.cumsum(visible) - 1
    if held == len(visible) and visible.any():
        spread = [reader.read([f"{i + 1}@{stack}"]).std() for i in np.flatnonzero(~visible)]
        if max(spread) < _DARK * reader.read([f"{np.argmax(visible) + 1}@{stack}"]).std():
            return np.arange(held)
    raise UserError(
        f"{stack} holds {held} images, but rlnTomoVisibleFrames of {name} lists {np.count_nonzero(visible)} "
        f"visible ones of {len(visible)}; use the particles.star that was written with these stacks."
    )


def doubtful_coordinates(particles: Subtomograms) -> str:
    """Return a sentence where corner coordinates look like those of a binned tomogram, else nothing.

    Other programs write rlnCoordinate in pixels of their own choice; depths, and so the defocus of every
    particle, are then wrong, and nothing is found in the tilt images.
    """
    optics = particles.file.optics_columns
    if CENTRED[0] in particles.file or "rlnTomoSubtomogramBinning" not in optics:
        return ""
    binning = float(optics.numbers("rlnTomoSubtomogramBinning").max())
    reach = max(
        float((particles.centred[rows] / series.pixel_size / series.size + 0.5).max())
        for series, rows in particles.by_tomogram()
    )
    if binning < 1.5 or reach > 1 / binning:
        return ""
    return (
        f"All coordinates of {_path(particles.file)} lie in the first {100 * reach:.0f} % of their "
        f"tomograms, as if they were counted in pixels binned {binning:g} times; RELION counts unbinned "
        "pixels, so the defocus of the particles may be wrong."
    )


def _columns(file: ParticleFile, labels: tuple[str, ...]) -> F64:
    return np.stack([column(file, label, 0.0) for label in labels], axis=1)


def _centred(file: ParticleFile, tomograms: TomogramSet, names: NDArray[np.object_]) -> F64:
    if all(label in file for label in CENTRED):
        return _columns(file, CENTRED)
    if not all(label in file for label in CORNER):
        raise UserError(
            f"{_path(file)} has neither {CENTRED[0]} nor {CORNER[0]} (with Y and Z); add the coordinates "
            "of the particles."
        )
    result = _columns(file, CORNER)
    for name in dict.fromkeys(names):
        here, series = names == name, tomograms[name]
        result[here] = (result[here] - series.centre) * series.pixel_size
    return result


def _make_optics(path: Path, table: Columns, tomograms: TomogramSet) -> tuple[Columns, Columns]:
    """Make one optics group for each of the tomograms' groups, as RELION does for picked particles."""
    if "rlnTomoName" not in table:
        raise UserError(f"{path} lacks the column rlnTomoName; choose particles of tomograms.")
    used = table.words("rlnTomoName").tolist()
    for name in dict.fromkeys(used):
        if name not in tomograms:
            tomograms[name]  # says that the tomogram is missing
    rows = tomograms.table
    named = rows.words("rlnOpticsGroupName" if "rlnOpticsGroupName" in rows else "rlnTomoName").tolist()
    group_of = dict(zip(rows.words("rlnTomoName").tolist(), named, strict=True))
    groups = [group_of[name] for name in used]
    order = {group: i for i, group in enumerate(dict.fromkeys(groups), start=1)}
    # The row of the first tomogram of each group, in the order of the groups.
    first = np.array([named.index(group) for group in order], dtype=np.int64)
    optics = Columns(rlnOpticsGroup=np.arange(1, len(order) + 1), rlnOpticsGroupName=list(order))
    for setting in _OPTICS:
        optics[setting] = rows.numbers(setting)[first]
    numbers = np.array([order[group] for group in groups], dtype=np.int64)
    return optics, table.with_columns(rlnOpticsGroup=numbers)


def _with_pixel_sizes(file: ParticleFile, tomograms: TomogramSet, names: NDArray[np.object_]) -> ParticleFile:
    """Compare the pixel sizes of optics groups and tomograms; fill them in where the groups have none."""
    sizes = dict(
        zip(
            tomograms.table.words("rlnTomoName").tolist(),
            tomograms.table.numbers("rlnTomoTiltSeriesPixelSize").tolist(),
            strict=True,
        )
    )
    for name in dict.fromkeys(names):
        if name not in sizes:
            tomograms[name]  # says that the tomogram is missing
    true = np.array([sizes[name] for name in names])
    groups = group_index(file)
    optics = file.optics_columns
    if "rlnTomoTiltSeriesPixelSize" not in optics:
        sizes_of_groups = [
            true[groups == i][0] if (groups == i).any() else true[0] for i in range(optics.rows)
        ]
        optics = optics.with_columns(rlnTomoTiltSeriesPixelSize=np.array(sizes_of_groups))
    given = optics.numbers("rlnTomoTiltSeriesPixelSize")[groups]
    wrong = np.flatnonzero(np.abs(given - true) > 1e-3 * true)
    if len(wrong):
        first = wrong[0]
        raise UserError(
            f"{_path(file)} gives optics group {groups[first] + 1} a tilt-series pixel of "
            f"{given[first]:g} A, but tomogram {names[first]} in {tomograms.path} has {true[first]:g} A; put "
            "particles of tomograms with different pixels into optics groups of their own, or correct the "
            "pixel size."
        )
    return file.replace(optics=optics)


def _path(file: ParticleFile) -> str:
    return str(file.path) if file.path is not None else "The particle set"
