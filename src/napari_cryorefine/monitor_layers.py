"""Half maps of an iteration and their difference, as layers with one contrast and one level."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryorefine.io.mrc import Map, read_map
from cryorefine.jobs.refinement_history import Iteration
from napari_cryorefine._compat import draws_in_software, show_true_hand
from napari_cryorefine.layer_data import display_range, layer_keywords
from napari_cryorefine.layers import HALF_MAP_COLORMAPS, own_layer, show_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

HALF_1, HALF_2, BOTH, DIFFERENCE = "Half map 1", "Half map 2", "Both, overlaid", "Difference"
VIEWS = (HALF_1, HALF_2, BOTH, DIFFERENCE)
"""What a person can look at: blue and orange add up to grey where both halves agree."""
_SEEN = {HALF_1: (0,), HALF_2: (1,), BOTH: (0, 1), DIFFERENCE: (2,)}
_LINKED = ("contrast_limits", "iso_threshold", "rendering")


@dataclass(frozen=True, eq=False)
class ShownMap:
    """A map with what its layer needs to know, worked out where the window need not wait for it.

    Attributes
    ----------
    map : Map
        The map.
    limits, level : tuple of float and float
        Contrast and level that suit it at first sight.
    extremes : tuple of float
        Its lowest and highest value.
    """

    map: Map
    limits: tuple[float, float]
    level: float
    extremes: tuple[float, float]


@dataclass(frozen=True, eq=False)
class IterationMaps:
    """The maps of an iteration: half maps 1 and 2, and the first minus the second."""

    iteration: Iteration
    maps: tuple[ShownMap, ShownMap, ShownMap]


def read_maps(iteration: Iteration) -> Iterator[IterationMaps]:
    """Read the maps of an iteration; made to run in a thread."""
    one, two = (read_map(path) for path in iteration.half_maps)
    difference = Map(one.data - two.data, one.pixel_size)
    limits, level = display_range(one.data)
    width = (limits[1] - limits[0]) / 2
    yield IterationMaps(
        iteration,
        (
            ShownMap(one, limits, level, _extremes(one)),
            ShownMap(two, limits, level, _extremes(two)),
            ShownMap(difference, (-width, width), level, _extremes(difference)),
        ),
    )


def show_maps(viewer: ViewerModel, maps: IterationMaps, job: str, view: str) -> Generator[None, None, None]:
    """Show the maps of an iteration in place of those of the one before, one layer at each step.

    Contrast and level that a person has set stay. The half maps share both; the difference has the width
    of their contrast with 0 in its middle, and their level.

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
    number = maps.iteration.number
    names = (
        f"half 1, iteration {number}",
        f"half 2, iteration {number}",
        f"half 1 - half 2, iteration {number}",
    )
    layers: list[Image] = []
    for place, (shown, name, role) in enumerate(zip(maps.maps, names, _roles(job), strict=True)):
        layer = own_layer(viewer, role)
        if layer is None:
            if place == 0:
                _hide_other_jobs(viewer, job)
            layer = _add(viewer, shown, name, role, place, visible=place in _SEEN[view])
            _link(viewer, layers, layer)
        else:
            _renew(layer, shown, name)
        layers.append(layer)
        yield


def choose_view(viewer: ViewerModel, job: str, view: str) -> None:
    """Make some of the three layers visible; see :data:`VIEWS`."""
    for place, role in enumerate(_roles(job)):
        layer = own_layer(viewer, role)
        if layer is not None:
            show_layer(layer, place in _SEEN[view])


def _difference_colormap() -> Any:
    """Blue where half map 1 has more, orange where half map 2 has, as they are coloured themselves."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    more, less = (ensure_colormap(name).colors[-1] for name in HALF_MAP_COLORMAPS)
    return Colormap([less, [0, 0, 0, 1], more], name="half differences", display_name="half differences")


def _hide_other_jobs(viewer: ViewerModel, job: str) -> None:
    """Hide what other jobs have shown, so that this one is what is seen; the person's own layers stay."""
    for layer in viewer.layers:
        role = str(layer.metadata.get("role") or f"{job} ")
        if not role.startswith(f"{job} "):
            show_layer(layer, False)


def _roles(job: str) -> tuple[str, str, str]:
    return f"{job} monitor half 1", f"{job} monitor half 2", f"{job} monitor difference"


def _extremes(source: Map) -> tuple[float, float]:
    return float(source.data.min()), float(source.data.max())


def _add(viewer: ViewerModel, shown: ShownMap, name: str, role: str, place: int, *, visible: bool) -> Image:
    keywords = layer_keywords(shown.map.path, shown.map.pixel_size, name=name, kind="map")
    keywords["metadata"] |= {"role": role, "display_range": (shown.limits, shown.level)}
    show_true_hand(viewer)
    return viewer.add_image(
        shown.map.data,
        contrast_limits=shown.limits,
        iso_threshold=shown.level,
        rendering="mip" if draws_in_software() else "iso",
        colormap=(*HALF_MAP_COLORMAPS, _difference_colormap())[place],
        # Where the halves agree, blue and orange add up.
        blending="additive" if place == 1 else "translucent_no_depth",
        visible=visible,
        **keywords,
    )


def _renew(layer: Any, shown: ShownMap, name: str) -> None:
    """Put another map into a layer; what a person has set on it stays."""
    limits, level = layer.metadata["display_range"]
    untouched = np.allclose(layer.contrast_limits, limits, rtol=1e-4)
    level_untouched = np.isclose(layer.iso_threshold, level, rtol=1e-4)
    layer.data, layer.name = shown.map.data, name
    layer.metadata.update(
        path=str(shown.map.path or ""),
        pixel_size=shown.map.pixel_size,
        display_range=(shown.limits, shown.level),
    )
    if tuple(layer.scale) != (shown.map.pixel_size,) * 3:
        layer.scale = (shown.map.pixel_size,) * 3
    if untouched:
        ends = (*shown.limits, *shown.extremes)
        layer.contrast_limits_range = (min(ends), max(ends))
        layer.contrast_limits = shown.limits
    if level_untouched:
        layer.iso_threshold = shown.level


def _link(viewer: ViewerModel, before: list[Image], layer: Any) -> None:
    """Link the second half map with the first, and the difference as far as it can be."""
    if not before:
        return
    half: Any = before[0]
    if len(before) == 1:
        for attribute in _LINKED:
            setattr(layer, attribute, getattr(half, attribute))
        viewer.layers.link_layers([half, layer], _LINKED)
        return
    layer.iso_threshold, layer.rendering = half.iso_threshold, half.rendering
    viewer.layers.link_layers([half, layer], _LINKED[1:])

    def follow() -> None:
        low, high = half.contrast_limits
        width = (high - low) / 2
        bounds = layer.contrast_limits_range
        layer.contrast_limits_range = (min(bounds[0], -width), max(bounds[1], width))
        layer.contrast_limits = (-width, width)

    half.events.contrast_limits.connect(follow)
    follow()
