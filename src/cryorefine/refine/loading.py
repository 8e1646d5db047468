"""Reads and checks the particles that a refinement starts from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.ctf import CtfParameters
from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.microscope import remedy_for
from cryorefine.io.particles import (
    ParticleFile,
    column,
    group_index,
    parse_vector,
    project_root,
    require,
)
from cryorefine.io.star import Columns
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet, single_particles

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")


def load_particles(
    file: ParticleFile, path: Path, *, seed: int, ctf_correction: bool
) -> tuple[ParticleFile, ParticleSet]:
    """Make arrays of single particles, with random halves where their file has none.

    Parameters
    ----------
    file : ParticleFile
        The particles as :func:`cryorefine.io.particles.read_particles` gives them.
    path : Path
        Where they were read from.
    seed : int
        Seed of the random halves.
    ctf_correction : bool
        Whether defocus values are needed.

    Returns
    -------
    ParticleFile, ParticleSet
        The tables, with rlnRandomSubset set, and the particles as arrays.

    Raises
    ------
    UserError
        If something is missing or does not fit together.
    """
    required = ["rlnImageName", *_OPTICS]
    if ctf_correction:
        required.append("rlnDefocusU")
    of_tilts = file.general is not None and int(file.general.get("rlnTomoSubTomosAre2DStacks", 0))
    if of_tilts or ("rlnTomoName" in file and "rlnDefocusU" not in file):
        raise UserError(
            f"{path} holds particles of tomograms, whose geometry is in a tomograms.star; give both with "
            "--tomograms or --optimisation-set."
        )
    require(file, required)
    names = file.columns.words("rlnImageName")
    root = project_root(path, str(names[0]))
    half = half_sets(file, path, seed)
    file = file.replace(particles=file.columns.with_columns(rlnRandomSubset=half))
    reader = ImageReader(root)
    optics = optics_groups(file, reader, names, path)
    labels = _group_names(file.columns)
    groups, group = np.unique(labels, return_inverse=True)

    def numbers(label: str, default: float = 0.0) -> NDArray[np.float64]:
        return column(file, label, default)

    defocus_u = numbers("rlnDefocusU")
    ctf = CtfParameters(
        voltage=column(file, "rlnVoltage"),
        spherical_aberration=column(file, "rlnSphericalAberration"),
        amplitude_contrast=column(file, "rlnAmplitudeContrast"),
        defocus_u=defocus_u,
        defocus_v=column(file, "rlnDefocusV") if "rlnDefocusV" in file else defocus_u,
        defocus_angle=numbers("rlnDefocusAngle"),
        phase_shift=numbers("rlnPhaseShift"),
        b_factor=numbers("rlnCtfBfactor"),
        scale=numbers("rlnCtfScalefactor", 1.0),
    )
    particles = single_particles(
        root=root,
        optics=optics,
        optics_index=group_index(file),
        groups=[str(g) for g in groups],
        group=group.astype(np.int64),
        image_names=list(names),
        ctf=ctf,
        half=half,
        angles=np.stack([numbers(f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")], axis=1),
        offsets=np.stack([numbers(f"rlnOrigin{a}Angst") for a in "XY"], axis=1),
        offset_priors=np.stack([numbers(f"rlnOrigin{a}PriorAngst") for a in "XY"], axis=1),
        norm=np.ones(len(names)),
    )
    return file, particles


def optics_groups(
    file: ParticleFile,
    reader: ImageReader,
    names: NDArray[np.object_],
    path: Path,
    *,
    any_dimensions: bool = False,
) -> tuple[OpticsGroup, ...]:
    """Read the optics groups, and look at the first image of each.

    Parameters
    ----------
    file : ParticleFile
        The tables.
    reader, names : ImageReader, ndarray of str
        Of the images.
    path : Path
        The file, for messages.
    any_dimensions : bool
        Whether images may be volumes.

    Raises
    ------
    UserError
        If images are not square with an even edge, or of another size or kind than the table says.
    """
    groups = [
        _optics_group(row, reader, names, group_index(file) == i, path)
        for i, row in enumerate(map(file.optics_columns.row, range(file.optics_columns.rows)))
    ]
    for group in groups:
        if group.dimensions != 2 and not any_dimensions:
            raise UserError(
                f"Optics group {group.name} of {path} holds volumes; give subtomograms with their "
                "tomograms: --tomograms or --optimisation-set."
            )
    return tuple(groups)


def _optics_group(
    row: dict[str, Any],
    reader: ImageReader,
    names: NDArray[np.object_],
    members: NDArray[np.bool_],
    path: Path,
) -> OpticsGroup:
    def vector(label: str) -> tuple[float, ...]:
        return tuple(parse_vector(str(row[label]))) if label in row else ()

    def number(label: str, default: float) -> float:
        return float(row[label]) if label in row else default

    name = str(row.get("rlnOpticsGroupName", row["rlnOpticsGroup"]))
    box = int(number("rlnImageSize", 0))
    dimensions = int(number("rlnImageDimensionality", 2))
    if members.any():
        first = str(names[np.flatnonzero(members)[0]])
        height, width = reader.shape(first)
        depth = reader.count(first) if dimensions == 3 else width
        if not height == width == depth or height % 2:
            size = " x ".join(str(n) for n in (width, height, depth)[:dimensions])
            raise UserError(
                f"{first} is {size} pixels; particle images must have equal, even edges: extract them again."
            )
        if box not in (0, height):
            raise UserError(
                f"{path} says rlnImageSize {box} for optics group {name}, but {first} is {height} pixels "
                "wide; correct the table."
            )
        box = height
    group = OpticsGroup(
        name=name,
        pixel_size=number("rlnImagePixelSize", 1.0),
        box=box,
        voltage=number("rlnVoltage", 300.0),
        spherical_aberration=number("rlnSphericalAberration", 2.7),
        amplitude_contrast=number("rlnAmplitudeContrast", 0.1),
        # A subtomogram is a sum of images that have been multiplied by their CTF.
        ctf_premultiplied=bool(int(number("rlnCtfDataAreCtfPremultiplied", 0))) or dimensions == 3,
        dimensions=dimensions,
        beam_tilt=(number("rlnBeamTiltX", 0.0), number("rlnBeamTiltY", 0.0)),
        odd_aberrations=vector("rlnOddZernike"),
        even_aberrations=vector("rlnEvenZernike"),
        magnification=(
            number("rlnMagMat00", 1.0),
            number("rlnMagMat01", 0.0),
            number("rlnMagMat10", 0.0),
            number("rlnMagMat11", 1.0),
        ),
    )
    _insist_on_optics(group, path)
    return group


def _insist_on_optics(group: OpticsGroup, path: Path) -> None:
    """Refuse a microscope that cannot be."""
    a, b, c, d = group.magnification
    mend = "correct the table"
    for label, shown, remedy in (
        *(
            (label, f"{value:g}", remedy_for(label, value))
            for label, value in (
                ("rlnVoltage", group.voltage),
                ("rlnSphericalAberration", group.spherical_aberration),
                ("rlnAmplitudeContrast", group.amplitude_contrast),
            )
        ),
        ("rlnImagePixelSize", f"{group.pixel_size:g}", "" if group.pixel_size > 0 else mend),
        ("rlnMagMat", f"[{a:g}, {b:g}; {c:g}, {d:g}]", "" if abs(a * d - b * c) > 0.1 else mend),
    ):
        if remedy:
            raise UserError(f"{path} has the {label} {shown} in optics group {group.name}; {remedy}.")


def half_sets(file: ParticleFile, path: Path, seed: int, draw: bool = True) -> I64:
    """Half set of each particle, drawn at random where the file has none.

    They must not be drawn where each half starts from a map of its own: particles would go to the map of
    the other half, and both would share what only one of them has seen.
    """
    count = len(file)
    if "rlnRandomSubset" in file:
        half = column(file, "rlnRandomSubset").astype(np.int64)
        if np.any(half != 0):
            if not np.isin(half, (1, 2)).all():
                wrong = int(half[~np.isin(half, (1, 2))][0])
                raise UserError(
                    f"{path} has rlnRandomSubset {wrong}; give every particle 1 or 2, or remove the "
                    "column to draw new halves."
                )
            if half.min() == half.max():
                raise UserError(
                    f"All {count} particles of {path} are in half set {half[0]} (rlnRandomSubset); "
                    "remove the column to draw new halves."
                )
            return half
    if not draw:
        raise UserError(
            f"{path} does not say which half set its particles are in (rlnRandomSubset), but the reference "
            "is two half maps; add the column of the particles that these were made from, or rename one map "
            "to start both halves from it."
        )
    if count < 2:
        raise UserError(f"{path} holds {count} particle; a refinement needs at least two.")
    # Equal halves in random order.
    order = np.random.default_rng(seed).permutation(count)
    half = np.empty(count, np.int64)
    half[order] = 1 + np.arange(count) % 2
    return half


def _group_names(table: Columns) -> NDArray[np.object_]:
    """Name each particle's group of equal intensity: its own, else its micrograph without the job folder."""
    if "rlnGroupName" in table:
        return table.words("rlnGroupName")
    if "rlnMicrographName" not in table:
        return np.full(table.rows, "all", dtype=object)
    names = table.words("rlnMicrographName")
    short = {name: re.sub(r"^\w+/job\d+/", "", name) for name in set(names)}
    names[:] = [short[name] for name in names]
    return names


