"""What to say when no tilt image shows a particle: today's classic, black particles, before it happens."""

from __future__ import annotations

import numpy as np

from cryorefine.tomo.geometry import project
from cryorefine.tomo.particles import Subtomograms


def why_none_is_seen(
    particles: Subtomograms, radius: float, max_dose: float | None, *, apply_offsets: bool = True
) -> str:
    """Return one sentence with the place of the first particle, the size of the image and the remedy.

    Parameters
    ----------
    particles : Subtomograms
        None of which lies in a tilt image.
    radius : float
        How far from all edges a particle has to lie, in px.
    max_dose : float or None
        Images that began with a larger dose (e/A^2) do not count.
    apply_offsets : bool
        Whether the offsets move the particles.
    """
    series, rows = next(particles.by_tomogram())
    if max_dose and not (series.dose <= max_dose).any():
        return (
            f"No tilt image of {series.name} has a dose of at most {max_dose:g} e/A^2; give a higher "
            "--max-dose."
        )
    centres, _ = project(series, particles.positions(series, rows[:1], apply_offsets=apply_offsets))
    x, y = centres[0, int(np.argmin(series.dose))]
    width, height = series.image_size or (0, 0)
    return (
        f"No particle lies in the tilt images: {particles.names[rows[0]]} of {particles.file.path} is "
        f"projected to ({x:.0f}, {y:.0f}) in images of {width} x {height} px of {series.name}, where it "
        f"needs {radius:.0f} px to all sides; check the unit and origin of the coordinates and the size of "
        "the tomogram, or give a smaller --box-size or --crop-size."
    )


def too_large_a_box(particles: Subtomograms, box: int) -> str:
    """Return a sentence where the box in px of the tilt images is wider than an image, else nothing."""
    for series, _ in particles.by_tomogram():
        size = series.image_size
        if size is not None and box > min(size):
            return (
                f"The box takes {box} px of the tilt images, but those of {series.name} have {size[0]} x "
                f"{size[1]} px: what lies beyond their edges is made up from the pixels there; a smaller "
                "--box-size will do."
            )
    return ""
