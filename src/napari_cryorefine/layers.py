"""Maps, masks, stacks and particles shown in a viewer, in angstroms and in their true hand.

Works with a ``napari.Viewer`` and with a ``ViewerModel``; loads no Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cryorefine._compat import show_true_hand
from napari_cryorefine.layer_data import (
    MASK_COLOR,
    SOFT_EDGE_COLOR,
    layer_keywords,
    map_layer,
    mask_keywords,
    mask_regions,
    stack_layer,
)
from napari_cryorefine.outlines import MaskOutlines

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Points, Surface
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map
    from cryorefine.io.particles import ParticleFile

MIRROR = (1, -1, 1)
HALF_MAP_COLORMAPS = ("bop blue", "bop orange")


def add_map(
    viewer: ViewerModel, source: Map | Path | str, *, name: str = "", role: str = "", **style: Any
) -> Image:
    """Show a map; a map of the same role is replaced, anything else is left alone.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show it. Its camera is turned to the true hand with the first map.
    source : Map or path
        The map or its MRC file.
    name : str
        Name of the layer; the file's name without its ending by default.
    role : str
        Names the layer among ours, e.g. "Refine3D/job001 half 1", so that the map of the next
        iteration takes its place. The person's own contrast and level stay as they were set.
    **style
        Further keywords of ``viewer.add_image``, e.g. ``colormap``.

    Returns
    -------
    napari.layers.Image
        The layer that shows the map.

    Raises
    ------
    UserError
        If the file is missing or not a map.
    """
    from napari_cryorefine.large_maps import large_keywords

    loaded = _load(source)
    data, keywords, _ = map_layer(loaded, name=name)
    layer = own_layer(viewer, role)
    if layer is not None:
        _refresh(layer, data, keywords)
        layer.name = keywords["name"]
        return layer
    keywords["metadata"] |= {"role": role} | large_keywords(viewer, loaded)
    show_true_hand(viewer)
    return viewer.add_image(data, **(keywords | style))


def add_half_maps(
    viewer: ViewerModel, one: Map | Path | str, two: Map | Path | str, *, role: str = ""
) -> tuple[Image, Image]:
    """Show two half maps that share contrast, level and rendering; the first is visible.

    See :func:`add_map` for the parameters and errors.
    """
    layers = []
    for number, source in enumerate((one, two), 1):
        layers.append(add_map(viewer, source, role=f"{role} half {number}" if role else ""))
    link_half_maps(viewer, *layers)
    return layers[0], layers[1]


def link_half_maps(viewer: ViewerModel, one: Image, two: Image) -> None:
    """Have two half maps share contrast, level and rendering from now on, and hide the second at first."""
    attributes = ("contrast_limits", "iso_threshold", "rendering")
    if "linked" in two.metadata:
        return
    two.visible = False
    two.metadata["linked"] = True
    for layer, color in zip((one, two), HALF_MAP_COLORMAPS, strict=True):
        layer.colormap = color
    for attribute in attributes:
        setattr(two, attribute, getattr(one, attribute))
    viewer.layers.link_layers([one, two], attributes)


def add_mask(
    viewer: ViewerModel, source: Map | Path | str, *, name: str = "", role: str = ""
) -> tuple[Image, Labels]:
    """Show a mask as a translucent body and as the outlines of its core and of its soft edge.

    The outlines lie over the slices of any map (2D); the body is what 3D shows.

    Parameters
    ----------
    viewer, source, name, role
        As in :func:`add_map`.

    Returns
    -------
    body : napari.layers.Image
        The mask's values.
    outline : napari.layers.Image
        Its data are :class:`.outlines.MaskOutlines`: 1 around the part where the mask is 1 (core), 2
        around that where it is above 0 (soft edge).

    Raises
    ------
    UserError
        If the file is missing or not a map.
    """
    loaded = _load(source)
    body_role = f"{role} body" if role else ""
    body = own_layer(viewer, body_role)
    data, keywords, _ = map_layer(loaded, name=name)
    keywords |= mask_keywords(keywords)
    regions = mask_regions(data)
    if body is not None:
        _refresh(body, data, keywords)
    else:
        show_true_hand(viewer)
        keywords["metadata"]["role"] = body_role
        body = viewer.add_image(data, **keywords)
    outline_role = f"{role} outline" if role else ""
    known = own_layer(viewer, outline_role)
    outline = add_outline(
        viewer, regions, loaded.pixel_size, name=f"{body.name} outline", role=outline_role, path=loaded.path
    )
    if outline is not known:
        show_by_dimension(viewer, [body], [outline])
    return body, outline


def add_outline(
    viewer: ViewerModel,
    regions: NDArray[np.uint8],
    pixel_size: float,
    *,
    name: str,
    role: str = "",
    path: Path | None = None,
) -> Image:
    """Show the outlines of a mask's core and soft edge over the slices of any map.

    Parameters
    ----------
    viewer, name, role
        As in :func:`add_map`.
    regions : numpy.ndarray
        1 in the core, 2 in the soft edge (:func:`.layer_data.mask_regions`), shape (z, y, x).
    pixel_size : float
        A/px.
    path : Path, optional
        The mask's file.
    """
    outline = own_layer(viewer, role)
    keywords = layer_keywords(path, pixel_size, name=name, kind="outline")
    outlines = MaskOutlines(regions)
    if outline is not None:
        outline.data = outlines
        _rescale(outline, keywords["scale"])
        return outline
    show_true_hand(viewer)
    keywords["metadata"]["role"] = role
    return viewer.add_image(outlines, **keywords, **outline_keywords())


def outline_keywords() -> dict[str, Any]:
    """Return how the outlines of a mask are shown: as an image of three colours, one of them transparent.

    The first layer of labels takes napari seconds of compiling, and each of them things to paint with.
    """
    from napari.utils.colormaps import Colormap

    colors = ("transparent", MASK_COLOR, SOFT_EDGE_COLOR)
    return {
        "contrast_limits": (0, 2),
        "colormap": Colormap(colors, controls=(0, 0.25, 0.75, 1), interpolation="zero", name="mask outlines"),
        "interpolation2d": "nearest",
        "projection_mode": "none",  # a section at a time
        "blending": "translucent_no_depth",
    }


def add_surface(
    viewer: ViewerModel,
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    voxel: float,
    *,
    name: str,
    role: str = "",
    color: str = MASK_COLOR,
) -> Surface:
    """Show a surface, in place of the last one of its role.

    Parameters
    ----------
    viewer, name, role
        As in :func:`add_map`.
    vertices, faces : numpy.ndarray
        Shapes (vertices, 3), in voxels (z, y, x), and (faces, 3), none of them empty.
    voxel : float
        Width of those voxels in A.
    color : str
        Its colour.
    """
    layer = own_layer(viewer, role)
    keywords = layer_keywords(None, voxel, name=name, kind="surface")
    # napari takes front for back where a camera shows the true hand, and lights surfaces from behind;
    # mirrored vertices on a mirrored axis stay where they are and are lit from the front.
    mirror = np.array(MIRROR, np.float32)
    vertices, keywords["scale"] = vertices * mirror, tuple(voxel * mirror)
    if layer is not None:
        layer.data = (vertices, faces)
        _rescale(layer, keywords["scale"])
        return layer
    show_true_hand(viewer)
    keywords["metadata"]["role"] = role
    return viewer.add_surface(
        (vertices, faces), colormap=color, contrast_limits=(0, 1), shading="smooth", **keywords
    )


def add_stack(viewer: ViewerModel, source: Map | Path | str, *, name: str = "", axis: str = "image") -> Image:
    """Show a stack of images, one at a time; see :func:`add_map` and :func:`stack_layer`."""
    data, keywords, _ = stack_layer(_load(source), name=name, axis=axis)
    show_true_hand(viewer)
    return viewer.add_image(data, **keywords)


def add_particles(viewer: ViewerModel, source: ParticleFile | Path | str) -> Points:
    """Show where particles lie, one micrograph or tomogram at a time, coloured by any of their values.

    Particles that are shown already give way. ``layer.metadata["view"]`` goes to other micrographs
    (``view.show(3)``) and colours by other values (``view.colour_by("Rot (°)")``); in a window a dock
    does.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show them.
    source : ParticleFile or path
        The particles or their STAR file.

    Returns
    -------
    napari.layers.Points
        The layer of the particles.

    Raises
    ------
    UserError
        If the file is missing, holds no particles, or says nothing about where they lie.
    """
    from cryorefine.io.particles import read_particles
    from napari_cryorefine.defocus_layers import show_fits
    from napari_cryorefine.particle_fits import ParticleFits

    particles = read_particles(Path(source)) if isinstance(source, str | Path) else source
    return show_fits(viewer, ParticleFits(particles), str(particles.path)).points


def source_path(layer: Layer) -> Path | None:
    """Return the file that a layer was read from, or None if there is none."""
    path = layer.metadata.get("path") or layer.source.path
    return Path(path) if path else None


def _load(source: Map | Path | str) -> Map:
    from napari_cryorefine.large_maps import read_for_display

    return read_for_display(Path(source)) if isinstance(source, str | Path) else source


def own_layer(viewer: ViewerModel, role: str) -> Any:
    """Our layer of that role, or None."""
    if not role:
        return None
    return next((layer for layer in viewer.layers if layer.metadata.get("role") == role), None)


def _rescale(layer: Layer, scale: tuple[float, ...]) -> None:
    """Set a layer's scale if it is another: napari looks at everything anew."""
    if tuple(layer.scale) != tuple(scale):
        layer.scale = scale


