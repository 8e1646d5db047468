"""A map must not be seen as its mirror image: judged from the picture, not from the settings."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.io.mrc import Map, write_map
from napari_cryorefine._compat import camera_of
from napari_cryorefine.layers import add_map

SIZE = 48


def right_handed_helix() -> np.ndarray:
    """Return a rope that turns anticlockwise (from x to y) while it rises along y, the vertical axis.

    The axis is y because it stands upright on the screen. A right-handed helix turns about its axis
    as the fingers of the right hand do while it goes where the thumb points: about +y from z to x.
    """
    volume = np.zeros((SIZE, SIZE, SIZE), np.float32)
    z, y, x = np.indices(volume.shape) - SIZE / 2
    for height in np.arange(-16, 16, 0.25):
        angle = 2 * np.pi * height / 16
        at_z, at_x = 12 * np.cos(angle), 12 * np.sin(angle)
        volume += np.exp(-((z - at_z) ** 2 + (y - height) ** 2 + (x - at_x) ** 2) / 6)
    return volume


def slope_of_the_near_strands(picture: np.ndarray) -> float:
    """Return how the strands nearest to the viewer rise across the picture: > 0 means up to the right.

    The near strands of a right-handed helix rise to the right, whatever way up it is held: this is
    how hands are told on a screw.
    """
    brightness = picture[..., :3].sum(axis=2).astype(float)
    rows, columns = np.nonzero(brightness > 0.5 * brightness.max())
    # Within a band around the axis the strands are nearly straight; rows count downwards.
    middle = np.abs(columns - columns.mean()) < 0.2 * (np.ptp(columns) + 1)
    rows, columns = rows[middle], columns[middle]
    period = 0.5 * (np.ptp(rows) + 1)
    up = -(rows - rows.mean())
    across = columns - columns.mean()
    # Which shear makes the strands horizontal, so that they fall into few rows?
    shears = np.linspace(-2, 2, 81)
    contrast = [np.abs(np.exp(2j * np.pi * (up - shear * across) / period).sum()) for shear in shears]
    return float(shears[int(np.argmax(contrast))])


def picture_of(viewer, volume: np.ndarray) -> np.ndarray:
    """Return the picture of the half of the helix that is nearer to the viewer.

    The far strands lean the other way, so they are taken away: nearer is larger z ("towards").
    """
    near = volume.copy()
    near[: SIZE // 2] = 0
    viewer.layers[-1].data = near
    viewer.layers[-1].rendering = "mip"
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    return viewer.screenshot(canvas_only=True, flash=False)


@pytest.fixture
def viewer(make_napari_viewer):
    """Real viewer in a window that is shown: a hidden one stays black."""
    return make_napari_viewer(show=True)


def test_a_right_handed_helix_looks_right_handed(viewer):
    volume = right_handed_helix()
    add_map(viewer, Map(volume, 1.0))
    assert slope_of_the_near_strands(picture_of(viewer, volume)) > 0.2


def test_a_dropped_map_looks_right_handed_too(viewer, project, npe2pm):
    volume = right_handed_helix()
    write_map(project / "helix.mrc", volume, 1.0)
    with npe2pm.tmp_plugin(package="napari-cryorefine"):
        viewer.open(str(project / "helix.mrc"), plugin="napari-cryorefine")
    assert slope_of_the_near_strands(picture_of(viewer, volume)) > 0.2


def test_the_judge_sees_the_mirror_image_that_napari_shows_by_default(viewer):
    volume = right_handed_helix()
    add_map(viewer, Map(volume, 1.0))
    camera_of(viewer).orientation = ("towards", "down", "right")
    assert slope_of_the_near_strands(picture_of(viewer, volume)) < -0.2


def test_larger_z_is_nearer(viewer):
    """On this the judge relies: of two equal balls, the one of larger z looks larger in perspective."""
    z, y, x = np.indices((SIZE, SIZE, SIZE))
    balls = [
        (z - at_z) ** 2 + (y - SIZE / 2) ** 2 + (x - at_x) ** 2 < 16 for at_z, at_x in ((42, 12), (6, 36))
    ]
    volume = (balls[0] | balls[1]).astype(np.float32)
    add_map(viewer, Map(volume, 1.0), rendering="mip", contrast_limits=(0, 1))
    camera_of(viewer).perspective = 60
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    bright = viewer.screenshot(canvas_only=True, flash=False)[..., 0] > 128
    left, right = np.array_split(bright, 2, axis=1)
    assert left.sum() > 1.2 * right.sum() > 0
