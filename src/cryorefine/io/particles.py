"""Particle sets: optics groups and particles, in the form of RELION 3.1 and later.

RELION 3.0 kept the microscope's settings and pixel offsets with every particle, in one table; such
files are converted on reading (the convention is that of RELION's own conversion).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.files import folders_of_names
from cryorefine.io.images import ImageReader, parse_reference
from cryorefine.io.relion30 import offsets_in_angstrom, split_optics
from cryorefine.io.star import Columns, as_columns, as_frame, read_columns, write_star

if TYPE_CHECKING:
    import pandas as pd


class ParticleFile:
    """A set of particles as it stands in a STAR file.

    Jobs of seconds work with the plain columns; pandas is loaded when a table is asked for.

    Parameters
    ----------
    optics, particles : pandas.DataFrame or Columns
        One row an optics group or a particle. In the optics table, rlnOpticsGroup is 1..n in order; that of
        the particles refers to it.
    general : dict, optional
        The data_general block of tomography sets.
    path : pathlib.Path, optional
        Where it was read from.

    Attributes
    ----------
    general : dict or None
        As given.
    path : pathlib.Path or None
        As given.
    """

    def __init__(
        self,
        optics: pd.DataFrame | Columns,
        particles: pd.DataFrame | Columns,
        general: dict[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self._optics = optics
        self._particles = particles
        self.general = general
        self.path = path

    @property
    def optics(self) -> pd.DataFrame:
        """The optics groups as a table of pandas."""
        if isinstance(self._optics, Columns):
            self._optics = as_frame(self._optics)
        return self._optics

    @property
    def particles(self) -> pd.DataFrame:
        """The particles as a table of pandas."""
        if isinstance(self._particles, Columns):
            self._particles = as_frame(self._particles)
        return self._particles

    @property
    def optics_columns(self) -> Columns:
        """The optics groups as plain columns."""
        return as_columns(self._optics)

    @property
    def columns(self) -> Columns:
        """The particles as plain columns."""
        return as_columns(self._particles)

    def numbers(self, label: str) -> NDArray[np.float64]:
        """Return what each particle has for a label as float64, without a look at other columns.

        Raises
        ------
        ValueError
            When it is no number.
        """
        if isinstance(self._particles, Columns):
            return self._particles.numbers(label)
        return self._particles[label].to_numpy(dtype=np.float64)

    def __len__(self) -> int:
        """Return the number of particles."""
        return self._particles.rows if isinstance(self._particles, Columns) else len(self._particles)

    def __contains__(self, label: str) -> bool:
        """Tell whether each particle has a value of its own for a label."""
        return label in self._particles

    def replace(
        self,
        *,
        optics: pd.DataFrame | Columns | None = None,
        particles: pd.DataFrame | Columns | None = None,
        path: Path | None = None,
    ) -> ParticleFile:
        """Return the set with other tables, or as if it had been read from another file."""
        return ParticleFile(
            self._optics if optics is None else optics,
            self._particles if particles is None else particles,
            self.general,
            self.path if path is None else path,
        )


def read_particles(
    path: str | os.PathLike[str],
    required: Sequence[str] = (),
    make_optics: Callable[[Columns], tuple[Columns, Columns]] | None = None,
) -> ParticleFile:
    """Read the particles of a STAR file of RELION 3.0, 3.1, 4 or 5.

    Parameters
    ----------
    path : path-like
        The STAR file.
    required : sequence of str
        Labels the caller cannot do without, in the particle table or the optics table.
    make_optics : callable, optional
        Makes the optics table, and the particles that refer to it, for a file without data_optics, e.g.
        for picked subtomograms; without it the table is taken for one of RELION 3.0.

    Returns
    -------
    ParticleFile
        With optics groups numbered 1..n and offsets in A, whatever the file's version.

    Raises
    ------
    UserError
        When the file holds no particles, a column is missing, or a particle's optics group is.
    """
    file = Path(path)
    blocks = read_columns(file)
    optics = blocks.get("optics")
    table = _particle_table(blocks)
    if table is None:
        raise UserError(f"{file} holds no table of particles; choose a particle STAR file.")
    if isinstance(optics, Columns):
        optics, particles = _number_groups(file, optics, table)
        particles = offsets_in_angstrom(file, optics, particles)
    elif make_optics is not None:
        optics, particles = make_optics(table)
    else:
        if "rlnImageName" not in table:
            raise UserError(
                f"{file} has no data_optics and no column rlnImageName; choose a particle STAR file."
            )
        optics, particles = split_optics(file, table)
        optics = _with_image_sizes(file, optics, particles)
    if particles.rows == 0:
        raise UserError(f"{file} holds no particles: its table is empty; choose another file.")
    general = blocks.get("general")
    result = ParticleFile(optics, particles, None if isinstance(general, Columns) else general, file)
    require(result, required)
    return result


def write_particles(path: str | os.PathLike[str], file: ParticleFile, comments: Sequence[str] = ()) -> None:
    """Write a particle set with its optics groups, as RELION 3.1 and later do.

    Parameters
    ----------
    path : path-like
        The STAR file; it appears under this name when it is whole.
    file : ParticleFile
        The set.
    comments : sequence of str
        Lines for the top of the file.
    """
    blocks = {} if file.general is None else {"general": file.general}
    write_star(path, {**blocks, "optics": file.optics_columns, "particles": file.columns}, comments)


def require(file: ParticleFile, labels: Sequence[str]) -> None:
    """Check that labels are present in the particle or the optics table.

    Raises
    ------
    UserError
        Naming the file and the first missing column.
    """
    for label in labels:
        if label not in file and label not in file.optics_columns:
            raise UserError(
                f"{_name(file)} lacks the column {label}; add it or choose the output of a later job."
            )


def column(file: ParticleFile, label: str, default: float | None = None) -> NDArray[np.float64]:
    """Return one number for each particle: its own, else its optics group's, else the default.

    Parameters
    ----------
    file : ParticleFile
        The set.
    label : str
        RELION label without underscore.
    default : float, optional
        Value where the file has none.

    Returns
    -------
    numpy.ndarray
        float64, shape (particles,).

    Raises
    ------
    UserError
        When the label is missing and has no default, or its values are no numbers.
    """
    try:
        if label in file:
            return _finite(file, label, file.numbers(label))
        if label in file.optics_columns:
            return _finite(file, label, file.optics_columns.numbers(label)[group_index(file)])
    except ValueError:
        raise UserError(f"{_name(file)} has values of {label} that are no numbers; correct them.") from None
    if default is None:
        require(file, [label])
    return np.full(len(file), default, dtype=np.float64)


def _finite(file: ParticleFile, label: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise UserError(
            f"{_name(file)} has {values[wrong[0]]} as {label} of particle {wrong[0] + 1}; correct it or "
            "remove this particle."
        )
    return values


def group_index(file: ParticleFile) -> NDArray[np.int64]:
    """Return the row of the optics table for each particle, shape (particles,)."""
    return file.numbers("rlnOpticsGroup").astype(np.int64) - 1


def parse_vector(text: str) -> NDArray[np.float64]:
    """Return the numbers of RELION's vector notation ``[a,b,c]`` (rlnOddZernike, rlnTomoProjX, ...).

    Raises
    ------
    UserError
        When the text is no such vector.
    """
    stripped = text.strip()
    try:
        if stripped[:1] != "[" or stripped[-1:] != "]":
            raise ValueError
        inner = stripped[1:-1].strip()
        return np.array([float(word) for word in inner.split(",")] if inner else [], dtype=np.float64)
    except ValueError:
        raise UserError(f"{text!r} is no vector; write numbers as [a,b,c].") from None


def vector_of(path: Path | None, label: str, text: object) -> NDArray[np.float64]:
    """Return a vector of a table, as :func:`parse_vector` does; an error names file and column.

    Raises
    ------
    UserError
        When the text is no vector.
    """
    try:
        return parse_vector(str(text))
    except UserError:
        name = path if path is not None else "The particle set"
        raise UserError(
            f"{name} has {text} as {label}, which is no vector; write numbers as [a,b,c]."
        ) from None


def project_root(path: str | os.PathLike[str], reference: str) -> Path:
    """Find the folder that the image names of a STAR file are relative to.

    That is the current directory when the image exists there (the rule of RELION), else the folder of
    the STAR file or the nearest of its parents where the image exists; the other way round for a file of
    another project (:func:`~cryorefine.io.files.folders_of_names`).

    Parameters
    ----------
    path : path-like
        The STAR file.
    reference : str
        An image reference of it.

    Returns
    -------
    pathlib.Path
        Absolute path of the project directory.

    Raises
    ------
    UserError
        When the image is in none of these places.
    """
    _, image = parse_reference(reference)
    for root in folders_of_names(path):
        if (root / image).is_file():
            return root
    raise UserError(
        f"{path} refers to {image}, which is neither in the current directory nor beside the STAR file nor "
        "above it; run from the project directory."
    )


def _name(file: ParticleFile) -> str:
    return str(file.path) if file.path is not None else "The particle set"


def _particle_table(blocks: dict[str, dict[str, Any]]) -> Columns | None:
    """Return data_particles, else the first table of images: RELION 3.0 and others name it in many ways."""
    named = blocks.get("particles")
    if isinstance(named, Columns):
        return named
    for name, block in blocks.items():
        if not isinstance(block, Columns) or name in ("optics", "global"):
            continue
        # Picked subtomograms have no images yet.
        if "rlnImageName" in block or "rlnTomoName" in block:
            return block
    return None


def _number_groups(file: Path, optics: Columns, particles: Columns) -> tuple[Columns, Columns]:
    """Give the optics groups the numbers 1..n in the order of their table."""
    for name, table in (("optics", optics), ("particles", particles)):
        if "rlnOpticsGroup" not in table:
            raise UserError(f"{file} lacks the column rlnOpticsGroup in data_{name}; add it.")
    numbers, used = (np.asarray(table["rlnOpticsGroup"]) for table in (optics, particles))
    order: dict[Any, int] = {}
    for number in numbers.tolist():
        if number in order:
            raise UserError(f"{file} defines optics group {number} twice; renumber the groups.")
        order[number] = len(order) + 1
    groups, which = np.unique(used, return_inverse=True)
    mapped = np.array([order.get(group, 0) for group in groups.tolist()], dtype=np.int64)[which]
    if not mapped.all():
        row = int(np.flatnonzero(mapped == 0)[0])
        raise UserError(
            f"{file} has no optics group {used[row]}, which particle {row + 1} refers to; "
            "add the group to data_optics or remove the particle."
        )
    return (
        optics.with_columns(rlnOpticsGroup=np.arange(1, len(numbers) + 1)),
        particles.with_columns(rlnOpticsGroup=mapped),
    )


def _with_image_sizes(file: Path, optics: Columns, particles: Columns) -> Columns:
    """Add size in px and number of axes from the first image of each group, where the images are here.

    A table can be looked at without its images; a job that needs them says so when it reads them.
    """
    rows = np.unique(np.asarray(particles["rlnOpticsGroup"]), return_index=True)[1]
    firsts = [str(particles["rlnImageName"][row]) for row in rows]
    try:
        reader = ImageReader(project_root(file, firsts[0]))
        sizes = [reader.shape(reference)[1] for reference in firsts]
    except UserError:
        return optics
    # A file referred to without a number is a volume.
    return optics.with_columns(
        rlnImageSize=np.array(sizes),
        rlnImageDimensionality=np.array([2 if "@" in first else 3 for first in firsts]),
    )
