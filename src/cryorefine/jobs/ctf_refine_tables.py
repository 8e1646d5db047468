"""Tables of CtfRefine: fitted values and their uncertainties beside everything that was there before.

Uncertainties and what else RELION has no label for get columns of our own, which RELION keeps and
passes over: ``cryorefine...Uncertainty`` is the standard uncertainty of ``rln...`` in its unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.files import write_whole
from cryorefine.io.particles import ParticleFile, group_index, write_particles
from cryorefine.io.star import Columns, read_columns, write_star
from cryorefine.jobs.particle_places import mean_defocus

if TYPE_CHECKING:
    from cryorefine.refine.ctf_refinement import CtfFit, OpticsValues, ParticleValues

F64 = NDArray[np.float64]

DEFOCUS_CHANGE = "cryorefineDefocusChange"
DEFOCUS_UNCERTAINTY = "cryorefineDefocusUncertainty"
SIGNAL, NOISE = "cryorefineSignal", "cryorefineNoise"

_PARTICLE_LABELS: Mapping[str, Sequence[tuple[str, str]]] = {
    "defocus": (
        ("rlnDefocusU", "defocus_u"),
        ("rlnDefocusV", "defocus_v"),
        ("rlnDefocusAngle", "defocus_angle"),
        (DEFOCUS_UNCERTAINTY, "sigma_defocus"),
        ("cryorefineAstigmatismUncertainty", "sigma_astigmatism"),
    ),
    "phase_shift": (
        ("rlnPhaseShift", "phase_shift"),
        ("cryorefinePhaseShiftUncertainty", "sigma_phase_shift"),
    ),
    "b_factor": (
        ("rlnCtfBfactor", "b_factor"),
        ("cryorefineCtfBfactorUncertainty", "sigma_b_factor"),
        ("rlnCtfScalefactor", "scale"),
        ("cryorefineCtfScalefactorUncertainty", "sigma_scale"),
    ),
}
_OPTICS_LABELS = (
    ("rlnBeamTiltX", "beam_tilt", 0),
    ("rlnBeamTiltY", "beam_tilt", 1),
    ("rlnMagMat00", "magnification", 0),
    ("rlnMagMat01", "magnification", 1),
    ("rlnMagMat10", "magnification", 2),
    ("rlnMagMat11", "magnification", 3),
)
_VECTORS = (("rlnOddZernike", "odd_aberrations"), ("rlnEvenZernike", "even_aberrations"))


@dataclass(frozen=True, eq=False)
class Tables:
    """The particles that a job started from, and how its values are put beside theirs.

    Attributes
    ----------
    file : ParticleFile
        The particles as they came.
    source : Path
        Their file.
    old_style : bool
        Whether that is a file of RELION 3.0, without a table of optics groups.
    fit : CtfFit
        What is fitted; only its columns are written.
    """

    file: ParticleFile
    source: Path
    old_style: bool
    fit: CtfFit

    def particle_columns(
        self, values: ParticleValues, rows: NDArray[np.int64] | slice = slice(None)
    ) -> dict[str, F64]:
        """Return the columns of some particles, by label.

        Parameters
        ----------
        values : ParticleValues
            Of these particles.
        rows : ndarray of int or slice
            Which rows of the file they are.
        """
        fitted = []
        if self.fit.defocus != "no" or self.fit.astigmatism != "no" or self.fit.magnification:
            # A magnification matrix changes the frequencies in which defocus is measured.
            fitted.append("defocus")
        fitted += [name for name in ("phase_shift", "b_factor") if getattr(self.fit, name) != "no"]
        columns: dict[str, F64] = {}
        for name in fitted:
            for label, attribute in _PARTICLE_LABELS[name]:
                numbers: F64 = getattr(values, attribute)
                if not np.isnan(numbers).all():
                    columns[label] = numbers
        if "defocus" in fitted:
            columns[DEFOCUS_CHANGE] = (values.defocus_u + values.defocus_v) / 2 - mean_defocus(self.file)[
                rows
            ]
        if self.fit.transfer:
            columns |= {SIGNAL: values.signal, NOISE: values.noise}
        return columns

    def optics_columns(self, optics: Sequence[OpticsValues]) -> dict[str, list[Any]]:
        """Return the columns of the optics table, by label: those fitted, and those that were there."""
        fitted = {
            "beam_tilt": self.fit.odd,
            "magnification": self.fit.magnification,
            "odd_aberrations": self.fit.odd,
            "even_aberrations": self.fit.fourth_order,
        }
        columns: dict[str, list[Any]] = {}
        for label, name, component in _OPTICS_LABELS:
            if fitted[name]:
                for own, source in ((label, name), (_uncertainty(label), f"sigma_{name}")):
                    columns[own] = [float(getattr(values, source)[component]) for values in optics]
        for label, name in _VECTORS:
            length = max(len(getattr(values, name)) for values in optics)
            if fitted[name] and length:
                for own, source in ((label, name), (_uncertainty(label), f"sigma_{name}")):
                    columns[own] = [_vector(getattr(values, source), length) for values in optics]
        return columns

    def write_micrograph(self, folder: Path, rows: NDArray[np.int64], values: ParticleValues) -> Path:
        """Write ``<micrograph>_defocus_fit.star``, the particles of one micrograph with their values.

        Parameters
        ----------
        folder : Path
            The job's folder; the file goes where the micrograph lies in its own job's.
        rows : ndarray of int, shape (n,)
            The micrograph's particles.
        values : ParticleValues
            Their values.
        """
        table = self.file.columns.take(rows)
        path = folder / micrograph_path(table.words("rlnMicrographName")[0], "_defocus_fit.star")
        path.parent.mkdir(parents=True, exist_ok=True)
        # One of thousands, all of which stand in the job's result as well.
        write_star(path, {"": table.with_columns(**self.particle_columns(values, rows))}, flush=False)
        return path

    def write(self, path: Path, values: ParticleValues, optics: Sequence[OpticsValues], words: str) -> None:
        """Write all particles with their values, in the style of the file that they came from.

        Parameters
        ----------
        path : Path
            The file.
        values, optics
            Of all particles and all optics groups.
        words : str
            The command, for the top of the file.
        """
        from cryorefine import __version__

        comments = [f"cryorefine ctf-refine; version {__version__}", words]
        columns = self.particle_columns(values)
        of_groups = self.optics_columns(optics)
        if self.old_style and self.fits_one_table:
            groups = group_index(self.file)
            columns |= {label: np.asarray(numbers)[groups] for label, numbers in of_groups.items()}
            blocks = read_columns(self.source)
            name = next(name for name, block in blocks.items() if "rlnImageName" in block)
            blocks[name] = Columns({**blocks[name], **columns})
            write_star(path, blocks, comments)
            return
        optics_table = self.file.optics_columns.with_columns(**of_groups)
        table = self.file.columns.with_columns(**columns)
        write_particles(path, self.file.replace(optics=optics_table, particles=table), comments)

    @property
    def fits_one_table(self) -> bool:
        """Whether a single table, as RELION 3.0 writes it, can hold all that is fitted."""
        return not (self.fit.trefoil or self.fit.fourth_order or self.fit.magnification)


def micrograph_path(name: str, ending: str) -> Path:
    """Return where a micrograph's file goes in a job's folder, as RELION does it.

    Parameters
    ----------
    name : str
        rlnMicrographName, e.g. "MotionCorr/job002/Movies/mic.mrc".
    ending : str
        In place of the suffix.

    Examples
    --------
    "MotionCorr/job002/Movies/mic.mrc" gives "Movies/mic" and the ending.
    """
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    if len(parts) > 2 and re.fullmatch(r"job\d+", parts[1]):
        parts = parts[2:]
    if not parts:
        raise UserError(f"The micrograph name {name!r} names no file; correct rlnMicrographName.")
    return Path(*parts).with_suffix("").with_name(PurePosixPath(parts[-1]).stem + ending)


def write_beam_tilt(path: Path, optics: OpticsValues) -> None:
    """Write a group's beam tilt in mrad, with its uncertainty, as plain text."""
    lines = [
        f"# beam tilt in mrad of optics group {optics.name}, from {optics.particles} particles",
        f"beamtilt_x = {optics.beam_tilt[0]:.9g}",
        f"beamtilt_y = {optics.beam_tilt[1]:.9g}",
        f"beamtilt_x_uncertainty = {optics.sigma_beam_tilt[0]:.3g}",
        f"beamtilt_y_uncertainty = {optics.sigma_beam_tilt[1]:.3g}",
    ]
    with write_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _uncertainty(label: str) -> str:
    return label.replace("rln", "cryorefine", 1) + "Uncertainty"


def _vector(values: F64, length: int) -> str:
    """Return RELION's notation of a vector, in full precision; zeros for a group without values."""
    numbers = values if len(values) else np.zeros(length)
    return "[" + ",".join(repr(float(number)) for number in numbers) + "]"
