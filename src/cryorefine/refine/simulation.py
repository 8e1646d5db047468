"""Particle images with known poses, computed from atoms without any map.

A fault of the refinement's own projections cannot hide in such images. They are made in a box twice
as wide as the one that is kept: signal that the CTF carries out of a particle's window is lost in a
microscope too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from numpy.typing import NDArray

from cryorefine.ctf.aberrations import even_phase, magnify, odd_phase
from cryorefine.ctf.ctf import CtfParameters, ctf
from cryorefine.geometry.euler import angles
from cryorefine.io.mrc import write_map, write_stack
from cryorefine.io.particles import ParticleFile, write_particles
from cryorefine.refine.atoms import Atoms, density, frequencies, project
from cryorefine.refine.particle_set import OpticsGroup

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_WIDER = 2


def simulate_images(
    atoms: Atoms,
    poses: F64,
    offsets: F64,
    ctf_parameters: CtfParameters | None,
    optics: OpticsGroup,
    *,
    contrast: F64 | float = 1.0,
    noise: float = 1.0,
    correlated: float = 0.0,
    phase_flipped: bool = False,
    rng: np.random.Generator,
) -> F32:
    """Return images of one optics group.

    Parameters
    ----------
    atoms : Atoms
        The particle.
    poses : ndarray, shape (n, 3, 3)
        From the particle's frame to the image's.
    offsets : ndarray, shape (n, 2)
        What is to be applied in A (x, y) to centre each image: the particle lies at minus that.
    ctf_parameters : CtfParameters or None
        Of the images; None for no CTF at all.
    optics : OpticsGroup
        Pixels, box, aberrations and magnification; when it says so, images are multiplied by their CTF.
    contrast : float or ndarray, shape (n,)
        Factor on the signal of each image.
    noise : float
        Standard deviation of the noise.
    correlated : float
        Half of the noise power falls off over this length in A; 0 for white noise.
    phase_flipped : bool
        Whether the images are multiplied by the sign of their CTF.
    rng : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    ndarray of float32, shape (n, box, box)
        Not normalised.
    """
    box, pixel = _WIDER * optics.box, optics.pixel_size
    own_x, own_y = frequencies(box, pixel)
    x, y = (f.ravel() for f in magnify(np.reshape(optics.magnification, (2, 2)), own_x, own_y))
    shape = (-1, box, box // 2 + 1)
    aberration = np.exp(
        1j
        * odd_phase(
            optics.odd_aberrations, *optics.beam_tilt, optics.voltage, optics.spherical_aberration, x, y
        )
    )
    even = even_phase(optics.even_aberrations, x, y)
    colour = np.sqrt(0.5 + 0.5 * _correlated_power(np.hypot(own_x, own_y), pixel, correlated))
    gain = np.broadcast_to(np.asarray(contrast, np.float32), (len(poses),))[:, None, None]
    images = np.empty((len(poses), optics.box, optics.box), np.float32)
    low = (box - optics.box) // 2
    for first in range(0, len(poses), 64):
        here = slice(first, first + 64)
        spectra = project(atoms, poses[here], box, pixel, optics.magnification) * gain[here]
        # Content moves by -offset.
        turn = offsets[here, 0, None, None] * own_x + offsets[here, 1, None, None] * own_y
        spectra = spectra * np.exp(2j * np.pi * turn) * aberration.reshape(shape)
        transfer = np.ones((1, 1, 1), np.float32)
        if ctf_parameters is not None:
            index = np.arange(len(poses))[here]
            transfer = ctf(ctf_parameters.take(index), x, y, even=even).reshape(shape)
        spectra *= transfer
        if noise > 0:
            white = rng.standard_normal((len(spectra), box, box), dtype=np.float32) * np.float32(noise)
            spectra += scipy.fft.rfft2(white) * colour
        if optics.ctf_premultiplied:
            spectra *= transfer
        elif phase_flipped:
            spectra *= np.sign(transfer)
        wide = np.fft.fftshift(scipy.fft.irfft2(spectra, s=(box, box)), axes=(1, 2))
        images[here] = wide[:, low : low + optics.box, low : low + optics.box]
    return images


def _correlated_power(u: F64, pixel_size: float, length: float) -> F64:
    """Power of noise that falls off over a length, relative to white noise of the same variance."""
    if length == 0:
        return np.ones_like(u)
    power = np.exp(-((np.pi * u * length) ** 2))
    # Columns of a half plane stand for two, but for the first and the last.
    twice = np.full(u.shape[1], 2.0)
    twice[[0, -1]] = 1
    return power / np.average(power, weights=np.broadcast_to(twice, u.shape))


def normalise(images: F32, radius: float) -> F32:
    """Give each image a background of mean 0 and standard deviation 1, measured outside a circle.

    ``images`` has the shape (n, box, box); ``radius`` is in pixels.
    """
    axis = np.arange(images.shape[-1]) - images.shape[-1] // 2
    outside = np.hypot(axis[:, None], axis) > radius
    background = images[:, outside].astype(np.float64)
    mean, deviation = (v[:, None, None] for v in (background.mean(axis=1), background.std(axis=1)))
    return ((images - mean) / deviation).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Simulated:
    """Simulated particles and the truth about them.

    Attributes
    ----------
    particles, truth : Path
        STAR files without and with poses.
    map : Path
        The atoms' map on the grid of the first optics group, on the grey scale of its images.
    poses : ndarray, shape (n, 3, 3)
        Orientation matrices, reference to view.
    offsets : ndarray, shape (n, 2)
        What centres each image, x and y in A.
    optics : ndarray of int, shape (n,)
        Index of each particle's optics group.
    ctf : CtfParameters or None
        Of every particle.
    contrast : ndarray, shape (n,)
        Factor on each particle's signal.
    """

    particles: Path
    truth: Path
    map: Path
    poses: F64
    offsets: F64
    optics: I64
    ctf: CtfParameters | None
    contrast: F64


def simulate_particles(
    folder: Path,
    atoms: Atoms,
    optics: Sequence[OpticsGroup],
    count: int,
    *,
    snr: float,
    with_ctf: bool = True,
    defocus: tuple[float, float] = (8000.0, 20000.0),
    astigmatism: float = 300.0,
    b_factor: float = 0.0,
    phase_shift: float = 0.0,
    offset_sigma: float = 3.0,
    micrographs: int = 1,
    contrast: Sequence[float] = (1.0,),
    correlated: float = 0.0,
    phase_flipped: bool = False,
    seed: int = 1,
) -> Simulated:
    """Write stacks of particles in random poses, and the STAR files and the map that go with them.

    Parameters
    ----------
    folder : Path
        Where ``particles.star``, ``truth.star``, ``truth.mrc`` and ``Extract/*.mrcs`` go.
    atoms : Atoms
        The particle.
    optics : sequence of OpticsGroup
        Particles and micrographs are dealt out to them in turn.
    count : int
        Number of particles.
    snr : float
        Variance of the mean particle's signal over that of the noise, inside the particle's circle, in
        the first optics group. The density of the noise per area is the same in all of them.
    with_ctf : bool
        Whether there is any CTF.
    defocus : tuple of float
        Range of the mean defocus in A.
    astigmatism : float
        Largest difference of the two defocus values in A.
    b_factor, phase_shift : float
        In A^2 and degrees, the same for all.
    offset_sigma : float
        Standard deviation of the offsets along each axis in A.
    micrographs : int
        Micrographs of each optics group; each is a stack, and a group of equal intensity.
    contrast : sequence of float
        Factor on the signal of each micrograph, repeated as needed.
    correlated : float
        Half of the noise power falls off over this length in A; 0 for white noise.
    phase_flipped : bool
        Whether the images' phases are flipped.
    seed : int
        Of poses, CTFs and noise.
    """
    rng = np.random.default_rng(seed)
    poses = random_rotations(count, rng)
    offsets = rng.normal(scale=offset_sigma, size=(count, 2))
    index = np.arange(count) % len(optics)
    micrograph = index + len(optics) * (np.arange(count) // len(optics) % micrographs)
    gain = np.resize(np.asarray(contrast, np.float64), micrographs * len(optics))[micrograph]
    transfer = None
    if with_ctf:
        mean, spread = rng.uniform(*defocus, count), rng.uniform(0, astigmatism / 2, count)
        transfer = CtfParameters(
            voltage=np.array([o.voltage for o in optics])[index],
            spherical_aberration=np.array([o.spherical_aberration for o in optics])[index],
            amplitude_contrast=np.array([o.amplitude_contrast for o in optics])[index],
            defocus_u=mean + spread,
            defocus_v=mean - spread,
            defocus_angle=rng.uniform(0, 180, count),
            phase_shift=phase_shift,
            b_factor=b_factor,
        )
    names = np.empty(count, dtype=object)
    (folder / "Extract").mkdir(parents=True, exist_ok=True)
    amplitude = kept = 1.0
    for g, group in enumerate(optics):
        here = np.flatnonzero(index == g)
        own = transfer.take(here) if transfer is not None else None
        if g == 0:
            amplitude = contrast_for(atoms, poses[here], own, group, snr)
        images = simulate_images(
            atoms,
            poses[here],
            offsets[here],
            own,
            group,
            contrast=amplitude * gain[here],
            noise=optics[0].pixel_size / group.pixel_size,
            correlated=correlated,
            phase_flipped=phase_flipped,
            rng=rng,
        )
        raw = images
        images = normalise(raw, min(1.1 * atoms.radius / group.pixel_size, 0.45 * group.box))
        if g == 0:
            # Signal that the CTF carries into the background is noise to whoever normalises.
            kept = float(np.median(images.std(axis=(1, 2)) / raw.std(axis=(1, 2))))
        for m in np.unique(micrograph[here]):
            members = np.flatnonzero(micrograph[here] == m)
            stack = f"Extract/micrograph{m + 1:03d}.mrcs"
            write_stack(folder / stack, images[members], group.pixel_size)
            names[here[members]] = [f"{k + 1:06d}@{stack}" for k in range(len(members))]
    truth = _table(optics, names, micrograph, index, transfer, poses, offsets)
    hidden = [c for c in truth.particles if str(c).startswith(("rlnAngle", "rlnOrigin"))]
    write_particles(folder / "truth.star", truth)
    write_particles(
        folder / "particles.star", ParticleFile(truth.optics, truth.particles.drop(columns=hidden))
    )
    first = optics[0]
    whole = kept * amplitude * density(atoms, first.box, first.pixel_size)
    write_map(folder / "truth.mrc", whole, first.pixel_size)
    return Simulated(
        folder / "particles.star",
        folder / "truth.star",
        folder / "truth.mrc",
        poses,
        offsets,
        index,
        transfer,
        gain,
    )


def random_rotations(count: int, rng: np.random.Generator) -> F64:
    """Return rotation matrices drawn evenly from all rotations, shape (count, 3, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.random(count, random_state=rng).as_matrix()


def contrast_for(
    atoms: Atoms, poses: F64, parameters: CtfParameters | None, optics: OpticsGroup, snr: float
) -> float:
    """Return the factor on the signal that gives a signal-to-noise ratio when the noise is 1."""
    some = np.arange(min(len(poses), 64))
    images = simulate_images(
        atoms,
        poses[some],
        np.zeros((len(some), 2)),
        parameters.take(some) if parameters is not None else None,
        optics,
        noise=0,
        rng=np.random.default_rng(0),
    )
    axis = np.arange(optics.box) - optics.box // 2
    inside = np.hypot(axis[:, None], axis) <= atoms.radius / optics.pixel_size
    return float(np.sqrt(snr / np.mean(np.var(images[:, inside], axis=1))))


def _table(
    optics: Sequence[OpticsGroup],
    names: NDArray[np.object_],
    micrograph: I64,
    index: I64,
    transfer: CtfParameters | None,
    poses: F64,
    offsets: F64,
) -> ParticleFile:
    """STAR tables of simulated particles, poses included."""
    groups = []
    for g, group in enumerate(optics):
        row: dict[str, object] = {
            "rlnOpticsGroup": g + 1,
            "rlnOpticsGroupName": group.name,
            "rlnVoltage": group.voltage,
            "rlnSphericalAberration": group.spherical_aberration,
            "rlnAmplitudeContrast": group.amplitude_contrast,
            "rlnImagePixelSize": group.pixel_size,
            "rlnImageSize": group.box,
            "rlnImageDimensionality": 2,
            "rlnCtfDataAreCtfPremultiplied": int(group.ctf_premultiplied),
            "rlnBeamTiltX": group.beam_tilt[0],
            "rlnBeamTiltY": group.beam_tilt[1],
        }
        for label, values in (("Odd", group.odd_aberrations), ("Even", group.even_aberrations)):
            if any(any(getattr(o, f"{label.lower()}_aberrations")) for o in optics):
                row[f"rln{label}Zernike"] = "[" + ",".join(f"{v:.9g}" for v in values) + "]"
        for label, value in zip(("00", "01", "10", "11"), group.magnification, strict=True):
            row[f"rlnMagMat{label}"] = value
        groups.append(row)
    columns: dict[str, object] = {
        "rlnImageName": names,
        "rlnMicrographName": [f"micrograph{m + 1:03d}.mrc" for m in micrograph],
        "rlnOpticsGroup": index + 1,
    }
    if transfer is not None:
        columns |= {
            "rlnDefocusU": transfer.column("defocus_u"),
            "rlnDefocusV": transfer.column("defocus_v"),
            "rlnDefocusAngle": transfer.column("defocus_angle"),
            "rlnPhaseShift": transfer.column("phase_shift"),
            "rlnCtfBfactor": transfer.column("b_factor"),
        }
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles(poses), strict=True))
    columns |= {"rlnOriginXAngst": offsets[:, 0], "rlnOriginYAngst": offsets[:, 1]}
    return ParticleFile(pd.DataFrame(groups), pd.DataFrame(columns))
