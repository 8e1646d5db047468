"""Pseudo-atoms, their maps and the transforms of their projections, in closed form.

The transform of a sum of Gaussians is known at every frequency, so what is made here holds no
interpolation, no padding and no grid of a reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import magnify
from cryorefine.geometry.symmetry import point_group

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]

_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Atoms:
    """Gaussian pseudo-atoms.

    Attributes
    ----------
    positions : ndarray, shape (atoms, 3)
        Coordinates (x, y, z) in A; the origin is what poses turn about.
    weights : ndarray, shape (atoms,)
        Integral of each atom.
    sigma : float
        Standard deviation of each atom in A; a B-factor B is 8 pi^2 sigma^2.
    """

    positions: F64
    weights: F64
    sigma: float

    @property
    def radius(self) -> float:
        """Distance of the outermost atom from the origin in A."""
        return float(np.linalg.norm(self.positions, axis=1).max())


def random_protein(
    residues: int, *, radius: float, symmetry: str = "C1", sigma: float = 1.5, seed: int = 1
) -> Atoms:
    """Return a lopsided chain of residues 3.8 A apart, folded into a globule, and its symmetry mates.

    Parameters
    ----------
    residues : int
        Residues of one subunit.
    radius : float
        Radius of the whole particle in A.
    symmetry : str
        Point group.
    sigma : float
        Width of a residue in A.
    seed : int
        Another one folds another chain.
    """
    rng = np.random.default_rng(seed)
    operators = point_group(symmetry).operators
    # Subunits sit off every symmetry axis; an ellipsoid has no symmetry that a mirror could hide in. Two
    # or three are long ones side by side: round ones would look the same from all around their axis.
    alone = len(operators) == 1
    if alone:
        centre, axes = np.zeros(3), np.array([0.95, 0.7, 0.5])
    elif len(operators) <= 3:
        centre, axes = np.array([0.35, 0.15, 0.1]), np.array([0.4, 0.3, 0.75])
    else:
        centre, axes = np.array([0.42, 0.22, 0.2]), np.array([0.45, 0.38, 0.32])
    centre, axes = radius * centre, radius * axes
    chain = [np.zeros(3)]
    while len(chain) < residues:
        step = rng.standard_normal(3)
        place = chain[-1] + 3.8 * step / np.linalg.norm(step)
        # Nothing grows in one octant, and never twice at one place.
        free = len(chain) < 3 or np.min(np.linalg.norm(np.array(chain[:-1]) - place, axis=1)) > 2.5
        if (
            np.sum((place / axes) ** 2) < 1
            and not np.all(place > 0.1 * axes)
            and (free or rng.random() < 0.02)
        ):
            chain.append(place)
    unit = np.array(chain) + centre
    unit -= unit.mean(axis=0) if alone else 0
    positions = np.concatenate([unit @ operator.T for operator in operators])
    return Atoms(positions, np.ones(len(positions)), sigma)


def density(atoms: Atoms, box: int, pixel_size: float) -> F32:
    """Return the atoms' map, whose sums along z are the pixels of their projections.

    Returns
    -------
    ndarray of float32, shape (box, box, box)
        z, y, x, with the origin at index box // 2.
    """
    edge = box * pixel_size
    half, whole = np.arange(box // 2 + 1), np.fft.fftfreq(box, 1 / box)
    spectrum = np.zeros((box, box, box // 2 + 1), np.complex64)
    for some in np.array_split(np.arange(len(atoms.positions)), -(-len(atoms.positions) // 4096)):
        ex, ey, ez = (_waves(atoms.positions[some, axis] / edge, box) for axis in range(3))
        left = np.ascontiguousarray(ey.T)
        for z in range(box):
            spectrum[z] += left @ (ex[:, : box // 2 + 1] * (atoms.weights[some] * ez[:, z])[:, None])
    square = (whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2) / edge**2
    spectrum *= np.exp(-2 * np.pi**2 * atoms.sigma**2 * square)
    spectrum[box // 2], spectrum[:, box // 2], spectrum[:, :, box // 2] = 0, 0, 0
    # Projections are integrals in A along z; sums over voxels are to give the same numbers.
    volume = scipy.fft.irfftn(spectrum, s=(box, box, box)) / pixel_size**2
    return np.fft.fftshift(volume).astype(np.float32)


def _waves(position: F64, box: int) -> C64:
    """Return exp(-2 pi i k position) for k in FFT order, position in boxes; shape (*position.shape, box)."""
    result = np.empty((*position.shape, box), np.complex64)
    result[..., 0] = 1
    done = 1
    while done <= box // 2:
        top = min(2 * done, box // 2 + 1)
        step = np.exp(-2j * np.pi * done * position).astype(np.complex64)[..., None]
        result[..., done:top] = result[..., : top - done] * step
        done = top
    result[..., box // 2 + 1 :] = result[..., 1 : (box + 1) // 2][..., ::-1].conj()
    return result


def project(
    atoms: Atoms,
    poses: F64,
    box: int,
    pixel_size: float,
    magnification: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0),
) -> C64:
    """Return the transforms of projections along the views' z axis.

    Parameters
    ----------
    atoms : Atoms
        What is projected.
    poses : ndarray, shape (n, 3, 3)
        Matrices from the particle's frame to the view's.
    box, pixel_size : int, float
        Edge in pixels and pixel size in A of the images.
    magnification : tuple of float
        Matrix (00, 01, 10, 11) from the images' frequencies to true ones.

    Returns
    -------
    ndarray of complex64, shape (n, box, box // 2 + 1)
        Half planes as :func:`numpy.fft.rfft2` gives them, about pixel (0, 0); the rows and columns of
        the Nyquist frequency are zero.
    """
    edge = box * pixel_size
    # The value at M k is a wave exp(-2 pi i k . (M^T r)): the exponentials of x and y separate.
    plane = np.reshape(magnification, (2, 2)).T @ poses[:, :2]
    x, y = np.moveaxis(plane @ atoms.positions.T / edge, 1, 0)
    spectra = np.zeros((len(poses), box, box // 2 + 1), np.complex64)
    some = max(1, _BATCH_BYTES // (16 * box * len(atoms.positions)))
    for first in range(0, len(poses), some):
        here = slice(first, first + some)
        right = _waves(x[here], box)[..., : box // 2 + 1] * atoms.weights.astype(np.float32)[:, None]
        spectra[here] = np.swapaxes(_waves(y[here], box), 1, 2) @ right
    fx, fy = magnify(np.reshape(magnification, (2, 2)), *frequencies(box, pixel_size))
    spectra *= (np.exp(-2 * np.pi**2 * atoms.sigma**2 * (fx**2 + fy**2)) / pixel_size**2).astype(np.float32)
    spectra[:, box // 2], spectra[:, :, box // 2] = 0, 0
    return spectra


def frequencies(box: int, pixel_size: float) -> tuple[F64, F64]:
    """Return the frequencies x and y in 1/A of a half plane, shape (box, box // 2 + 1) each."""
    edge = box * pixel_size
    fx, fy = np.meshgrid(np.arange(box // 2 + 1) / edge, np.fft.fftfreq(box, pixel_size))
    return fx, fy
