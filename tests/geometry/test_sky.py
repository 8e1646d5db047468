"""The sphere on paper: every direction has its place, areas are equal, and the hand is right."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.geometry.healpix import directions, nearest_pixels
from cryorefine.geometry.sky import (
    mollweide_image,
    mollweide_pixels,
    mollweide_position,
    order_of,
    sphere_mesh,
)


def test_known_places_on_the_map():
    across, up = mollweide_position([0, 90, -90, 0, 0, 0], [90, 90, 90, 0, 180, 90])
    np.testing.assert_allclose(across, [0, 1, -1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(up, [0, 0, 0, 1, -1, 0], atol=1e-6)
    # Snyder's table: latitude 40 degrees lies 0.53 of the way up... sin(t) with 2t + sin 2t = pi sin(40).
    _, height = mollweide_position(0, 50)
    t = np.arcsin(float(height))
    assert 2 * t + np.sin(2 * t) == pytest.approx(np.pi * np.sin(np.deg2rad(40)), abs=1e-9)


def test_the_picture_shows_each_direction_at_its_place():
    rot, tilt = directions(2)
    image = mollweide_pixels(2, 400)
    across, up = mollweide_position(rot, tilt)
    # A pixel on the back of the sphere lies on the rim, where rounding may leave the ellipse.
    inside = np.abs(rot) < 179
    columns = ((across + 2) / 4 * 400).astype(int)[inside]
    rows = ((1 - up) / 2 * 200).astype(int)[inside]
    np.testing.assert_array_equal(image[rows, columns], np.flatnonzero(inside))


def test_pixels_have_equal_areas():
    pixels = mollweide_pixels(1, 1000)
    counts = np.bincount(pixels[pixels >= 0], minlength=48)
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.03)


def test_outside_the_ellipse_is_nothing():
    image = mollweide_image(np.ones(192), 100)
    assert image.shape == (50, 100)
    assert np.isnan(image[0, 0])
    assert np.isfinite(image).mean() == pytest.approx(np.pi / 4, abs=0.01)


def test_values_that_are_no_sphere_are_refused():
    assert order_of(np.zeros(768)) == 3
    with pytest.raises(ValueError, match="190 values"):
        order_of(np.zeros(190))


def test_the_mesh_is_closed_and_looks_outwards():
    vectors, triangles = sphere_mesh(2)
    assert len(triangles) == 2 * len(vectors) - 4  # Euler
    a, b, c = (vectors[triangles[:, i]] for i in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a) > 0).all()
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert volume == pytest.approx(4 * np.pi / 3, rel=0.04)
    np.testing.assert_array_equal(
        nearest_pixels(
            np.rad2deg(np.arctan2(vectors[:, 1], vectors[:, 0])), np.rad2deg(np.arccos(vectors[:, 2])), 2
        ),
        np.arange(192),
    )
