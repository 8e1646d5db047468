"""What an optimisation set or a tomograms.star holds, one tomogram at a time; knows neither Qt nor napari."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from cryorefine.io.optimisation_set import OptimisationSet
    from cryorefine.io.tomograms import TiltSeries, TomogramSet
    from cryorefine.tomo.particles import Subtomograms

TOMOGRAMS = (
    "rlnTomoReconstructedTomogramDenoised",
    "rlnTomoReconstructedTomogram",
    "rlnTomoReconstructedTomogramHalf1",
)
"""Columns that name the file of a tomogram, the one that shows most first."""
_TELLTALES = (b"_rlnTomoTomogramsFile", b"_rlnTomoParticlesFile", b"\ndata_global")


@dataclass(frozen=True, eq=False, repr=False)  # napari writes out all that a reader hands to it
class Tomography:
    """Tomograms, and the particles in them.

    Attributes
    ----------
    path : Path
        The file that was opened.
    tomograms : TomogramSet
        Geometry of the tilt series; their images need not be there.
    particles : Subtomograms or None
        Particles of all tomograms.
    files : OptimisationSet or None
        What else belongs to them.
    """

    path: Path
    tomograms: TomogramSet
    particles: Subtomograms | None = None
    files: OptimisationSet | None = None
    _with_images: dict[str, TiltSeries | None] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the tomograms; those with particles if there are any particles."""
        if self.particles is None:
            return list(self.tomograms)
        shown = set(self.particles.tomogram_names)
        return [name for name in self.tomograms if name in shown]

    def rows(self, name: str) -> NDArray[np.int64]:
        """Return which particles lie in a tomogram."""
        if self.particles is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.particles.tomogram_names == name)

    def features(self, name: str) -> pd.DataFrame:
        """Return the columns of a tomogram's particles."""
        assert self.particles is not None
        table = self.particles.file.particles.iloc[self.rows(name)]
        return table.assign(rlnTomoParticleName=self.particles.names[self.rows(name)]).reset_index(drop=True)

    def with_images(self, name: str) -> TiltSeries | None:
        """Return a tilt series that knows its images, or None where they are not there."""
        from cryorefine.errors import UserError
        from cryorefine.io.tomograms import read_tomograms

        if name not in self._with_images:
            try:
                self._with_images[name] = read_tomograms(self.tomograms.path)[name]
            except UserError:
                self._with_images[name] = None
        return self._with_images[name]

    def extent(self, name: str) -> NDArray[np.float64]:
        """Return the size of a tomogram in A (x, y, z)."""
        series = self.tomograms[name]
        return series.size * series.pixel_size

    def positions(self, name: str) -> NDArray[np.float64]:
        """Return the places of a tomogram's particles, x, y, z in A from its first voxel; shape (n, 3)."""
        from cryorefine.tomo.geometry import tomogram_positions

        if self.particles is None:
            return np.zeros((0, 3))
        series, rows, all_of_them = self.tomograms[name], self.rows(name), self.particles
        pixels = tomogram_positions(
            series, all_of_them.centred[rows], all_of_them.offsets[rows], all_of_them.sub_rotations[rows]
        )
        return pixels * series.pixel_size

    def axes(self, name: str) -> NDArray[np.float64]:
        """Return where the reference's z axis points in the tomogram, x, y, z; shape (n, 3)."""
        if self.particles is None:
            return np.zeros((0, 3))
        rows = self.rows(name)
        return (self.particles.sub_rotations[rows] @ self.particles.poses[rows])[:, :, 2]

    def diameter(self, name: str) -> float:
        """Return a size in A to draw particles in: four fifths of the distance of neighbours."""
        from scipy.spatial import cKDTree

        places = self.positions(name)
        if len(places) < 2:
            return 100.0
        near = cKDTree(places).query(places, k=2)[0][:, 1]
        return float(np.clip(0.8 * np.median(near), 40.0, 200.0))

    def tomogram_file(self, name: str) -> Path | None:
        """Return the file of a tomogram, or None if there is none."""
        from cryorefine.errors import UserError
        from cryorefine.io.particles import project_root

        table = self.tomograms.table
        row = table.row(table.words("rlnTomoName").tolist().index(name))
        for label in TOMOGRAMS:
            reference = str(row.get(label, "None"))
            try:
                if reference not in ("None", ""):
                    return project_root(self.tomograms.path, reference) / reference
            except UserError:
                continue
        return None


def holds_tomography(path: Path) -> bool:
    """Tell whether a STAR file is an optimisation set or a list of tomograms."""
    try:
        with open(path, "rb") as file:
            beginning = b"\n" + file.read(4096)
    except OSError:
        return False
    return any(word in beginning for word in _TELLTALES)


def read_tomography(path: Path) -> Tomography:
    """Read an optimisation set with its tomograms and particles, or a tomograms.star alone.

    Raises
    ------
    UserError
        If the file is neither, or what it names is missing or wrong; tilt images, tomograms and
        reference maps may be missing.
    """
    from cryorefine.errors import UserError
    from cryorefine.io.optimisation_set import read_optimisation_set
    from cryorefine.io.star import read_star
    from cryorefine.io.tomograms import read_tomograms
    from cryorefine.tomo.particles import read_subtomograms

    if "global" in read_star(path):
        return Tomography(path, read_tomograms(path, images=False))
    files = read_optimisation_set(path, check=False)
    if files.tomograms is None:
        raise UserError(f"{path} names no tomograms (rlnTomoTomogramsFile); add the entry.")
    tomograms = read_tomograms(files.tomograms, images=False)
    particles = None
    if files.particles is not None:
        motion = files.trajectories if files.trajectories and files.trajectories.is_file() else None
        particles = read_subtomograms(files.particles, tomograms, motion, complete=False)
    return Tomography(path, tomograms, particles, files)


def tilt_angles(series: TiltSeries) -> NDArray[np.float64]:
    """Return the tilt of each image in degrees, from where it sees the tomogram's z axis."""
    rotation: Any = series.projections[:, :3, :3]
    return np.degrees(np.arctan2(-rotation[:, 2, 0], rotation[:, 2, 2]))


def tilt_order(series: TiltSeries) -> NDArray[np.int64]:
    """Return the images of a series in the order of their tilts."""
    return np.argsort(tilt_angles(series), kind="stable")


def tilt_text(series: TiltSeries, step: int) -> str:
    """Return a line about the image that stands at a place in the order of tilts."""
    image = tilt_order(series)[step]
    defocus = (series.defocus_u[image] + series.defocus_v[image]) / 2e4
    angle = round(float(tilt_angles(series)[image]), 1) + 0.0  # no minus before a zero
    return (
        f"Tilt {step + 1} of {len(series)}: {angle:.1f}°, after {series.dose[image]:.0f} e/Å², "
        f"defocus {defocus:.2f} µm"
    )
