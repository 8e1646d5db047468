"""Images as pictures: which value is black and which is white, and the colours between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cryorefine.jobs.image_handler import Options

_BLACK, _GREY, _WHITE = (0, 0, 0), (128, 128, 128), (255, 255, 255)
_RED, _BLUE, _CYAN, _YELLOW = (255, 0, 0), (0, 0, 255), (0, 255, 255), (255, 255, 0)
_COLOURS = {
    "fire": (_BLACK, _GREY, _WHITE, _RED),
    "ice": (_BLUE, _BLACK, _GREY, _WHITE),
    "fire-n-ice": (_BLUE, _GREY, _RED),
    "rainbow": (_CYAN, _BLUE, _BLACK, _RED, _YELLOW),
}


def picture(image: NDArray[Any], options: Options) -> NDArray[np.uint8]:
    """Return an image (y, x) as pixels of a PNG, shape (y, x), or (y, x, 3) where it has colours."""
    low, high = options.black, options.white
    if options.sigma_contrast > 0:
        mean, spread = float(image.mean()), options.sigma_contrast * float(image.std())
        low, high = mean - spread, mean + spread
    elif low == high:
        low, high = float(image.min()), float(image.max())
    share = np.clip((image - low) / ((high - low) or 1.0), 0.0, 1.0)
    if options.colour == "grey":
        return np.rint(255 * share).astype(np.uint8)
    colours = np.array(_COLOURS[options.colour], dtype=np.float64)
    places = np.linspace(0.0, 1.0, len(colours))
    channels = [np.interp(share, places, colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
