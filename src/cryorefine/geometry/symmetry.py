"""Point groups of chiral molecules: their operators, and distances that respect them.

An operator S acts on reference coordinates (x, y, z): a symmetric map has ``V(S @ r) == V(r)``.
The slice of such a map at ``A.T @ k`` equals the slice at ``S.T @ A.T @ k``, so an orientation A
and every mate ``A @ S`` give the same image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine.errors import UserError

_GOLDEN = (1 + np.sqrt(5)) / 2
# (fold, axis) of the rotations that generate each group. The axes are those that RELION documents
# for its names; I2 is the "222" setting with a two-fold on every coordinate axis.
_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, np.sqrt(2), 1))),
    "O": ((4, (0, 0, 1)), (3, (1, 1, 1))),
    "I1": ((2, (1, 0, 0)), (5, (_GOLDEN, 0, -1))),
    "I2": ((2, (0, 0, 1)), (5, (1, 0, _GOLDEN))),
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, _GOLDEN))),
    "I4": ((5, (2, 0, 1)), (2, (1, 0, _GOLDEN))),
}
_ALIASES = {"I": "I2"}


@dataclass(frozen=True, eq=False)
class PointGroup:
    """A group of rotations.

    Attributes
    ----------
    name : str
        Upper-case name as given, e.g. "C6", "D2" or "I".
    operators : ndarray of float64, shape (n, 3, 3)
        All operators on (x, y, z) coordinates, the identity first; read-only.
    """

    name: str
    operators: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of operators, identity included."""
        return len(self.operators)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Send a group to another process as its name."""
        return point_group, (self.name,)


def point_group(name: str) -> PointGroup:
    """Return the point group of a name: Cn, Dn, T, O, I (the same as I2), I1, I2, I3 or I4.

    The n-fold axis of Cn and Dn is z; the two-folds of Dn include x. T has a three-fold on z,
    O a four-fold on z, I and I2 two-folds on all three axes, I1 the same turned by 90 degrees
    about y, I3 and I4 a five-fold on z.

    Parameters
    ----------
    name : str
        Name of the group; case does not matter.

    Raises
    ------
    UserError
        If the name is not one of these. Groups with mirrors or an inversion (CNV, CNH, CI, CS,
        S2N, TD, TH, OH, IH) are refused too: no molecule made of L-amino acids has them.
    """
    return _point_group(str(name).strip().upper())


@lru_cache(maxsize=32)
def _point_group(name: str) -> PointGroup:
    cyclic = re.fullmatch(r"([CD])([1-9]\d{0,2})", name)
    if cyclic:
        operators = _rotations_about_z(int(cyclic[2]))
        if cyclic[1] == "D":
            operators = np.concatenate([operators, operators @ np.diag([1.0, -1.0, -1.0])])
    elif _ALIASES.get(name, name) in _GENERATORS:
        generators = _GENERATORS[_ALIASES.get(name, name)]
        operators = _closure([_rotation(fold, axis) for fold, axis in generators])
    else:
        raise UserError(
            f"Symmetry {name!r} is not one of Cn, Dn (n from 1 to 999), T, O, I, I1, I2, I3 or I4; groups "
            "with mirrors or an inversion, and I5, do not occur in chiral molecules or have no definition, "
            "so choose the rotational group of the particle."
        )
    operators.setflags(write=False)
    return PointGroup(name, operators)


def angular_distance(a: ArrayLike, b: ArrayLike, group: PointGroup | None = None) -> NDArray[np.float64]:
    """Return the smallest rotation angle between orientations, over all symmetry mates.

    The geodesic distance ``min over S of angle(a.T @ b @ S)``: viewing direction and in-plane
    angle count together.

    Parameters
    ----------
    a, b : array_like, shape (n, 3, 3) or (3, 3)
        Rotation matrices, reference to view; broadcast against each other.
    group : PointGroup, optional
        Symmetry of the reference; none means C1.

    Returns
    -------
    ndarray of float64, shape (n,) or ()
        Degrees in [0, 180].
    """
    first, second = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    if group is not None and len(group) > 1:
        # trace(a.T b S) = sum_jk (a.T b)_jk S_kj, all operators in one product
        relative = np.swapaxes(first, -1, -2) @ second
        flat = np.swapaxes(group.operators, -1, -2).reshape(len(group), 9)
        best = np.argmax(relative.reshape(*relative.shape[:-2], 9) @ flat.T, axis=-1)
        second = second @ group.operators[best]
    # arccos of the trace is blind below 1e-6 degrees; the two half-angle terms are not
    sine = np.sqrt(np.sum((first - second) ** 2, axis=(-2, -1)) / 8)
    cosine = np.sqrt(np.maximum(0.0, (np.sum(first * second, axis=(-2, -1)) + 1) / 4))
    return np.rad2deg(2 * np.arctan2(sine, cosine))


def _rotation(fold: int, axis: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation by 360/fold degrees about an axis (Rodrigues' formula)."""
    direction = np.asarray(axis, dtype=np.float64)
    x, y, z = direction / np.linalg.norm(direction)
    angle = 2 * np.pi / fold
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _rotations_about_z(fold: int) -> NDArray[np.float64]:
    """Return all rotations of a fold about z, shape (fold, 3, 3)."""
    angle = 2 * np.pi * np.arange(fold) / fold
    operators = np.zeros((fold, 3, 3))
    operators[:, 0, 0] = operators[:, 1, 1] = np.cos(angle)
    operators[:, 1, 0] = np.sin(angle)
    operators[:, 0, 1] = -operators[:, 1, 0]
    operators[:, 2, 2] = 1
    return operators


def _closure(generators: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Multiply generators until nothing new appears; return the whole group, identity first."""
    operators = [np.eye(3)]
    for operator in operators:  # grows while it is walked
        for generator in generators:
            u, _, vt = np.linalg.svd(generator @ operator)
            product = u @ vt  # the nearest rotation: rounding does not build up
            if all(np.abs(product - known).max() > 1e-6 for known in operators):
                operators.append(product)
    return np.stack(operators)
