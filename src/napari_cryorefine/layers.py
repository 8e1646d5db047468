"""Maps, masks, stacks and particles as napari layers, in angstroms and in their true hand.

Works with a ``napari.Viewer`` and with a ``ViewerModel``; loads no Qt. Every layer has its axes
named z, y, x (with the number of the image, micrograph or tomogram before them where there are
several), angstroms as units, and in its metadata the ``path`` it came from.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cryorefine._compat import draws_in_software, show_true_hand

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Points
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map
    from cryorefine.io.particles import ParticleFile

LayerData = tuple[Any, dict[str, Any], str]

STACKS = {".mrcs": "image", ".st": "tilt"}
"""Files that hold images rather than a volume, and what their first axis counts."""
AXES = ("z", "y", "x")
UNITS = ("angstrom", "angstrom", "angstrom")
MASK_COLOR = "#3ad6c5"
SOFT_EDGE_COLOR = "#f5a623"
HALF_MAP_COLORMAPS = ("bop blue", "bop orange")


def display_range(data: NDArray[np.float32]) -> tuple[tuple[float, float], float]:
    """Return the contrast limits and the isosurface level that suit a map at first sight.

    Solvent is near the mean of a map and the particle is the few per cent of voxels far above it:
    the level is three standard deviations above the mean, which encloses 2 to 5 % of the box.

    Parameters
    ----------
    data : ndarray, shape (z, y, x)
        The map; large ones are sampled.

    Returns
    -------
    contrast_limits : tuple of float
        From the mean, so that solvent is dark, to the brightest 0.1 % of voxels.
    level : float
        Level of the isosurface, in the map's own units.
    """
    step = tuple(slice(None, None, max(1, size // 128)) for size in data.shape)
    sample = np.asarray(data[step], dtype=np.float32)
    mean, deviation = float(sample.mean()), float(sample.std())
    low, high = mean, float(np.percentile(sample, 99.9))
    if high <= low:
        high = low + (deviation or 1.0)
    return (low, high), mean + 3 * deviation


def map_layer(source: Map, *, name: str = "") -> LayerData:
    """Return a map as the data, keywords and type of an image layer.

    Parameters
    ----------
    source : Map
        Array of shape (z, y, x), or (y, x) for a micrograph, with its pixel size in A.
    name : str
        Name of the layer; the file's name without its ending by default.
    """
    data = source.data
    limits, level = display_range(data)
    keywords = _keywords(source.path, source.pixel_size, name=name, kind="map", ndim=data.ndim)
    keywords |= {"contrast_limits": limits, "colormap": "gray"}
    if data.ndim == 3:
        keywords |= {"rendering": "mip" if draws_in_software() else "iso", "iso_threshold": level}
    keywords["metadata"]["display_range"] = (limits, level)
    return data, keywords, "image"


def stack_layer(source: Map, *, name: str = "", axis: str = "image") -> LayerData:
    """Return a stack of images as an image layer of shape (images, 1, y, x).

    The z axis of one voxel keeps the number of an image apart from the depth of the maps that are
    shown in the same viewer.

    Parameters
    ----------
    source : Map
        Array of shape (images, y, x) with its pixel size in A.
    name : str
        Name of the layer; the file's name without its ending by default.
    axis : str
        What the first axis counts.
    """
    data = source.data[:, None]
    sample = np.asarray(data[:: max(1, len(data) // 32)], dtype=np.float32)
    mean, deviation = float(sample.mean()), float(sample.std()) or 1.0
    keywords = _keywords(source.path, source.pixel_size, name=name, kind="stack", axis=axis)
    keywords |= {"contrast_limits": (mean - 3 * deviation, mean + 3 * deviation), "rendering": "mip"}
    return data, keywords, "image"


def particles_layer(source: ParticleFile, *, name: str = "") -> LayerData:
    """Return particles where they lie on their micrographs, as a points layer.

    Points are (micrograph, 0, y, x), or (tomogram, z, y, x) where the particles have a depth. All
    columns of the particle table are features; ``rlnDefocusU`` colours the points if it is there.

    Parameters
    ----------
    source : ParticleFile
        Particles with the columns rlnCoordinateX and rlnCoordinateY.
    name : str
        Name of the layer; the file's name without its ending by default.

    Raises
    ------
    UserError
        If the particles have no coordinates.
    """
    from cryorefine.errors import UserError
    from cryorefine.io.particles import column

    table = source.particles.reset_index(drop=True)
    if not {"rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
        raise UserError(
            f"{source.path} says nothing about where its particles lie (rlnCoordinateX and "
            "rlnCoordinateY); open their image stacks (.mrcs) instead."
        )
    places, place = _places(source)
    depth = "rlnCoordinateZ" in table
    coordinates = np.zeros((len(table), 4))
    coordinates[:, 0] = place
    for axis, label in ((1, "rlnCoordinateZ"), (2, "rlnCoordinateY"), (3, "rlnCoordinateX")):
        if label in table:
            coordinates[:, axis] = table[label].to_numpy(dtype=np.float64)
    pixel = np.ones(1)
    for label in (
        "rlnMicrographOriginalPixelSize",
        "rlnMicrographPixelSize",
        "rlnTomoTiltSeriesPixelSize",
        "rlnImagePixelSize",
    ):
        pixel = column(source, label, 0.0)
        if (pixel > 0).all():
            break
    coordinates[:, 1:] *= np.where(pixel > 0, pixel, 1.0)[:, None]

    keywords = _keywords(
        source.path, 1.0, name=name, kind="particles", axis="tomogram" if depth else "micrograph"
    )
    keywords["metadata"] |= {"places": places}
    keywords |= {"features": table, "size": 100.0, "border_width": 0.08, "symbol": "ring"}
    if "rlnDefocusU" in table:
        keywords |= {
            "face_color": "rlnDefocusU",
            "border_color": "rlnDefocusU",
            "face_colormap": "viridis",
            "border_colormap": "viridis",
        }
    else:
        keywords |= {"face_color": MASK_COLOR, "border_color": MASK_COLOR}
    return coordinates, keywords, "points"


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
    loaded = _load(source)
    data, keywords, _ = map_layer(loaded, name=name)
    layer = _own_layer(viewer, role)
    if layer is not None:
        _refresh(layer, data, keywords)
        layer.name = keywords["name"]
        return layer
    keywords["metadata"]["role"] = role
    show_true_hand(viewer)
    return viewer.add_image(data, **(keywords | style))


def add_half_maps(
    viewer: ViewerModel, one: Map | Path | str, two: Map | Path | str, *, role: str = ""
) -> tuple[Image, Image]:
    """Show two half maps that share contrast, level and rendering; the first is visible.

    See :func:`add_map` for the parameters and errors.
    """
    layers = []
    for number, source in enumerate((one, two)):
        layers.append(
            add_map(
                viewer,
                source,
                role=f"{role} half {number + 1}" if role else "",
                colormap=HALF_MAP_COLORMAPS[number],
            )
        )
    attributes = ("contrast_limits", "iso_threshold", "rendering")
    if "linked" not in layers[1].metadata:
        layers[1].visible = False
        layers[1].metadata["linked"] = True
        for attribute in attributes:
            setattr(layers[1], attribute, getattr(layers[0], attribute))
        viewer.layers.link_layers(layers, attributes)
    return layers[0], layers[1]


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
    outline : napari.layers.Labels
        1 where the mask is 1 (core), 2 where it is between 0 and 1 (soft edge).

    Raises
    ------
    UserError
        If the file is missing or not a map.
    """
    from napari.utils.colormaps import DirectLabelColormap

    loaded = _load(source)
    body_role = f"{role} body" if role else ""
    body = _own_layer(viewer, body_role)
    data, keywords, _ = map_layer(loaded, name=name)
    keywords |= {"contrast_limits": (0.0, 1.0), "iso_threshold": 0.5}
    keywords["metadata"]["display_range"] = ((0.0, 1.0), 0.5)
    regions = mask_regions(data)
    if body is not None:
        _refresh(body, data, keywords)
    else:
        show_true_hand(viewer)
        keywords["metadata"]["role"] = body_role
        keywords |= {"colormap": MASK_COLOR, "opacity": 0.35, "blending": "translucent_no_depth"}
        body = viewer.add_image(data, **keywords)
    outline_role = f"{role} outline" if role else ""
    outline = _own_layer(viewer, outline_role)
    if outline is not None:
        outline.data, outline.scale = regions, keywords["scale"]
        return body, outline
    title = f"{body.name} outline"
    keywords = _keywords(loaded.path, loaded.pixel_size, name=title, kind="outline")
    keywords["metadata"]["role"] = outline_role
    colors = {1: MASK_COLOR, 2: SOFT_EDGE_COLOR, None: "transparent"}
    outline = viewer.add_labels(
        regions,
        opacity=1.0,
        blending="translucent_no_depth",
        colormap=DirectLabelColormap(color_dict=colors),
        **keywords,
    )
    _show_by_dimension(viewer, body, outline)
    return body, outline


