"""Maps and image stacks in MRC files (MRC2014), read and written whole."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryorefine import __version__
from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.files import write_whole

_HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


@dataclass(frozen=True)
class Place:
    """Where a map says that it lies; nothing here is computed from it.

    Attributes
    ----------
    origin : tuple of float
        Of the first voxel, x, y, z in A.
    start : tuple of int
        Its column, row and section in the grid of the unit cell.
    """

    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    start: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Map:
    """A map on its grid.

    Attributes
    ----------
    data : numpy.ndarray
        float32, shape (z, y, x).
    pixel_size : float
        A per voxel.
    path : pathlib.Path or None
        Where it was read from.
    place : Place
        What its header says of where it lies.
    """

    data: NDArray[np.float32]
    pixel_size: float
    path: Path | None = None
    place: Place = Place()


@dataclass(frozen=True)
class MrcLayout:
    """Where and how the voxels of an MRC file lie.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    shape : tuple of int
        (sections, rows, columns) in the order of the file.
    dtype : numpy.dtype
        With its byte order.
    offset : int
        Bytes before the first voxel.
    pixel_size : float
        A per voxel along x; 0 when the header does not say.
    voxel_size : tuple of float
        A per voxel along x, y, z.
    axes : tuple of int
        Which of x (1), y (2), z (3) run along columns, rows, sections.
    place : Place
        What the header says of where the map lies.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    pixel_size: float
    voxel_size: tuple[float, float, float]
    axes: tuple[int, int, int]
    place: Place = Place()

    def memory_map(self) -> NDArray[Any]:
        """Map the voxels into memory, read-only, in the file's own type and order of axes."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)


def read_layout(path: str | os.PathLike[str]) -> MrcLayout:
    """Read the header of an MRC file and check that the file holds what it promises.

    Modes 0, 1, 2, 6 and 12, either byte order, an extended header, and headers that lack the map or
    machine stamp are accepted.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    MrcLayout
        Shape, type and place of the voxels, and their size in A.

    Raises
    ------
    UserError
        When the file is missing, truncated, of another format, or of a mode without real voxels.
    """
    file = Path(path)
    try:
        with open(file, "rb") as handle:
            header = handle.read(_HEADER_BYTES)
            size = os.fstat(handle.fileno()).st_size
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; check the name and the folder.") from None
    except IsADirectoryError:
        raise UserError(f"{file} is a folder; choose an MRC file.") from None
    except PermissionError:
        raise UserError(f"{file} may not be read; change its permissions.") from None
    if len(header) < _HEADER_BYTES:
        raise UserError(
            f"{file} is not an MRC file or is truncated: it holds only {size} bytes; get a whole copy."
        )
    # The byte order is the one that makes sense of sizes, mode and axes: machine stamps are often wrong.
    for order in "<>":
        words = np.frombuffer(header, dtype=order + "i4")
        columns, rows, sections, mode = (int(word) for word in words[:4])
        extended = int(words[23])
        axes = (int(words[16]), int(words[17]), int(words[18]))
        plausible = min(columns, rows, sections) > 0 and 0 <= mode <= 127 and extended >= 0
        if plausible and (sorted(axes) == [1, 2, 3] or axes == (0, 0, 0)):
            break
    else:
        raise UserError(f"{file} is not an MRC file: its header makes no sense; choose an MRC map or stack.")
    if mode not in _MODES:
        raise UserError(
            f"{file} has MRC mode {mode}, which is none of the real ones (0, 1, 2, 6 and 12); "
            "convert it to mode 2."
        )
    dtype = np.dtype(order + _MODES[mode])
    offset = _HEADER_BYTES + extended
    expected = offset + columns * rows * sections * dtype.itemsize
    if size < expected:
        raise UserError(f"{file} is truncated: it holds {size} bytes of {expected}; get a whole copy.")
    reals = np.frombuffer(header, dtype=order + "f4")
    voxel_size = _voxel_size(reals[10:13], words[7:10])
    return MrcLayout(
        path=file,
        shape=(sections, rows, columns),
        dtype=dtype,
        offset=offset,
        pixel_size=voxel_size[0],
        voxel_size=voxel_size,
        axes=(1, 2, 3) if axes == (0, 0, 0) else axes,
        place=_place(reals[49:52], words[4:7]),
    )


def _place(origin: NDArray[Any], start: NDArray[Any]) -> Place:
    """Return the place of a header; numbers that make no sense count as 0."""
    x, y, z = (float(each) if np.isfinite(each) else 0.0 for each in origin)
    return Place((x, y, z), (int(start[0]), int(start[1]), int(start[2])))


def _voxel_size(cell: NDArray[Any], sampling: NDArray[Any]) -> tuple[float, float, float]:
    """Return cell / sampling along x, y, z in A, 0 where the header has no usable numbers."""
    sizes = []
    for length, samples in zip(cell.tolist(), sampling.tolist(), strict=True):
        size = length / samples if samples > 0 else 0.0
        sizes.append(_shortest(size, samples, length) if np.isfinite(size) and size > 0 else 0.0)
    return sizes[0], sizes[1], sizes[2]


def _shortest(size: float, samples: int, length: float) -> float:
    """Return the shortest decimal that gives the stored length: 3.54 rather than 3.53999996."""
    for digits in range(1, 9):
        candidate = float(f"{size:.{digits}g}")
        if np.float32(candidate * samples) == np.float32(length):
            return candidate
    return size


def read_map(path: str | os.PathLike[str], *, pixel_size: float | None = None, mapped: bool = False) -> Map:
    """Read a map whole.

    Parameters
    ----------
    path : path-like
        MRC file.
    pixel_size : float, optional
        A per voxel, used instead of the header's.
    mapped : bool
        Leave the voxels in the file where its format allows, and give a view of it that cannot be
        written to. Saves a copy, for work that is over before somebody may write into the file.

    Returns
    -------
    Map
        float32 data, always with three axes (z, y, x), and the pixel size in A.

    Raises
    ------
    UserError
        When the file is missing, foreign or truncated, holds NaN or infinite values, or has no pixel
        size and none is given.
    """
    layout = read_layout(path)
    if layout.axes == (1, 2, 3) and layout.dtype == np.dtype("<f4") and sys.byteorder == "little":
        if mapped:
            data = np.asarray(layout.memory_map())
        else:
            count = math.prod(layout.shape)
            data = np.fromfile(path, dtype=np.float32, count=count, offset=layout.offset)
            data = data.reshape(layout.shape)
    else:
        # Put the axes in the order z, y, x (older programs store sections along another axis).
        order = [2 - (layout.axes.index(axis)) for axis in (3, 2, 1)]
        data = np.array(layout.memory_map().transpose(order), dtype=np.float32, order="C")
    # NaN and infinity both show in the extremes, which are found faster than every bad voxel.
    if data.size and not (np.isfinite(data.min()) and np.isfinite(data.max())):
        raise UserError(f"{path} holds NaN or infinite values; make the map again.")
    if pixel_size is None:
        pixel_size = layout.pixel_size
        if pixel_size <= 0:
            raise UserError(f"{path} has no pixel size in its header; give the pixel size in A.")
        sizes = layout.voxel_size
        if data.shape[0] > 1 and max(sizes) > 1.001 * min(sizes) > 0:
            warnings.warn(
                f"{path} has voxels of {sizes[0]} x {sizes[1]} x {sizes[2]} A; the first number is taken "
                "for all axes.",
                UserWarningMessage,
                stacklevel=2,
            )
    return Map(data=data, pixel_size=float(pixel_size), path=layout.path, place=layout.place)


def write_map(
    path: str | os.PathLike[str], data: ArrayLike, pixel_size: float, place: Place | None = None
) -> None:
    """Write a volume (z, y, x) or one image (y, x) as 32-bit floats.

    Parameters
    ----------
    path : path-like
        The file; it appears under this name when it is whole.
    data : array_like
        Two or three axes.
    pixel_size : float
        A per voxel.
    place : Place, optional
        Where the header is to say that the map lies; at 0 by default.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    array = np.asarray(data)
    if array.ndim not in (2, 3):
        raise ValueError(f"a map has two or three axes, not the shape {array.shape}")
    values = array.astype(np.float32, copy=False)
    _write(path, values, pixel_size, "<f4", is_volume=array.ndim == 3, place=place)


