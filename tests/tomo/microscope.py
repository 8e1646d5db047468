"""Tilt images computed from atoms by the formulas of RELION's manual and papers, in plain NumPy.

An examiner of its own: nothing here is taken from cryorefine, so that a convention that the simulator
and the jobs get wrong in the same way is found. Files are written as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def euler(rot: float, tilt: float, psi: float) -> F64:
    """A(rot, tilt, psi): from the reference to the rotated frame, written out row by row."""
    a, b, c = np.deg2rad([rot, tilt, psi])
    ca, cb, cc, sa, sb, sc = np.cos(a), np.cos(b), np.cos(c), np.sin(a), np.sin(b), np.sin(c)
    return np.array(
        [
            [cc * cb * ca - sc * sa, cc * cb * sa + sc * ca, -cc * sb],
            [-sc * cb * ca - cc * sa, -sc * cb * sa + cc * ca, sc * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def turn(axis: str, degrees: float) -> F64:
    """Right-handed active rotation about an axis, as a 4 x 4 matrix."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    result = np.eye(4)
    if axis == "x":
        result[1:3, 1:3] = [[c, -s], [s, c]]
    elif axis == "y":
        result[0, 0], result[0, 2], result[2, 0], result[2, 2] = c, s, -s, c
    else:
        result[:2, :2] = [[c, -s], [s, c]]
    return result


def move(x: float, y: float, z: float) -> F64:
    """Translation, as a 4 x 4 matrix."""
    result = np.eye(4)
    result[:3, 3] = x, y, z
    return result


@dataclass
class Series:
    """One tilt series: a row of tomograms.star and the table of its images."""

    name: str
    pixel: float
    image: tuple[int, int]
    tomogram: tuple[int, int, int]
    tilts: F64
    dose: F64
    axis: float = 85.0
    x_tilt: float = 0.0
    hand: int = -1
    slope: float = 1.0
    shifts: F64 = field(default_factory=lambda: np.zeros((0, 2)))
    defocus: tuple[float, float, float] = (9000.0, 8000.0, 35.0)
    phase_shift: float = 0.0
    b_factor: float = 0.0
    dose_b_factor: float = 0.0
    deformation: str = ""
    grid: tuple[int, int] = (0, 0)
    coefficients: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    optics: str = "optics1"

    def projection(self, tilt: int) -> F64:
        """P of a tilt: from px of the tomogram to px of the image and depth."""
        x, y = self.shifts[tilt] / self.pixel
        width, height = self.image
        return (
            move(x, y, 0)
            @ move(int(width / 2), int(height / 2), 0)
            @ turn("z", self.axis)
            @ turn("y", self.tilts[tilt])
            @ turn("x", self.x_tilt)
            @ move(*(-int(n / 2) for n in self.tomogram))
        )

    def scale(self, tilt: int) -> float:
        """rlnCtfScalefactor."""
        return float(np.cos(np.deg2rad(self.tilts[tilt])))


@dataclass
class Particle:
    """A particle: where it is said to lie and how it is turned."""

    series: Series
    centred: F64
    angles: tuple[float, float, float]
    frame: tuple[float, float, float] = (0.0, 0.0, 0.0)
    origin: F64 = field(default_factory=lambda: np.zeros(3))
    trajectory: F64 | None = None
    half: int = 1

    def place(self, tilt: int) -> F64:
        """Position in px of the tomogram in a tilt, offset and trajectory applied."""
        moved = self.centred - euler(*self.frame) @ self.origin
        if self.trajectory is not None:
            moved = moved + self.trajectory[tilt]
        return moved / self.series.pixel + np.array(self.series.tomogram) / 2

    def in_image(self, tilt: int) -> tuple[F64, float]:
        """Centre (x, y) in px of a tilt image, and depth in px from the tomogram's centre."""
        series, matrix = self.series, self.series.projection(tilt)
        x, y, z, _ = matrix @ np.append(self.place(tilt), 1)
        middle = matrix @ np.append(np.array(series.tomogram) / 2, 1)
        return np.array([x, y]) + bend(series, tilt, x, y), z - middle[2]

    def view(self, tilt: int) -> F64:
        """From the reference to the frame of a tilt image."""
        return self.series.projection(tilt)[:3, :3] @ euler(*self.frame) @ euler(*self.angles)


