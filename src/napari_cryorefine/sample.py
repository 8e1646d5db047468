"""File > Open Sample: real particles and the map that they are refined from; simulated tilt series.

A script gets all layers at once; where a person waits the first comes at once and the others one by one.
"""

from __future__ import annotations

from functools import partial

from napari_cryorefine._compat import watch_current_viewer
from napari_cryorefine.layer_data import LayerData, map_layer, stack_layer
from napari_cryorefine.readers import used_by_hand

LOWPASS = 50.0


def beta_galactosidase() -> list[LayerData]:
    """Return the particle images as a stack beside the low-pass filtered reference map.

    The paths of the particle STAR file and of the reference are in the layers' metadata as
    ``particles`` and ``path``.
    """
    from cryorefine.io.images import ImageReader
    from cryorefine.io.mrc import Map, read_map
    from cryorefine.io.particles import project_root, read_particles
    from cryorefine.maps.filters import lowpass
    from cryorefine.sample import sample_folder

    folder = sample_folder()
    star = folder / "particles.star"
    names = read_particles(star).particles["rlnImageName"].tolist()
    reader = ImageReader(project_root(star, names[0]))
    reference = read_map(folder / "reference_5a1a.mrc")
    blurred = Map(
        lowpass(reference.data, reference.pixel_size, LOWPASS), reference.pixel_size, reference.path
    )
    images = Map(reader.read(names), reference.pixel_size, star)

    map_data, map_keywords, kind = map_layer(blurred, name=f"reference, low-passed to {LOWPASS:.0f} Å")
    stack_data, stack_keywords, _ = stack_layer(images, name="beta-galactosidase particles", axis="particle")
    # Beside the map, at the depth where napari starts, so that both are seen in 2D and in 3D.
    depth, _, width = map_data.shape
    stack_keywords["translate"] = (
        0.0,
        (depth - 1) // 2 * images.pixel_size,
        0.0,
        width * images.pixel_size,
    )
    for keywords in (map_keywords, stack_keywords):
        keywords["metadata"]["particles"] = str(star)
    watch_current_viewer()
    layers: list[LayerData] = [(map_data, map_keywords, kind), (stack_data, stack_keywords, "image")]
    viewer = used_by_hand()
    if viewer is None:
        return layers
    from napari_cryorefine.opening import add_layers, open_later

    open_later(star, lambda: layers[1:], partial(add_layers, viewer))
    return layers[:1]  # napari wants one


def tilt_series() -> list[LayerData]:
    """Return the first of two simulated tilt series with its tomogram and particles.

    The path of the optimisation set is in the layers' metadata as ``path``.
    """
    from cryorefine.sample import sample_folder
    from napari_cryorefine.readers import read_tomograms_star, show_tomograms, tomograms

    path = sample_folder("betagal_tilts") / "optimisation_set.star"
    viewer = used_by_hand()
    if viewer is None:
        return read_tomograms_star(path)
    from napari_cryorefine.opening import open_later

    layers = tomograms(path)
    watch_current_viewer()
    open_later(path, lambda: layers[1:], partial(show_tomograms, viewer))
    return layers[:1]
