"""The data that come with the program."""

from __future__ import annotations

from pathlib import Path

from cryorefine.errors import UserError


def sample_folder(name: str = "betagal") -> Path:
    """Return the folder of a sample data set.

    "betagal" holds 997 particles of beta-galactosidase from EMPIAR-10204: ``particles.star`` and the
    stacks it names, ``reference_5a1a.mrc`` to start from and the detector's ``mtf_k2_200kV.star``.
    "betagal_tilts" holds two simulated tilt series of the same molecule in the form of a RELION 5
    project: ``optimisation_set.star`` to start from, ``truth_optimisation_set.star`` and ``truth.mrc``.

    Raises
    ------
    UserError
        If this installation was made without the data.
    """
    package = Path(__file__).resolve().parent
    # Beside src/ in a checkout, inside the plugin's package where it was installed from a wheel.
    places = (package.parents[1] / "sample_data", package.parent / "napari_cryorefine" / "sample_data")
    for place in places:
        if (place / name / "particles.star").is_file():
            return place / name
    raise UserError(
        f"The sample data {name} are not in {' or '.join(map(str, places))}; install the program again."
    )
