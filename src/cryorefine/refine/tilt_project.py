"""A simulated project of tilt series: the files of RELION 5, and the truth about the particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryorefine.ctf.ctf import CtfParameters
from cryorefine.geometry.euler import angles
from cryorefine.io.mrc import write_map, write_stack
from cryorefine.io.particles import ParticleFile, write_particles
from cryorefine.io.star import write_star
from cryorefine.refine.atoms import Atoms, density
from cryorefine.refine.back_projection import back_project
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import contrast_for, random_rotations
from cryorefine.refine.tilt_simulation import (
    TiltGeometry,
    contrast_of_tilt,
    dose_symmetric,
    random_places,
    simulate_tilt_images,
)

F64 = NDArray[np.float64]
OPTICS_GROUP = "optics1"


@dataclass(frozen=True)
class Acquisition:
    """How the tilt series of a simulated project are taken.

    Attributes
    ----------
    pixel_size, image_size : float, int
        A per pixel, and edge of the tilt images in pixels.
    tilts, tilt_step, dose : int, float, float
        Images of a series (odd), degrees between them and electrons per A^2 of each.
    defocus : tuple of float
        Range in A of the series' mean defocus.
    defocus_error, astigmatism : float
        Standard deviation of a tilt's defocus about that, and largest difference of its two values, A.
    tilt_axis, tilt_axis_spread : float
        Mean direction of the tilt axis in degrees (rlnTomoZRot) and its deviation from series to series.
    shift : float
        Standard deviation in A of the specimen's shift between images.
    hand : int
        Handedness, 1 or -1.
    thickness : float
        Of the tomogram in A.
    ice : float or None
        Thickness in A whose inelastic scattering takes the contrast of tilted images; None: cos(tilt).
    voltage, spherical_aberration, amplitude_contrast : float
        kV, mm and fraction.
    """

    pixel_size: float = 3.2
    image_size: int = 340
    tilts: int = 25
    tilt_step: float = 4.0
    dose: float = 4.0
    defocus: tuple[float, float] = (20000.0, 30000.0)
    defocus_error: float = 200.0
    astigmatism: float = 400.0
    tilt_axis: float = 85.0
    tilt_axis_spread: float = 1.0
    shift: float = 15.0
    hand: int = -1
    thickness: float = 640.0
    ice: float | None = None
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1

    @property
    def tomogram_size(self) -> tuple[int, int, int]:
        """Unbinned size x, y, z in pixels, even."""
        return self.image_size, self.image_size, 2 * round(self.thickness / self.pixel_size / 2)

    def take(self, rng: np.random.Generator) -> TiltGeometry:
        """Return the geometry of a series."""
        tilt, pre_exposure = dose_symmetric(self.tilts, self.tilt_step, self.dose)
        mean = rng.normal(rng.uniform(*self.defocus), self.defocus_error, self.tilts)
        half_difference = rng.uniform(0, self.astigmatism / 2, self.tilts)
        return TiltGeometry(
            tilt,
            np.full(self.tilts, rng.normal(self.tilt_axis, self.tilt_axis_spread)),
            rng.normal(0, self.shift, (self.tilts, 2)),
            CtfParameters(
                self.voltage,
                self.spherical_aberration,
                self.amplitude_contrast,
                mean + half_difference,
                mean - half_difference,
                rng.uniform(0, 180, self.tilts),
                scale=contrast_of_tilt(tilt, self.ice),
                dose=pre_exposure,
            ),
            self.hand,
        )


@dataclass(frozen=True, eq=False)
class SimulatedProject:
    """A simulated project and the truth about it.

    Attributes
    ----------
    optimisation_set, truth_set : Path
        With the particles as somebody starts from them, and as they are.
    map : Path
        The atoms' map on the grid of the unbinned images, on their grey scale, protein white.
    series : ndarray of int, shape (particles,)
        Number of each particle's tilt series.
    places, poses : ndarray, shapes (particles, 3) and (particles, 3, 3)
        x, y, z in A from the middle of the tomogram, and matrices from the particle to the tomogram.
    geometries : tuple of TiltGeometry
        Of each series.
    """

    optimisation_set: Path
    truth_set: Path
    map: Path
    series: NDArray[np.int64]
    places: F64
    poses: F64
    geometries: tuple[TiltGeometry, ...]


def simulate_project(
    folder: Path,
    atoms: Atoms,
    acquisition: Acquisition,
    *,
    series: int = 2,
    particles: int = 24,
    box: int = 64,
    snr: float = 0.1,
    angle_error: float = 8.0,
    position_error: float = 4.0,
    tomogram_binning: int | None = None,
    seed: int = 1,
) -> SimulatedProject:
    """Write tilt series, and particles in them with wrong and with true poses, as RELION 5 would.

    Parameters
    ----------
    folder : Path
        Where ``tomograms.star``, ``tilt_series/``, ``particles.star``, ``truth.star``, ``truth.mrc``,
        ``optimisation_set.star`` and ``truth_optimisation_set.star`` go.
    atoms : Atoms
        The particle.
    acquisition : Acquisition
        Microscope, tilts and dose.
    series, particles : int
        Tilt series, and particles in each of them.
    box : int
        Edge in pixels of the map and of what the signal-to-noise ratio is measured in.
    snr : float
        Variance of the particle's signal over that of the noise, inside the particle's circle, without
        tilt and dose.
    angle_error, position_error : float
        Standard deviations of a turn about each axis (degrees) and of each coordinate (A) in
        ``particles.star``.
    tomogram_binning : int, optional
        Write tomograms of that binning as well; it divides ``acquisition.image_size``.
    seed : int
        Of places, poses, geometry, errors and noise.
    """
    rng = np.random.default_rng(seed)
    pixel = acquisition.pixel_size
    (folder / "tilt_series").mkdir(parents=True, exist_ok=True)
    extent = np.array(acquisition.tomogram_size) * pixel / 2
    # Away from the edges, so that nearly all tilts show nearly all particles.
    room = np.maximum(extent - (box * pixel / 2, box * pixel / 2, atoms.radius), 1.0)
    rows, geometries = [], []
    places = np.empty((0, 3))
    poses = random_rotations(series * particles, rng)
    contrast = 1.0
    for number in range(series):
        name = f"TS_{number + 1:02d}"
        geometry = acquisition.take(rng)
        geometries.append(geometry)
        here = slice(number * particles, (number + 1) * particles)
        places = np.concatenate([places, random_places(particles, tuple(room), 2 * atoms.radius, rng)])
        if number == 0:
            contrast = _contrast(atoms, poses[here], geometry, acquisition, box, snr)
        images = simulate_tilt_images(
            atoms,
            places[here],
            poses[here],
            geometry,
            pixel_size=pixel,
            size=acquisition.image_size,
            contrast=contrast,
        )
        images += rng.standard_normal(images.shape, dtype=np.float32)
        write_stack(folder / f"tilt_series/{name}.mrcs", images, pixel, half_precision=True)
        write_star(folder / f"tilt_series/{name}.star", {name: _tilt_table(name, geometry)})
        row = _tomogram_row(name, acquisition)
        if tomogram_binning is not None:
            row |= _write_tomogram(folder, name, images, geometry, acquisition, tomogram_binning)
        rows.append(row)
    write_star(folder / "tomograms.star", {"global": pd.DataFrame(rows)})
    index = np.repeat(np.arange(series), particles)
    halves = rng.permutation(np.arange(len(poses)) % 2 + 1)
    turn = Rotation.from_rotvec(rng.normal(0, angle_error, (len(poses), 3)), degrees=True).as_matrix()
    wrong = turn @ poses, places + rng.normal(0, position_error, places.shape)
    sets = {}
    for stem, prefix, (pose, place) in (("particles", "", wrong), ("truth", "truth_", (poses, places))):
        write_particles(folder / f"{stem}.star", _particle_file(acquisition, index, halves, pose, place))
        sets[stem] = folder / f"{prefix}optimisation_set.star"
        entries = {"rlnTomoParticlesFile": f"{stem}.star", "rlnTomoTomogramsFile": "tomograms.star"}
        write_star(sets[stem], {"": entries})
    write_map(folder / "truth.mrc", contrast * density(atoms, box, pixel), pixel)
    return SimulatedProject(
        sets["particles"], sets["truth"], folder / "truth.mrc", index, places, poses, tuple(geometries)
    )


def _contrast(
    atoms: Atoms, poses: F64, geometry: TiltGeometry, acquisition: Acquisition, box: int, snr: float
) -> float:
    """Factor on the signal that gives the signal-to-noise ratio in the image without tilt and dose."""
    optics = OpticsGroup(
        OPTICS_GROUP,
        acquisition.pixel_size,
        box,
        acquisition.voltage,
        acquisition.spherical_aberration,
        acquisition.amplitude_contrast,
    )
    untilted = np.full(len(poses), len(geometry) // 2)
    return contrast_for(atoms, poses, geometry.ctf.take(untilted), optics, snr)


def _tomogram_row(name: str, acquisition: Acquisition) -> dict[str, object]:
    size = dict(zip(("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"), acquisition.tomogram_size, strict=True))
    return {
        "rlnTomoName": name,
        "rlnVoltage": acquisition.voltage,
        "rlnSphericalAberration": acquisition.spherical_aberration,
        "rlnAmplitudeContrast": acquisition.amplitude_contrast,
        "rlnMicrographOriginalPixelSize": acquisition.pixel_size,
        "rlnTomoHand": float(acquisition.hand),
        "rlnOpticsGroupName": OPTICS_GROUP,
        "rlnTomoTiltSeriesPixelSize": acquisition.pixel_size,
        "rlnTomoTiltSeriesStarFile": f"tilt_series/{name}.star",
        **size,
    }


def _tilt_table(name: str, geometry: TiltGeometry) -> pd.DataFrame:
    transfer = geometry.ctf
    return pd.DataFrame(
        {
            "rlnMicrographName": [f"{k + 1:06d}@tilt_series/{name}.mrcs" for k in range(len(geometry))],
            "rlnMicrographPreExposure": transfer.column("dose"),
            "rlnTomoNominalStageTiltAngle": geometry.tilt,
            "rlnTomoNominalTiltAxisAngle": geometry.axis,
            "rlnTomoXTilt": 0.0,
            "rlnTomoYTilt": geometry.tilt,
            "rlnTomoZRot": geometry.axis,
            "rlnTomoXShiftAngst": geometry.shifts[:, 0],
            "rlnTomoYShiftAngst": geometry.shifts[:, 1],
            "rlnDefocusU": transfer.column("defocus_u"),
            "rlnDefocusV": transfer.column("defocus_v"),
            "rlnDefocusAngle": transfer.column("defocus_angle"),
            "rlnCtfScalefactor": transfer.column("scale"),
        }
    )


def _write_tomogram(
    folder: Path,
    name: str,
    images: NDArray[np.float32],
    geometry: TiltGeometry,
    acquisition: Acquisition,
    binning: int,
) -> dict[str, object]:
    """Write a tomogram; return what tomograms.star says of it."""
    x, y, z = (size // binning // 2 * 2 for size in acquisition.tomogram_size)
    shifts = geometry.shifts / acquisition.pixel_size
    tomogram = back_project(images, geometry.rotations, shifts, (z, y, x), binning)
    (folder / "tomograms").mkdir(exist_ok=True)
    path = f"tomograms/rec_{name}.mrc"
    write_map(folder / path, tomogram, binning * acquisition.pixel_size)
    return {"rlnTomoTomogramBinning": float(binning), "rlnTomoReconstructedTomogram": path}


def _particle_file(
    acquisition: Acquisition, index: NDArray[np.int64], halves: NDArray[np.int64], poses: F64, places: F64
) -> ParticleFile:
    """Tables of particles in given poses (reference to tomogram) and places (A)."""
    names = [f"TS_{number + 1:02d}" for number in index]
    counts = [int(np.sum(index[:row] == number)) + 1 for row, number in enumerate(index)]
    columns: dict[str, object] = {
        "rlnTomoName": names,
        "rlnTomoParticleName": [f"{name}/{count}" for name, count in zip(names, counts, strict=True)],
        "rlnOpticsGroup": 1,
        "rlnRandomSubset": halves,
    }
    columns |= {f"rlnCenteredCoordinate{axis}Angst": places[:, i] for i, axis in enumerate("XYZ")}
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles(poses), strict=True))
    columns |= {f"rlnOrigin{axis}Angst": np.zeros(len(names)) for axis in "XYZ"}
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": [OPTICS_GROUP],
        "rlnVoltage": [acquisition.voltage],
        "rlnSphericalAberration": [acquisition.spherical_aberration],
        "rlnAmplitudeContrast": [acquisition.amplitude_contrast],
        "rlnTomoTiltSeriesPixelSize": [acquisition.pixel_size],
    }
    return ParticleFile(pd.DataFrame(optics), pd.DataFrame(columns))
