"""Maps of the sphere on paper, for the pictures of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryorefine.geometry.sky import mollweide_image, mollweide_position

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sky(axes: Axes, values: NDArray[np.float64], label: str, colours: str = "viridis") -> None:
    """Draw values on the sphere as a Mollweide map with a colour bar and a grid of 30 degrees.

    Parameters
    ----------
    axes : matplotlib Axes
        Where to draw.
    values : ndarray, shape (12 * 4**order,)
        One for each HEALPix pixel, in NEST order.
    label : str
        What the colours mean, with the unit.
    colours : str
        Name of a Matplotlib colour map.
    """
    image = axes.imshow(mollweide_image(values), extent=(-2, 2, -1, 1), cmap=colours, interpolation="nearest")
    all_tilts, all_rots = np.linspace(0, 180, 91), np.linspace(-180, 180 - 1e-9, 181)
    for rot in range(-180, 181, 30):
        edge = abs(rot) == 180
        line = mollweide_position(np.full(91, rot - 1e-9 if rot > 0 else rot), all_tilts)
        axes.plot(*line, color="black" if edge else "0.5", linewidth=0.8 if edge else 0.3)
    for tilt in range(30, 180, 30):
        axes.plot(*mollweide_position(all_rots, np.full(181, tilt)), color="0.5", linewidth=0.3)
        across, up = mollweide_position(-180, tilt)
        axes.annotate(f"{tilt}°", (float(across) - 0.03, float(up)), ha="right", va="center", fontsize=7)
    for rot in range(-120, 121, 60):
        across, up = mollweide_position(rot, 90)
        axes.annotate(f"{rot}°", (float(across) + 0.02, float(up) + 0.03), fontsize=7, color="0.9")
    axes.set_axis_off()
    axes.set_xlim(-2.3, 2.05)
    axes.set_ylim(-1.05, 1.05)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75, pad=0.01)
    bar.set_label(label)
