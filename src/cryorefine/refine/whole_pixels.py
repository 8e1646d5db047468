"""Shifts of images by whole pixels, which change no pixel's value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def shift_whole_pixels(images: F32, shifts: NDArray[np.int64]) -> F32:
    """Move each image's content by whole pixels (x, y); uncovered pixels become 0, shape (n, y, x)."""
    box = images.shape[-1]
    result = np.zeros_like(images)
    for image, moved, (x, y) in zip(images, result, shifts, strict=True):
        if abs(x) < box and abs(y) < box:
            moved[max(y, 0) : box + min(y, 0), max(x, 0) : box + min(x, 0)] = image[
                max(-y, 0) : box + min(-y, 0), max(-x, 0) : box + min(-x, 0)
            ]
    return result
