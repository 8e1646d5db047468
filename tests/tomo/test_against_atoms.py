"""Extraction and reconstruction beside images that were computed straight from atoms, by other code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tomo import microscope
from tests.tomo.microscope import Particle, Series

from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import parse_vector
from cryorefine.io.star import read_star
from cryorefine.jobs import finish, pseudo_subtomo, reconstruct_particle
from cryorefine.maps.fsc import fourier_shell_correlation

SIGMA = 3.5
BOX, CROP = 48, 32


def lopsided_atoms(rng):
    """Atoms of a particle that has no mirror plane, x y z in A."""
    atoms = rng.normal(0, 1, (24, 3)) * [16, 9, 6]
    atoms = atoms[np.linalg.norm(atoms, axis=1) < 34]
    return atoms - atoms.mean(axis=0)


def tilt_series(rng, name="TS_1", **changes):
    """Even number of tilts, not centred at 0, taken in another order, in odd and oblong images."""
    tilts = np.array([12.0, -8, 32, -28, 22, -18, 2, 42])
    given = {
        "pixel": 4.0,
        "image": (301, 258),
        "tomogram": (281, 245, 77),
        "tilts": tilts,
        "dose": np.array([0.0, 3, 12, 15, 6, 9, 18, 21]),
        "shifts": rng.normal(0, 9, (len(tilts), 2)),
        "x_tilt": 2.5,
        "slope": 6.0,  # exaggerates what depth does to the defocus
    }
    return Series(name, **given | changes)


def particles_in(series, rng, *, count=6, spread=1.0, frames=False, moving=False):
    """Particles far enough apart that none shows in the box of another."""
    columns, rows = np.meshgrid([-70, 0, 70], [-65, 0, 65])
    places = np.stack([columns.ravel(), rows.ravel()], axis=1)[rng.permutation(9)[:count]]
    result = []
    for number, (x, y) in enumerate(spread * places):
        frame = tuple(rng.uniform([-180, 0, -180], [180, 180, 180])) if frames else (0.0, 0.0, 0.0)
        steps = np.cumsum(rng.normal(0, 2.5, (len(series.tilts), 3)), axis=0) if moving else None
        result.append(
            Particle(
                series,
                series.pixel * np.array([x, y, rng.uniform(-25, 25)]) + rng.uniform(-3, 3, 3),
                tuple(rng.uniform([-180, 20, -180], [180, 160, 180])),
                frame,
                rng.uniform(-6, 6, 3) if frames else np.zeros(3),
                steps,
                half=number % 2 + 1,
            )
        )
    return result


def waves(rng):
    """Coefficients of a Fourier deformation of up to 2 px for each of eight tilts, on a 4 x 3 grid."""
    return rng.uniform(-0.4, 0.4, (8, 4 * 6))


CASES = {
    "plain": {},
    "other hand, other axis": {"series": {"hand": 1, "axis": -3.0}},
    "far from focus": {"series": {"slope": 1.0, "defocus": (30000.0, 28000.0, 80.0)}},
    "phase plate, B-factors": {"series": {"phase_shift": 70.0, "b_factor": 40.0, "dose_b_factor": 3.0}},
    "frames of particles and offsets": {"particles": {"frames": True}},
    "trajectories": {"particles": {"moving": True, "frames": True}},
    "linear deformation": {
        "series": {"deformation": "linear", "coefficients": np.tile([0.01, -0.008, 0.012], (8, 1))}
    },
    "Fourier deformation": {
        "series": {"deformation": "Fourier", "grid": (4, 3), "coefficients": waves(np.random.default_rng(3))}
    },
    "RELION 4": {"relion4": True, "particles": {"frames": True}},
    "missing tilts": {"series": {"tilts": np.array([5.0, -50, 20]), "dose": np.array([4.0, 40, 9])}},
    "at the edges": {"particles": {"spread": 1.45, "count": 9}},
    "binned": {"binning": 1.5},
}


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request, rng, tmp_path, monkeypatch):
    """Project in the current directory: its particles, their atoms and the binning."""
    monkeypatch.chdir(tmp_path)
    given = CASES[request.param]
    atoms = lopsided_atoms(rng)
    changes = dict(given.get("series", {}))
    if "tilts" in changes:
        changes["shifts"] = rng.normal(0, 9, (len(changes["tilts"]), 2))
    particles = particles_in(tilt_series(rng, **changes), rng, **given.get("particles", {}))
    microscope.write_project(tmp_path, particles, atoms, SIGMA, relion4=given.get("relion4", False))
    return particles, atoms, given.get("binning", 1.0)


def extract(binning=1.0, **changes):
    given = {"optimisation_set": Path("optimisation_set.star"), "output": Path("Extract/job001")}
    given |= {"binning": binning, "box_size": BOX, "crop_size": CROP, "float16": False, "threads": 1}
    return finish(pseudo_subtomo.run(pseudo_subtomo.Options(**given | changes)))


def reconstruct(folder=Path("Reconstruct/job001"), **changes):
    given = {"optimisation_set": Path("Extract/job001/optimisation_set.star"), "output": folder}
    # The few views leave gaps, whose noise nothing but the filter would keep down.
    given |= {"box_size": BOX, "crop_size": CROP, "snr": 10.0, "threads": 1}
    return read_map(finish(reconstruct_particle.run(reconstruct_particle.Options(**given | changes))).merged)


def test_stacks_hold_the_projections_of_the_atoms_times_their_squared_ctf(case):
    particles, atoms, binning = case
    blocks = read_star(extract(binning).particles)
    reader = ImageReader(Path())
    hidden = 0
    for particle, row in zip(particles, blocks["particles"].to_dict("records"), strict=True):
        stack, visible = microscope.expected_stack(particle, atoms, SIGMA, BOX, CROP, binning)
        hidden += np.count_nonzero(~visible)
        assert np.array_equal(parse_vector(row["rlnTomoVisibleFrames"]) > 0, visible)
        found = reader.read_stack(row["rlnImageName"])
        # Neighbours reach a little into the corners of the boxes.
        assert np.sqrt(np.mean((found - stack[visible]) ** 2)) < 0.04 * stack.std()
    # Particles at the edges are lost to some tilts; elsewhere every image shows every particle.
    assert (hidden > 0) == (len(particles) == 9)


def test_true_poses_give_the_map_of_the_atoms_and_its_hand(case):
    particles, atoms, binning = case
    found = reconstruct(optimisation_set=Path("optimisation_set.star"), binning=binning)
    truth = microscope.density(atoms, SIGMA, CROP, found.pixel_size).astype(np.float32)
    fsc = fourier_shell_correlation(found.data, truth)
    mirrored = np.roll(truth[:, :, ::-1], 1, axis=2)
    # To 20 A: the few views do not fill finer shells; of three tilts they fill less.
    shells = slice(1, int(CROP * found.pixel_size / 20) + 1)
    assert fsc[shells].min() > (0.9 if len(particles[0].series.tilts) > 3 else 0.7)
    wrong = fourier_shell_correlation(found.data, mirrored)
    assert wrong[shells][-2:].mean() < fsc[shells][-2:].mean() - 0.15


def test_tomograms_of_two_pixel_sizes_share_one_map(rng, tmp_path, monkeypatch):
    """Each group has the pixels of its own tilt images; the map has those of the first."""
    monkeypatch.chdir(tmp_path)
    atoms = lopsided_atoms(rng)
    both = [tilt_series(rng), tilt_series(rng, "TS_2", pixel=4.4, optics="optics2", hand=1, axis=91.0)]
    particles = [particle for series in both for particle in particles_in(series, rng, count=4)]
    microscope.write_project(tmp_path, particles, atoms, SIGMA)
    blocks = read_star(extract().particles)
    assert blocks["optics"]["rlnImagePixelSize"].tolist() == [4.0, 4.4]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1] * 4 + [2] * 4
    for particle, name in zip(particles, blocks["particles"]["rlnImageName"], strict=True):
        stack, _ = microscope.expected_stack(particle, atoms, SIGMA, BOX, CROP, 1.0)
        found = ImageReader(Path()).read_stack(name)
        assert np.sqrt(np.mean((found - stack) ** 2)) < 0.04 * stack.std()
    for source in ("tilt-images", "stacks"):
        found = reconstruct(Path(f"Reconstruct/{source}"), source=source)
        truth = microscope.density(atoms, SIGMA, CROP, 4.0).astype(np.float32)
        assert fourier_shell_correlation(found.data, truth)[1:7].min() > 0.9