def check_images(
    particles: ParticleSet, reader: ImageReader, diameter: float
) -> Iterator[tuple[int, int, str]]:
    """Read every image once, so that a broken one is named before any work is done.

    Parameters
    ----------
    particles : ParticleSet
        The particles.
    reader : ImageReader
        Of their images.
    diameter : float
        Mask diameter in A; what is outside of it is background.

    Yields
    ------
    done, total : int
        Images read and their number.
    warning : str
        One sentence, at the end; otherwise empty.

    Raises
    ------
    UserError
        If an image is missing, is of the wrong size, is empty or holds NaN.
    """
    total = len(particles.image_names)
    background: list[NDArray[np.float64]] = []
    for first in range(0, total, 256):
        here = np.arange(first, min(first + 256, total))
        for view in np.unique(particles.image_view[here]):
            some = here[particles.image_view[here] == view]
            optics = particles.optics[particles.views[view].optics]
            of_tilts = particles.frames is not None
            background.append(_check_batch(particles.image_names[some], reader, optics, diameter, of_tilts))
        yield here[-1] + 1, total, _unnormalised(background) if here[-1] + 1 == total else ""


def _check_batch(
    names: NDArray[np.object_], reader: ImageReader, optics: OpticsGroup, diameter: float, of_tilts: bool
) -> NDArray[np.float64]:
    """Check images of one optics group; return mean and deviation of each background, shape (n, 2)."""
    if optics.dimensions == 3:
        for k, name in enumerate(names):
            _check_values(names[k : k + 1], reader.read_stack(str(name))[None], optics)
        return np.empty((0, 2))
    images = reader.read([str(n) for n in names])
    _check_values(names, images, optics)
    axis = np.arange(optics.box) - optics.box // 2
    outside = np.hypot(axis[:, None], axis) > diameter / 2 / optics.pixel_size
    # What has been multiplied by its CTF has no longer a background of variance 1, and images of
    # subtomograms never had.
    if outside.sum() <= 16 or optics.ctf_premultiplied or of_tilts:
        return np.empty((0, 2))
    background = images[:, outside].astype(np.float64)
    return np.stack([background.mean(axis=1), background.std(axis=1)], axis=1)


