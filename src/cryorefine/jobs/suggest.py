"""What to suggest for the options of a job, from the files that its form names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryorefine.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.optimisation_set import OptimisationSet
    from cryorefine.tomo.suggestions import Suggestion


def for_extraction(
    optimisation_set: Path | None, tomograms: Path | None, diameter: float, binning: float
) -> dict[str, Suggestion]:
    """Suggest binning, box and crop size for pseudo-subtomo and reconstruct-particle.

    Parameters
    ----------
    optimisation_set, tomograms : Path or None
        What the form names; the reference half maps of the set, if it has some, decide the binning.
    diameter : float
        Of the particle, in A.
    binning : float
        What the form says, kept where there are no reference half maps.

    Returns
    -------
    dict
        Option -> suggestion.

    Raises
    ------
    UserError
        If no tomograms are named, or a file cannot be read.
    """
    import numpy as np

    from cryorefine.io.tomograms import read_tomograms
    from cryorefine.maps.fsc import fourier_shell_correlation, resolution
    from cryorefine.tomo import suggestions

    entries = _entries(optimisation_set)
    path = tomograms or entries.tomograms
    if path is None:
        raise UserError("The suggestions need the tomograms; choose an optimisation set or a tomograms.star.")
    series = list(read_tomograms(path, images=False).values())
    pixel_size = series[0].pixel_size
    result: dict[str, Suggestion] = {}
    halves = _halves(entries.reference_half1)
    if halves is not None:
        first, second, pixels = halves
        reached = resolution(fourier_shell_correlation(first, second), len(first), pixels)
        result["binning"] = suggestions.next_binning(reached, pixel_size, round(pixels / pixel_size, 3))
        binning = result["binning"].value
    # A tilt that was given no contrast takes no part.
    defocus = max(float(np.max(np.maximum(s.defocus_u, s.defocus_v)[s.scale > 0])) for s in series)
    binned = pixel_size * binning
    result["crop_size"] = suggestions.crop_size(diameter, binned)
    result["box_size"] = suggestions.box_size(diameter, binned, defocus, series[0].voltage)
    return result


def for_refinement(
    optimisation_set: Path | None, reference: Path | None, diameter: float, lowpass: float | None
) -> dict[str, Suggestion]:
    """Suggest the initial low-pass filter and angular sampling of Refine3D.

    Parameters
    ----------
    optimisation_set, reference : Path or None
        What the form names. A reference that is one of two half maps comes before those of the set.
    diameter : float
        Of the particle's mask, in A.
    lowpass : float or None
        What the form says, kept where there are no half maps.

    Returns
    -------
    dict
        Option -> suggestion.

    Raises
    ------
    UserError
        If there is neither a filter nor half maps, or a file cannot be read.
    """
    from cryorefine.jobs.refine3d import ANGULAR_STEPS
    from cryorefine.tomo import suggestions

    half = _entries(optimisation_set).reference_half1
    if reference is not None and ("half1" in reference.name or "half2" in reference.name):
        half = reference
    result: dict[str, Suggestion] = {}
    halves = _halves(half)
    if halves is not None:
        result["initial_lowpass"] = suggestions.initial_lowpass(*halves)
        lowpass = result["initial_lowpass"].value
    if lowpass is None or lowpass <= 0:
        raise UserError(
            "The suggestions need two half maps, as the reference or in the optimisation set, or an initial "
            "low-pass filter; choose one of them."
        )
    steps = [float(step) for step in ANGULAR_STEPS]
    result["initial_angular_sampling"] = suggestions.angular_sampling(lowpass, diameter, steps)
    return result


def for_rescaling(particles: Path, pixel_size: float, box: int, output: Path) -> dict[str, Suggestion]:
    """Suggest the grid that a reference is to be brought to.

    Parameters
    ----------
    particles : Path
        The particles.
    pixel_size, box : float, int
        Of their images, in A/px and px.
    output : Path
        Where the map is to be written.

    Returns
    -------
    dict
        Option of the image handler -> suggestion.
    """
    from cryorefine.tomo.suggestions import Suggestion

    reason = f"The images of {particles.name} have {box} px of {pixel_size:.5g} Å."
    return {
        "rescale_pixel_size": Suggestion(pixel_size, reason),
        "new_box": Suggestion(box, reason),
        "output": Suggestion(output, "Beside the map, named by its box; Refine3D takes it from here."),
    }


def for_mask(path: Path, lowpass: float) -> dict[str, Suggestion]:
    """Suggest the threshold of a mask: the density that noise of the solvent does not reach.

    Parameters
    ----------
    path : Path
        The map.
    lowpass : float
        Filter that the form says, in A.

    Returns
    -------
    dict
        Option of mask-create -> suggestion.

    Raises
    ------
    UserError
        If the map cannot be read.
    """
    from cryorefine.io.mrc import read_map
    from cryorefine.maps.density import suggest_threshold
    from cryorefine.maps.filters import lowpass as filtered
    from cryorefine.tomo.suggestions import Suggestion

    source = read_map(path)
    density = filtered(source.data, source.pixel_size, lowpass) if lowpass > 0 else source.data
    found = suggest_threshold(density)
    value = float(f"{found.value:.3g}")
    return {"threshold": Suggestion(value, f"{value:g} {found.reason}.")}


def _entries(path: Path | None) -> OptimisationSet:
    from cryorefine.io.optimisation_set import OptimisationSet, read_optimisation_set

    return read_optimisation_set(path) if path is not None else OptimisationSet()


def _halves(half: Path | None) -> tuple[NDArray[np.float32], NDArray[np.float32], float] | None:
    from cryorefine.jobs.volumes import read_halves

    if half is None:
        return None
    _, first, second = read_halves(half, None)
    return first.data, second.data, first.pixel_size
