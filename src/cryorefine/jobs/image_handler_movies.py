"""The image handler on the movies of a STAR file: the mean of all their frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_layout
from cryorefine.io.particles import project_root
from cryorefine.io.star import Columns, read_columns
from cryorefine.jobs.base import Progress, Run
from cryorefine.jobs.image_handler import Options, Result
from cryorefine.jobs.image_handler_measure import measure
from cryorefine.jobs.image_handler_particles import write_one
from cryorefine.jobs.image_handler_steps import steps_for

_LABEL = "rlnMicrographMovieName"


def run(options: Options) -> Run[Result]:
    """Average the frames of all movies, a frame in memory at a time, and process the mean."""
    blocks = read_columns(options.input).values() if options.input.suffix == ".star" else []
    tables = [block for block in blocks if isinstance(block, Columns) and _LABEL in block]
    if not tables:
        raise UserError(
            f"--average-all-movie-frames needs a STAR file of movies, but {options.input} has no column "
            f"{_LABEL}; give movies.star."
        )
    names = [str(name) for name in tables[0][_LABEL]]
    root = project_root(options.input, names[0])
    total: NDArray[np.float64] = np.zeros(0)
    count, pixel_size = 0, 0.0
    for number, name in enumerate(names):
        yield Progress("Averaging", number, len(names), name)
        layout = read_layout(root / name)
        if count and total.shape != layout.shape[1:]:
            raise UserError(
                f"The frames of {name} are {layout.shape[2]} x {layout.shape[1]} px but those of {names[0]} "
                f"{total.shape[1]} x {total.shape[0]} px; average movies of one size."
            )
        pixel_size = pixel_size or layout.pixel_size
        first, last = (options.avg_first or 1) - 1, options.avg_last or layout.shape[0]
        for frame in layout.memory_map()[first:last]:
            total = frame.astype(np.float64) + (total if count else 0.0)
            count += 1
    if count == 0:
        raise UserError(f"No frame of {options.input} is left; give another --avg-first or --avg-last.")
    if options.pixel_size is not None and options.pixel_size > 0:
        pixel_size = options.pixel_size
    if pixel_size <= 0:
        raise UserError(f"{names[0]} has no pixel size in its header; give the pixel size in A.")
    image = (total / count).astype(np.float32)
    steps, pixel_size = steps_for(options, image.shape, pixel_size)
    for step in steps:
        image = step(image)
    yield from measure(options, [image], pixel_size)
    yield Progress("Averaging", len(names), len(names))
    return (yield from write_one(options, image, pixel_size))
