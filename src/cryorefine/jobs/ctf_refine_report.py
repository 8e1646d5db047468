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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryorefine.refine.ctf_refinement import Finding

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
            figure = Figure(figsize=(8.27, 4.2))
            _draw_aberration(figure, picture)
            pages.savefig(figure)
        rows, columns = _PER_PAGE
        known = [] if np.isnan(places).all() else list(micrographs)
        extent = np.nanmax(places, axis=0) * 1.02 if known else np.ones(2)
        for first in range(0, len(known), rows * columns):
            some = known[first : first + rows * columns]
            figure = Figure(figsize=_PAPER)
            _draw_micrographs(figure, some, places, defocus, extent)
            pages.savefig(figure)
            yield first + len(some)
        for page in _pages(findings):
            figure = Figure(figsize=_PAPER)
            figure.text(0.08, 0.95, page, va="top", family="monospace", fontsize=9)
            pages.savefig(figure)


def _draw_aberration(figure: Figure, picture: AberrationPicture) -> None:
    box = picture.fitted.shape[0]
    edge = 0.5 / picture.pixel_size if picture.pixel_size > 0 else 0.5
    extent = (-edge, edge, -edge, edge)
    scale = 180 / np.pi if picture.unit == "radians" else 1.0
    limit = scale * shown_limit(picture)
    for number, (data, what) in enumerate(((picture.observed, "observed"), (picture.fitted, "fitted"))):
        axes = figure.add_axes((0.08 + 0.43 * number, 0.14, 0.38, 0.74))
        image = axes.imshow(
            scale * data,
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
    bar = figure.colorbar(image, cax=figure.add_axes((0.91, 0.16, 0.015, 0.7)))
    bar.set_label("phase (degrees)" if picture.unit == "radians" else "displacement (px)")


def shown_limit(picture: AberrationPicture) -> float:
    """Return the largest value that the colours of a picture show: of the fit where something was seen."""
    seen = np.isfinite(picture.observed)
    if not seen.any():
        return 1.0
    limit = float(np.percentile(np.abs(picture.fitted[seen]), 98))
    if picture.unit == "radians":
        return float(np.clip(limit, 0.25, np.pi))
    return max(limit, 1e-3)


def _draw_micrographs(
    figure: Figure,
    micrographs: Sequence[tuple[str, NDArray[np.int64]]],
    places: F64,
    defocus: F64,
    extent: F64,
) -> None:
    """Draw a page of micrographs, all into one pair of axes: axes of their own take a second a page."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("defocus", BLUE_TO_ORANGE)
    rows, columns = _PER_PAGE
    axes = figure.add_axes((0.04, 0.03, 0.92, 0.94))
    axes.set_axis_off()
    width, height = 0.92 * _PAPER[0] / columns, 0.94 * _PAPER[1] / rows  # inches of a cell
    axes.set_xlim(0, columns * width)
    axes.set_ylim(rows * height, 0)
    scale = min(0.76 * width / extent[0], 0.84 * height / extent[1])
    size = scale * extent
    for number, (name, members) in enumerate(micrographs):
        left, top = number % columns * width, number // columns * height + 0.1 * height
        right, bottom = left + size[0], top + size[1]
        low, high = float(defocus[members].min()), float(defocus[members].max())
        share = (defocus[members] - low) / max(high - low, 1e-9)
        x, y = left + scale * places[members, 0], bottom - scale * places[members, 1]
        axes.scatter(x, y, c=colours(share), s=12, linewidths=0)
        axes.plot(
            [left, right, right, left, left], [top, top, bottom, bottom, top], color="0.4", linewidth=0.6
        )
        axes.text(left, top - 0.06, f"{name} ({len(members)} particles)", fontsize=7)
        bar = (right + 0.1, right + 0.25)
        gradient = np.linspace(1, 0, 64)[:, None]
        axes.imshow(gradient, extent=(*bar, bottom, top), cmap=colours, aspect="auto")
        for value, at in ((high, top + 0.06), ((low + high) / 2, (top + bottom) / 2), (low, bottom)):
            axes.text(bar[1] + 0.04, at, f"{value:.0f} Å", fontsize=6)
    axes.set_xlim(0, columns * width)
    axes.set_ylim(rows * height, 0)
    figure.text(
        0.04, 0.01, f"fields of {extent[0]:.0f} x {extent[1]:.0f} Å, y upwards", fontsize=6, color="0.3"
    )


def _pages(findings: Sequence[Finding]) -> Iterator[str]:
    lines = ["CtfRefine", ""]
    for finding in findings:
        mark = "!" if finding.warning else "-" if finding.supported else "x"
        lines += textwrap.wrap(finding.message, 92, initial_indent=f"{mark} ", subsequent_indent="  ")
    for first in range(0, len(lines), _LINES):
        yield "\n".join(lines[first : first + _LINES])
