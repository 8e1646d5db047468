"""Orientations: how the views of a set of particles are spread, and how they sample Fourier space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.jobs.base import Figures, Job, Notice, Progress, Run, option
from cryorefine.jobs.folder import in_job_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryorefine.io.particles import ParticleFile

JOB = Job(
    name="orientations",
    title="Orientation distribution",
    folder="Orientations",
    relion_label="relion.external.cryorefine.orientations",
    summary="Show how the views of particles are spread over the sphere",
)

UNEVEN = 0.81
"""SCF of views from all sides around one axis, 8 / pi^2; less means worse than that."""
_STAGE = "Orientations"
_STEPS = 3
_SPHERE = 200.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which particles to look at, and how."""

    particles: Path = option(
        label="Particles STAR file",
        help="Refined particles with rlnAngleRot and rlnAngleTilt, e.g. run_data.star.",
        kind="particles",
    )
    output: Path = option(
        label="Output folder",
        help="The folder of this job; orientations.star, .png and .bild are written there.",
        kind="folder",
    )
    symmetry: str = option(
        "C1",
        label="Symmetry",
        help="Point group of the particle, e.g. C6 or D2; every particle counts at all its symmetry mates.",
        group="Distribution",
    )
    healpix_order: int = option(
        3,
        label="HEALPix order of the map",
        help="2 has 192 pixels of 15 degrees, 3 has 768 of 7.5 degrees, 4 has 3072 of 3.75 degrees.",
        group="Distribution",
        minimum=1,
        maximum=6,
        step=1,
    )
    fourier_radius: float = option(
        50.0,
        label="Radius in Fourier space",
        help="Where the sampling is looked at, in Fourier pixels: the particle's diameter over the "
        "resolution. Slices are thinner, and gaps between few views wider, farther out.",
        group="Distribution",
        minimum=5.0,
        maximum=500.0,
        step=5.0,
    )

    def check(self) -> None:
        """Refuse a symmetry that is none."""
        from cryorefine.geometry.symmetry import point_group

        point_group(self.symmetry)


@dataclass(frozen=True)
class Result:
    """What a finished orientation distribution leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    star : Path
        orientations.star: the figures, and counts and sampling for each direction.
    picture : Path
        orientations.png.
    bild : Path
        orientations.bild, the distribution as cylinders for ChimeraX.
    scf : float
        Sampling compensation factor; 1 for evenly spread views.
    empty : float
        Share of the directions of Fourier space that no slice reaches.
    """

    output: Path
    star: Path
    picture: Path
    bild: Path
    scf: float
    empty: float


@in_job_folder(JOB)
def run(options: Options) -> Run[Result]:
    """Count the views; yields events and returns the result."""
    import numpy as np

    from cryorefine.geometry import orientation_distribution as distribution
    from cryorefine.geometry.symmetry import point_group
    from cryorefine.io.particles import read_particles

    yield Progress(_STAGE, 0, _STEPS, "reading the particles")
    file = read_particles(options.particles, ["rlnAngleRot", "rlnAngleTilt"])
    rot, tilt = viewing_angles(file)
    if "rlnTomoName" in file.particles:
        yield Notice(
            f"{options.particles} holds particles of tomograms, of which the view at no tilt is counted; the "
            "rest of a tilt series samples more of Fourier space than the figures say."
        )
    if not rot.any() and not tilt.any():
        yield Notice(
            f"All angles in {options.particles} are 0; choose the particles of a refinement.", warning=True
        )
    yield Progress(_STAGE, 1, _STEPS, "counting")
    order, group, radius = options.healpix_order, options.symmetry, options.fourier_radius
    views = len(rot) * len(point_group(group))
    sampling = distribution.fourier_sampling(rot, tilt, order, group, radius)
    columns: dict[str, NDArray[Any]] = {
        "cryorefineParticleCount": distribution.count_views(rot, tilt, order),
        "cryorefineParticleCountWithMates": distribution.count_views(rot, tilt, order, group),
        "cryorefineFourierSampling": sampling,
    }
    # The factor itself is taken where bands of slices are resolved better than on most maps.
    fine = max(order, 4)
    if fine > order:
        sampling = distribution.fourier_sampling(rot, tilt, fine, group, radius)
    scf = distribution.sampling_compensation_factor(sampling, views, radius)
    empty = float(np.mean(sampling <= 0))
    if scf < UNEVEN:
        yield Notice(
            f"The views in {options.particles} sample Fourier space unevenly (SCF {scf:.2f}, "
            f"{100 * empty:.0f} % of the directions empty); add particles of rare views, or tilt the stage.",
            warning=True,
        )
    yield Progress(_STAGE, 2, _STEPS, "writing the table and the picture")
    star, picture = _write(options, columns, scf, empty, len(rot))
    bild = options.output / "orientations.bild"
    yield from _write_bild(bild, file, rot, tilt, options)
    yield Figures({"particles": len(rot), "SCF": scf, "empty directions (%)": 100 * empty})
    yield Progress(_STAGE, _STEPS, _STEPS)
    return Result(options.output, star, picture, bild, scf, empty)