def add_stack(viewer: ViewerModel, source: Map | Path | str, *, name: str = "", axis: str = "image") -> Image:
    """Show a stack of images, one at a time; see :func:`add_map` and :func:`stack_layer`."""
    data, keywords, _ = stack_layer(_load(source), name=name, axis=axis)
    show_true_hand(viewer)
    return viewer.add_image(data, **keywords)


def add_particles(viewer: ViewerModel, source: ParticleFile | Path | str, *, name: str = "") -> Points:
    """Show where particles lie on their micrographs, coloured by defocus.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show them.
    source : ParticleFile or path
        The particles or their STAR file.
    name : str
        Name of the layer; the file's name without its ending by default.

    Raises
    ------
    UserError
        If the file is missing, holds no particles, or says nothing about where they lie.
    """
    from cryorefine.io.particles import read_particles

    particles = read_particles(Path(source)) if isinstance(source, str | Path) else source
    data, keywords, _ = particles_layer(particles, name=name)
    return viewer.add_points(data, **keywords)


def mask_regions(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 1 in the core of a mask (value 1), 2 in its soft edge, 0 outside; shape (z, y, x)."""
    regions = np.zeros(mask.shape, np.uint8)
    regions[mask > 0] = 2
    regions[mask >= 1 - 1e-5] = 1
    return regions


def source_path(layer: Layer) -> Path | None:
    """Return the file that a layer was read from, or None if there is none."""
    path = layer.metadata.get("path") or layer.source.path
    return Path(path) if path else None


def _keywords(
    path: Path | None, pixel_size: float, *, name: str, kind: str, ndim: int = 3, axis: str = ""
) -> dict[str, Any]:
    """Name, scale, units, axis labels and metadata, the same for every layer of ours."""
    axes, units, scale = AXES[-ndim:], UNITS[-ndim:], (pixel_size,) * ndim
    if axis:
        axes, units, scale = (axis, *axes), ("pixel", *units), (1.0, *scale)
    return {
        "name": name or (Path(path).stem if path else kind),
        "scale": scale,
        "units": units,
        "axis_labels": axes,
        "metadata": {"path": str(path) if path else "", "pixel_size": pixel_size, "cryorefine": kind},
    }


def _load(source: Map | Path | str) -> Map:
    from cryorefine.io.mrc import read_map

    return read_map(Path(source)) if isinstance(source, str | Path) else source


def _own_layer(viewer: ViewerModel, role: str) -> Any:
    """Our layer of that role, or None."""
    if not role:
        return None
    return next((layer for layer in viewer.layers if layer.metadata.get("role") == role), None)


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
    layer.metadata |= keywords["metadata"] | {"role": layer.metadata["role"]}


def _show_by_dimension(viewer: ViewerModel, body: Layer, outline: Layer) -> None:
    """Show the outline over slices and the body in 3D, where outlines would be solid labels."""

    def on_ndisplay() -> None:
        flat = viewer.dims.ndisplay == 2
        shown = body.visible or outline.visible  # a mask that was hidden stays hidden
        outline.visible, body.visible = shown and flat, shown and not flat

    # napari slices for 3D before it asks us, and warns of an outline that is being hidden.
    warnings.filterwarnings("ignore", message="Contours are not displayed during 3D rendering")
    outline.contour = 1
    viewer.dims.events.ndisplay.connect(on_ndisplay)
    on_ndisplay()


def _places(source: ParticleFile) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the micrographs or tomograms, and for each particle the number of its own."""
    table = source.particles
    label = next((name for name in ("rlnTomoName", "rlnMicrographName") if name in table), None)
    if label is None:
        return [""], np.zeros(len(table), np.int64)
    names, numbers = np.unique(table[label].astype(str).to_numpy(dtype=object), return_inverse=True)
    return [str(name) for name in names], numbers
