"""The surface of a locally filtered map, coloured by its local resolution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryorefine.errors import UserError
from napari_cryorefine._compat import show_true_hand
from napari_cryorefine.layer_data import display_range, layer_keywords
from napari_cryorefine.layers import MIRROR, add_map, own_layer, show_by_dimension

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Surface
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map

FILTERED = "relion_locres_filtered.mrc"
RESOLUTION = ("locres_smooth.mrc", "relion_locres.mrc")
"""The smooth map, where there is one, colours without the steps of the other."""

_COLORS = "turbo"  # blue is good and red is poor
_LARGEST = 160
"""Boxes larger than this many voxels are drawn from every second, third... voxel."""


def add_local_resolution(
    viewer: ViewerModel,
    filtered: Map | Path | str,
    resolution: Map | Path | str,
    *,
    level: float | None = None,
    name: str = "",
    role: str = "",
) -> Surface:
    """Show the isosurface of a map, each vertex in the colour of the resolution there.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show it. Its camera is turned to the true hand with the first map.
    filtered : Map or path
        The map whose surface it is, usually relion_locres_filtered.mrc.
    resolution : Map or path
        Local resolution in A in the same box; 0 where it is not known.
    level : float, optional
        Density of the surface; three standard deviations above the mean unless given.
    name : str
        Name of the layer; the file's name without its ending by default.
    role : str
        As in :func:`.layers.add_map`: a surface of the same role is replaced.

    Returns
    -------
    napari.layers.Surface
        Vertices (z, -y, x) in voxels, which the layer's scale turns into A; its values are resolutions
        in A.

    Raises
    ------
    UserError
        If a file is missing or not a map, the boxes differ, or no density reaches the level.
    """
    density, values = _load(filtered), _load(resolution)
    if density.data.shape != values.data.shape:
        raise UserError(
            f"{density.path} and {values.path} have different boxes; give two maps of one LocalRes job."
        )
    if level is None:
        limits, level = display_range(density.data)
        level = min(level, sum(limits) / 2)
    if not density.data.min() < level < density.data.max():
        raise UserError(
            f"{density.path} has densities from {density.data.min():.4g} to {density.data.max():.4g}; "
            f"give a level between them instead of {level:.4g}."
        )
    vertices, faces = _surface(density.data, level)
    colours = _at(values.data, vertices)
    known = colours[colours > 0]
    if len(known) == 0:
        raise UserError(f"{values.path} is 0 on all of the surface; run LocalRes with a wider --mask.")
    colours[colours <= 0] = known.max()
    best, worst = (float(limit) for limit in np.percentile(known, (2, 98)))
    colour_range = (best, worst) if worst - best > 1e-3 else (best - 0.5, best + 0.5)

    keywords = layer_keywords(density.path, density.pixel_size, name=name, kind="local_resolution")
    keywords["metadata"] |= {"role": role, "level": level}
    # Lit from the front, as in layers.add_surface.
    vertices = vertices * np.array(MIRROR, dtype=np.float32)
    keywords["scale"] = tuple(density.pixel_size * sign for sign in MIRROR)
    layer = own_layer(viewer, role)
    if layer is not None:
        layer.data, layer.scale, layer.contrast_limits = (
            (vertices, faces, colours),
            keywords["scale"],
            colour_range,
        )
        layer.metadata.update(keywords["metadata"])
        return layer
    show_true_hand(viewer)
    layer = viewer.add_surface(
        (vertices, faces, colours),
        colormap=_COLORS,
        contrast_limits=colour_range,
        shading="smooth",
        **keywords,
    )
    if hasattr(layer, "colorbar"):
        layer.colorbar.visible = True
    return layer


def open_local_resolution(viewer: ViewerModel, folder: Path, job: str) -> Layer | None:
    """Show what a LocalRes job of this program or of RELION has left in its folder, if anything.

    In 3D it is the surface, over slices the resolution itself in the same colours.
    """
    resolution = next((folder / name for name in RESOLUTION if (folder / name).is_file()), None)
    if resolution is None or not (folder / FILTERED).is_file():
        return None
    surface = add_local_resolution(
        viewer, folder / FILTERED, resolution, name="local resolution (Å)", role=f"{job} surface"
    )
    role = f"{job} resolution"
    known = own_layer(viewer, role)
    slices = add_map(viewer, resolution, role=role, colormap=_COLORS, rendering="mip")
    slices.contrast_limits = surface.contrast_limits
    if known is None:
        show_by_dimension(viewer, [surface], [slices])
    return surface


def _load(source: Map | Path | str) -> Map:
    from cryorefine.io.mrc import read_map

    return read_map(Path(source)) if isinstance(source, str | Path) else source


def _surface(density: NDArray[np.float32], level: float) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices (z, y, x) in voxels, and triangles."""
    from skimage.measure import marching_cubes

    step = max(1, -(-max(density.shape) // _LARGEST))
    vertices, faces, _, _ = marching_cubes(density, level, step_size=step)
    return vertices.astype(np.float32), faces.astype(np.int32)


def _at(values: NDArray[np.float32], vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of the nearest voxels: between known and unknown nothing can be interpolated."""
    nearest = np.floor(vertices + 0.5).astype(np.intp)
    z, y, x = np.minimum(nearest, np.array(values.shape) - 1).T
    return values[z, y, x].astype(np.float32)
