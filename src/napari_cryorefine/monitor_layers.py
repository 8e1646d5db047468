"""Half maps of an iteration and their difference, as layers with one contrast and one level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryorefine.io.mrc import Map, read_map
from cryorefine.jobs.refinement_history import Iteration
from napari_cryorefine.layers import HALF_MAP_COLORMAPS, add_half_maps, add_map, own_layer, show_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

HALF_1, HALF_2, BOTH, DIFFERENCE = "Half map 1", "Half map 2", "Both, overlaid", "Difference"
VIEWS = (HALF_1, HALF_2, BOTH, DIFFERENCE)
"""What a person can look at: blue and orange add up to grey where both halves agree."""
_SEEN = {HALF_1: (0,), HALF_2: (1,), BOTH: (0, 1), DIFFERENCE: (2,)}
_LINKED = ("iso_threshold", "rendering")


@dataclass(frozen=True, eq=False)
class IterationMaps:
    """The maps of an iteration, read.

    Attributes
    ----------
    iteration : Iteration
        Whose they are.
    halves : tuple of Map
        Half maps 1 and 2.
    difference : Map
        The first minus the second.
    """

    iteration: Iteration
    halves: tuple[Map, Map]
    difference: Map


def read_maps(iteration: Iteration) -> Iterator[IterationMaps]:
    """Read the maps of an iteration; made to run in a thread."""
    one, two = (read_map(path) for path in iteration.half_maps)
    yield IterationMaps(iteration, (one, two), Map(one.data - two.data, one.pixel_size))


def show_maps(viewer: ViewerModel, maps: IterationMaps, job: str, view: str) -> tuple[Image, Image, Image]:
    """Show the maps of an iteration in place of those of the one before.

    Contrast and level that a person has set stay; the difference has the contrast of the half maps, with 0
    in its middle, and takes part in its changes.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show them.
    maps : IterationMaps
        The maps.
    job : str
        Name of the job; its layers are replaced.
    view : str
        Which of them are visible, one of :data:`VIEWS`.
    """
    role = f"{job} difference"
    known = own_layer(viewer, role)
    one, two = add_half_maps(viewer, *maps.halves, role=f"{job} monitor")
    number = maps.iteration.number
    difference = add_map(
        viewer,
        maps.difference,
        name=f"half 1 - half 2, iteration {number}",
        role=role,
        colormap=_difference_colormap(),
        visible=False,
    )
    for half, layer in enumerate((one, two)):
        layer.name = f"half {half + 1}, iteration {number}"
    if known is None:
        # Where the halves agree, blue and orange add up to grey.
        two.blending = "additive"
        _link(viewer, one, difference)
        choose_view(viewer, job, view)
    else:
        _follow_contrast(one, difference)
    return one, two, difference


def choose_view(viewer: ViewerModel, job: str, view: str) -> None:
    """Make some of the three layers visible; see :data:`VIEWS`."""
    for place, role in enumerate((f"{job} monitor half 1", f"{job} monitor half 2", f"{job} difference")):
        layer = own_layer(viewer, role)
        if layer is not None:
            show_layer(layer, place in _SEEN[view])


def _difference_colormap() -> Any:
    """Blue where half map 1 has more, orange where half map 2 has, as they are coloured themselves."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    more, less = (ensure_colormap(name).colors[-1] for name in HALF_MAP_COLORMAPS)
    return Colormap([less, [0, 0, 0, 1], more], name="half differences", display_name="half differences")


def _link(viewer: ViewerModel, half: Image, difference: Image) -> None:
    difference.iso_threshold, difference.rendering = half.iso_threshold, half.rendering
    viewer.layers.link_layers([half, difference], _LINKED)
    half.events.contrast_limits.connect(lambda: _follow_contrast(half, difference))
    _follow_contrast(half, difference)


def _follow_contrast(half: Any, difference: Any) -> None:
    """Give the difference the width of the half maps' contrast, around 0."""
    low, high = half.contrast_limits
    width = (high - low) / 2
    limits = (-width, width)
    bounds = difference.contrast_limits_range
    difference.contrast_limits_range = (min(bounds[0], -width), max(bounds[1], width))
    difference.contrast_limits = limits
