"""Saving image and labels layers as MRC files that keep their pixel size and origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryorefine.errors import UserError


def write_mrc(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one layer as an MRC map, or as a stack where the name ends in .mrcs (npe2's writer command).

    Parameters
    ----------
    path : str
        The file.
    data : array_like
        Shape (y, x), (z, y, x), or (images, 1, y, x) as stacks are shown.
    attributes : dict
        The layer's state; ``scale`` and ``units`` give the pixel size, ``metadata`` the origin that the
        file it was read from had in its header.

    Returns
    -------
    list of str
        The file written.

    Raises
    ------
    UserError
        If the layer has too many axes, colours, or another pixel size along each axis.
    """
    from cryorefine.io.mrc import write_map, write_stack

    array = np.asarray(data)
    pixel_size = pixel_size_of(path, attributes)
    if array.ndim == 4 and array.shape[1] == 1:
        write_stack(path, array[:, 0], pixel_size)
    elif array.ndim == 3 and Path(path).suffix.lower() == ".mrcs":
        write_stack(path, array, pixel_size)
    elif array.ndim in (2, 3) and not attributes.get("rgb"):
        write_map(path, array, pixel_size, attributes.get("metadata", {}).get("place"))
    else:
        raise UserError(f"{path} cannot hold a layer of shape {array.shape}; save a map, image or stack.")
    return [path]


def pixel_size_of(name: str, attributes: dict[str, Any]) -> float:
    """Return the layer's scale along its last two or three axes in A; a scale in pixels counts as A.

    Raises
    ------
    UserError
        If it differs from axis to axis; the sentence begins with the name given.
    """
    import pint

    unit_of = pint.get_application_registry()
    scale = np.asarray(attributes["scale"], dtype=float)[-3:]
    units = [unit_of.Unit(str(unit)) for unit in attributes.get("units", ())][-3:]
    for axis, unit in enumerate(units):
        if unit.is_compatible_with("angstrom"):
            scale[axis] = unit_of.Quantity(scale[axis], unit).to("angstrom").magnitude
    sizes = scale[-2:] if len(scale) == 3 and str(units[0]) == "pixel" else scale
    if not np.allclose(sizes, sizes[-1], rtol=1e-3):
        raise UserError(f"{name}: the voxels are not cubes ({sizes} Å); set one scale for all axes first.")
    return float(sizes[-1])
