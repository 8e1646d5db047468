"""Euler angles, point groups, HEALPix grids, trial orientations and shifts."""

from cryorefine.geometry.euler import angles, matrices, view_directions
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.geometry.symmetry import PointGroup, angular_distance, point_group
from cryorefine.geometry.translations import (
    oversample_translations,
    translation_grid_2d,
    translation_grid_3d,
)

__all__ = [
    "PointGroup",
    "SamplingGrid",
    "angles",
    "angular_distance",
    "matrices",
    "oversample_translations",
    "point_group",
    "translation_grid_2d",
    "translation_grid_3d",
    "view_directions",
]
