"""What is known of each direction: as a map of the sky in a dock, and as a coloured sphere beside the map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cryorefine._compat import camera_of, show_true_hand
from napari_cryorefine.layer_data import layer_keywords

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Surface
    from numpy.typing import NDArray

SKY_DOCK = "Sky map"
DIRECTIONAL_FSC = "directional_fsc.star"
ORIENTATIONS = "orientations.star"
_ORDER = 3  # HEALPix order in which particles are counted: 7.5 degrees


@dataclass(frozen=True, eq=False)
class Sky:
    """Values on the sphere of directions.

    Attributes
    ----------
    path : Path
        Where they come from.
    title : str
        What the map shows, and the figures that go with it.
    label : str
        What a value is, with its unit.
    values : ndarray, shape (12 * 4**order,)
        One for each HEALPix pixel, in NEST order.
    low_is_good : bool
        Whether small values are the bright ones, as with resolutions.
    extent : float
        Edge of the map's box in A, 0 where there is no map.
    symmetry : str
        Point group by whose mates particles were counted; empty where none were.
    recounts : bool
        Whether they can be counted by those of another group.
    """

    path: Path
    title: str
    label: str
    values: NDArray[np.float64]
    low_is_good: bool = False
    extent: float = 0.0
    symmetry: str = ""
    recounts: bool = False


def read_sky(path: Path | str, symmetry: str = "C1") -> Sky:
    """Read what a file says about directions.

    Parameters
    ----------
    path : path
        directional_fsc.star or orientations.star of a job, or a STAR file of refined particles.
    symmetry : str
        Point group by whose mates particles are counted.

    Raises
    ------
    UserError
        If the file is none of these, or there is no such symmetry.
    """
    from cryorefine.geometry.orientation_distribution import count_views
    from cryorefine.io.particles import read_particles
    from cryorefine.io.star import read_star
    from cryorefine.jobs.orientations import viewing_angles

    path = Path(path)
    blocks = read_star(path)
    general: Any = blocks.get("general")
    table: Any = blocks.get("directions")
    if table is not None and "cryorefineFscArea" in table:
        return Sky(
            path,
            f"cFAR {float(general['cryorefineFscAreaRatio']):.2f}, "
            f"sphericity {float(general['cryorefineSphericity']):.3f}",
            "Resolution (Å)",
            table["rlnAngstromResolution"].to_numpy(np.float64),
            low_is_good=True,
            extent=float(general["rlnImageSize"]) * float(general["rlnPixelSize"]),
        )
    if table is not None and "cryorefineParticleCountWithMates" in table:
        group = str(general["rlnSymmetryGroup"]).upper()
        return Sky(
            path,
            f"{general['cryorefineParticleCount']} particles, {group}, "
            f"SCF {float(general['cryorefineSamplingCompensationFactor']):.2f}",
            "Views per pixel",
            table["cryorefineParticleCountWithMates"].to_numpy(np.float64),
            symmetry=group,
        )
    particles = read_particles(path, ["rlnAngleRot", "rlnAngleTilt"])
    rot, tilt = viewing_angles(particles)
    counts = count_views(rot, tilt, _ORDER, symmetry)
    return Sky(
        path,
        f"{len(rot)} particles, {symmetry.upper()}",
        "Views per pixel",
        counts.astype(np.float64),
        symmetry=symmetry,
        recounts=True,
    )


def show_sky(viewer: ViewerModel, path: Path | str, symmetry: str = "C1") -> None:
    """Show a file of directions: in the dock, and a directional FSC as a sphere beside the map.

    See :func:`read_sky` for the parameters and errors. Without a window there is no dock.
    """
    sky = read_sky(path, symmetry)
    if sky.low_is_good:
        add_direction_sphere(viewer, sky)
    window = getattr(viewer, "window", None)
    if window is None:
        return
    from napari_cryorefine.sky_panel import SkyPanel

    panel: Any = next((one for one in window.dock_widgets.values() if isinstance(one, SkyPanel)), None)
    if panel is None:
        panel = SkyPanel(viewer)
        window.add_dock_widget(panel, name=SKY_DOCK, area="bottom")
    panel.show_sky(sky)


def open_directions(viewer: ViewerModel, folder: Path) -> bool:
    """Show what a job's folder holds of directions; return whether there was anything."""
    found = [folder / name for name in (DIRECTIONAL_FSC, ORIENTATIONS) if (folder / name).is_file()]
    for path in found:
        show_sky(viewer, path)
    return bool(found)


def add_direction_sphere(viewer: ViewerModel, sky: Sky) -> Surface:
    """Show a directional FSC as a coloured sphere to the right of the map, in the map's hand.

    The point of the sphere in some direction from its centre has the resolution along that direction
    of the map. A sphere of the same job is replaced.

    Parameters
    ----------
    viewer : Viewer or ViewerModel
        Where to show it.
    sky : Sky
        The directions.
    """
    from napari.utils.colormaps import Colormap, ensure_colormap

    from cryorefine.geometry.sky import order_of, sphere_mesh

    vectors, triangles = sphere_mesh(order_of(sky.values))
    centre = sky.extent * np.array([0.5, 0.5, 1.5])
    data = (centre + 0.35 * sky.extent * vectors[:, ::-1], triangles.copy(), sky.values)
    role = f"{sky.path.resolve().parent} directions"
    layer: Any = next((one for one in viewer.layers if one.metadata.get("role") == role), None)
    limits = (float(sky.values.min()), float(max(sky.values.max(), sky.values.min() + 1e-3)))
    if layer is not None:
        layer.data, layer.contrast_limits = data, limits
        return layer
    keywords = layer_keywords(sky.path, 1.0, name="directional resolution", kind="directions")
    keywords["metadata"]["role"] = role
    show_true_hand(viewer)
    viridis = ensure_colormap("viridis")
    alone = not viewer.layers
    layer = viewer.add_surface(
        data,
        colormap=Colormap(viridis.colors[::-1], name="viridis reversed", display_name="viridis reversed"),
        contrast_limits=limits,
        shading="none",
        **keywords,
    )
    if alone:
        viewer.dims.ndisplay = 3  # a section would show nothing
        viewer.reset_view()
        camera_of(viewer).zoom *= 0.6  # the dock will take a part of the canvas
    return layer


def direction_text(sky: Sky, across: float, up: float) -> str:
    """Return rot, tilt and value at a place of the Mollweide map, empty outside of it."""
    from cryorefine.geometry.healpix import directions
    from cryorefine.geometry.sky import mollweide_pixels, order_of

    order = order_of(sky.values)
    pixels = mollweide_pixels(order)
    row = int(np.floor((1 - up) / 2 * pixels.shape[0]))
    place = int(np.floor((across + 2) / 4 * pixels.shape[1]))
    if not (0 <= row < pixels.shape[0] and 0 <= place < pixels.shape[1]) or pixels[row, place] < 0:
        return ""
    pixel = pixels[row, place]
    rot, tilt = (angle[pixel] for angle in directions(order))
    return f"rot {rot:.0f}°, tilt {tilt:.0f}°: {sky.values[pixel]:.4g}"
