"""File > Open Sample: real particles and the map that they are refined from; simulated tilt series."""

from __future__ import annotations

from napari_cryorefine._compat import watch_current_viewer
from napari_cryorefine.layer_data import LayerData, map_layer, stack_layer

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
    return [(map_data, map_keywords, kind), (stack_data, stack_keywords, "image")]


def tilt_series() -> list[LayerData]:
    """Return the first of two simulated tilt series with its tomogram and particles.

    The path of the optimisation set is in the layers' metadata as ``path``.
    """
    from cryorefine.sample import sample_folder
    from napari_cryorefine.readers import read_tomograms_star

    return read_tomograms_star(sample_folder("betagal_tilts") / "optimisation_set.star")
