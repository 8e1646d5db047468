"""logfile.pdf of CtfRefine: what was found in words, the aberrations, and every micrograph's particles."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.files import write_whole
from cryorefine.jobs.ctf_refine_images import AberrationPicture
from cryorefine.refine.ctf_refinement import Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

F64 = NDArray[np.float64]

BLUE_TO_ORANGE = ("#2166f0", "#c8c8c8", "#f08a00")
"""Colours from low to high defocus."""

_PAPER = (8.27, 11.69)
_PER_PAGE = (3, 2)
_LINES = 46


def write_logfile(
    path: Path,
    findings: Sequence[Finding],
    pictures: Sequence[AberrationPicture],
    micrographs: Sequence[tuple[str, NDArray[np.int64]]],
    places: F64,
    defocus: F64,
) -> Iterator[int]:
    """Write the PDF; yields how many micrographs are drawn.

    Parameters
    ----------
    path : Path
        The PDF.
    findings : sequence of Finding
        Sentences for the first page.
    pictures : sequence of AberrationPicture
        Observed and fitted aberrations.
    micrographs : sequence of (str, ndarray of int)
        Name and particles of each.
    places : ndarray, shape (particles, 2)
        x and y in A; without places (NaN) no micrographs are drawn.
    defocus : ndarray, shape (particles,)
        Mean defocus in A.
    """
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with write_whole(path) as temporary, PdfPages(temporary) as pages:
        # RELION's order: aberrations first; the words come last, where the micrographs end.
        for picture in pictures:
            figure = Figure(figsize=(8.27, 4.2), layout="constrained")
            _draw_aberration(figure, picture)
            pages.savefig(figure)
        rows, columns = _PER_PAGE
        known = [] if np.isnan(places).all() else list(micrographs)
        extent = np.nanmax(places, axis=0) if known else np.ones(2)
        for first in range(0, len(known), rows * columns):
            figure = Figure(figsize=_PAPER, layout="constrained")
            grid = figure.subplots(rows, columns, squeeze=False).ravel()
            for axes in grid:
                axes.set_axis_off()
            for axes, (name, members) in zip(grid, known[first:], strict=False):
                _draw_micrograph(axes, name, places[members], defocus[members], extent)
            pages.savefig(figure)
            yield min(first + rows * columns, len(known))
        for page in _pages(findings):
            figure = Figure(figsize=_PAPER)
            figure.text(0.08, 0.95, page, va="top", family="monospace", fontsize=9)
            pages.savefig(figure)


def _draw_aberration(figure: Figure, picture: AberrationPicture) -> None:
    box = picture.fitted.shape[0]
    edge = 0.5 / picture.pixel_size if picture.pixel_size > 0 else 0.5
    extent = (-edge, edge, -edge, edge)
    limit = shown_limit(picture)
    for axes, data, what in zip(
        figure.subplots(1, 2), (picture.observed, picture.fitted), ("observed", "fitted"), strict=True
    ):
        image = axes.imshow(
            data,
            extent=extent,
            origin="lower",
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
        )
        axes.set_facecolor("0.85")
        axes.set_title(f"{picture.title}, optics group {picture.group}: {what}", fontsize=9)
        axes.set_xlabel("spatial frequency x (1/Å)" if picture.pixel_size > 0 else f"x (of {box} px)")
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8)
    bar.set_label("phase (radians)" if picture.unit == "radians" else "displacement (px)")


def shown_limit(picture: AberrationPicture) -> float:
    """Return the largest value that the colours of a picture show: of the fit where something was seen."""
    seen = np.isfinite(picture.observed)
    if not seen.any():
        return 1.0
    limit = float(np.percentile(np.abs(picture.fitted[seen]), 98))
    if picture.unit == "radians":
        return float(np.clip(limit, 0.25, np.pi))
    return max(limit, 1e-3)


def _draw_micrograph(axes: Axes, name: str, places: F64, defocus: F64, extent: F64) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("defocus", BLUE_TO_ORANGE)
    axes.set_axis_on()
    dots = axes.scatter(places[:, 0], places[:, 1], c=defocus, cmap=colours, s=12, linewidths=0)
    axes.set_xlim(0, extent[0] * 1.02)
    axes.set_ylim(0, extent[1] * 1.02)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6)
    axes.set_title(f"{name} ({len(defocus)} particles)", fontsize=7)
    bar = axes.figure.colorbar(dots, ax=axes, shrink=0.85)
    bar.set_label("defocus (Å)", fontsize=7)
    bar.ax.tick_params(labelsize=6)


def _pages(findings: Sequence[Finding]) -> Iterator[str]:
    lines = ["CtfRefine", ""]
    for finding in findings:
        mark = "!" if finding.warning else "-" if finding.supported else "x"
        lines += textwrap.wrap(finding.message, 92, initial_indent=f"{mark} ", subsequent_indent="  ")
    for first in range(0, len(lines), _LINES):
        yield "\n".join(lines[first : first + _LINES])