def viewing_angles(file: ParticleFile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rot and tilt in degrees of the direction along which each particle was seen, (n,) each.

    Of a particle of a tomogram whose box was turned before (rlnTomoSubtomogramRot...), the rotation
    from the reference to the tomogram is A_subtomogram @ A_particle; its third row is the
    direction of the beam at no tilt.
    """
    import numpy as np

    from cryorefine.geometry.euler import angles, matrices
    from cryorefine.io.particles import column

    rot, tilt = column(file, "rlnAngleRot"), column(file, "rlnAngleTilt")
    labels = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
    turned = np.stack([column(file, label, 0.0) for label in labels])
    if not turned.any():
        return rot, tilt
    poses = matrices(*turned) @ matrices(rot, tilt, column(file, "rlnAnglePsi", 0.0))
    return angles(poses)[:2]


def _write(
    options: Options, columns: dict[str, NDArray[Any]], scf: float, empty: float, particles: int
) -> tuple[Path, Path]:
    import pandas
    from matplotlib.figure import Figure

    from cryorefine import __version__
    from cryorefine.geometry import healpix
    from cryorefine.io.files import write_whole
    from cryorefine.io.star import write_star
    from cryorefine.jobs.sky_plot import draw_sky

    general = {
        "rlnSymmetryGroup": options.symmetry,
        "rlnHealpixOrder": options.healpix_order,
        "cryorefineParticleCount": particles,
        "cryorefineFourierRadius": options.fourier_radius,
        "cryorefineSamplingCompensationFactor": scf,
        "cryorefineEmptyShare": empty,
    }
    rot, tilt = healpix.directions(options.healpix_order)
    table = pandas.DataFrame({"rlnAngleRot": rot, "rlnAngleTilt": tilt, **columns})
    star, picture = options.output / "orientations.star", options.output / "orientations.png"
    write_star(
        star,
        {"general": general, "directions": table},
        [f"cryorefine orientations; version {__version__}"],
    )
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    views, slices = figure.subplots(1, 2)
    draw_sky(views, columns["cryorefineParticleCountWithMates"], "views per pixel", "magma")
    views.set_title(f"{particles} particles, {options.symmetry.upper()}", fontsize=10)
    draw_sky(slices, columns["cryorefineFourierSampling"], "sampling of Fourier space")
    slices.set_title(f"SCF {scf:.2f}, {100 * empty:.1f} % empty", fontsize=10)
    with write_whole(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    return star, picture


def _write_bild(
    path: Path, file: ParticleFile, rot: NDArray[np.float64], tilt: NDArray[np.float64], options: Options
) -> Run[None]:
    """Write the distribution as cylinders on a sphere that fills the particles' box."""
    from cryorefine.geometry.euler import matrices
    from cryorefine.geometry.sampling import SamplingGrid
    from cryorefine.io.files import write_whole
    from cryorefine.io.particles import column
    from cryorefine.refine.angular_distribution import bild, distribution_of_poses

    extent = float((column(file, "rlnImageSize", 0.0) * column(file, "rlnImagePixelSize", 0.0)).max())
    if extent <= 0:
        extent = _SPHERE
        yield Notice(
            f"{options.particles} does not tell the size of the box, so the sphere in {path} is drawn "
            f"{_SPHERE:g} A wide."
        )
    grid = SamplingGrid(options.healpix_order, options.symmetry)
    shares = distribution_of_poses(matrices(rot, tilt, 0), grid)
    with write_whole(path) as temporary:
        temporary.write_text(bild(shares, grid, extent=extent))
