"""Reads and checks the subtomograms that a refinement starts from: stacks of tilt images, or volumes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.ctf import CtfParameters
from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.particles import ParticleFile, column, group_index, project_root, require
from cryorefine.io.tomograms import TiltSeries, read_tomograms
from cryorefine.refine.loading import half_sets, optics_groups
from cryorefine.refine.particle_set import OpticsGroup, ParticleSet, View
from cryorefine.tomo.geometry import image_ctf, project
from cryorefine.tomo.particles import Subtomograms, positions_in_stack, read_subtomograms

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def load_subtomograms(
    path: Path,
    tomograms: Path,
    trajectories: Path | None,
    *,
    seed: int,
    tilt_prior: bool,
    draw_halves: bool = True,
) -> tuple[ParticleFile, ParticleSet]:
    """Read pseudo-subtomograms as particles of many images, or of one volume each.

    All tilt images of a tomogram share its views: poses and offsets are those in the tomogram's frame,
    and ``ParticleSet.frames`` leads back to the frames of the file.

    Parameters
    ----------
    path : Path
        Particle STAR file of extracted subtomograms.
    tomograms : Path
        Their tomograms.star.
    trajectories : Path or None
        Their motion.star.
    seed : int
        Seed of the random halves, where the file has none.
    tilt_prior : bool
        Whether the centres of a prior on the tilt angle are needed: rlnAngleTiltPrior, or else, as in RELION,
        the tilt angles that the refinement starts from.
    draw_halves : bool
        Whether halves may be drawn where the file has none.

    Returns
    -------
    ParticleFile, ParticleSet
        The tables, with rlnRandomSubset set, and the particles as arrays.

    Raises
    ------
    UserError
        If something is missing or does not fit together.
    """
    found = read_subtomograms(path, read_tomograms(tomograms, images=False), trajectories)
    require(found.file, ["rlnImageName", "rlnImagePixelSize"])
    _check_pixel_sizes(found.file, path)
    names = found.file.columns.words("rlnImageName")
    root = project_root(path, str(names[0]))
    reader = ImageReader(root)
    half = half_sets(found.file, path, seed, draw_halves)
    file = found.file.replace(particles=found.file.columns.with_columns(rlnRandomSubset=half), path=path)
    optics = optics_groups(file, reader, names, path, any_dimensions=True)
    volumes = {group.dimensions == 3 for group in optics}
    if len(volumes) > 1:
        raise UserError(f"{path} mixes stacks and volumes; refine them apart, or extract all in one form.")
    groups, group = np.unique(found.tomogram_names.astype(str), return_inverse=True)
    images = _volumes(found, file, optics, path) if volumes.pop() else _tilts(found, file, reader, path)
    image_names, image_particle, image_view, views, ctf, weights = images
    count = len(found)
    of_volumes = weights is not None
    frames = None if of_volumes else found.sub_rotations
    particles = ParticleSet(
        root=root,
        optics=optics,
        views=views,
        groups=tuple(str(name) for name in groups),
        image_names=image_names,
        image_particle=image_particle,
        image_view=image_view,
        ctf=ctf,
        identity=np.arange(count),
        half=half,
        group=group.astype(np.int64),
        poses=found.poses if frames is None else frames @ found.poses,
        offsets=found.offsets if frames is None else np.einsum("nij,nj->ni", frames, found.offsets),
        offset_priors=np.zeros((count, 3)),
        norm=np.ones(count),
        frames=frames,
        tilt_priors=_tilt_priors(file) if tilt_prior else None,
        weight_names=weights,
        tomograms=tomograms,
        trajectories=trajectories,
    )
    return file, particles


def _tilt_priors(file: ParticleFile) -> F64:
    known = "rlnAngleTiltPrior" in file
    return column(file, "rlnAngleTiltPrior" if known else "rlnAngleTilt", 0.0)


def _check_pixel_sizes(file: ParticleFile, path: Path) -> None:
    """Refuse images whose pixel is not the binned one of their tilt series, where the table tells both."""
    optics = file.optics_columns
    if "rlnTomoSubtomogramBinning" not in optics:
        return
    used = np.unique(group_index(file))
    labels = ("rlnImagePixelSize", "rlnTomoTiltSeriesPixelSize", "rlnTomoSubtomogramBinning")
    pixel, unbinned, binning = (optics.numbers(label)[used] for label in labels)
    wrong = np.flatnonzero(np.abs(pixel / (unbinned * binning) - 1) > 0.01)
    if len(wrong):
        k = wrong[0]
        raise UserError(
            f"{path} gives the images of optics group {used[k] + 1} {pixel[k]:g} A/px, but tilt images of "
            f"{unbinned[k]:g} A/px binned {binning[k]:g} times have {unbinned[k] * binning[k]:g}; correct "
            "the pixel size or extract the particles again."
        )


_Images = tuple[NDArray[np.object_], I64, I64, tuple[View, ...], CtfParameters, NDArray[np.object_] | None]


def _tilts(found: Subtomograms, file: ParticleFile, reader: ImageReader, path: Path) -> _Images:
    """List the images of all stacks, those of a particle one after the other, with a view for each tilt."""
    if file.general is None or not int(file.general.get("rlnTomoSubTomosAre2DStacks", 0)):
        raise UserError(
            f"{path} does not say that its subtomograms are 2D stacks (rlnTomoSubTomosAre2DStacks 1 in "
            "data_general), but its images have two dimensions; extract them with pseudo-subtomo."
        )
    require(file, ["rlnTomoVisibleFrames"])
    optics_of = group_index(file)
    stacks = file.columns.words("rlnImageName")
    names: list[list[str]] = [[] for _ in stacks]
    image_views: list[I64] = [np.empty(0, np.int64)] * len(stacks)
    parameters: list[F64] = [np.empty((0, 0))] * len(stacks)
    views: list[View] = []
    scale = [field.name for field in fields(CtfParameters)].index("scale")
    for series, rows in found.by_tomogram():
        visible = found.visible_frames(series, rows)
        _, depths = project(series, found.positions(series, rows))
        columns = _ctf_columns(series, depths)
        first_view = {}
        for group in np.unique(optics_of[rows]):
            first_view[group] = len(views)
            views += [View(int(group), tilt[:3, :3], tilt[:2, :3]) for tilt in series.projections]
        for k, row in enumerate(rows):
            stack = str(stacks[row])
            position = positions_in_stack(reader, stack, visible[k], str(found.names[row]))
            # An image without contrast holds nothing.
            shown = np.flatnonzero(visible[k] & (columns[k, :, scale] != 0))
            if len(shown) == 0:
                raise UserError(f"{path} has no visible image of {found.names[row]}; remove this particle.")
            names[row] = [f"{i + 1}@{stack}" for i in position[shown]]
            image_views[row] = first_view[optics_of[row]] + shown
            parameters[row] = columns[k, shown]
    count = [len(each) for each in names]
    return (
        np.array([name for each in names for name in each], dtype=object),
        np.repeat(np.arange(len(stacks)), count),
        np.concatenate(image_views).astype(np.int64),
        tuple(views),
        CtfParameters(*np.concatenate(parameters).T),
        None,
    )


def _ctf_columns(series: TiltSeries, depths: F64) -> F64:
    """CTF parameters of every particle in every tilt, damped by the dose, shape (n, tilts, parameters).

    They are in the order of the fields of CtfParameters.
    """
    ctf = image_ctf(series, depths, damped=True)
    columns = [ctf.column(field.name) for field in fields(CtfParameters)]
    return np.stack(columns, axis=1).reshape(*depths.shape, -1)


def _volumes(found: Subtomograms, file: ParticleFile, optics: tuple[OpticsGroup, ...], path: Path) -> _Images:
    """List volumes with the files of their squared CTF; each sees its particle as the file's poses do."""
    require(file, ["rlnCtfImage"])
    count = len(found)
    return (
        file.columns.words("rlnImageName"),
        np.arange(count),
        group_index(file),
        tuple(View(i, np.eye(3), np.eye(3)) for i in range(len(optics))),
        CtfParameters(*np.zeros((len(fields(CtfParameters)), count))),
        file.columns.words("rlnCtfImage"),
    )
