"""Tilt series and their tomograms, from the tomograms.star of RELION 4 and 5.

The table ``data_global`` has one row for each tomogram. RELION 5 keeps the tilt images of each in a
STAR file of its own (rlnTomoTiltSeriesStarFile) with angles and shifts; RELION 4 in a table of the same
file with rows of projection matrices, which other programs still write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.microscope import remedy_for
from cryorefine.io.particles import project_root, vector_of
from cryorefine.io.star import Columns, read_columns

F64 = NDArray[np.float64]
_ROWS = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnTomoProjW")
_ANGLES = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
_NUMBERS = {
    "rlnTomoTiltSeriesPixelSize": None,
    "rlnVoltage": None,
    "rlnSphericalAberration": None,
    "rlnAmplitudeContrast": None,
    "rlnTomoHand": -1.0,
    "rlnTomoDefocusSlope": 1.0,
    "rlnCtfBfactorPerElectronDose": 0.0,
}
_POSITIVE = ("rlnTomoTiltSeriesPixelSize", "rlnVoltage")
_SIZES = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
DEFORMATIONS = ("linear", "spline", "Fourier")


class MissingImages(UserError):
    """The tilt images are not there, though their tables are."""


@dataclass(frozen=True, eq=False)
class Deformation:
    """A smooth deformation of each tilt image.

    Attributes
    ----------
    kind : str
        "linear", "spline" or "Fourier".
    grid : tuple of int
        Grid points (x, y); unused by the linear kind.
    coefficients : ndarray, shape (tilts, n)
        As RELION stores them, in px.
    """

    kind: str
    grid: tuple[int, int]
    coefficients: F64


@dataclass(frozen=True, eq=False)
class TiltSeries:
    """One tilt series: its images, its geometry and its contrast transfer.

    Attributes
    ----------
    name : str
        rlnTomoName.
    image_names : tuple of str
        ``number@stack`` or a file for each tilt, relative to ``root``; empty when the table names none.
    root : Path
        The project directory.
    image_size : tuple of int or None
        Size (x, y) of the tilt images in px; None when the images were not looked at.
    projections : ndarray, shape (tilts, 4, 4)
        From tomogram coordinates (x, y, z, 1) in px, counted from the first voxel, to (x, y) in the tilt
        image in px and depth z. Without an image size, x and y count from the image's centre.
    pixel_size : float
        A per pixel of the tilt images, the unit of the tomogram coordinates.
    size : ndarray, shape (3,)
        Size (x, y, z) of the tomogram in px.
    hand : float
        +1 or -1: whether defocus grows or falls with depth.
    defocus_slope : float
        Factor on the depth in the defocus.
    voltage, spherical_aberration, amplitude_contrast : float
        kV, mm, fraction.
    dose_b_factor : float
        Damping in A^2 for each electron per A^2; 0 for the empirical curve.
    dose : ndarray, shape (tilts,)
        Dose in electrons per A^2 before each image.
    defocus_u, defocus_v, defocus_angle, phase_shift, b_factor, scale : ndarray, shape (tilts,)
        Contrast transfer at the tomogram's centre: A, A, degrees, degrees, A^2, factor.
    optics_group : str
        rlnOpticsGroupName, or the tomogram's name.
    deformation : Deformation or None
        Of the tilt images.
    table : Columns
        The tilt images' table, as read.
    """

    name: str
    image_names: tuple[str, ...]
    root: Path
    image_size: tuple[int, int] | None
    projections: F64
    pixel_size: float
    size: F64
    hand: float
    defocus_slope: float
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    dose_b_factor: float
    dose: F64
    defocus_u: F64
    defocus_v: F64
    defocus_angle: F64
    phase_shift: F64
    b_factor: F64
    scale: F64
    optics_group: str
    deformation: Deformation | None
    table: Columns

    def __len__(self) -> int:
        """Return the number of tilt images."""
        return len(self.projections)

    @property
    def centre(self) -> F64:
        """Centre (x, y, z) of the tomogram in px, from which centred coordinates count: half its size."""
        return self.size / 2


class TomogramSet(Mapping[str, TiltSeries]):
    """The tilt series of a tomograms.star by name, each read when it is first asked for.

    Attributes
    ----------
    path : Path
        The STAR file.
    table : Columns
        data_global, one row a tomogram.
    """

    def __init__(self, path: Path, table: Columns, read: Callable[[str], TiltSeries]) -> None:
        self.path = path
        self.table = table
        self._read = read
        self._series: dict[str, TiltSeries] = {}
        self._names = list(table.words("rlnTomoName"))

    def __getitem__(self, name: str) -> TiltSeries:
        """Return a tilt series.

        Raises
        ------
        UserError
            When the file has no tomogram of that name, or its tilt series cannot be read.
        """
        if name not in self._series:
            if name not in self._names:
                raise UserError(
                    f"{self.path} has no tomogram {name} (its tomograms are {_few(self._names)}); use the "
                    "tomograms.star that belongs to the particles."
                )
            self._series[name] = self._read(name)
        return self._series[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the tomograms."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of tomograms."""
        return len(self._names)


