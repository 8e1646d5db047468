"""The surface of a locally filtered map, coloured by its local resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryorefine.errors import UserError
from napari_cryorefine._compat import show_true_hand
from napari_cryorefine.layer_data import display_range, layer_keywords
from napari_cryorefine.layers import MIRROR, add_map, own_layer, show_by_dimension
from napari_cryorefine.meshes import TRIANGLES, triangles

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Surface
    from numpy.typing import NDArray

    from cryorefine.io.mrc import Map
    from napari_cryorefine.steps import Steps

FILTERED = "relion_locres_filtered.mrc"
RESOLUTION = ("locres_smooth.mrc", "relion_locres.mrc")
"""The smooth map, where there is one, colours without the steps of the other."""

COLORS = "local resolution"
"""Blue is good and red is poor: turbo without its dark ends, which vanish on black."""
_LARGEST = 160
"""Boxes larger than this many voxels are drawn from every second, third... voxel."""


@dataclass(frozen=True)
class ColouredMesh:
    """An isosurface and the local resolution at its vertices.

    Attributes
    ----------
    vertices, faces : numpy.ndarray
        Shapes (vertices, 3), in voxels (z, y, x), and (faces, 3).
    resolutions : numpy.ndarray
        In A, shape (vertices,); the poorest where it is not known.
    level : float
        Density of the surface.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    resolutions: NDArray[np.float32]
    level: float


class ColouredMap:
    """A map whose surfaces are coloured by its local resolution.

    Parameters
    ----------
    filtered : Map or path
        The map, usually relion_locres_filtered.mrc.
    resolution : Map or path
        Local resolution in A in the same box; 0 where it is not known.

    Raises
    ------
    UserError
        If a file is missing or not a map, or the boxes differ.
    """

    def __init__(self, filtered: Map | Path | str, resolution: Map | Path | str) -> None:
        self.density, self.resolution = _load(filtered), _load(resolution)
        if self.density.data.shape != self.resolution.data.shape:
            raise UserError(
                f"{self.density.path} and {self.resolution.path} have different boxes; "
                "give two maps of one LocalRes job."
            )

    def first_level(self) -> float:
        """Return a level that shows the particle: three standard deviations above the mean."""
        limits, level = display_range(self.density.data)
        return min(level, sum(limits) / 2)

    def mesh(self, level: float, *, coarse: bool = False) -> ColouredMesh:
        """Return the surface at a level, in few triangles where it is to be there at once.

        Raises
        ------
        UserError
            If no density reaches the level, or the resolution is known nowhere on it.
        """
        data = self.density.data
        if not data.min() < level < data.max():
            raise UserError(
                f"{self.density.path} has densities from {data.min():.4g} to {data.max():.4g}; "
                f"give a level between them instead of {level:.4g}."
            )
        step = max(1, -(-max(data.shape) // _LARGEST))
        while coarse and triangles(data[::step, ::step, ::step] >= level) > TRIANGLES:
            step += 1
        vertices, faces = _surface(data, level, step)
        resolutions = _at(self.resolution.data, vertices)
        known = resolutions[resolutions > 0]
        if len(known) == 0:
            raise UserError(
                f"{self.resolution.path} is 0 on all of the surface; run LocalRes with a wider --mask."
            )
        resolutions[resolutions <= 0] = known.max()
        return ColouredMesh(vertices, faces, resolutions, level)


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
    filtered, resolution : Map or path
        As in :class:`ColouredMap`.
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
    source = ColouredMap(filtered, resolution)
    return _add(viewer, source, source.first_level() if level is None else level, name, role)


def _add(viewer: ViewerModel, source: ColouredMap, level: float, name: str, role: str) -> Surface:
    mesh = source.mesh(level)
    best, worst = (float(limit) for limit in np.percentile(mesh.resolutions, (2, 98)))
    colour_range = (best, worst) if worst - best > 1e-3 else (best - 0.5, best + 0.5)
    density = source.density
    keywords = layer_keywords(density.path, density.pixel_size, name=name, kind="local_resolution")
    keywords["metadata"] |= {"role": role, "level": level}
    # Lit from the front, as in layers.add_surface.
    keywords["scale"] = tuple(density.pixel_size * sign for sign in MIRROR)
    layer = own_layer(viewer, role)
    if layer is not None:
        layer.scale, layer.contrast_limits = keywords["scale"], colour_range
        show_mesh(layer, mesh)
        layer.metadata.update(keywords["metadata"])
        return layer
    show_true_hand(viewer)
    layer = viewer.add_surface(
        _mirrored(mesh),
        colormap=resolution_colormap(),
        contrast_limits=colour_range,
        shading="smooth",
        **keywords,
    )
    if hasattr(layer, "colorbar"):
        layer.colorbar.visible = True
    return layer


def show_mesh(layer: Surface, mesh: ColouredMesh) -> None:
    """Put another surface of the same map into its layer."""
    layer.data = _mirrored(mesh)
    layer.metadata["level"] = mesh.level


def _mirrored(mesh: ColouredMesh) -> tuple[Any, Any, Any]:
    return mesh.vertices * np.array(MIRROR, dtype=np.float32), mesh.faces, mesh.resolutions


def local_resolution_steps(viewer: ViewerModel, folder: Path, job: str) -> Steps[bool]:
    """Show what a LocalRes job of this program or of RELION has left in its folder, if anything.

    In 3D it is the surface, with a slider for its level where there is a window; over slices it is the
    filtered map, which the layer of resolutions above it gives the same colours.
    """
    resolution = next((folder / name for name in RESOLUTION if (folder / name).is_file()), None)
    if resolution is None or not (folder / FILTERED).is_file():
        return False
    filtered = yield folder / FILTERED
    source = ColouredMap(filtered, (yield resolution))
    surface = _add(viewer, source, source.first_level(), "local resolution (Å)", f"{job} surface")
    role = f"{job} resolution"
    known = own_layer(viewer, role)
    density = add_map(viewer, source.density, role=f"{job} filtered", rendering="mip")
    slices = add_map(
        viewer,
        source.resolution,
        role=role,
        colormap=resolution_colormap(),
        rendering="mip",
        blending="multiplicative",
    )
    slices.contrast_limits = surface.contrast_limits
    if known is None:
        show_by_dimension(viewer, [surface], [density, slices])
    if hasattr(viewer, "window"):
        from napari_cryorefine.level_panel import show_level_panel

        show_level_panel(viewer, surface, source)
    return True


def resolution_colormap() -> Any:
    """Return the colours of local resolution."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    colors = ensure_colormap("turbo").map(np.linspace(0.1, 0.93, 64))
    return Colormap(colors, name=COLORS, display_name=COLORS)


def _load(source: Map | Path | str) -> Map:
    from cryorefine.io.mrc import read_map

    return read_map(Path(source)) if isinstance(source, str | Path) else source


def _surface(
    density: NDArray[np.float32], level: float, step: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices (z, y, x) in voxels, and triangles."""
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(density, level, step_size=step)
    return vertices.astype(np.float32), faces.astype(np.int32)


def _at(values: NDArray[np.float32], vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of the nearest voxels: between known and unknown nothing can be interpolated."""
    nearest = np.floor(vertices + 0.5).astype(np.intp)
    z, y, x = np.minimum(nearest, np.array(values.shape) - 1).T
    return values[z, y, x].astype(np.float32)