def _check_values(names: NDArray[np.object_], images: F32, optics: OpticsGroup) -> None:
    if set(images.shape[1:]) != {optics.box}:
        size = " x ".join(str(n) for n in images.shape[:0:-1])
        raise UserError(
            f"{names[0]} is {size} pixels, but its optics group {optics.name} has {optics.box}; put images "
            "of another size into a group of their own."
        )
    axes = tuple(range(1, images.ndim))
    finite = np.isfinite(images).all(axis=axes)
    if not finite.all():
        raise UserError(f"{names[~finite][0]} holds values that are no numbers (NaN); remove this particle.")
    varied = np.ptp(images, axis=axes) > 0
    if not varied.all():
        raise UserError(f"{names[~varied][0]} is empty (every pixel is the same); remove this particle.")


def _unnormalised(background: list[NDArray[np.float64]]) -> str:
    values = np.concatenate(background)
    if len(values) == 0:
        return ""
    mean, deviation = values.mean(axis=0)
    if 0.5 <= deviation <= 2 and abs(mean) <= 0.5 * deviation:
        return ""
    return (
        f"The images are not normalised: their background has mean {mean:.3g} and standard deviation "
        f"{deviation:.3g} instead of 0 and 1; extract them with normalisation."
    )


def check_geometry(particles: ParticleSet, diameter: float, path: Path) -> None:
    """Refuse a mask that is larger than the images.

    Raises
    ------
    UserError
        If the mask diameter exceeds the box of an optics group.
    """
    for optics in particles.optics:
        edge = optics.box * optics.pixel_size
        if optics.box and diameter > edge:
            raise UserError(
                f"The images of {path} are {edge:.4g} A wide, less than the mask diameter of {diameter:g} A; "
                "choose a smaller --mask-diameter or extract larger boxes."
            )