def bend(series: Series, tilt: int, x: float, y: float) -> F64:
    """Deformation of a tilt image at a place, in px."""
    width, height = series.image
    if not series.deformation:
        return np.zeros(2)
    values = series.coefficients[tilt]
    if series.deformation == "linear":
        dx, dy = x - width / 2, y - height / 2
        return np.array([values[0] * dx, values[1] * dx + values[2] * dy])
    if series.deformation == "Fourier":
        # Waves of one half of the plane, the constant left out: ky = 0 .. and then the negative ones.
        waves = []
        for row in range(series.grid[1]):
            low = row < series.grid[1] // 2
            ky = row if low else row - series.grid[1]
            waves += [(kx, ky) for kx in range(0 if low and row else 1, series.grid[0] // 2 + 1)]
        result = np.zeros(2)
        for axis in range(2):
            for number, (kx, ky) in enumerate(waves):
                real, imaginary = values[2 * (axis * len(waves) + number) :][:2]
                angle = np.pi * (kx * x / width + ky * y / height)
                result[axis] += real * np.cos(angle) + imaginary * np.sin(angle)
        return result
    raise ValueError(series.deformation)


def transfer(series: Series, tilt: int, depth: float, fx: F64, fy: F64) -> F64:
    """CTF times dose weight at frequencies in 1/A."""
    volt, cs = 300e3, 2.7e7
    wavelength = 12.2643247 / np.sqrt(volt * (1 + volt * 0.978466e-6))
    change = series.hand * series.slope * series.pixel * depth
    du, dv, angle = series.defocus
    a = np.deg2rad(angle)
    along, across = fx * np.cos(a) + fy * np.sin(a), -fx * np.sin(a) + fy * np.cos(a)
    u2 = fx**2 + fy**2
    gamma = (
        -np.pi * wavelength * ((du + change) * along**2 + (dv + change) * across**2)
        + np.pi / 2 * cs * wavelength**3 * u2**2
        - np.deg2rad(series.phase_shift)
        - np.arctan(0.1 / np.sqrt(1 - 0.1**2))
    )
    value = -np.sin(gamma) * np.exp(-series.b_factor / 4 * u2) * series.scale(tilt)
    dose = series.dose[tilt]
    if series.dose_b_factor > 0:
        return value * np.exp(-series.dose_b_factor * dose * u2 / 4)
    with np.errstate(divide="ignore"):
        return value * np.exp(-0.5 * dose / (0.245 * np.sqrt(u2) ** -1.665 + 2.81))


def spectrum(atoms: F64, sigma: float, view: F64, centre: F64, fx: F64, fy: F64) -> NDArray[np.complex128]:
    """Transform of a projection whose particle lies ``centre`` (A) from the first pixel."""
    x, y = (view @ atoms.T)[:2] + centre[:, None]
    waves = np.exp(-2j * np.pi * (fx[..., None] * x + fy[..., None] * y)).sum(-1)
    return waves * np.exp(-2 * np.pi**2 * sigma**2 * (fx**2 + fy**2))


def half_plane(box: int, pixel: float) -> tuple[F64, F64]:
    """Frequencies x and y in 1/A of a half transform."""
    return np.meshgrid(np.fft.rfftfreq(box, pixel), np.fft.fftfreq(box, pixel))


def exposures(series: Series, particles: list[Particle], atoms: F64, sigma: float, box: int) -> F64:
    """Tilt images without noise, protein dark."""
    width, height = series.image
    images = np.zeros((len(series.tilts), height + 2 * box, width + 2 * box))
    fx, fy = half_plane(box, series.pixel)
    for particle in particles:
        if particle.series is not series:
            continue
        for tilt, image in enumerate(images):
            centre, depth = particle.in_image(tilt)
            corner = np.floor(centre).astype(int) - box // 2
            inside = (centre - corner) * series.pixel
            seen = spectrum(atoms, sigma, particle.view(tilt), inside, fx, fy)
            seen = np.fft.irfft2(seen * transfer(series, tilt, depth, fx, fy), s=(box, box))
            left, low = np.clip(corner + box, 0, np.array([width, height]) + box)
            image[low : low + box, left : left + box] -= seen
    return images[:, box:-box, box:-box]


def expected_stack(
    particle: Particle, atoms: F64, sigma: float, box: int, crop: int, binning: float
) -> tuple[F64, NDArray[np.bool_]]:
    """What extraction should give: CTF^2 times a centred projection, levelled in a soft circle.

    Returns
    -------
    stack : ndarray, shape (tilts, crop, crop)
    visible : ndarray of bool, shape (tilts,)
    """
    series = particle.series
    pixel = series.pixel * binning
    fx, fy = half_plane(box, pixel)
    middle = np.full(2, box // 2 * pixel)
    axis = np.arange(box) - box // 2
    radius = np.hypot(axis[:, None], axis)
    gain = 0.5 - 0.5 * np.cos(np.pi * np.clip((crop / 2 - radius) / 5, 0, 1))
    first = (box - crop) // 2
    result, visible = [], []
    for tilt in range(len(series.tilts)):
        centre, depth = particle.in_image(tilt)
        weight = transfer(series, tilt, depth, fx, fy)
        seen = spectrum(atoms, sigma, particle.view(tilt), middle, fx, fy) * weight**2
        seen[box // 2], seen[:, box // 2] = 0, 0
        # Grey values of tilt images, divided by the binning.
        image = np.fft.irfft2(seen, s=(box, box)) / binning**3
        image = (image - image[radius > crop / 2].mean()) * gain
        result.append(image[first : first + crop, first : first + crop])
        far = binning * crop / 2
        visible.append(bool(np.all(centre > far) and np.all(centre < np.array(series.image) - far)))
    return np.array(result), np.array(visible)


def density(atoms: F64, sigma: float, box: int, pixel: float) -> F64:
    """Map of the atoms, origin at box // 2, z y x."""
    axis = (np.arange(box) - box // 2) * pixel
    each = [np.exp(-((axis - atoms[:, [k]]) ** 2) / (2 * sigma**2)) for k in range(3)]
    return np.einsum("nx,ny,nz->zyx", *each)


def write_table(path: Path, blocks: dict[str, list[dict[str, Any]]]) -> None:
    """Write STAR tables; every row has the same keys."""
    text = ""
    for name, rows in blocks.items():
        text += f"\ndata_{name}\n\nloop_\n" + "".join(f"_{label}\n" for label in rows[0])
        text += "".join(" ".join(str(value) for value in row.values()) + "\n" for row in rows)
    path.write_text(text)


def vector(values: F64) -> str:
    """RELION's notation of a vector."""
    return "[" + ",".join(f"{value:.12g}" for value in values) + "]"


def tilt_rows(series: Series, *, matrices: bool) -> list[dict[str, Any]]:
    """Rows of a tilt series' table, with angles (RELION 5) or projection matrices (RELION 4)."""
    rows = []
    for tilt, angle in enumerate(series.tilts):
        row: dict[str, Any] = {} if matrices else {"rlnMicrographName": f"frames/{series.name}_{tilt}.mrc"}
        row["rlnMicrographPreExposure"] = series.dose[tilt]
        if matrices:
            projection = series.projection(tilt)
            row |= {f"rlnTomoProj{k}": vector(line) for k, line in zip("XYZW", projection, strict=True)}
        else:
            row |= {"rlnTomoNominalStageTiltAngle": angle, "rlnTomoXTilt": series.x_tilt}
            row |= {"rlnTomoYTilt": angle, "rlnTomoZRot": series.axis}
            row |= dict(zip(("rlnTomoXShiftAngst", "rlnTomoYShiftAngst"), series.shifts[tilt], strict=True))
        row |= dict(zip(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), series.defocus, strict=True))
        row |= {"rlnPhaseShift": series.phase_shift, "rlnCtfBfactor": series.b_factor}
        row["rlnCtfScalefactor"] = series.scale(tilt)
        if series.deformation:
            row["rlnTomoDeformationCoefficients"] = vector(series.coefficients[tilt])
        rows.append(row)
    return rows


def write_project(
    folder: Path,
    particles: list[Particle],
    atoms: F64,
    sigma: float,
    *,
    relion4: bool = False,
    noise: float = 0.0,
    box: int = 96,
) -> None:
    """Write tilt images, tomograms.star, particles.star, motion.star and optimisation_set.star."""
    rng = np.random.default_rng(7)
    all_series = list({id(p.series): p.series for p in particles}.values())
    (folder / "frames").mkdir(exist_ok=True)
    rows, tables = [], {}
    for series in all_series:
        images = exposures(series, particles, atoms, sigma, box).astype(np.float32)
        images += noise * rng.standard_normal(images.shape, dtype=np.float32)
        row: dict[str, Any] = {"rlnTomoName": series.name}
        if relion4:
            mrcfile.write(folder / f"{series.name}.mrc", images, voxel_size=series.pixel)
            row |= {"rlnTomoTiltSeriesName": f"{series.name}.mrc", "rlnTomoFrameCount": len(images)}
            tables[series.name] = tilt_rows(series, matrices=True)
        else:
            for tilt, image in enumerate(images):
                mrcfile.write(folder / f"frames/{series.name}_{tilt}.mrc", image, voxel_size=series.pixel)
            row["rlnTomoTiltSeriesStarFile"] = f"{series.name}.star"
            write_table(folder / f"{series.name}.star", {series.name: tilt_rows(series, matrices=False)})
        row |= dict(zip((f"rlnTomoSize{k}" for k in "XYZ"), series.tomogram, strict=True))
        row |= {"rlnTomoHand": series.hand, "rlnOpticsGroupName": series.optics}
        row |= {"rlnTomoTiltSeriesPixelSize": series.pixel, "rlnVoltage": 300.0, "rlnAmplitudeContrast": 0.1}
        row |= {"rlnSphericalAberration": 2.7, "rlnTomoDefocusSlope": series.slope}
        row["rlnCtfBfactorPerElectronDose"] = series.dose_b_factor
        if any(one.deformation for one in all_series):
            row["rlnTomoDeformationType"] = series.deformation
            row |= dict(zip((f"rlnTomoDeformationGridSize{k}" for k in "XY"), series.grid, strict=True))
        rows.append(row)
    write_table(folder / "tomograms.star", {"global": rows, **tables})
    entries = [("rlnTomoParticlesFile", "particles.star"), ("rlnTomoTomogramsFile", "tomograms.star")]
    if any(p.trajectory is not None for p in particles):
        _write_trajectories(folder / "motion.star", particles)
        entries.append(("rlnTomoTrajectoriesFile", "motion.star"))
    write_table(folder / "particles.star", {"particles": particle_rows(particles, corner=relion4)})
    text = "".join(f"_{label} {value}\n" for label, value in entries)
    (folder / "optimisation_set.star").write_text(f"\ndata_\n\n{text}")


def particle_rows(particles: list[Particle], *, corner: bool) -> list[dict[str, Any]]:
    """Rows of particles, with centred coordinates in A or corner coordinates in px."""
    rows = []
    for number, particle in enumerate(particles, start=1):
        series = particle.series
        row: dict[str, Any] = {"rlnTomoName": series.name, "rlnTomoParticleName": f"{series.name}/{number}"}
        if corner:
            place = particle.centred / series.pixel + np.array(series.tomogram) / 2
            row |= dict(zip((f"rlnCoordinate{k}" for k in "XYZ"), place, strict=True))
        else:
            row |= {f"rlnCenteredCoordinate{k}Angst": v for k, v in zip("XYZ", particle.centred, strict=True)}
        row |= {f"rlnOrigin{k}Angst": v for k, v in zip("XYZ", particle.origin, strict=True)}
        names = ("Rot", "Tilt", "Psi")
        row |= {f"rlnTomoSubtomogram{k}": v for k, v in zip(names, particle.frame, strict=True)}
        row |= {f"rlnAngle{k}": v for k, v in zip(names, particle.angles, strict=True)}
        row["rlnRandomSubset"] = particle.half
        rows.append(row)
    return rows


def _write_trajectories(path: Path, particles: list[Particle]) -> None:
    text = f"\ndata_general\n\n_rlnParticleNumber {len(particles)}\n"
    for number, particle in enumerate(particles, start=1):
        assert particle.trajectory is not None
        text += f"\ndata_{particle.series.name}/{number}\n\nloop_\n"
        text += "".join(f"_rlnOrigin{k}Angst\n" for k in "XYZ")
        text += "".join(" ".join(f"{v:.6f}" for v in step) + "\n" for step in particle.trajectory)
    path.write_text(text)
