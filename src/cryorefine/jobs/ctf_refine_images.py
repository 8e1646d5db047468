"""Images of aberrations, under the names that RELION gives them.

Each is a plane of Fourier space with its origin at pixel N // 2; the header holds the pixel size of
the particles, so that pixel i stands for the frequency (i - N // 2) / (N * pixel size).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryorefine.io.mrc import read_layout, read_map, write_map

if TYPE_CHECKING:
    from cryorefine.refine.ctf_refinement import AberrationImages, CtfFit

F64 = NDArray[np.float64]

NAMES: Mapping[str, str] = {
    "odd aberrations": "beamtilt_delta-phase_{what}_optics-group_{group}{order}.mrc",
    "even aberrations": "aberr_delta-phase_{what}_optics-group_{group}{order}.mrc",
    "magnification": "mag_disp_{axis}{what}_optics-group_{group}.mrc",
}


@dataclass(frozen=True, eq=False)
class AberrationPicture:
    """What is shown of one kind of aberration of one optics group.

    Attributes
    ----------
    title : str
        What it is, e.g. "odd aberrations", "magnification along x".
    group : int
        Number of the optics group, from 1.
    unit : str
        "radians", or "px" for displacements in Fourier pixels.
    observed, fitted : ndarray, shape (box, box)
        Observed values, averaged over neighbouring pixels by their weights and NaN where nothing is
        known; and the fit to them, NaN where nothing is fitted.
    pixel_size : float
        A/px of the particles.
    """

    title: str
    group: int
    unit: str
    observed: F64
    fitted: F64
    pixel_size: float


def write_images(folder: Path, images: AberrationImages, pixel_size: float, fit: CtfFit) -> Path:
    """Write what was observed and what was fitted, and the weights of the observations.

    Returns
    -------
    Path
        The image of the fit.
    """
    path = folder
    for axis, (observed, fitted, weight) in enumerate(
        zip(images.observed, images.fitted, images.weight, strict=True)
    ):
        for what, data in (("observed", observed), ("weight", weight), ("fitted", fitted)):
            path = folder / _name(images.kind, what, images.optics + 1, "xy"[axis], fit.trefoil)
            write_map(path, data.astype(np.float32), pixel_size)
    return path


_KINDS = (
    ("odd aberrations", "beamtilt_delta-phase_per-pixel", "beamtilt_delta-phase_iter-fit", "radians"),
    ("even aberrations", "aberr_delta-phase_per-pixel", "aberr_delta-phase_iter-fit", "radians"),
    ("magnification along x", "mag_disp_x", "mag_disp_x_fit", "px"),
    ("magnification along y", "mag_disp_y", "mag_disp_y_fit", "px"),
)
"""Title, beginnings of the names of what was observed and fitted, and unit."""


def groups_in(folder: Path) -> list[int]:
    """Return the numbers of the optics groups, from 1, of which a job's folder holds images."""
    return sorted(
        {group_of(path) for kind in _KINDS for path in folder.glob(f"{kind[1]}_optics-group_*.mrc")}
    )


def group_of(path: Path) -> int:
    """Return the number of the optics group in the name of an image."""
    return int(path.stem.partition("optics-group_")[2].partition("_")[0])


def read_pictures(folder: Path, group: int) -> list[AberrationPicture]:
    """Read the images of one optics group in a job's folder, of this program or of RELION.

    Files of RELION have no weights, so that its observations are shown as they are.
    """
    pictures = []
    for title, observed, fitted, unit in _KINDS:
        path = folder / f"{observed}_optics-group_{group}.mrc"
        fits = [folder / f"{fitted}_optics-group_{group}{order}.mrc" for order in ("", "_N-3", "_N-4")]
        fits = [one for one in fits if one.is_file()]
        if not path.is_file() or not fits:
            continue
        data, pixel_size = _read(path)
        weights = folder / path.name.replace(observed, observed.replace("_per-pixel", "") + "_weight")
        weight = _read(weights)[0] if weights.is_file() else (data != 0).astype(np.float64)
        seen = averaged(data, weight, circular=unit == "radians")
        fit = _read(fits[-1])[0]
        # Beyond the frequencies that are used neither image says anything.
        fit = np.where((fit == 0) & (weight == 0), np.nan, fit)
        if unit == "radians":
            fit = np.arctan2(np.sin(fit), np.cos(fit))  # a phase beyond 180 degrees is seen as one below
        pictures.append(AberrationPicture(title, group, unit, seen, fit, pixel_size))
    return pictures


def averaged(observed: F64, weight: F64, *, circular: bool, sigma: float = 1.5) -> F64:
    """Average an image over neighbouring pixels, each with its weight; NaN where nothing is known.

    One pixel of the phases of some hundred particles is almost all noise.

    Parameters
    ----------
    observed, weight : ndarray, shape (box, box)
        The image, and inverse variances.
    circular : bool
        Whether the values are phases in radians.
    sigma : float
        Width of the Gaussian over which is averaged, in px.
    """
    blur = _gaussian(len(weight), sigma)
    total = blur @ weight @ blur
    known = (weight > 0) & (total > 1e-4 * total.max(initial=0))

    def mean(values: F64) -> F64:
        return np.asarray(blur @ (values * weight) @ blur / np.where(known, total, 1))

    # Phases of -179 and 179 degrees are neighbours: their directions are averaged.
    values = np.arctan2(mean(np.sin(observed)), mean(np.cos(observed))) if circular else mean(observed)
    return np.where(known, values, np.nan)


def _gaussian(size: int, sigma: float) -> F64:
    """Return the matrix that blurs along an axis, shape (size, size); nothing lies outside."""
    away = np.subtract.outer(np.arange(size), np.arange(size)) / sigma
    return np.asarray(np.exp(-0.5 * away**2) / (sigma * np.sqrt(2 * np.pi)))


def _name(kind: str, what: str, group: int, axis: str, trefoil: bool) -> str:
    if kind == "magnification":
        suffix = {"observed": "", "weight": "_weight", "fitted": "_fit"}[what]
        return NAMES[kind].format(axis=axis, what=suffix, group=group)
    order = ""
    if what == "fitted":
        order = "_N-4" if kind == "even aberrations" else "_N-3" if trefoil else ""
    word = {"observed": "per-pixel", "weight": "weight", "fitted": "iter-fit"}[what]
    return NAMES[kind].format(what=word, group=group, order=order)


def _read(path: Path) -> tuple[F64, float]:
    pixel_size = read_layout(path).pixel_size  # RELION leaves it out
    data = read_map(path, pixel_size=pixel_size if pixel_size > 0 else 1.0).data
    return np.squeeze(data).astype(np.float64), pixel_size
