"""Refinements of simulated particles, and how far their outcome is from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cryorefine.geometry import angular_distance, matrices, point_group
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import column, read_particles
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import finish
from cryorefine.maps.fsc import fourier_shell_correlation
from cryorefine.refine.particle_set import OpticsGroup
from cryorefine.refine.simulation import Simulated


@dataclass(frozen=True)
class Outcome:
    """A refinement's result beside the truth: errors in degrees and A, maps (z, y, x)."""

    result: refine3d.Result
    angle_error: np.ndarray
    shift_error: np.ndarray
    density: np.ndarray
    truth: np.ndarray

    @property
    def agreement(self) -> float:
        """Mean FSC of the refined map and the truth over all shells."""
        return float(fourier_shell_correlation(self.density, self.truth).mean())


def settings(simulated: Simulated, output: Path, **changes) -> refine3d.Options:
    """Options of a small, quick refinement."""
    options = {
        "particles": simulated.particles,
        "reference": simulated.map,
        "output": output,
        "initial_lowpass": 25.0,
        "mask_diameter": 100.0,
        "initial_angular_sampling": 15.0,
        "initial_offset_range": 3.0,
        "local_search_from": 3.7,
        "finer_sampling_faster": True,
        "threads": 2,
    }
    return refine3d.Options(**(options | changes))


def compare(simulated: Simulated, result: refine3d.Result, symmetry: str = "C1") -> Outcome:
    """Compare a finished refinement with the truth."""
    file = read_particles(result.data)
    poses = matrices(*(column(file, f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")))
    offsets = np.stack([column(file, f"rlnOrigin{a}Angst") for a in "XY"], axis=1)
    if symmetry == "C1":
        # Nothing holds the frame of a lopsided particle but its start, for each half by itself.
        half = file.particles["rlnRandomSubset"].to_numpy()
        for members in (half == 1, half == 2):
            poses[members] = poses[members] @ common_rotation(poses[members], simulated.poses[members])
    return Outcome(
        result,
        angular_distance(poses, simulated.poses, point_group(symmetry)),
        np.linalg.norm(offsets - simulated.offsets, axis=1),
        read_map(result.map).data,
        read_map(simulated.map).data,
    )


def common_rotation(poses: np.ndarray, truth: np.ndarray, largest: float = 15.0) -> np.ndarray:
    """Rotation of the frame that brings most poses closest to the truth, shape (3, 3)."""
    relative = np.swapaxes(poses, 1, 2) @ truth
    near = angular_distance(np.eye(3), relative) < largest
    u, _, vt = np.linalg.svd(relative[near].mean(axis=0))
    return u @ vt


@pytest.fixture
def refined(tmp_path):
    """Function that refines simulated particles and compares the outcome with the truth."""

    def run(simulated: Simulated, **changes) -> Outcome:
        output = tmp_path / "Refine3D" / f"job{len(list(tmp_path.glob('Refine3D/*'))) + 1:03d}"
        result = finish(refine3d.run(settings(simulated, output, **changes)))
        return compare(simulated, result, changes.get("symmetry", "C1"))

    return run


def optics(name: str = "first", **changes) -> OpticsGroup:
    """An optics group of small images."""
    values = {"pixel_size": 4.0, "box": 32, "voltage": 300.0, "spherical_aberration": 2.7}
    return OpticsGroup(name, **(values | {"amplitude_contrast": 0.1} | changes))
