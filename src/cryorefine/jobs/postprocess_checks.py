"""What PostProcess finds doubtful: one sentence each, with what to change and to what.

The tutorials tell people to look for these things by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_layout
from cryorefine.maps import fsc
from cryorefine.maps.mask_checks import edge_width, edge_width_needed
from cryorefine.maps.solvent import RANDOMISE_BELOW

if TYPE_CHECKING:
    from cryorefine.jobs.postprocess_report import Report

COPIES = 0.99999
"""Maps that correlate better than this in every shell are one map twice."""

_CALIBRATION = 0.05
_RANDOM_CORRELATION = 0.1
_RISE = 0.2
_PLATEAU = 0.05
_FILTERED = 1e-8


def pixel_sizes(paths: Sequence[Path], used: float, given: float | None) -> Iterator[str]:
    """Say where a header contradicts the pixel size that is used.

    Parameters
    ----------
    paths : sequence of Path
        Half maps and mask.
    used : float
        A/px.
    given : float or None
        The pixel size that was entered, if one was. Calibration moves it by a few per cent at most.
    """
    entered = given is not None and given > 0
    for path in paths:
        header = read_layout(path).pixel_size
        if header <= 0 or abs(header / used - 1) <= _CALIBRATION:
            continue
        if entered:
            yield (
                f"The header of {path} says {header:.4g} A/px but {used:.4g} was entered, so every "
                f"resolution changes by a factor of {used / header:.3g}; unless the header is known to be "
                f"wrong, give --pixel-size {header:.4g}."
            )
            return
        yield (
            f"The header of {path} says {header:.4g} A/px but that of {paths[0]} says {used:.4g}; find out "
            "which is right and give it with --pixel-size."
        )


def refuse_copies(paths: Sequence[Path], unmasked: NDArray[np.float64]) -> None:
    """Refuse half maps that are one map twice.

    Raises
    ------
    UserError
        If they are.
    """
    if unmasked[1:].min() > COPIES:
        raise UserError(
            f"{paths[0]} and {paths[1]} are copies of each other: their FSC never drops below "
            f"{unmasked[1:].min():.4f}; give the two half maps of one refinement."
        )


def curves(report: Report, mask: NDArray[Any] | None) -> Iterator[str]:
    """Say what is wrong with the FSC curves, if anything.

    Parameters
    ----------
    report : Report
        With the curves and the resolution.
    mask : numpy.ndarray or None
        The mask, shape (z, y, x).
    """
    yield from _fall(report)
    if report.fell_back:
        yield (
            f"The resolution without the mask ({report.resolution:.2f} A) is better than with "
            f"{report.mask_path} ({_resolution(report, _masked(report)):.2f} A), so the unmasked FSC is "
            "used; the mask probably cuts into the particle, so make it with half the --threshold and an "
            "--extend of 3 px more."
        )
    elif mask is not None:
        yield from _random_phases(report, mask)
    yield from _dip(report)
    yield from _independence(report)


def _masked(report: Report) -> NDArray[np.float64]:
    return report.curves.corrected if report.curves is not None else report.unmasked


def _resolution(report: Report, curve: NDArray[np.float64]) -> float:
    return fsc.resolution(curve, report.size, report.pixel_size)


def _at(report: Report, shell: int) -> float:
    return fsc.shell_resolution(shell, report.size, report.pixel_size)


def _fall(report: Report) -> Iterator[str]:
    if report.resolution_shell == 0:
        yield (
            "The half maps do not agree at any resolution (FSC below 0.143 from the first shell on); "
            "check that they belong to the same refinement."
        )
    elif report.resolution_shell >= report.size // 2 - 1:
        finer = 2 * report.pixel_size / 3
        yield (
            f"The FSC never drops below 0.143 before the Nyquist frequency, so the resolution is limited by "
            f"the pixel size of {report.pixel_size:.4g} A/px; refine with particles of at most "
            f"{finer:.3g} A/px."
        )
    if report.curves is not None and fsc.first_shell_below(report.unmasked, RANDOMISE_BELOW) is None:
        yield (
            f"The unmasked FSC never drops below {RANDOMISE_BELOW:g}, so phases cannot be randomised and "
            f"what the mask adds stays in the masked FSC; refine with particles of less than "
            f"{report.pixel_size:.4g} A/px, or give half maps that were refined independently."
        )


def _random_phases(report: Report, mask: NDArray[Any]) -> Iterator[str]:
    curves, shell = report.curves, report.resolution_shell
    if curves is None or shell < curves.first_randomised_shell:
        return
    # The mean of three shells: a single one of a small box is noise.
    noise = float(curves.randomised[max(shell - 1, 0) : shell + 2].mean())
    if noise <= _RANDOM_CORRELATION:
        return
    width = edge_width(mask)
    needed = max(edge_width_needed(report.resolution, report.pixel_size), math.ceil(width) + 3)
    yield (
        f"Behind {report.mask_path} maps with random phases correlate by {noise:.2f} at "
        f"{report.resolution:.2f} A, where they should not; the mask is too sharp or too detailed, so make "
        f"it with a --soft-edge of {needed} px (it is about {width:.0f} px now) and a --lowpass of "
        f"{max(15.0, 4 * report.resolution):.0f} A."
    )


def _dip(report: Report) -> Iterator[str]:
    """Find the deepest fall that is made good again by more than noise does."""
    curve = report.final_fsc[1 : report.size // 2]
    if len(curve) < 8:
        return
    smooth = np.convolve(curve, np.ones(3) / 3, mode="valid")  # of shells 2, 3, ...
    lowest = np.minimum.accumulate(smooth)
    top = int(np.argmax(smooth - lowest))
    bottom = int(np.argmin(smooth[: top + 1]))
    if smooth[top] - smooth[bottom] < _RISE:
        return
    low, high = _at(report, bottom + 2), _at(report, top + 2)
    yield (
        f"The FSC dips to {smooth[bottom]:.2f} at {low:.1f} A and rises again to {smooth[top]:.2f} at "
        f"{high:.1f} A, which an FSC should not; look for duplicate particles, wrong defocus values or a "
        f"mask with sharp features, and trust no detail finer than {low:.1f} A until it is gone."
    )


def _independence(report: Report) -> Iterator[str]:
    """Look at the shells beyond the resolution, where independent noise does not correlate."""
    if report.power[-2] < _FILTERED * report.power[1:].max():
        yield (
            f"{report.halves[0]} holds nothing near the Nyquist frequency, so it has been filtered; give the "
            "unfiltered half maps, in RELION the files named *_unfil.mrc."
        )
        return
    start = fsc.resolution_shell(report.unmasked) + 1
    beyond = report.unmasked[start + (report.size // 2 - start) // 3 : report.size // 2]
    if start >= report.size // 2 - 3 or len(beyond) < 3:
        return
    level = float(np.median(beyond))
    if level > _PLATEAU:
        yield (
            f"The half maps correlate by {level:.2f} even beyond their resolution, where noise should not, "
            "so they are not independent; remove duplicate particles, and refine again with random halves "
            "(rlnRandomSubset) that are kept apart."
        )
