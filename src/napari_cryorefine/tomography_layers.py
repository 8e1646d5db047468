"""One tomogram as layers: its tilt series, the particles in each tilt, the tomogram, particles in space.

The tilt series stands to the right of the tomogram, and what belongs to it fills the whole depth: the
slider of the tilts moves it, that of z does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cryorefine.layer_data import MASK_COLOR, LayerData, layer_keywords, map_layer
from napari_cryorefine.layers import HALF_MAP_COLORMAPS
from napari_cryorefine.tomography import Tomography, read_tomography, tilt_angles, tilt_order

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from cryorefine.io.tomograms import TiltSeries

ROLE = "tomography"
"""First word of the roles of these layers."""
TILTS, PROJECTED, TOMOGRAM, PARTICLES, DIRECTIONS, STACK = (
    f"{ROLE} {part}"
    for part in ("tilt series", "particles in tilts", "tomogram", "particles", "directions", "stack")
)
PARTICLE_COLOR = "#f5a623"
_CIRCLE = {
    "symbol": "disc",
    "face_color": "transparent",
    "border_color": PARTICLE_COLOR,
    "border_width": 0.04,
}
LARGEST_IMAGE = 1024
"""Tilt images of more pixels along an edge are binned to look at."""
_GAP = 0.05  # between what stands side by side, as a share of the tomogram's width


def first_tomogram(path: Path) -> tuple[Tomography, str, list[LayerData]]:
    """Read a file and return what it holds, the name of its first tomogram and all that belongs to that.

    Raises
    ------
    UserError
        As :func:`.read_tomography`.
    """
    tomography = read_tomography(path)
    name = tomography.names[0]
    return tomography, name, tomogram_layers(tomography, name) + reference_layers(tomography, name)


def tomogram_layers(tomography: Tomography, name: str) -> list[LayerData]:
    """Return the layers of a tomogram: those of its tilt series only where the images are there.

    Parameters
    ----------
    tomography : Tomography
        Tomograms and particles.
    name : str
        Name of the tomogram.
    """
    layers: list[LayerData] = []
    if (file := tomography.tomogram_file(name)) is not None:
        layers.append(tomogram_layer(name, file, tomography.extent(name)[2]))
    series = tomography.with_images(name)
    if series is not None:
        layers.append(_tilt_layer(tomography, series))
    if tomography.particles is not None:
        if series is not None:
            layers.append(_projected_layer(tomography, series))
        layers += [_particle_layer(tomography, name), _direction_layer(tomography, name)]
    for _, keywords, _ in layers:
        keywords["metadata"] |= {"tomography": tomography, "tomogram": name}
    return layers


def tomogram_layer(name: str, path: Path, depth: float = 0.0) -> LayerData:
    """Return the layer of a tomogram alone; of its voxels only those that are looked at are read.

    Parameters
    ----------
    name : str
        Its name.
    path : Path
        Its file.
    depth : float
        Its depth in A, for a file without a pixel size.
    """
    from cryorefine.io.mrc import read_layout

    layout = read_layout(path)
    data = layout.memory_map()
    voxel = depth / len(data) if layout.pixel_size <= 0 else layout.pixel_size
    keywords = layer_keywords(path, voxel, name=f"{name} tomogram", kind="map")
    step = tuple(slice(None, None, max(1, size // 64)) for size in data.shape)
    sample = np.asarray(data[step], np.float32)
    middle, deviation = float(sample.mean()), float(sample.std()) or 1.0
    keywords |= {"contrast_limits": (middle - 4 * deviation, middle + 4 * deviation), "colormap": "gray"}
    # Protein is dark as recorded, white in what some programs make of it; either way it is what stands out.
    dark = float(np.mean((sample - middle) ** 3)) < 0
    keywords |= {"rendering": "minip" if dark else "mip", "interpolation2d": "linear"}
    keywords["metadata"] |= {"role": TOMOGRAM}
    return data, keywords, "image"


def reference_layers(tomography: Tomography, name: str) -> list[LayerData]:
    """Return the reference half maps and the mask that an optimisation set names, left of the tomogram."""
    from cryorefine.io.mrc import read_map

    files = tomography.files
    if files is None:
        return []
    layers: list[LayerData] = []
    extent = tomography.extent(name)
    references = (files.reference_half1, files.reference_half2, files.reference_mask)
    for path, color in zip(references, (*HALF_MAP_COLORMAPS, MASK_COLOR), strict=True):
        if path is None or not path.is_file():
            continue
        data, keywords, kind = map_layer(read_map(path))
        size = np.array(data.shape) * keywords["metadata"]["pixel_size"]
        place = (extent[::-1] - size) / 2
        place[2] = -size[2] - _GAP * extent[0]
        keywords |= {"translate": tuple(place), "colormap": color, "visible": not layers}
        keywords |= {"blending": "additive"}  # no black box in front of the tomogram
        if path == files.reference_mask:
            keywords |= {"contrast_limits": (0.0, 1.0), "iso_threshold": 0.5, "opacity": 0.35}
        keywords["metadata"] |= {"role": f"{ROLE} {path.name}"}
        layers.append((data, keywords, kind))
    return layers


def stack_of_particle(tomography: Tomography, row: int) -> LayerData | None:
    """Return the tilts of one particle, right of the tilt series and moved by the same slider.

    Taken from the particle's own 2D stack (rlnImageName) where there is one, else cut from the tilt
    images; None where neither is there. Tilts that do not show the particle are empty.

    Parameters
    ----------
    tomography : Tomography
        With particles.
    row : int
        Row of the particle in their file.
    """
    from cryorefine.tomo.geometry import project

    particles = tomography.particles
    assert particles is not None
    name = str(particles.tomogram_names[row])
    series = tomography.tomograms[name]
    stack = _extracted(tomography, series, row)
    if stack is None:
        with_images = tomography.with_images(name)
        if with_images is None:
            return None
        from cryorefine.tomo.tilt_images import TiltImages

        centres, _ = project(with_images, particles.positions(with_images, np.array([row])))
        size = 2 * round(tomography.diameter(name) * 0.8 / series.pixel_size)
        corners = np.floor(centres[0] + 0.5).astype(np.int64) - size // 2
        stack = TiltImages(with_images).squares(np.arange(len(series)), corners, size), series.pixel_size
    images, pixel_size = stack
    images = images[tilt_order(series)]
    keywords = _tilt_keywords(tomography, series, pixel_size, 1, f"tilts of {particles.names[row]}")
    extent = tomography.extent(name)
    left = (2 + 2 * _GAP) * extent[0]
    keywords["translate"] = (0, extent[2] / 2, (extent[1] - images.shape[1] * pixel_size) / 2, left)
    # Tilts taken late or far from 0 show less: all are seen on the scale of the one that shows most.
    deviation = float(images.std(axis=(1, 2)).max()) or 1.0
    middle = float(images.mean())
    keywords["contrast_limits"] = (middle - 3 * deviation, middle + 3 * deviation)
    keywords["metadata"] |= {"role": STACK, "particle": str(particles.names[row])}
    return images[:, None], keywords, "image"


class TiltSections:
    """Tilt images in the order of their angles, binned to look at; each is read once, by whichever thread.

    It is read like an array of shape (tilts, 1, y, x).

    Parameters
    ----------
    series : TiltSeries
        Read with its images.

    Attributes
    ----------
    binning : int
        Edge of the squares of pixels that are averaged.
    """

    def __init__(self, series: TiltSeries) -> None:
        from cryorefine.tomo.tilt_images import TiltImages

        self._images, self._order = TiltImages(series).images, tilt_order(series)
        self.binning = -(-max(self._images[0].shape) // LARGEST_IMAGE)
        height, width = self._images[0].shape
        self.shape = (len(self._images), 1, height // self.binning, width // self.binning)
        self.ndim, self.dtype, self.size = 4, np.dtype(np.float32), int(np.prod(self.shape))
        self._read: dict[int, NDArray[np.float32]] = {}

    def __getitem__(self, key: Any) -> Any:
        first, *others = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int | np.integer):
            return self.section(range(len(self._images))[first])[None][tuple(others)]
        steps = np.arange(len(self._images))[first]
        return np.stack([self.section(int(step))[None] for step in steps])[(slice(None), *others)]

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def section(self, step: int) -> NDArray[np.float32]:
        """Return one image, shape (y, x)."""
        if step not in self._read:
            self._read[step] = _binned(self._images[self._order[step]], self.binning)
        return self._read[step]

    def read_ahead(self, step: int) -> Iterator[int]:
        """Read all images, those near to a place in the order first; yields how many are there."""
        for number, each in enumerate(np.argsort(np.abs(np.arange(self.shape[0]) - step)), start=1):
            self.section(int(each))
            yield number


def _tilt_layer(tomography: Tomography, series: TiltSeries) -> LayerData:
    sections = TiltSections(series)
    name = f"{series.name} tilt series"
    keywords = _tilt_keywords(tomography, series, series.pixel_size, sections.binning, name)
    untilted = sections.section(int(np.argmin(np.abs(np.sort(tilt_angles(series))))))
    middle, deviation = float(untilted.mean()), float(untilted.std()) or 1.0
    keywords["contrast_limits"] = (middle - 3 * deviation, middle + 3 * deviation)
    keywords["metadata"] |= {"role": TILTS}
    return sections, keywords, "image"


def _binned(image: NDArray[Any], binning: int) -> NDArray[np.float32]:
    """Mean over squares of pixels, shape (y // binning, x // binning)."""
    height, width = (size // binning for size in image.shape)
    cut = np.asarray(image[: height * binning, : width * binning], np.float32)
    if binning == 1:
        return cut
    return cut.reshape(height, binning, width, binning).mean(axis=(1, 3))


def _tilt_keywords(
    tomography: Tomography, series: TiltSeries, pixel_size: float, binning: int, name: str
) -> dict[str, Any]:
    """Keywords of what a tilt series shows: (tilt, 1, y, x), one voxel as deep as the tomogram."""
    extent = tomography.extent(series.name)
    voxel = pixel_size * binning
    keywords = layer_keywords(tomography.path, voxel, name=name, kind="stack", axis="tilt")
    keywords["scale"] = (1.0, float(extent[2]), voxel, voxel)
    # The first of the pixels that were binned lies half of the others before their middle.
    middle = (binning - 1) / 2 * pixel_size
    keywords["translate"] = (0.0, extent[2] / 2, middle, (1 + _GAP) * extent[0] + middle)
    return keywords


def _projected_layer(tomography: Tomography, series: TiltSeries) -> LayerData:
    """Particles where they are seen, tilt by tilt."""
    from cryorefine.tomo.geometry import project

    particles = tomography.particles
    assert particles is not None
    rows = tomography.rows(series.name)
    centres, _ = project(series, particles.positions(series, rows))
    order = tilt_order(series)
    width, height = series.image_size or (0, 0)
    seen = particles.visible_frames(series, rows) & np.all(
        (centres >= 0) & (centres <= (width - 1, height - 1)), axis=-1
    )
    which, step = np.nonzero(seen[:, order])
    x, y = centres[which, order[step]].T
    size = tomography.diameter(series.name) / series.pixel_size
    keywords = _tilt_keywords(
        tomography, series, series.pixel_size, 1, f"{series.name} particles in the tilts"
    )
    keywords |= {
        "features": {"rlnTomoParticleName": particles.names[rows][which].astype(str)},
        "size": size,
    }
    keywords |= _CIRCLE
    keywords["metadata"] |= {"role": PROJECTED, "cryorefine": "particles", "rows": rows[which]}
    return np.stack([step, np.zeros(len(step)), y, x], axis=1), keywords, "points"


def _particle_layer(tomography: Tomography, name: str) -> LayerData:
    """Particles in the tomogram; one of the layer's pixels is a particle, so that sections show it whole."""
    size = tomography.diameter(name)
    keywords = layer_keywords(tomography.path, size, name=f"{name} particles", kind="particles")
    keywords |= {
        "features": tomography.features(name),
        "size": 1.0,
    }
    keywords |= _CIRCLE
    keywords["metadata"] |= {"role": PARTICLES, "rows": tomography.rows(name)}
    return tomography.positions(name)[:, ::-1] / size, keywords, "points"


def _direction_layer(tomography: Tomography, name: str) -> LayerData:
    """Arrows along the z axis of the reference."""
    size = tomography.diameter(name)
    keywords = layer_keywords(tomography.path, size, name=f"{name} directions", kind="directions")
    keywords |= {"vector_style": "arrow", "edge_width": 0.12, "edge_color": "#ff5a5f", "opacity": 0.9}
    keywords["metadata"] |= {"role": DIRECTIONS}
    start = tomography.positions(name)[:, ::-1] / size
    return np.stack([start, tomography.axes(name)[:, ::-1]], axis=1), keywords, "vectors"


def _extracted(
    tomography: Tomography, series: TiltSeries, row: int
) -> tuple[NDArray[np.float32], float] | None:
    """Images of a particle's 2D stack, one for each tilt of the table, and their pixel size."""
    from cryorefine.errors import UserError
    from cryorefine.io.images import ImageReader
    from cryorefine.io.particles import column, project_root

    particles = tomography.particles
    assert particles is not None
    table = particles.file.particles
    if "rlnImageName" not in table or not str(table["rlnImageName"].iloc[row]).endswith(".mrcs"):
        return None
    reference = str(table["rlnImageName"].iloc[row])
    try:
        reader = ImageReader(project_root(particles.file.path or tomography.path, reference))
        stack = reader.read_stack(reference)
    except UserError:
        return None
    visible = particles.visible_frames(series, np.array([row]))[0]
    if len(stack) == len(series):  # some programs write every tilt
        visible[:] = True
    if visible.sum() != len(stack):
        return None
    images = np.zeros((len(series), *stack.shape[1:]), np.float32)
    images[visible] = stack
    given = float(column(particles.file, "rlnImagePixelSize", 0.0)[row])
    return images, given or reader.pixel_size(reference) or series.pixel_size
