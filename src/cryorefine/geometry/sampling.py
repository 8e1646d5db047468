"""The grid of trial orientations of one iteration.

A coarse orientation is a HEALPix direction and an in-plane angle; its cell holds eight fine
orientations (four child pixels x two in-plane angles). All matrices of an iteration are turned by
one small random rotation, so that the grid does not favour the same poses in every iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.geometry import healpix
from cryorefine.geometry.euler import matrices, view_directions
from cryorefine.geometry.local_search import find_candidates, twist
from cryorefine.geometry.symmetry import point_group


@dataclass(frozen=True)
class SamplingGrid:
    """Trial orientations of a HEALPix order, within the asymmetric unit of a point group.

    ``orientation index = direction index * n_psi + psi index``; direction indices count the
    pixels of the asymmetric unit, which for C1 is the whole sphere. The object itself is small:
    its arrays are computed once per process and shared.

    Attributes
    ----------
    order : int
        HEALPix order of the coarse grid.
    group : str
        Point group whose asymmetric unit is sampled. Local searches need the whole sphere, "C1",
        whatever the particle's symmetry.
    perturbation : float
        Random part of a step in [-0.5, 0.5]; every matrix A becomes ``A @ R(p*D, p*D, p*D)``
        with D the coarse step in degrees.
    """

    order: int
    group: str = "C1"
    perturbation: float = 0.0

    def __post_init__(self) -> None:
        if self.order < 0 or abs(self.perturbation) > 0.5:
            raise ValueError(
                f"order {self.order} must be >= 0, perturbation {self.perturbation} within +-0.5"
            )
        point_group(self.group)

    @property
    def step(self) -> float:
        """Coarse angular step in degrees; the fine one is half of it."""
        return healpix.angular_step(self.order)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """NEST pixel number of every direction, shape (n_directions,)."""
        return healpix.asymmetric_unit(self.order, self.group)

    @property
    def directions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rot and tilt in degrees of every direction, without perturbation, shape (n_directions,) each."""
        rot, tilt = healpix.directions(self.order)
        return (rot, tilt) if self.is_full else (rot[self.pixels], tilt[self.pixels])

    @property
    def psi(self) -> NDArray[np.float64]:
        """In-plane angles in degrees, without perturbation, shape (n_psi,)."""
        return healpix.psi_angles(self.order)

    @property
    def n_psi(self) -> int:
        """Number of in-plane angles."""
        return 6 * 2**self.order

    @property
    def n_directions(self) -> int:
        """Number of directions."""
        return len(self.pixels)

    @property
    def n_orientations(self) -> int:
        """Number of coarse orientations."""
        return self.n_directions * self.n_psi

    @property
    def is_full(self) -> bool:
        """Whether the grid covers the whole sphere."""
        return self.n_directions == 12 * 4**self.order

    @property
    def perturbation_matrix(self) -> NDArray[np.float64]:
        """The small rotation that multiplies every matrix from the right, shape (3, 3)."""
        angle = self.perturbation * self.step
        return matrices(angle, angle, angle)

    def coarse_matrices(self, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the matrices of coarse orientations, with perturbation.

        Parameters
        ----------
        indices : array_like of int, shape (n,), optional
            Orientation indices; all of them if not given.

        Returns
        -------
        ndarray of float64, shape (n, 3, 3)
            Rotation matrices, reference to view.
        """
        direction, psi = self._split(indices)
        rot, tilt = healpix.directions(self.order)
        pixel = self.pixels[direction]
        return matrices(rot[pixel], tilt[pixel], self.psi[psi]) @ self.perturbation_matrix

    def fine_matrices(self, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the eight fine orientations in the cell of each coarse one, with perturbation.

        In-plane angles are counted as seen from the centre of the cell: at the same psi, the four child
        pixels would differ in-plane by more than the cell is wide wherever the tilt is below 45 degrees.

        Parameters
        ----------
        indices : array_like of int, shape (n,), optional
            Orientation indices; all of them if not given.

        Returns
        -------
        ndarray of float64, shape (n, 8, 3, 3)
            Rotation matrices; the second axis is ``2 * child pixel + psi half``.
        """
        direction, psi = self._split(indices)
        rot, tilt = healpix.directions(self.order + 1)
        parent = self.pixels[direction]
        pixel = healpix.children(parent)
        rot0, tilt0 = (angle[parent][:, None] for angle in healpix.directions(self.order))
        turn = twist(rot0, tilt0, rot[pixel], tilt[pixel])
        in_plane = healpix.oversampled_psi(self.psi[psi], self.step)[:, None, :] - turn[:, :, None]
        fine = matrices(rot[pixel][:, :, None], tilt[pixel][:, :, None], in_plane)
        return (fine @ self.perturbation_matrix).reshape(-1, 8, 3, 3)

    def parents(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Return which group each orientation is in: four pixels of one pixel, and two in-plane angles.

        Angles are compared as seen from the centre of the four pixels, so that a group is compact near
        the poles as well.

        Parameters
        ----------
        indices : array_like of int, shape (n,)
            Orientation indices; the grid's order must be at least 1.
        """
        direction, psi = self._split(indices)
        pixel = self.pixels[direction]
        fine, coarse = healpix.directions(self.order), healpix.directions(self.order - 1)
        parent = pixel // 4
        turn = twist(coarse[0][parent], coarse[1][parent], fine[0][pixel], fine[1][pixel])
        pair = np.floor((self.psi[psi] + turn) / self.step / 2 + 0.25).astype(np.int64)
        return np.asarray(parent * (self.n_psi // 2) + pair % (self.n_psi // 2))

    def parent_matrices(self, parents: ArrayLike) -> NDArray[np.float64]:
        """Return the orientations at the centres of groups of eight, with perturbation, shape (n, 3, 3)."""
        pixel, pair = np.divmod(np.asarray(parents, dtype=np.int64), self.n_psi // 2)
        rot, tilt = healpix.directions(self.order - 1)
        psi = (2 * pair + 0.5) * self.step
        return matrices(rot[pixel], tilt[pixel], psi) @ self.perturbation_matrix

    def local_candidates(
        self, prior_matrix: ArrayLike, sigma: float, relax_group: str | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the orientations near one previous orientation; see :meth:`local_candidates_many`.

        Parameters
        ----------
        prior_matrix : array_like, shape (3, 3)
            Previous orientation, reference to view.
        sigma : float
            Standard deviation in degrees.
        relax_group : str, optional
            Point group whose mates of the previous orientation are searched too.

        Returns
        -------
        indices : ndarray of int64, shape (m,)
        weights : ndarray of float64, shape (m,)
            Prior probabilities, summing to 1.
        """
        _, indices, weights = self.local_candidates_many(
            np.asarray(prior_matrix, dtype=np.float64)[None], sigma, relax_group
        )
        return indices, weights

    def local_candidates_many(
        self, prior_matrices: ArrayLike, sigma: float, relax_group: str | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the orientations within three sigma of each previous orientation.

        The difference of two orientations is split into the angle between their viewing
        directions and the rotation about the view that is left; both must be within three sigma
        and carry a Gaussian weight. Unlike a difference of psi values this does not depend on
        the coordinate pole, and because the whole sphere is searched no symmetry mate is
        needed. Perturbation does not take part. A previous orientation with nothing within three
        sigma gets the closest direction and in-plane angle.

        Parameters
        ----------
        prior_matrices : array_like, shape (n, 3, 3)
            Previous orientations, reference to view.
        sigma : float
            Standard deviation in degrees of both angles.
        relax_group : str, optional
            Point group whose mates ``A @ S`` of the previous orientation A are centres too, each
            with an equal share of the weight.

        Returns
        -------
        indptr : ndarray of int64, shape (n + 1,)
            Particle i has the entries ``indptr[i]:indptr[i + 1]``.
        indices : ndarray of int64, shape (m,)
            Orientation indices, rising within a particle.
        weights : ndarray of float64, shape (m,)
            Prior probabilities, summing to 1 for each particle.

        Raises
        ------
        ValueError
            If the grid does not cover the whole sphere.
        """
        if not self.is_full:
            raise ValueError(f"local searches need the whole sphere, not the asymmetric unit of {self.group}")
        priors = np.asarray(prior_matrices, dtype=np.float64)
        if relax_group is None:
            return find_candidates(self.order, priors[:, None], sigma)
        operators = point_group(relax_group).operators
        return find_candidates(self.order, priors[:, None] @ operators, sigma)

    def _split(self, indices: ArrayLike | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return direction and psi indices of orientation indices."""
        if indices is None:
            indices = np.arange(self.n_orientations)
        direction, psi = np.divmod(np.asarray(indices, dtype=np.int64), self.n_psi)
        return direction, psi

    @property
    def direction_vectors(self) -> NDArray[np.float64]:
        """Unit vectors (x, y, z) of every direction, without perturbation, shape (n_directions, 3)."""
        return view_directions(*self.directions)
