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


def require_images(series: TiltSeries) -> list[tuple[MrcLayout, int]]:
    """Check that every image of a tilt series is there and whole, by the headers of its files.

    Returns
    -------
    list of (MrcLayout, int)
        File and section of each image.

    Raises
    ------
    UserError
        Naming the first image that is missing, foreign, cut short or of another size than the first one.
    """
    layouts: dict[str, MrcLayout] = {}
    result = []
    for reference in series.image_names:
        number, file = parse_reference(reference)
        path = series.root / file
        if file not in layouts:
            if not path.is_file():
                raise UserError(
                    f"The tilt image {reference} of {series.name} is missing: there is no file {path}; "
                    "restore it or remove its row from the tilt series."
                )
            layouts[file] = read_layout(path)
        count, height, width = layouts[file].shape
        section = 0 if number is None else number - 1
        if not 0 <= section < count:
            raise UserError(
                f"{reference} of {series.name} asks for image {section + 1}, but the stack holds {count}; "
                "use the tilt-series STAR file that belongs to it."
            )
        if (width, height) != series.image_size:
            raise UserError(
                f"The tilt image {reference} of {series.name} has {width} x {height} pixels but the first "
                f"one {' x '.join(map(str, series.image_size or ()))}; bring all images of a series to one "
                "size."
            )
        result.append((layouts[file], section))
    return result


class TiltImages:
    """Memory-mapped tilt images of one series; safe to share by threads.

    Parameters
    ----------
    series : TiltSeries
        Read with its images.

    Raises
    ------
    UserError
        As :func:`require_images`.
    """

    def __init__(self, series: TiltSeries) -> None:
        self.series = series
        places = require_images(series)
        stacks = {id(layout): layout.memory_map() for layout, _ in places}
        self.images: list[NDArray[Any]] = [np.asarray(stacks[id(layout)][n]) for layout, n in places]

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