@contextmanager
def map_by_pieces(
    path: str | os.PathLike[str], size: int, pixel_size: float
) -> Iterator[NDArray[np.float32]]:
    """Write a cubic map that need not fit into memory.

    Parameters
    ----------
    path : path-like
        The file; it appears under this name when the block ends well.
    size : int
        Box in voxels.
    pixel_size : float
        A per voxel.

    Yields
    ------
    numpy.memmap
        float32, shape (z, y, x), to be filled.
    """
    import mrcfile

    with write_whole(path) as temporary:
        with mrcfile.new_mmap(temporary, (size,) * 3, mrc_mode=2) as mrc:
            mrc.set_volume()
            mrc.voxel_size = pixel_size
            mrc.header.label = b""
            mrc.header.label[0] = f"cryorefine {__version__}".encode()
            mrc.header.nlabl = 1
            yield mrc.data
            sums, low, high = np.zeros(2), np.inf, -np.inf
            for plane in mrc.data:
                sums += plane.sum(dtype=np.float64), np.sum(plane.astype(np.float64) ** 2)
                low, high = min(low, plane.min()), max(high, plane.max())
            mean, square = sums / size**3
            mrc.header.dmin, mrc.header.dmax, mrc.header.dmean = low, high, mean
            mrc.header.rms = np.sqrt(max(square - mean**2, 0.0))


