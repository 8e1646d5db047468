"""The images of a tilt series: read from their files only where particles lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.images import parse_reference
from cryorefine.io.mrc import MrcLayout, read_layout
from cryorefine.io.tomograms import TiltSeries

Index = NDArray[np.int64]


def require_images(series: TiltSeries) -> None:
    """Check that every image of a tilt series is there, without opening it.

    Raises
    ------
    UserError
        Naming the first image that is missing.
    """
    for file, reference in {parse_reference(name)[1]: name for name in series.image_names}.items():
        path = series.root / file
        if not path.is_file():
            raise UserError(
                f"The tilt image {reference} of {series.name} is missing: there is no file {path}; restore "
                "it or remove its row from the tilt series."
            )


class TiltImages:
    """Memory-mapped tilt images of one series; safe to share by threads.

    Parameters
    ----------
    series : TiltSeries
        Read with its images.

    Raises
    ------
    UserError
        When an image is missing, foreign or of another size than the first.
    """

    def __init__(self, series: TiltSeries) -> None:
        require_images(series)
        self.series = series
        layouts: dict[str, tuple[MrcLayout, NDArray[Any]]] = {}
        self.images: list[NDArray[Any]] = []
        for reference in series.image_names:
            number, file = parse_reference(reference)
            if file not in layouts:
                layout = read_layout(series.root / file)
                layouts[file] = layout, layout.memory_map()
            layout, stack = layouts[file]
            section = 0 if number is None else number - 1
            if not 0 <= section < layout.shape[0]:
                raise UserError(
                    f"{reference} of {series.name} asks for image {section + 1}, but the stack holds "
                    f"{layout.shape[0]}; use the tilt-series STAR file that belongs to it."
                )
            image = stack[section]
            if image.shape[::-1] != series.image_size:
                raise UserError(
                    f"The tilt image {reference} of {series.name} has {image.shape[1]} x {image.shape[0]} "
                    f"pixels but the first one {' x '.join(map(str, series.image_size or ()))}; bring all "
                    "images of a series to one size."
                )
            self.images.append(np.asarray(image))

    def squares(self, tilts: Index, corners: Index, size: int) -> NDArray[np.float32]:
        """Cut squares out of the images; beyond an edge its last pixel is repeated.

        Parameters
        ----------
        tilts : ndarray of int, shape (n,)
            Image of each square.
        corners : ndarray of int, shape (n, 2)
            First column and row (x, y) of each square.
        size : int
            Edge in px.

        Returns
        -------
        ndarray of float32, shape (n, size, size)
            Not finite where the image is not.
        """
        from cryorefine.tomo.kernels import cut_half_precision

        result = np.empty((len(tilts), size, size), dtype=np.float32)
        span = np.arange(size)
        for square, tilt, (x, y) in zip(result, tilts, corners, strict=True):
            image = self.images[tilt]
            height, width = image.shape
            if image.dtype == np.dtype("<f2"):
                if not cut_half_precision(image.view(np.uint16), x, y, square, square.view(np.uint32)):
                    square[:] = np.nan
            elif 0 <= x and x + size <= width and 0 <= y and y + size <= height:
                square[...] = image[y : y + size, x : x + size]
            else:
                rows, columns = np.clip(y + span, 0, height - 1), np.clip(x + span, 0, width - 1)
                square[...] = image[np.ix_(rows, columns)]
        return result