def read_tomograms(path: str | os.PathLike[str], *, images: bool = True) -> TomogramSet:
    """Read a tomograms.star of RELION 4 or 5.

    Parameters
    ----------
    path : path-like
        The STAR file.
    images : bool
        Whether the tilt images must be there. Positions in the images depend on their size, which only
        the images tell; orientations, depths and contrast transfer do not.

    Returns
    -------
    TomogramSet
        Tilt series by name.

    Raises
    ------
    UserError
        When the file lists no tomograms or lacks a column; a :class:`MissingImages` from a tilt series
        whose images are not there.
    """
    file = Path(path)
    blocks = read_columns(file)
    table = blocks.get("global")
    if not isinstance(table, Columns) or table.rows == 0:
        raise UserError(f"{file} lists no tomograms: it has no table data_global; choose a tomograms.star.")
    needed = ["rlnTomoName", *_SIZES]
    for label in needed + [label for label, default in _NUMBERS.items() if default is None]:
        if label not in table:
            raise UserError(f"{file} lacks the column {label} in data_global; add it.")
    names = list(table.words("rlnTomoName"))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{file} lists the tomogram {twice} twice; remove one.")

    def read(name: str) -> TiltSeries:
        row = table.row(names.index(name))
        return _tilt_series(file, name, row, *_tilt_table(file, name, row, blocks), images)

    return TomogramSet(file, table, read)


def _tilt_table(
    file: Path, name: str, row: dict[str, Any], blocks: dict[str, dict[str, Any]]
) -> tuple[Path, Columns]:
    """Return the table of a tomogram's tilt images and the file it stands in."""
    table = blocks.get(name)
    source = file
    if "rlnTomoTiltSeriesStarFile" in row:
        reference = str(row["rlnTomoTiltSeriesStarFile"])
        source = project_root(file, reference) / reference
        tables = {k: b for k, b in read_columns(source).items() if isinstance(b, Columns)}
        table = tables.get(name)
        if table is None and len(tables) == 1:
            table = next(iter(tables.values()))
    if not isinstance(table, Columns) or table.rows == 0:
        raise UserError(f"{source} has no table data_{name} of tilt images; use the file of that tomogram.")
    return source, table