def write_stack(
    path: str | os.PathLike[str],
    data: ArrayLike,
    pixel_size: float,
    half_precision: bool = False,
    flush: bool = True,
) -> None:
    """Write a stack of images (n, y, x).

    Parameters
    ----------
    path : path-like
        The file, by convention ``.mrcs``; it appears under this name when it is whole.
    data : array_like
        Images, shape (n, y, x).
    pixel_size : float
        A per pixel.
    half_precision : bool
        Store 16-bit floats (MRC mode 12), which RELION reads from version 4 on.
    flush : bool
        As of :func:`cryorefine.io.files.write_whole`.

    Raises
    ------
    UserError
        When the place cannot be written or a value does not fit into 16 bits.
    """
    array = np.asarray(data)
    if array.ndim != 3:
        raise ValueError(f"a stack has the shape (n, y, x), not {array.shape}")
    if half_precision and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise UserError(
            f"{path} cannot be written in half precision: a value exceeds 65504; use 32-bit floats."
        )
    kind = "<f2" if half_precision else "<f4"
    _write(path, array.astype(np.float32, copy=False), pixel_size, kind, is_volume=False, flush=flush)


def _write(
    path: str | os.PathLike[str],
    array: NDArray[np.float32],
    pixel_size: float,
    kind: str,
    is_volume: bool,
    flush: bool = True,
    place: Place | None = None,
) -> None:
    # Written by hand: mrcfile goes over the voxels several times more and costs a start-up of its own.
    planes = array if array.ndim == 3 else array[None]
    with write_whole(path, flush=flush) as temporary, open(temporary, "wb") as file:
        # The statistics are those of the 32-bit values: arithmetic on 16-bit floats is slow.
        header = _header(planes, pixel_size, is_volume, 12 if kind == "<f2" else 2)
        if place is not None:
            header[4:7] = place.start
            header.view("<f4")[49:52] = place.origin
        file.write(header.tobytes())
        # NumPy's own tofile does not say why a disk takes no more.
        file.write(np.ascontiguousarray(planes, dtype=kind).data)


def _header(planes: NDArray[np.float32], pixel_size: float, is_volume: bool, mode: int) -> NDArray[np.int32]:
    """Return the header of MRC2014 (Cheng et al., J. Struct. Biol. 192, 2015), 256 words."""
    words = np.zeros(_HEADER_BYTES // 4, dtype="<i4")
    reals, letters = words.view("<f4"), words.view("u1")
    depth, height, width = planes.shape
    sampling = (width, height, depth if is_volume else 1)
    words[0:4] = width, height, depth, mode
    words[7:10] = sampling
    reals[10:13] = np.multiply(sampling, pixel_size)
    reals[13:16] = 90.0
    words[16:19] = 1, 2, 3
    if planes.size:
        mean = planes.mean(dtype=np.float64)
        # Not by a scalar product, for which BLAS would start threads that wait longer than they work.
        square = sum(float(np.square(p, out=p).sum()) for p in _about(planes, mean)) / planes.size
        reals[19:22] = planes.min(), planes.max(), mean
        reals[54] = np.sqrt(square)
    words[22] = 1 if is_volume else 0
    words[27] = 20141  # version of the format
    letters[208:212] = list(b"MAP ")
    letters[212:216] = (0x44, 0x44, 0, 0)
    words[55] = 1
    # No time stamp: the same map gives the same bytes.
    label = f"cryorefine {__version__}".encode()[:80]
    letters[224 : 224 + len(label)] = list(label)
    return words


def _about(planes: NDArray[np.float32], mean: float) -> Iterator[NDArray[np.float32]]:
    """Yield each plane less the mean of all."""
    for plane in planes:
        yield plane - np.float32(mean)
