"""How PostProcess sharpens: one gain from the MTF, the FSC weights, the B-factor and a low-pass filter."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.jobs.base import Notice, Run
from cryorefine.maps import bfactor, filters, sharpen
from cryorefine.maps.shells import radius_table

if TYPE_CHECKING:
    from cryorefine.jobs.postprocess import Options
    from cryorefine.jobs.postprocess_report import Report

_LOWPASS = 5.0
_UNCERTAIN = 0.25


def sharpening_gain(
    options: Options,
    amplitudes: sharpen.Amplitudes,
    mask: NDArray[Any] | None,
    mtf: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    report: Report,
) -> Run[NDArray[np.float64]]:
    """Work out the gain of all filters for each squared radius and note the Guinier plot after each.

    Parameters
    ----------
    options : Options
        Of the job.
    amplitudes : Amplitudes
        Of the averaged half maps.
    mask : numpy.ndarray or None
        Shape (z, y, x).
    mtf : pair of numpy.ndarray or None
        Frequencies in 1/px and values of the detector's MTF.
    report : Report
        Takes the Guinier plots, the fit and the B-factor.
    """
    size, pixel_size = report.size, report.pixel_size
    gain = np.ones(len(radius_table(size)))
    report.add_guinier("rlnLogAmplitudesOriginal", amplitudes.guinier())
    if mtf is not None:
        detector = options.mtf_pixel_size if options.mtf_pixel_size > 0 else pixel_size
        gain = gain * sharpen.mtf_gain(mtf[0], mtf[1], detector, size, pixel_size)
        report.add_guinier("rlnLogAmplitudesMTFCorrected", amplitudes.guinier(gain))
    of_shells = gain[np.arange(size // 2 + 1) ** 2]
    if not options.skip_fsc_weighting:
        gain = gain * sharpen.shell_gain(sharpen.fsc_weights(report.final_fsc), size)
        report.add_guinier("rlnLogAmplitudesWeighted", amplitudes.guinier(gain))

    if options.bfactor is not None:
        report.b_factor = options.bfactor
    elif options.auto_bfactor:
        lowest, highest = options.autob_lowest_resolution, options.autob_highest_resolution
        if options.bfactor_method == "weighted":
            # Where the mask was of no use, neither is the power behind it.
            used = None if report.fell_back else mask
            components = (amplitudes.counts * bfactor.filled_fraction(used)).astype(np.float64)
            power = report.power / amplitudes.counts * of_shells**2
            fit = bfactor.fit_bfactor(report.frequency, report.final_fsc, power, components, lowest, highest)
            report.fit = _through(fit, report, lowest) if fit is not None else None
        else:
            report.fit = sharpen.fit_guinier(report.frequency**2, report.last_guinier(), lowest, highest)
        if report.fit is None:
            raise UserError(
                f"No B-factor can be fitted to {report.halves[0]}: too few shells lie between "
                f"{lowest:g} A and {max(report.resolution, highest):.2f} A; "
                "give a larger --autob-lowest-resolution, or a --bfactor of your own."
            )
        report.b_factor = report.fit.b_factor
        yield from _doubts(options, report)
    if report.b_factor > 0:
        yield Notice(
            f"The B-factor of {report.b_factor:.1f} A^2 is positive, so it dampens the map instead of "
            "sharpening it; give a negative --bfactor.",
            warning=True,
        )
    if report.b_factor == 0:
        # A B-factor of 0 that was asked for is no mistake; an estimate that was only switched off may be.
        if options.bfactor is None:
            yield Notice("The map is not sharpened, because the B-factor is 0.", warning=True)
    else:
        gain = gain * filters.bfactor_gain(radius_table(size), size, pixel_size, report.b_factor)
        report.add_guinier("rlnLogAmplitudesSharpened", amplitudes.guinier(gain))
    if options.skip_fsc_weighting and options.lowpass > 0:
        gain = gain * filters.lowpass_gain(radius_table(size), size, pixel_size, options.lowpass)
    elif options.lowpass not in (0, _LOWPASS):
        yield Notice(
            f"The --lowpass of {options.lowpass:g} A is not applied, because FSC-weighting filters the map; "
            "use it with --skip-fsc-weighting.",
            warning=True,
        )
    return gain


def _through(fit: sharpen.GuinierFit, report: Report, lowest: float) -> sharpen.GuinierFit:
    """Move a line up or down onto the Guinier plot of the whole box, of which a mask keeps a part."""
    points, x = report.last_guinier(), report.frequency**2
    use = (x >= 1 / lowest**2) & (report.final_fsc > 0.5) & (points > sharpen.NO_AMPLITUDE)
    if not use.any():
        return fit
    offset = float(np.mean(points[use] - fit.intercept - fit.slope * x[use]))
    return dataclasses.replace(fit, intercept=fit.intercept + offset)


def _doubts(options: Options, report: Report) -> Run[None]:
    """Say how far the fit can be trusted."""
    error = report.fit.b_factor_error if report.fit is not None else None
    if error is None:
        return
    if error > _UNCERTAIN * abs(report.b_factor):
        lowest = options.autob_lowest_resolution
        yield Notice(
            f"The B-factor of {report.b_factor:.0f} A^2 is uncertain by {error:.0f} A^2, because few shells "
            f"lie between {lowest:g} A and {report.resolution:.2f} A; compare the maps with --bfactor "
            f"{report.b_factor + error:.0f} and {report.b_factor - error:.0f}.",
            warning=True,
        )
    else:
        yield Notice(f"The B-factor is {report.b_factor:.1f} +- {error:.1f} A^2.")