def _tilt_series(
    file: Path, name: str, row: dict[str, Any], source: Path, table: Columns, images: bool
) -> TiltSeries:
    count = table.rows

    def column(label: str, default: float | F64 | None = None) -> F64:
        if label not in table:
            if default is None:
                raise UserError(f"{source} lacks the column {label} in data_{name}; add it.")
            return np.broadcast_to(np.asarray(default, np.float64), (count,)).copy()
        try:
            values = table.numbers(label)
        except ValueError:
            raise UserError(f"{source} has values of {label} that are no numbers; correct them.") from None
        low = 0.0 if label == "rlnMicrographPreExposure" else -np.inf
        wrong = np.flatnonzero(~np.isfinite(values) | (values < low))
        if len(wrong):
            raise UserError(
                f"{source} has {values[wrong[0]]:g} as {label} of image {wrong[0] + 1} in data_{name}; "
                "correct it or remove this image."
            )
        return values

    number = {label: _number(file, row, label, default) for label, default in _NUMBERS.items()}
    pixel_size = number["rlnTomoTiltSeriesPixelSize"]
    size = np.array([_number(file, row, label, None) for label in _SIZES])
    image_names = _image_names(row, table)
    root, image_size = source.absolute().parent, None
    if images:
        root, image_size = _look_at_images(source, name, image_names)
    if set(_ROWS) <= set(table):
        projections = _projection_rows(source, name, table)
        if image_size is None:
            # Without images, positions count from the centre of the tilt image in RELION 5's convention
            # as well; here the image's centre is where the tomogram's centre goes.
            middle = projections @ np.append(size / 2, 1.0)
            projections[:, :2, 3] -= middle[:, :2]
    else:
        shifts = [column(label) for label in _ANGLES[3:]]
        projections = projection_matrices(
            *(column(label) for label in _ANGLES[:3]),
            shift=np.stack(shifts, axis=1) / pixel_size,
            size=size,
            image_size=image_size or (0, 0),
        )
    defocus_u = column("rlnDefocusU")
    return TiltSeries(
        name=name,
        image_names=image_names,
        root=root,
        image_size=image_size,
        projections=projections,
        pixel_size=pixel_size,
        size=size,
        hand=number["rlnTomoHand"],
        defocus_slope=number["rlnTomoDefocusSlope"],
        voltage=number["rlnVoltage"],
        spherical_aberration=number["rlnSphericalAberration"],
        amplitude_contrast=number["rlnAmplitudeContrast"],
        dose_b_factor=number["rlnCtfBfactorPerElectronDose"],
        dose=column("rlnMicrographPreExposure"),
        defocus_u=defocus_u,
        defocus_v=column("rlnDefocusV", defocus_u),
        defocus_angle=column("rlnDefocusAngle", 0.0),
        phase_shift=column("rlnPhaseShift", 0.0),
        b_factor=column("rlnCtfBfactor", 0.0),
        scale=column("rlnCtfScalefactor", 1.0),
        optics_group=str(row.get("rlnOpticsGroupName", name)),
        deformation=_deformation(file, source, name, row, table),
        table=table,
    )


def projection_matrices(
    x_tilt: F64, y_tilt: F64, z_rotation: F64, *, shift: F64, size: F64, image_size: tuple[int, int]
) -> F64:
    """Return the matrices that take tomogram coordinates to tilt images, as RELION 5 defines them.

    ``T(shift) T(image centre) Rz Ry Rx T(-tomogram centre)`` with right-handed active rotations. Both
    centres are whole pixels, half the size rounded down, whereas centred coordinates count from half the
    size itself; for odd sizes RELION is off by half a pixel there, and so are files made for it.

    Parameters
    ----------
    x_tilt, y_tilt, z_rotation : ndarray, shape (tilts,)
        Degrees.
    shift : ndarray, shape (tilts, 2)
        Shift (x, y) of the image in px.
    size : ndarray, shape (3,)
        Size (x, y, z) of the tomogram in px.
    image_size : tuple of int
        Size (x, y) of the tilt images in px.

    Returns
    -------
    ndarray, shape (tilts, 4, 4)
    """
    rotation = _rotation(2, z_rotation) @ _rotation(1, y_tilt) @ _rotation(0, x_tilt)
    result = np.zeros((len(rotation), 4, 4))
    result[:, :3, :3] = rotation
    result[:, :3, 3] = -rotation @ np.trunc(size / 2)
    result[:, :2, 3] += shift + np.array(image_size) // 2
    result[:, 3, 3] = 1
    return result


def _rotation(axis: int, degrees: F64) -> F64:
    """Return active right-handed rotations about x (0), y (1) or z (2), shape (n, 3, 3)."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    result = np.zeros((len(degrees), 3, 3))
    one, two = (axis + 1) % 3, (axis + 2) % 3
    result[:, axis, axis] = 1
    result[:, one, one] = result[:, two, two] = cosine
    result[:, two, one], result[:, one, two] = sine, -sine
    return result


def _projection_rows(source: Path, name: str, table: Columns) -> F64:
    """Return RELION 4's projection matrices, shape (tilts, 4, 4)."""
    rows = []
    for label in _ROWS:
        rows.append([vector_of(source, label, text) for text in table[label]])
        wrong = [k for k, row in enumerate(rows[-1]) if len(row) != 4 or not np.all(np.isfinite(row))]
        if wrong:
            text = table[label][wrong[0]]
            raise UserError(
                f"{source} has {text} as {label} of image {wrong[0] + 1} in data_{name}, which is no row of "
                "a projection matrix; write four numbers as [a,b,c,d]."
            )
    return np.stack([np.array(row) for row in rows], axis=1)


