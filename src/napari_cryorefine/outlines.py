"""The outlines of a mask over the sections of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class MaskOutlines:
    """The parts of a mask in numbers, of which a section holds the outlines alone.

    The outermost pixels of the core are 1 and those of the soft edge 2, worked out for each section
    when napari asks for it. It is read like an array.

    Parameters
    ----------
    regions : numpy.ndarray
        1 in the core, 2 in the soft edge, shape (z, y, x).

    Attributes
    ----------
    regions : numpy.ndarray
        The same.
    """

    def __init__(self, regions: NDArray[np.uint8]) -> None:
        self.regions = regions
        self.shape, self.ndim, self.dtype, self.size = (
            regions.shape,
            regions.ndim,
            regions.dtype,
            regions.size,
        )

    def __getitem__(self, key: Any) -> Any:
        part = self.regions[key]
        return section_outlines(part) if part.ndim == 2 else part

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.regions, dtype=dtype) if copy else np.asarray(self.regions, dtype=dtype)


def section_outlines(regions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 on the outermost pixels of a section's core, 2 on those of its soft edge, 0 elsewhere.

    Parameters
    ----------
    regions : numpy.ndarray
        1 in the core, 2 in the soft edge, shape (y, x).
    """
    outlines = 2 * _outermost(regions > 0)
    outlines[_outermost(regions == 1) > 0] = 1
    return outlines


def _outermost(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels that share a side with one outside; the edge of the picture is none."""
    outside = np.zeros_like(inside)
    for axis in range(2):
        a, b = (np.moveaxis(array, axis, 0) for array in (outside, ~inside))
        a[1:] |= b[:-1]
        a[:-1] |= b[1:]
    return (inside & outside).astype(np.uint8)
