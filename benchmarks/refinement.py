"""A whole refinement with both programs, one after the other, on the same particles with the same options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryorefine.io.star import read_star
from timing import MPI, OURS, Cost, cost, relion

LOCAL_ORDERS = {"3.7": "3", "1.8": "4"}  # what RELION calls the fine steps


@dataclass(frozen=True)
class Refinement:
    """Particles and reference, low-pass and diameter in A, shifts in px, steps in degrees."""

    particles: Path
    reference: Path
    lowpass: float
    diameter: float
    local_from: str = "1.8"
    symmetry: str = "D2"
    offset_range: int = 5


def refine_ours(folder: Path, job: Refinement, threads: int, more: Sequence[str] = ()) -> Cost:
    """Refine with this program into ``ours``; ``more`` are options of refine3d."""
    words = [OURS, "refine3d", "--particles", str(job.particles), "--reference", str(job.reference)]
    words += ["--output", "ours", "--symmetry", job.symmetry, "--initial-lowpass", str(job.lowpass)]
    words += ["--mask-diameter", str(job.diameter), "--initial-offset-range", str(job.offset_range)]
    words += ["--local-search-from", job.local_from, "--threads", str(threads)]
    return cost([*words, *more], folder, replace="ours")


def refine_relion(folder: Path, job: Refinement) -> Cost:
    """Refine with RELION into ``relion``: one leader, which waits busily, and one process for each half."""
    (folder / "relion").mkdir()
    words = [*MPI, "3", relion("refine_mpi"), "--i", str(job.particles), "--ref", str(job.reference)]
    words += ["--o", "relion/run", "--sym", job.symmetry, "--ini_high", str(job.lowpass)]
    words += ["--particle_diameter", str(job.diameter), "--offset_range", str(job.offset_range)]
    words += ["--offset_step", "2", "--healpix_order", "2", "--oversampling", "1"]
    words += ["--auto_local_healpix_order", LOCAL_ORDERS[job.local_from], "--auto_refine"]
    words += "--split_random_halves --low_resol_join_halves 40 --firstiter_cc --ctf --norm --scale".split()
    words += "--flatten_solvent --zero_mask --pad 2 --pool 3 --j 1 --random_seed 1 --preread_images".split()
    words += ["--dont_combine_weights_via_disc", "--no_parallel_disc_io"]
    return cost(words, folder)


def resolution(job: Path) -> float:
    """Read the final resolution of a refinement in A without a mask."""
    return float(read_star(job / "run_model.star")["model_classes"]["rlnEstimatedResolution"].iloc[0])
