"""The layers whose maps a form can take: those of files, and those that a job saves in its folder first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from cryorefine.errors import UserError
from cryorefine.jobs.folder import status
from napari_cryorefine.layers import source_path

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from cryorefine.io.mrc import Map


class LayerFiles:
    """The files of a viewer's maps, and the promise of one for each map that has none yet.

    Parameters
    ----------
    viewer : napari.Viewer or ViewerModel, optional
        Where the layers are; without one there are none.
    """

    def __init__(self, viewer: ViewerModel | None) -> None:
        self._viewer = viewer
        self._promised: WeakValueDictionary[Path, Layer] = WeakValueDictionary()

    def offer(self, folder: Path | None) -> dict[str, Path]:
        """Return the files of the layers that hold a map, by name, newest first.

        Parameters
        ----------
        folder : Path, optional
            Where a layer without a file will be saved, e.g. a mask painted by hand; without a folder
            such layers are left out.
        """
        found: dict[str, Path] = {}
        for layer in reversed(self._viewer.layers if self._viewer is not None else []):
            if layer.metadata.get("cryorefine") == "outline":
                continue
            path = source_path(layer)
            if path is not None and path.is_file():
                found[layer.name] = path
            elif folder is not None and _is_map(layer):
                safe_name = re.sub(r"[^\w.-]+", "_", layer.name)
                path = folder / f"layer_{safe_name}.mrc"
                while path in found.values():
                    path = path.with_stem(path.stem + "_")
                found[layer.name] = path
                self._promised[path] = layer
        return found

    def promised(self, path: Path) -> Map | None:
        """Return the map of a layer that has been offered without a file, or None for any other path.

        Raises
        ------
        UserError
            If the layer's voxels are not cubes.
        """
        layer = self._promised.get(path)
        if layer is None or path.is_file():
            return None
        return layer_map(layer)

    @contextmanager
    def saved(self, paths: Iterable[Path], folder: Path) -> Iterator[dict[Path, Path]]:
        """Save the layers that have been taken without a file, as MRC files of their pixel size.

        A UserError inside the context, which keeps the job from starting, removes them again.

        Parameters
        ----------
        paths : iterable of Path
            What the job is to read.
        folder : Path
            The job's folder, made if it is not there.

        Yields
        ------
        dict of Path to Path
            Where those have been saved that were promised.

        Raises
        ------
        UserError
            If the folder holds a finished job, or a layer's voxels are not cubes.
        """
        taken = {path: layer for path in paths if (layer := self._promised.get(path)) is not None}
        if taken and status(folder) == "succeeded":
            raise UserError(f"{folder} already holds a finished job; choose another output folder.")
        files = {path: folder / path.name for path in taken}
        new = [path for path in (*files.values(), folder, *folder.parents) if not path.exists()]
        try:
            for promised, layer in taken.items():
                folder.mkdir(parents=True, exist_ok=True)
                _save(files[promised], layer)
                self._promised[files[promised]] = layer
            yield files
        except UserError:
            for path in new:
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
            raise


def layer_map(layer: Layer) -> Map:
    """Return the map that a layer shows, in A; 0 and 1 for labels, which only number a mask's parts.

    Raises
    ------
    UserError
        If the layer's voxels are not cubes.
    """
    import numpy as np

    from cryorefine.io.mrc import Map
    from napari_cryorefine.writers import pixel_size_of

    pixel_size = pixel_size_of(layer.name, {"scale": layer.scale, "units": layer.units})
    return Map(np.asarray(_values(layer), dtype=np.float32), pixel_size)


def _save(path: Path, layer: Layer) -> None:
    from napari_cryorefine.writers import write_mrc

    state = {"scale": layer.scale, "units": layer.units, "metadata": layer.metadata}
    write_mrc(str(path), _values(layer), state)


def _values(layer: Layer) -> Any:
    from napari.layers import Labels

    return layer.data > 0 if isinstance(layer, Labels) else layer.data


def _is_map(layer: Layer) -> bool:
    from napari.layers import Image, Labels

    if not isinstance(layer, Image | Labels) or layer.multiscale or getattr(layer, "rgb", False):
        return False
    return bool(layer.data.ndim == 3)
