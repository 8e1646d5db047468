"""PostProcess tried out: masks, fit ranges and B-factors on transforms that are kept; writes no files."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.mrc import Map
from cryorefine.jobs import postprocess_checks
from cryorefine.jobs.base import Curve, Notice
from cryorefine.jobs.postprocess import Options, as_curve, source_of_phases
from cryorefine.jobs.postprocess_report import Report
from cryorefine.jobs.postprocess_sharpen import sharpening_gain
from cryorefine.jobs.volumes import fit_mask, read_divisor, read_halves, read_mask
from cryorefine.maps import sharpen, solvent


@dataclass(frozen=True)
class Tried:
    """What a mask and a way to sharpen make of the half maps.

    Attributes
    ----------
    report : Report
        Curves, resolution, fit and B-factor.
    gain : numpy.ndarray
        Gain of all filters for each squared radius.
    fsc, guinier : Curve
        The curves to be drawn.
    doubts : tuple of str
        What the job would warn of.
    """

    report: Report
    gain: NDArray[np.float64]
    fsc: Curve
    guinier: Curve
    doubts: tuple[str, ...]


class Exploration:
    """A pair of half maps, with their transforms.

    Parameters
    ----------
    half_map : Path
        Either half map.
    pixel_size : float or None
        A/px; that of the header unless given.

    Raises
    ------
    UserError
        If the half maps cannot be read or do not belong together.
    """

    def __init__(self, half_map: Path, pixel_size: float | None = None) -> None:
        self.paths, self.first, second = read_halves(half_map, pixel_size)
        self._halves = solvent.HalfMaps(self.first.data, second.data)
        self._average = self._halves.average()
        self._amplitudes = sharpen.Amplitudes(self._average)
        postprocess_checks.refuse_copies(self.paths, self._halves.unmasked)
        self._curves_key: Any = None
        self._curves: solvent.SolventFsc | None = None

    def mask(self, source: Path | Map | None, name: str = "") -> NDArray[np.float32] | None:
        """Return a mask that fits the half maps, from a file or as it is.

        Raises
        ------
        UserError
            If it does not fit.
        """
        if source is None:
            return None
        if isinstance(source, Map):
            return fit_mask(source.data, name, self.first)
        return read_mask(source, self.first)

    def try_out(self, options: Options, mask: NDArray[np.float32] | None, mask_path: Path | None) -> Tried:
        """Do what the job does, without the files; the FSC is made anew only for another mask or seed.

        Parameters
        ----------
        options : Options
            How to sharpen; the paths in it are not read, but for that of the MTF.
        mask : numpy.ndarray or None
            Shape (z, y, x). It must not change while it is in use.
        mask_path : Path or None
            What the mask is called in sentences.

        Raises
        ------
        UserError
            If no B-factor can be fitted.
        """
        key = (id(mask), options.random_phases, options.random_seed)
        if key != self._curves_key:
            self._curves = None
            if mask is not None:
                rng = source_of_phases(options)
                self._curves = solvent.solvent_corrected_fsc(self._halves, mask, rng=rng)
            self._curves_key, self._mask = key, mask  # kept, so that its id stays its own
        pixel_size = self.first.pixel_size
        report = Report(
            self.paths, mask_path, pixel_size, self._halves, self._curves, mask, options.molecular_weight
        )
        doubts = list(postprocess_checks.curves(report, mask))
        mtf = read_divisor(options.mtf) if options.mtf is not None else None
        gain = _returned(sharpening_gain(options, self._amplitudes, mask, mtf, report), doubts)
        return Tried(
            report,
            gain,
            as_curve("FSC", report, report.fsc_curves()),
            as_curve("Guinier", report, report.guinier_curves()),
            tuple(doubts),
        )

    def sharpened(self, tried: Tried) -> Map:
        """Return the average of the half maps with the gain that was found."""
        return Map(sharpen.filtered_map(self._average, tried.gain), self.first.pixel_size)


def _returned(steps: Generator[Any, None, Any], doubts: list[str]) -> Any:
    """Run a part of a job to its end; keep its warnings."""
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            return stop.value
        if isinstance(event, Notice) and event.warning:
            doubts.append(event.message)
