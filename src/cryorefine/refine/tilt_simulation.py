"""Tilt series of particles with known places and poses, computed from atoms without any map or tomogram.

The geometry is that of RELION 5. A particle at r (A from the middle of the tomogram, x, y, z) lies in a
tilt image at ``R r + shift`` (A from pixel ``size // 2``), where R = Rz(ZRot) Ry(YTilt) Rx(XTilt) turns
right-handed about fixed axes; the z of ``R r``, times the handedness, adds to the defocus. The specimen's
protein is dark, as a microscope records it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from cryorefine.ctf.ctf import CtfParameters, ctf, electron_wavelength
from cryorefine.refine.atoms import Atoms, frequencies, project

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MEAN_FREE_PATH = 3000.0
"""Of inelastic scattering in ice at 300 kV, in A (Rice et al. (2018), J. Struct. Biol. 204:38)."""


@dataclass(frozen=True, eq=False)
class TiltGeometry:
    """How a tilt series was taken; one value for each tilt image.

    Attributes
    ----------
    tilt, axis : ndarray, shape (tilts,)
        Stage angle, and angle from the images' y axis to the tilt axis (rlnTomoZRot), degrees.
    shifts : ndarray, shape (tilts, 2)
        x and y in A by which the specimen lies off the middle of each image.
    ctf : CtfParameters
        Of the middle of the tomogram, with the dose before each image and the contrast it lost to
        the tilt as ``scale``.
    hand : int
        1 or -1: whether a particle with positive z in the image's frame has the larger defocus.
    """

    tilt: F64
    axis: F64
    shifts: F64
    ctf: CtfParameters
    hand: int = -1

    def __len__(self) -> int:
        """Return the number of tilt images."""
        return len(self.tilt)

    @property
    def rotations(self) -> F64:
        """Matrices from the tomogram's frame to the images', shape (tilts, 3, 3)."""
        angles = np.stack([self.axis, self.tilt], axis=1)
        return Rotation.from_euler("ZY", angles, degrees=True).as_matrix()


def dose_symmetric(count: int, step: float, dose: float) -> tuple[F64, F64]:
    """Return tilt angles in rising order, and the dose before each where small tilts are taken first.

    Angles go from 0 outwards, to both sides in turn (Hagen et al. (2017), J. Struct. Biol. 197:191).

    Parameters
    ----------
    count : int
        Number of images, odd.
    step : float
        Degrees between neighbours.
    dose : float
        Electrons per A^2 of each image.

    Returns
    -------
    tilt, pre_exposure : ndarray, shape (count,)
        Degrees, electrons per A^2.
    """
    number = np.arange(count) - count // 2
    turn = np.argsort(np.argsort(2 * np.abs(number) - (number > 0)))
    return np.asarray(number * step, np.float64), np.asarray(turn * dose, np.float64)


def contrast_of_tilt(tilt: ArrayLike, thickness: float | None = None) -> F64:
    """Return the share of an untilted image's contrast that is left, 1 without tilt.

    Without a thickness that is cos(tilt), RELION's rule of thumb; with one it is what inelastic
    scattering in ice of that thickness (A) leaves, exp(-(1 / cos(tilt) - 1) thickness / mean free path).
    """
    cosine = np.cos(np.radians(np.asarray(tilt, np.float64)))
    if thickness is None:
        return cosine
    return np.exp(-(1 / cosine - 1) * thickness / MEAN_FREE_PATH)


def random_places(
    count: int, half_extent: tuple[float, float, float], distance: float, rng: np.random.Generator
) -> F64:
    """Return places of particles that keep their distance, x, y, z in A; shape (count, 3).

    Parameters
    ----------
    count : int
        Number of particles.
    half_extent : tuple of float
        Largest coordinates x, y, z in A.
    distance : float
        Least distance of two particles in A; a tenth less is tried again and again where there is no room.
    rng : numpy.random.Generator
        Source of the places.
    """
    places = np.empty((0, 3))
    while len(places) < count:
        for place in rng.uniform(-1, 1, (1000, 3)) * half_extent:
            if len(places) == 0 or np.linalg.norm(places - place, axis=1).min() >= distance:
                places = np.concatenate([places, place[None]])
                if len(places) == count:
                    break
        distance *= 0.9
    return places


def places_in_images(places: F64, geometry: TiltGeometry, pixel_size: float, size: int) -> F64:
    """Return where particles lie in tilt images, x and y in pixels; shape (particles, tilts, 2).

    ``places`` are x, y, z in A from the middle of the tomogram, shape (particles, 3); ``size`` is the
    edge of the images.
    """
    turned = np.einsum("fij,pj->pfi", geometry.rotations[:, :2], places)
    return (turned + geometry.shifts) / pixel_size + size // 2


def ctf_of_particle(place: F64, geometry: TiltGeometry) -> CtfParameters:
    """Return the CTF of a particle (x, y, z in A) in every tilt: its depth adds to the defocus."""
    depth = geometry.hand * (geometry.rotations[:, 2] @ place)
    transfer = geometry.ctf
    return replace(
        transfer,
        defocus_u=transfer.column("defocus_u") + depth,
        defocus_v=transfer.column("defocus_v") + depth,
    )


def simulate_tilt_images(
    atoms: Atoms,
    places: F64,
    poses: F64,
    geometry: TiltGeometry,
    *,
    pixel_size: float,
    size: int,
    contrast: float = 1.0,
) -> F32:
    """Return the tilt images of a specimen without noise, protein dark.

    Parameters
    ----------
    atoms : Atoms
        The particle.
    places : ndarray, shape (particles, 3)
        x, y, z in A from the middle of the tomogram.
    poses : ndarray, shape (particles, 3, 3)
        From the particle's frame to the tomogram's.
    geometry : TiltGeometry
        Tilts, shifts, CTF and dose.
    pixel_size, size : float, int
        A per pixel, and edge of the images in pixels.
    contrast : float
        Factor on the signal.

    Returns
    -------
    ndarray of float32, shape (tilts, size, size)
        Particles overlap as they do in a microscope: their projections add up.
    """
    images = np.zeros((len(geometry), size, size), np.float32)
    box = _box(atoms, geometry.ctf, pixel_size)
    x, y = frequencies(box, pixel_size)
    centres = places_in_images(places, geometry, pixel_size, size)
    for place, pose, centre in zip(places, poses, centres, strict=True):
        views = geometry.rotations @ pose
        corner = np.floor(centre + 0.5).astype(np.int64) - box // 2
        # What is left after whole pixels; the origin of the transform goes to the middle of the box.
        move = (centre - corner)[..., None, None] * pixel_size
        spectra = project(atoms, views, box, pixel_size)
        spectra *= np.exp(-2j * np.pi * (move[:, 0] * x + move[:, 1] * y)).astype(np.complex64)
        transfer = ctf(ctf_of_particle(place, geometry), x.ravel(), y.ravel()).reshape(spectra.shape)
        signal = -contrast * scipy.fft.irfft2(spectra * transfer, s=(box, box))
        for image, piece, (left, low) in zip(images, signal, corner, strict=True):
            _add(image, piece, low, left)
    return images


def _add(image: F32, piece: F32, low: int, left: int) -> None:
    """Add what lies inside an image of a piece whose first pixel is row low and column left."""
    height, width = piece.shape
    rows, columns = (slice(max(first, 0), first + n) for first, n in ((low, height), (left, width)))
    target = image[rows, columns] if rows.stop > 0 and columns.stop > 0 else image[:0, :0]
    above, before = max(-low, 0), max(-left, 0)
    target += piece[above : above + target.shape[0], before : before + target.shape[1]]


def _box(atoms: Atoms, parameters: CtfParameters, pixel_size: float) -> int:
    """Edge in pixels of a box that holds a projection and what the CTF carries out of it."""
    defocus = np.abs(parameters.column("defocus_u")).max() + 1000
    # A frequency k is carried lambda k defocus away; the finest one that counts is two thirds of Nyquist.
    reach = electron_wavelength(parameters.column("voltage"))[0] * defocus / (3 * pixel_size)
    return 2 * scipy.fft.next_fast_len(
        int(np.ceil((atoms.radius + 5 * atoms.sigma + reach) / pixel_size)), real=True
    )
