import pickle
import re
import subprocess

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryorefine.errors import UserError
from cryorefine.geometry.euler import matrices
from cryorefine.geometry.symmetry import angular_distance, point_group

ORDERS = {"C1": 1, "C6": 6, "C17": 17, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24}
ORDERS |= dict.fromkeys(["I", "I1", "I2", "I3", "I4"], 60)
# (fold, axis) from RELION's documentation of its settings
AXES = {
    "C6": [(6, (0, 0, 1))],
    "D7": [(7, (0, 0, 1)), (2, (1, 0, 0))],
    "T": [(3, (0, 0, 1)), (2, (0, 0.816496, 0.577350))],
    "O": [(4, (0, 0, 1)), (3, (0.577350, 0.577350, 0.577350))],
    "I": [(2, (0, 0, 1)), (5, (0.525731, 0, 0.850651)), (3, (0, 0.356822, 0.934172))],
    "I1": [(2, (1, 0, 0)), (5, (0.850651, 0, -0.525731)), (3, (0.934172, 0.356822, 0))],
    "I2": [(2, (0, 0, 1)), (5, (0.525731, 0, 0.850651)), (3, (0, 0.356822, 0.934172))],
    "I3": [(5, (0, 0, 1)), (2, (-0.525731, 0, 0.850651)), (3, (-0.491123, 0.356822, 0.794654))],
    "I4": [
        (5, (0.894427, 0, 0.447214)),
        (5, (0, 0, 1)),
        (2, (0.525731, 0, 0.850651)),
        (3, (0.491123, 0.356822, 0.794654)),
    ],
}


def contains(operators, operator, tolerance=1e-12):
    return np.abs(operators - operator).max(axis=(1, 2)).min() < tolerance


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_a_group_is_closed_and_made_of_distinct_rotations(name, order):
    operators = point_group(name).operators
    assert len(operators) == order
    np.testing.assert_array_equal(operators[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(operators), 1, atol=1e-14)
    np.testing.assert_allclose(
        operators @ np.swapaxes(operators, 1, 2), np.eye(3)[None].repeat(order, 0), atol=1e-14
    )
    assert all(contains(operators, a @ b) for a in operators for b in operators[:5])
    gaps = np.abs(operators[:, None] - operators).max(axis=(2, 3)) + np.eye(order)
    assert gaps.min() > 0.1


@pytest.mark.parametrize("name", AXES)
def test_axes_lie_where_relion_has_them(name):
    operators = point_group(name).operators
    for fold, axis in AXES[name]:
        turn = Rotation.from_rotvec(2 * np.pi / fold * np.array(axis)).as_matrix()
        assert contains(operators, turn, 1e-5), (fold, axis)


@pytest.mark.parametrize("name", ["C6", "D2", "D3", "T", "O", "I1", "I2", "I3", "I4"])
def test_operators_are_those_that_relion_prints(name, relion):
    text = subprocess.run(
        [relion("refine"), "--sym", name, "--print_symmetry_ops"], capture_output=True, text=True, check=True
    ).stdout
    blocks = re.split(r"R\(\d+\)=", text)[1:]
    printed = [
        np.array(re.findall(r"-?[\d.]+(?:e-?\d+)?", block)[:9], float).reshape(3, 3) for block in blocks
    ]
    operators = point_group(name).operators
    assert len(printed) == len(operators)
    assert all(contains(operators, matrix, 1e-4) for matrix in printed)


def test_names_are_free_in_case_and_blanks():
    assert point_group(" d7 ").name == "D7"
    assert point_group("i").name == "I"
    np.testing.assert_array_equal(point_group("i").operators, point_group("I2").operators)


@pytest.mark.parametrize(
    "name", ["C0", "C", "CI", "CS", "C3V", "D2H", "S4", "TD", "TH", "OH", "IH", "I5", "X", "", "C-1", "D2.5"]
)
def test_groups_without_a_chiral_molecule_are_refused(name):
    with pytest.raises(UserError, match="Cn, Dn"):
        point_group(name)


def test_a_group_travels_between_processes():
    group = pickle.loads(pickle.dumps(point_group("O")))
    assert group is point_group("O")


def test_mates_give_the_same_projection_of_a_symmetric_map(rng):
    # points related by D3; the slice at A.T @ k is the transform of the points projected along A
    operators = point_group("D3").operators
    points = (operators @ rng.normal(size=(4, 3)).T).swapaxes(1, 2).reshape(-1, 3)
    a = matrices(*rng.uniform(-180, 180, 3))
    k = np.column_stack([rng.normal(size=(30, 2)), np.zeros(30)])
    image = np.exp(2j * np.pi * (k @ a) @ points.T).sum(axis=1)
    for operator in operators:
        mate = np.exp(2j * np.pi * (k @ a @ operator) @ points.T).sum(axis=1)
        np.testing.assert_allclose(mate, image, atol=1e-10)
    # the operator on the other side is another orientation altogether
    wrong = np.exp(2j * np.pi * (k @ operators[1] @ a) @ points.T).sum(axis=1)
    assert np.abs(wrong - image).max() > 0.1


def test_distance_without_symmetry_is_the_geodesic(rng):
    a, b = Rotation.random(2 * 300, random_state=1).as_matrix().reshape(2, 300, 3, 3)
    expected = np.rad2deg((Rotation.from_matrix(a).inv() * Rotation.from_matrix(b)).magnitude())
    np.testing.assert_allclose(angular_distance(a, b), expected, atol=1e-7)


@pytest.mark.parametrize("name", ["C3", "D2", "T", "I3"])
def test_distance_with_symmetry_is_the_smallest_over_mates(name, rng):
    group = point_group(name)
    a, b = Rotation.random(2 * 40, random_state=2).as_matrix().reshape(2, 40, 3, 3)
    expected = np.min([angular_distance(a, b @ s) for s in group.operators], axis=0)
    np.testing.assert_allclose(angular_distance(a, b, group), expected, atol=1e-9)
    np.testing.assert_allclose(angular_distance(a, a @ group.operators[-1], group), 0, atol=1e-9)


def test_small_distances_are_exact():
    tiny = np.array([1e-9, 1e-6, 1e-3])
    np.testing.assert_allclose(angular_distance(np.eye(3), matrices(0, tiny, 0)), tiny, rtol=1e-6)
