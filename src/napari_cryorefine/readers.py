"""Opening MRC files, particles and tomograms, by File > Open and by drag and drop.

Whoever opens a file by hand is not kept waiting: it is read in a thread and its layers are added when they
are there. A script gets them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from napari_cryorefine._compat import draws_in_software, watch_current_viewer
from napari_cryorefine.large_maps import large_keywords, read_for_display
from napari_cryorefine.layer_data import STACKS, LayerData, stack_layer
from napari_cryorefine.map_kinds import shown_map, watch_for_kinds

NO_LAYERS: list[Any] = [(None,)]
"""How a reader tells napari that there is no layer to add."""
_LARGE = 1 << 23  # bytes of a STAR file, which takes longer to read than a script's window may stand still
Reader = Callable[[str | Sequence[str]], list[LayerData]]


def get_mrc_reader(path: str | Sequence[str]) -> Reader:
    """Return what reads maps, micrographs and image stacks (npe2's reader command)."""
    return _reader(_open_mrc_later, read_mrc)


def get_particle_reader(path: str | Sequence[str]) -> Reader:
    """Return what reads particle STAR files, optimisation sets and tomograms.star (npe2's reader command)."""
    return _reader(_open_star_later, read_star_layers)


def _reader(later: Callable[[Any, Path], None], at_once: Callable[[Path], list[LayerData]]) -> Reader:
    def read(chosen: str | Sequence[str]) -> list[LayerData]:
        viewer = used_by_hand()
        if viewer is None:
            return [layer for file in _files(chosen) for layer in at_once(file)]
        draws_in_software()  # is remembered for the thread
        for file in _files(chosen):
            later(viewer, file)
        return NO_LAYERS

    return read


def used_by_hand() -> Any:
    """Return the viewer in whose window a person has just done something, or None where a script works."""
    viewer = _viewer()
    if getattr(viewer, "window", None) is None:
        return None
    from napari_cryorefine.turns import is_by_hand

    return viewer if is_by_hand() else None


def read_mrc(path: Path) -> list[LayerData]:
    """Read an MRC file as an image layer in angstroms; the slices of a large map as they are looked at.

    A header without a pixel size is taken as 1 A per pixel, with a warning: layers with and without
    units could not be shown together.

    Raises
    ------
    UserError
        If the file is missing, truncated or of another format.
    """
    layers = _mrc_layers(path)
    _watch_for_maps()
    return layers


def _open_mrc_later(viewer: Any, path: Path) -> None:
    from napari_cryorefine.opening import add_layers, open_later

    def show(layers: list[LayerData]) -> Iterator[None]:
        _watch_for_maps()
        return add_layers(viewer, layers)

    open_later(path, partial(_mrc_layers, path), show)


def _mrc_layers(path: Path) -> list[LayerData]:
    from napari.utils.notifications import show_warning

    from cryorefine.io.mrc import read_layout, read_map

    pixel_size = read_layout(path).pixel_size
    if pixel_size <= 0:
        show_warning(f"{path.name} has no pixel size in its header; 1 Å is assumed.")
        pixel_size = 1.0
    if path.suffix.lower() in STACKS:
        source = read_map(path, pixel_size=pixel_size)
        return [stack_layer(source, axis=STACKS[path.suffix.lower()])]
    source = read_for_display(path, pixel_size=pixel_size)
    if len(source.data) == 1:
        source = replace(source, data=source.data[0])
    layers = shown_map(source)
    viewer = _viewer()
    if large := large_keywords(viewer, source):
        _, keywords, _ = layers[0]
        keywords["metadata"] |= large
        # In 3D it would be sent to the graphics card before its coarser copy is there.
        keywords["visible"] = viewer.dims.ndisplay == 2
    return layers


def _watch_for_maps() -> None:
    watch_current_viewer()
    viewer = _viewer()
    if viewer is not None:
        watch_for_kinds(viewer)


def read_star_layers(path: Path) -> list[LayerData]:
    """Read a STAR file: tomograms with their particles, or particles alone.

    Raises
    ------
    UserError
        If the file holds neither.
    """
    from napari_cryorefine.tomography import holds_tomography

    return read_tomograms_star(path) if holds_tomography(path) else read_particle_star(path)


def read_tomograms_star(path: Path) -> list[LayerData]:
    """Read the first tomogram of an optimisation set or of a tomograms.star, and offer the others in a dock.

    The tilt series, the tomogram, the particles as points and arrows, and the reference maps of the set.

    Raises
    ------
    UserError
        If the file, or one that it names, is missing or wrong.
    """
    from napari_cryorefine.tomography_layers import first_tomogram
    from napari_cryorefine.tomography_scene import watch_for_tomograms

    _, _, layers = first_tomogram(path)
    watch_current_viewer()
    watch_for_tomograms()
    return layers


def _open_star_later(viewer: Any, path: Path) -> None:
    from napari_cryorefine.tomography import holds_tomography

    if not holds_tomography(path):
        from napari_cryorefine.defocus_layers import show_later

        show_later(viewer, path)
        return
    open_tomograms_later(viewer, path)


def open_tomograms_later(viewer: Any, path: Path) -> None:
    """Read the first tomogram of a file in a thread, and show it layer by layer beside its dock."""
    from napari_cryorefine.opening import open_later
    from napari_cryorefine.tomography_layers import first_tomogram
    from napari_cryorefine.tomography_scene import show_panel

    def show(made: Any) -> Iterator[None]:
        panel = show_panel(viewer)
        yield
        panel.show_tomogram(*made)

    open_later(path, partial(first_tomogram, path), show)


def read_particle_star(path: Path) -> list[LayerData]:
    """Read a particle STAR file: the particles of its first micrograph or tomogram, the others in a dock.

    A window is not kept waiting for a large file, whoever opens it.

    Raises
    ------
    UserError
        If the file holds no particles, or says nothing about where they lie.
    """
    from napari_cryorefine.defocus_layers import particle_layers, show_later, watch_for_particles
    from napari_cryorefine.particle_fits import ParticleFits

    viewer = _viewer()
    if path.is_file() and path.stat().st_size > _LARGE and getattr(viewer, "window", None) is not None:
        show_later(viewer, path)
        return NO_LAYERS
    from cryorefine.io.particles import read_particles  # loads pandas, in the thread of a large file's reader

    fits = ParticleFits(read_particles(path))
    watch_current_viewer()
    watch_for_particles()
    return particle_layers(fits, str(path))


def _viewer() -> Any:
    import napari

    return napari.current_viewer()


def _files(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(file) for file in path]
