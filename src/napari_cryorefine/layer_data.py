"""Maps and stacks as the data, keywords and type of napari layers.

Every layer has its axes named z, y, x (with the number of the image, micrograph or tomogram before
them where there are several), angstroms as units, and in its metadata the ``path`` it came from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cryorefine._compat import draws_in_software

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map

LayerData = tuple[Any, dict[str, Any], str]

STACKS = {".mrcs": "image", ".st": "tilt"}
"""Files that hold images rather than a volume, and what their first axis counts."""
MASK_SOURCE = "mask source"
"""Marks, among a layer's metadata, a map that is shown because a mask is made from it."""
AXES = ("z", "y", "x")
UNITS = ("angstrom", "angstrom", "angstrom")
MASK_COLOR = "#3ad6c5"
SOFT_EDGE_COLOR = "#f5a623"


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
    enough = 64 if data.ndim == 3 else 512
    step = tuple(slice(None, None, max(1, size // enough)) for size in data.shape)
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
    keywords = layer_keywords(source.path, source.pixel_size, name=name, kind="map", ndim=data.ndim)
    keywords |= {"contrast_limits": limits, "colormap": "gray"}
    if data.ndim == 3:
        keywords |= {"rendering": "mip" if draws_in_software() else "iso", "iso_threshold": level}
    keywords["metadata"] |= {"display_range": (limits, level), "place": source.place}
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
    keywords = layer_keywords(source.path, source.pixel_size, name=name, kind="stack", axis=axis)
    keywords |= {"contrast_limits": (mean - 3 * deviation, mean + 3 * deviation), "rendering": "mip"}
    return data, keywords, "image"


def mask_keywords(keywords: dict[str, Any]) -> dict[str, Any]:
    """Return how the body of a mask is shown; ``keywords`` are those of the map."""
    keywords["metadata"]["display_range"] = ((0.0, 1.0), 0.5)
    return {
        "contrast_limits": (0.0, 1.0),
        "iso_threshold": 0.5,
        "colormap": MASK_COLOR,
        "opacity": 0.35,
        "blending": "translucent_no_depth",
    }


def mask_regions(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 1 in the core of a mask (value 1), 2 in its soft edge, 0 outside; shape (z, y, x)."""
    regions = np.zeros(mask.shape, np.uint8)
    regions[mask > 0] = 2
    regions[mask >= 1 - 1e-5] = 1
    return regions


def layer_keywords(
    path: Path | None, pixel_size: float, *, name: str, kind: str, ndim: int = 3, axis: str = ""
) -> dict[str, Any]:
    """Return name, scale, units, axis labels and metadata, the same for every layer of ours."""
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
