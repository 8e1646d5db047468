"""Pictures in PNG files (ISO/IEC 15948), 8 bits a channel."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.files import write_whole

_KINDS = {1: 0, 3: 2}
"""Channels -> colour type."""


def write_png(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write a picture, the first row on top; the file appears under its name when it is whole.

    Parameters
    ----------
    path : path-like
        The file.
    pixels : numpy.ndarray
        uint8, shape (rows, columns) in grey or (rows, columns, 3) in red, green and blue.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    height, width, *channels = pixels.shape
    kind = _KINDS[channels[0] if channels else 1]
    # Each row begins with the number of its filter, which is none.
    rows = np.zeros((height, 1 + pixels[0].size), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">LLBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
    with write_whole(path) as temporary:
        temporary.write_bytes(content)
