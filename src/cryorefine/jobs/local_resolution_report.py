"""Files that tell what a local-resolution job found: the curves of each place, and the histogram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.files import write_whole
from cryorefine.io.star import write_star
from cryorefine.maps.local_resolution import LocalPoint

_UNRESOLVED = 999.0
"""What RELION writes for the resolution of shell 0."""


def write_curves(
    path: Path, points: Sequence[LocalPoint], unmasked: NDArray[np.float64], size: int, pixel_size: float
) -> None:
    """Write the FSC curves of each place up to the shell that decides, as RELION names them.

    Block ``fsc_X_Y_Z`` belongs to the place that many voxels from the centre of the box. One more
    block, ``local_resolution``, lists the places with their resolutions.
    """
    import pandas

    blocks: dict[str, Any] = {}
    centres = np.array([point.centre for point in points])[:, ::-1] - size // 2
    blocks["local_resolution"] = pandas.DataFrame(
        {
            **{
                f"rlnCenteredCoordinate{axis}Angst": centres[:, i] * pixel_size
                for i, axis in enumerate("XYZ")
            },
            "rlnAngstromResolution": [point.resolution for point in points],
        }
    )
    for point, centre in zip(points, centres, strict=True):
        shells = len(point.corrected)
        frequency = np.arange(shells) / (size * pixel_size)
        with np.errstate(divide="ignore"):
            distance = np.where(frequency > 0, 1.0 / frequency, _UNRESOLVED)
        blocks["fsc_" + "_".join(f"{c:05d}" for c in centre)] = pandas.DataFrame(
            {
                "rlnSpectralIndex": np.arange(shells),
                "rlnResolution": frequency,
                "rlnAngstromResolution": distance,
                "rlnFourierShellCorrelationCorrected": point.corrected,
                "rlnFourierShellCorrelationUnmaskedMaps": unmasked[:shells],
                "rlnFourierShellCorrelationMaskedMaps": point.masked,
                "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": point.randomised,
            }
        )
    write_star(path, blocks)


def write_histogram(path: Path, resolutions: NDArray[Any]) -> None:
    """Draw how many voxels have which resolution into a PDF; ``resolutions`` in A, any shape."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.8))
    axes = figure.add_axes((0.11, 0.12, 0.85, 0.78))
    axes.hist(resolutions.ravel(), bins=60, color="0.45")
    median = float(np.median(resolutions))
    axes.axvline(median, color="tab:red", linewidth=1.5, label=f"median {median:.2f} Å")
    axes.set_xlabel("local resolution (Å)")
    axes.set_ylabel("voxels inside the mask")
    axes.set_title("Local resolution inside the mask")
    axes.legend(frameon=False)
    with write_whole(path) as temporary, PdfPages(temporary) as pages:
        pages.savefig(figure)