def _number(file: Path, row: dict[str, Any], label: str, default: float | None) -> float:
    if label not in row and default is not None:
        return default
    here = f"{file} has {row[label]} as {label} of tomogram {row['rlnTomoName']}"
    try:
        value = float(row[label])
    except ValueError:
        raise UserError(f"{here}, which is no number; correct it.") from None
    if not np.isfinite(value):
        raise UserError(f"{here}; correct it.")
    if (label in _POSITIVE or label in _SIZES) and value <= 0:
        raise UserError(f"{here}; give a number above 0.")
    if remedy := remedy_for(label, value):
        raise UserError(f"{here}; {remedy}.")
    if label == "rlnTomoHand" and value not in (1, -1):
        raise UserError(f"{here}; give 1 or -1.")
    return value


def _image_names(row: dict[str, Any], table: Columns) -> tuple[str, ...]:
    if "rlnMicrographName" in table:
        return tuple(table.words("rlnMicrographName"))
    if "rlnTomoTiltSeriesName" in row:
        return tuple(f"{i:06d}@{row['rlnTomoTiltSeriesName']}" for i in range(1, table.rows + 1))
    return ()


def _look_at_images(source: Path, name: str, image_names: tuple[str, ...]) -> tuple[Path, tuple[int, int]]:
    """Return the project directory and the size (x, y) of the tilt images."""
    if not image_names:
        raise UserError(f"{source} names no tilt images of {name}; add the column rlnMicrographName.")
    try:
        root = project_root(source, image_names[0])
    except UserError:
        raise MissingImages(
            f"The tilt images of {name} are missing: {source} names {image_names[0]}, which is neither in "
            "the current directory nor beside that file nor above it; run from the project directory."
        ) from None
    height, width = ImageReader(root).shape(image_names[0])
    return root, (width, height)


def _deformation(
    file: Path, source: Path, name: str, row: dict[str, Any], table: Columns
) -> Deformation | None:
    if "rlnTomoDeformationCoefficients" not in table:
        return None
    # Files from before the type was written hold splines.
    kind = str(row.get("rlnTomoDeformationType", "spline"))
    if kind not in DEFORMATIONS:
        raise UserError(
            f"{file} has the deformation type {kind!r} for tomogram {name}; it must be one of "
            f"{', '.join(DEFORMATIONS)}."
        )
    grid_x, grid_y = (int(row.get(f"rlnTomoDeformationGridSize{axis}", 0)) for axis in "XY")
    waves = len(fourier_waves((grid_x, grid_y)))
    expected = {"linear": 3, "spline": 8 * grid_x * grid_y, "Fourier": 4 * waves}[kind]
    label = "rlnTomoDeformationCoefficients"
    rows = [vector_of(source, label, text) for text in table[label]]
    wrong = next((len(r) for r in rows if len(r) != expected), None)
    if wrong is not None:
        raise UserError(
            f"{source} has {wrong} deformation coefficients in data_{name} where the {kind} model with a "
            f"grid of {grid_x} x {grid_y} has {expected}; use the tomograms.star that belongs to it."
        )
    return Deformation(kind, (grid_x, grid_y), np.array(rows, dtype=np.float64))


def fourier_waves(grid: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the waves (x, y) of a Fourier deformation in half periods per image, in RELION's order.

    Those of one half of the plane: rows from 0 up and then the negative ones, as transforms have them,
    without the constant, which is a shift of the image.
    """
    waves = []
    for row in range(grid[1]):
        low = row < grid[1] // 2
        first = 0 if low and row > 0 else 1
        waves += [(x, row if low else row - grid[1]) for x in range(first, grid[0] // 2 + 1)]
    return waves


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
