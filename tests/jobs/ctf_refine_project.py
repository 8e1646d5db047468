"""A small project for CtfRefine, and fits with a known outcome in place of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryorefine.io.mrc import write_map, write_stack
from cryorefine.io.star import write_star
from cryorefine.refine.ctf_refinement import (
    AberrationImages,
    CtfResult,
    Finding,
    MicrographValues,
    OpticsSoFar,
    OpticsValues,
    ParticleValues,
    Stage,
)

BOX, PIXEL, COUNT = 24, 3.0, 60
FIELD = 4000.0
SHIFT = 123.456789012345
"""What the invented fit adds to every defocus in A; the last particle gets ten times as much."""


def tables(groups: int = 1) -> dict[str, Any]:
    """Tables of 60 particles on three micrographs, dealt out to optics groups in turn."""
    rng = np.random.default_rng(5)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": [f"g{i + 1}" for i in range(groups)],
            "rlnOpticsGroup": np.arange(1, groups + 1),
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnImagePixelSize": PIXEL,
            "rlnImageSize": BOX,
            "rlnImageDimensionality": 2,
            "rlnMicrographPixelSize": PIXEL / 2,
        }
    )
    micrograph = np.arange(COUNT) // 20
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@images.mrcs" for i in range(COUNT)],
            "rlnMicrographName": [f"MotionCorr/job002/Movies/mic{m}.mrc" for m in micrograph],
            "rlnCoordinateX": rng.uniform(0, FIELD, COUNT).round(6),
            "rlnCoordinateY": rng.uniform(0, FIELD, COUNT).round(6),
            "rlnOpticsGroup": 1 + np.arange(COUNT) % groups,
            "rlnDefocusU": 10000.0 + 1000 * micrograph,
            "rlnDefocusV": 9900.0 + 1000 * micrograph,
            "rlnDefocusAngle": 12.5,
            "rlnAngleRot": rng.uniform(-180, 180, COUNT).round(6),
            "rlnAngleTilt": rng.uniform(0, 180, COUNT).round(6),
            "rlnAnglePsi": rng.uniform(-180, 180, COUNT).round(6),
            "rlnOriginXAngst": 0.5,
            "rlnOriginYAngst": -0.25,
            "rlnRandomSubset": 1 + np.arange(COUNT) % 2,
            "someoneElsesColumn": 1 / 3,
        }
    )
    return {"optics": optics, "particles": table}


def tables_of_relion30() -> dict[str, Any]:
    """The same particles in the single table of RELION 3.0."""
    new = tables()
    table = new["particles"].drop(columns=["rlnOpticsGroup", "rlnOriginXAngst", "rlnOriginYAngst"])
    table = table.assign(
        rlnVoltage=300.0,
        rlnSphericalAberration=2.7,
        rlnAmplitudeContrast=0.1,
        rlnMagnification=10000.0,
        rlnDetectorPixelSize=PIXEL,
        rlnOriginX=0.5 / PIXEL,
        rlnOriginY=-0.25 / PIXEL,
    )
    return {"": table}


def write_project(folder: Path, particles: dict[str, Any] | None = None) -> None:
    """Write particles.star, its stack, half maps, a mask and postprocess.star into a folder."""
    rng = np.random.default_rng(6)
    write_stack(folder / "images.mrcs", rng.normal(size=(COUNT, BOX, BOX)).astype(np.float32), PIXEL)
    axis = np.arange(BOX) - BOX // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    blob = np.exp(-(radius**2) / 30)
    for half in (1, 2):
        noisy = blob + rng.normal(0, 0.01, blob.shape)
        write_map(folder / f"run_half{half}_class001_unfil.mrc", noisy.astype(np.float32), PIXEL)
    write_map(folder / "mask.mrc", np.clip(9 - radius, 0, 1).astype(np.float32), PIXEL)
    write_star(folder / "postprocess.star", postprocess())
    write_star(folder / "particles.star", particles or tables())


def postprocess() -> dict[str, Any]:
    """Tables of a postprocess.star."""
    shells = np.arange(BOX // 2 + 1)
    return {
        "general": {
            "rlnFinalResolution": 7.0,
            "rlnUnfilteredMapHalf1": "run_half1_class001_unfil.mrc",
            "rlnUnfilteredMapHalf2": "run_half2_class001_unfil.mrc",
            "rlnMaskName": "mask.mrc",
        },
        "fsc": pd.DataFrame(
            {
                "rlnSpectralIndex": shells,
                "rlnFourierShellCorrelationCorrected": np.linspace(1, 0, len(shells)),
            }
        ),
    }


def invented(particles: Any, micrograph: Any, maps: Any, fit: Any, executor: Any, device: str = "cpu") -> Any:
    """Report a fit with a known outcome, as refine_ctf does."""
    count = len(particles)
    change = np.full(count, SHIFT)
    change[-1] *= 10
    nothing = np.full(count, np.nan)
    values = ParticleValues(
        defocus_u=particles.ctf.column("defocus_u") + change,
        defocus_v=particles.ctf.column("defocus_v") + change,
        defocus_angle=particles.ctf.column("defocus_angle").copy(),
        phase_shift=np.zeros(count),
        b_factor=np.linspace(-10, 10, count),
        scale=np.linspace(0.9, 1.1, count),
        sigma_defocus=np.linspace(10, 20, count),
        sigma_astigmatism=nothing,
        sigma_phase_shift=nothing,
        sigma_b_factor=np.full(count, 2.0),
        sigma_scale=np.full(count, 0.03),
        signal=np.linspace(0.5, 1.5, count),
        noise=np.ones(count),
    )
    optics = tuple(
        OpticsValues(
            name=group.name,
            particles=int(np.sum(particles.image_view == i)),
            beam_tilt=np.array([1.2 + i, -0.7]),
            sigma_beam_tilt=np.array([0.03, 0.04]),
            odd_aberrations=np.arange(6.0) / 3 if fit.trefoil else np.zeros(0),
            sigma_odd_aberrations=np.full(6 if fit.trefoil else 0, 0.1),
            even_aberrations=np.arange(9.0) / 7 if fit.fourth_order else np.zeros(0),
            sigma_even_aberrations=np.full(9 if fit.fourth_order else 0, 0.2),
            magnification=np.array([1.01, 0.002, 0.003, 0.99]),
            sigma_magnification=np.full(4, 1e-4),
        )
        for i, group in enumerate(particles.optics)
    )
    wanted = {
        "odd aberrations": fit.odd,
        "even aberrations": fit.fourth_order,
        "magnification": fit.magnification,
    }
    images = [aberration(i, kind) for kind, want in wanted.items() if want for i in range(len(optics))]
    for done in range(3):
        yield Stage("defocus", 1, done + 1, 3)
        members = np.flatnonzero(micrograph == done)
        yield MicrographValues(done, members, taken(values, members))
    yield from images
    yield OpticsSoFar(1, optics)
    findings = (
        Finding("beam tilt", "The beam tilt is (1.20 ± 0.03, -0.70 ± 0.04) mrad."),
        Finding("astigmatism", "The astigmatism was left alone: too few particles.", supported=False),
    )
    yield findings[0]
    if len(optics) > 5:
        findings += tuple(Finding("beam tilt", f"The beam tilt of {o.name} is known.") for o in optics)
    yield Stage("rebuilding references", 2, 0, 1)
    return CtfResult(values, optics, tuple(images), findings, 1, "rebuilt", 6.5)


def taken(values: ParticleValues, rows: Any) -> ParticleValues:
    """Return the values of some particles."""
    return ParticleValues(**{name: column[rows] for name, column in vars(values).items()})


def aberration(optics: int, kind: Any) -> AberrationImages:
    """Return a slope along x as the fit, with noise where something was observed."""
    axis = np.arange(BOX) - BOX // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    slopes = np.stack([0.02 * x, 0.01 * y] if kind == "magnification" else [0.02 * x]).astype(float)
    weight = np.broadcast_to((np.hypot(x, y) < 9).astype(float), slopes.shape).copy()
    noise = np.random.default_rng(1).normal(0, 0.05, slopes.shape)
    return AberrationImages(optics, kind, (slopes + noise) * (weight > 0), slopes, weight)
