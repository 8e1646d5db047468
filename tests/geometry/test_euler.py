import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryorefine.geometry.euler import angles, matrices, view_directions


def test_matrix_is_the_transpose_of_scipys_intrinsic_zyz(rng):
    rot, tilt, psi = rng.uniform(-180, 180, (3, 200))
    expected = Rotation.from_euler("ZYZ", np.stack([rot, tilt, psi], axis=1), degrees=True).as_matrix()
    np.testing.assert_allclose(matrices(rot, tilt, psi), np.swapaxes(expected, 1, 2), atol=1e-14)


def test_rot_turns_the_reference_about_z_first():
    # rot 90 takes the reference's y axis to the view's x axis
    np.testing.assert_allclose(matrices(90, 0, 0) @ [0, 1, 0], [1, 0, 0], atol=1e-15)
    # tilt 90 looks along the reference's x axis
    np.testing.assert_allclose(matrices(0, 90, 0)[2], [1, 0, 0], atol=1e-15)


def test_viewing_direction_is_the_third_row(rng):
    rot, tilt, psi = rng.uniform(-180, 180, (3, 50))
    np.testing.assert_allclose(view_directions(rot, tilt), matrices(rot, tilt, psi)[:, 2], atol=1e-15)


def test_angles_invert_matrices(rng):
    rot, psi = rng.uniform(-180, 180, (2, 500))
    tilt = rng.uniform(0.001, 179.999, 500)
    np.testing.assert_allclose(angles(matrices(rot, tilt, psi)), (rot, tilt, psi), atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 180.0, 1e-7, 180 - 1e-7, -60.0, 240.0, 360.0])
def test_round_trip_of_matrices_holds_at_poles_and_outside_the_range(rng, tilt):
    rot, psi = rng.uniform(-180, 180, (2, 100))
    a = matrices(rot, tilt, psi)
    rot2, tilt2, psi2 = angles(a)
    assert np.all((tilt2 >= 0) & (tilt2 <= 180))
    np.testing.assert_allclose(matrices(rot2, tilt2, psi2), a, atol=1e-8)


def test_at_the_poles_rot_is_zero_and_psi_holds_everything():
    rot, tilt, psi = angles(matrices(30, [0, 180], 50))
    np.testing.assert_allclose(rot, 0)
    np.testing.assert_allclose(tilt, [0, 180])
    np.testing.assert_allclose(psi, [80, 20])


def test_shapes_broadcast():
    assert matrices(0, [[10], [20]], [1, 2, 3]).shape == (2, 3, 3, 3)
    assert [part.shape for part in angles(np.eye(3))] == [(), (), ()]
