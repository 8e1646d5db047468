"""File > Open Sample: real particles and the map that they are refined from; simulated tilt series.

A script gets all layers at once. Where a person waits, the layer that is made fastest comes at once, for
napari wants one, and the others when they have been read in a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cryorefine._compat import watch_current_viewer
from napari_cryorefine.layer_data import LayerData, map_layer, stack_layer
from napari_cryorefine.readers import open_tomograms_later, read_tomograms_star, used_by_hand

if TYPE_CHECKING:
    from cryorefine.io.mrc import Map

LOWPASS = 50.0


def beta_galactosidase() -> list[LayerData]:
    """Return the particle images as a stack beside the low-pass filtered reference map.

    The paths of the particle STAR file and of the reference are in the layers' metadata as
    ``particles`` and ``path``.
    """
    from cryorefine.io.mrc import Map, read_map
    from cryorefine.maps.filters import lowpass
    from cryorefine.sample import sample_folder

    folder = sample_folder()
    star = folder / "particles.star"
    reference = read_map(folder / "reference_5a1a.mrc")
    blurred = Map(
        lowpass(reference.data, reference.pixel_size, LOWPASS), reference.pixel_size, reference.path
    )
    shown = map_layer(blurred, name=f"reference, low-passed to {LOWPASS:.0f} Å")
    shown[1]["metadata"]["particles"] = str(star)
    watch_current_viewer()
    viewer = used_by_hand()
    if viewer is None:
        return [shown, _images_beside(reference, star)]
    from napari_cryorefine.opening import add_layers, open_later

    open_later(star, lambda: [_images_beside(reference, star)], lambda layers: add_layers(viewer, layers))
    return [shown]


def _images_beside(reference: Map, star: Path) -> LayerData:
    """Return the particles beside the map, at the depth where napari starts: seen in 2D and in 3D."""
    from cryorefine.io.images import ImageReader
    from cryorefine.io.mrc import Map
    from cryorefine.io.particles import project_root, read_particles

    names = read_particles(star).particles["rlnImageName"].tolist()
    pixel = reference.pixel_size
    images = Map(ImageReader(project_root(star, names[0])).read(names), pixel, star)
    data, keywords, kind = stack_layer(images, name="beta-galactosidase particles", axis="particle")
    depth, _, width = reference.data.shape
    keywords["translate"] = (0.0, (depth - 1) // 2 * pixel, 0.0, width * pixel)
    keywords["metadata"]["particles"] = str(star)
    return data, keywords, kind


def tilt_series() -> list[LayerData]:
    """Return the first of two simulated tilt series with its tomogram and particles.

    The path of the optimisation set is in the layers' metadata as ``path``.
    """
    from cryorefine.sample import sample_folder
    from napari_cryorefine.tomography_layers import tomogram_layer

    folder = sample_folder("betagal_tilts")
    path = folder / "optimisation_set.star"
    viewer = used_by_hand()
    if viewer is None:
        return read_tomograms_star(path)
    watch_current_viewer()
    open_tomograms_later(viewer, path)
    return [tomogram_layer("TS_01", folder / "tomograms/rec_TS_01.mrc")]
