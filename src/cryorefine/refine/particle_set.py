"""Particles as the refinement sees them: poses and parameters in arrays, images by name.

A particle has one or more images. Each image belongs to a view: a fixed rotation from the particle's
frame to the image's, and a rule that turns the particle's shift into a shift of the image. All single
particles of an optics group share one view; a tilt series has one for each tilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryorefine.ctf.ctf import CtfParameters
from cryorefine.geometry.euler import matrices

F64 = NDArray[np.float64]
Index = NDArray[np.int64]


_OF_PARTICLES = (
    "identity", "half", "group", "poses", "offsets", "offset_priors", "norm", "frames", "tilt_priors",
)  # fmt: skip
_OF_IMAGES = ("image_names", "image_view", "weight_names")


@dataclass(frozen=True)
class OpticsGroup:
    """What the images of one optics group share.

    Attributes
    ----------
    name : str
        Name of the group.
    pixel_size : float
        A per pixel of the images.
    box : int
        Edge of the images in pixels.
    voltage, spherical_aberration, amplitude_contrast : float
        kV, mm and fraction.
    ctf_premultiplied : bool
        Whether the images have been multiplied by their CTF.
    dimensions : int
        2 for images, 3 for volumes (subtomograms).
    beam_tilt : tuple of float
        Beam tilt (x, y) in mrad.
    odd_aberrations, even_aberrations : tuple of float
        Zernike coefficients.
    magnification : tuple of float
        Matrix (00, 01, 10, 11) from the image's frequencies to true ones.
    """

    name: str
    pixel_size: float
    box: int
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    ctf_premultiplied: bool = False
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    odd_aberrations: tuple[float, ...] = ()
    even_aberrations: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)
    dimensions: int = 2


@dataclass(frozen=True, eq=False)
class View:
    """Geometry that images share.

    Attributes
    ----------
    optics : int
        Index of the optics group.
    rotation : ndarray, shape (3, 3)
        From the particle's frame to the image's.
    projection : ndarray, shape (2, dimensions)
        Turns a particle's shift in A into the image's shift (x, y) in A.
    """

    optics: int
    rotation: F64
    projection: F64


@dataclass(frozen=True, eq=False)
class ParticleSet:
    """Particles and their images.

    Attributes
    ----------
    root : Path
        Folder that image names are relative to.
    optics, views, groups : tuple
        Optics groups, views, and names of the groups that share an intensity scale.
    image_names : ndarray of str, shape (images,)
        ``number@stack`` of each image.
    image_particle, image_view : ndarray of int, shape (images,)
        Particle and view of each image; the images of a particle are consecutive.
    ctf : CtfParameters
        Of every image.
    identity : ndarray of int, shape (particles,)
        Row of each particle in the file; seeds its random numbers.
    half : ndarray of int, shape (particles,)
        Half set, 1 or 2.
    group : ndarray of int, shape (particles,)
        Index into ``groups``.
    poses : ndarray, shape (particles, 3, 3)
        Orientation matrices.
    offsets, offset_priors : ndarray, shape (particles, dimensions)
        Shifts in A that centre the particle, and the centre of their prior.
    norm : ndarray, shape (particles,)
        Norm correction.
    frames : ndarray, shape (particles, 3, 3), or None
        From the frame in which a particle's pose and offset are filed to the one in which they are
        searched, which for tilt series is that of the tomogram; None where these are the same.
    tilt_priors : ndarray, shape (particles,), or None
        Tilt angle in degrees, in the frame of the file, that a prior on the tilt is centred on.
    weight_names : ndarray of str, shape (images,), or None
        Files with the squared CTF of each image, of subtomograms that are volumes.
    tomograms, trajectories : Path or None
        Files that subtomograms belong to.
    """

    root: Path
    optics: tuple[OpticsGroup, ...]
    views: tuple[View, ...]
    groups: tuple[str, ...]
    image_names: NDArray[np.object_]
    image_particle: Index
    image_view: Index
    ctf: CtfParameters
    identity: Index
    half: Index
    group: Index
    poses: F64
    offsets: F64
    offset_priors: F64
    norm: F64
    frames: F64 | None = None
    tilt_priors: F64 | None = None
    weight_names: NDArray[np.object_] | None = None
    tomograms: Path | None = None
    trajectories: Path | None = None

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.identity)

    @property
    def tilt_axes(self) -> F64:
        """Axis that the tilt angle of each particle is measured from, as searched, shape (particles, 3)."""
        if self.frames is None:
            return np.tile([0.0, 0.0, 1.0], (len(self), 1))
        return np.ascontiguousarray(self.frames[:, :, 2])

    @property
    def dimensions(self) -> int:
        """Dimensions of a particle's shift: 2 for single particles, 3 for subtomograms."""
        return self.offsets.shape[1]

    @cached_property
    def image_optics(self) -> Index:
        """Optics group of each image, shape (images,)."""
        return np.array([view.optics for view in self.views], np.int64)[self.image_view]

    @property
    def used_optics(self) -> Index:
        """Optics groups that have images."""
        return np.unique(self.image_optics)

    def images(self, images: Index) -> ParticleSet:
        """Return some of the images, with particles that are of no more use."""
        changes = {name: values[images] for name in _OF_IMAGES if (values := getattr(self, name)) is not None}
        return replace(self, **changes, image_particle=self.image_particle[images], ctf=self.ctf.take(images))

    @cached_property
    def _sorted_images(self) -> tuple[Index, Index]:
        """Images in the order of their particles, and where each particle's begin: (images,), (n + 1,)."""
        order = np.argsort(self.image_particle, kind="stable")
        return order, np.searchsorted(self.image_particle[order], np.arange(len(self) + 1))

    def take(self, particles: Index) -> ParticleSet:
        """Return some of the particles with their images, in the order given."""
        order, begin = self._sorted_images
        first, last = begin[particles], begin[particles + 1]
        images = np.concatenate([order[a:b] for a, b in zip(first, last, strict=True)] or [order[:0]])
        changes = {
            name: values[particles] for name in _OF_PARTICLES if (values := getattr(self, name)) is not None
        }
        changes |= {
            name: values[images] for name in _OF_IMAGES if (values := getattr(self, name)) is not None
        }
        return replace(
            self,
            **changes,
            image_particle=np.repeat(np.arange(len(particles)), last - first),
            ctf=self.ctf.take(images),
        )


def single_particles(
    *,
    root: Path,
    optics: Sequence[OpticsGroup],
    optics_index: Index,
    groups: Sequence[str],
    group: Index,
    image_names: Sequence[str],
    ctf: CtfParameters,
    half: Index,
    angles: F64,
    offsets: F64,
    offset_priors: F64,
    norm: F64,
) -> ParticleSet:
    """Build a set in which every particle has one image, seen along its own z axis.

    ``angles`` are Euler angles in degrees, ``offsets`` and ``offset_priors`` in A, shapes (n, 3),
    (n, 2) and (n, 2); the rest is as in :class:`ParticleSet`.
    """
    count = len(image_names)
    return ParticleSet(
        root=root,
        optics=tuple(optics),
        views=tuple(View(i, np.eye(3), np.eye(2)) for i in range(len(optics))),
        groups=tuple(groups),
        image_names=np.asarray(image_names, dtype=object),
        image_particle=np.arange(count),
        image_view=np.asarray(optics_index, np.int64),
        ctf=ctf,
        identity=np.arange(count),
        half=half,
        group=group,
        poses=matrices(*angles.T),
        offsets=offsets,
        offset_priors=offset_priors,
        norm=norm,
    )