def _refresh(layer: Image, data: NDArray[np.float32], keywords: dict[str, Any]) -> None:
    """Put a new map into a layer; what the person set on it stays."""
    (old_limits, old_level) = layer.metadata["display_range"]
    limits, level = keywords["metadata"]["display_range"]
    untouched = np.allclose(layer.contrast_limits, old_limits, rtol=1e-4)
    level_untouched = np.isclose(layer.iso_threshold, old_level, rtol=1e-4)
    layer.data, layer.scale = data, keywords["scale"]
    if untouched:
        layer.contrast_limits_range = (min(float(data.min()), limits[0]), max(float(data.max()), limits[1]))
        layer.contrast_limits = limits
    if level_untouched:
        layer.iso_threshold = level
    layer.metadata.update(keywords["metadata"])  # the role stays


def show_by_dimension(
    viewer: ViewerModel, solid: Sequence[Layer], flat: Sequence[Layer]
) -> Callable[[], None]:
    """Show some layers in 3D and others over slices: outlines would be solid labels in 3D.

    What goes away is hidden before napari slices its layers for the other dimension, and what comes is
    shown after that: neither is sliced, sent to the graphics card or drawn in vain.

    Returns
    -------
    callable
        Ends this.
    """
    shown = True

    def before() -> None:
        nonlocal shown
        shown = any(layer.visible for layer in (*solid, *flat))  # what was hidden stays hidden
        for layer in solid if viewer.dims.ndisplay == 2 else flat:
            show_layer(layer, False)

    def after() -> None:
        for layer in flat if viewer.dims.ndisplay == 2 else solid:
            show_layer(layer, shown)

    ndisplay = viewer.dims.events.ndisplay
    ndisplay.connect(before, position="first")
    ndisplay.connect(after, position="last")
    before()
    after()

    def stop() -> None:
        ndisplay.disconnect(before)
        ndisplay.disconnect(after)

    return stop


def show_layer(layer: Layer, visible: bool) -> None:
    """Show or hide a layer, unless it is so already: napari slices and draws all of it anew."""
    if layer.visible != visible:
        layer.visible = visible
