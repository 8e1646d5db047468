"""Folders of refinements that nobody has computed: random maps, written by the program's own writers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
from tests.refine.test_outputs import make_outcome, make_particles, make_settings

from cryorefine.jobs.base import Event, Progress
from cryorefine.jobs.folder import in_job_folder, stop_after_iteration
from cryorefine.jobs.refine3d import JOB, Options
from cryorefine.jobs.refine3d_session import _iteration_events
from cryorefine.refine.outputs import write_final, write_iteration

NAME = Path("Refine3D/job001")


def refinement(project: Path, *, first: int = 1, last: int = 20) -> Generator[Event, None, None]:
    """Run a refinement in NAME below a project; it converges in iteration ``last``.

    As a generator like a real job: close it and it is aborted, drop it and it runs on.
    """
    rng = np.random.default_rng(first)
    (project / "particles.star").touch()
    (project / "reference.mrc").touch()
    about = (*make_particles(rng, project), make_settings(project), "cryorefine refine3d")

    @in_job_folder(JOB)
    def run(options: Options) -> Generator[Event, None, None]:
        for number in range(first, last + 1):
            yield Progress(f"Iteration {number}", 1, 4)
            final = number == last
            outcome = make_outcome(rng, iteration=number, last=final)
            write = write_final if final else write_iteration
            yield from _iteration_events(outcome, write(project / NAME, outcome, *about))
            if not final:
                stop_after_iteration(project / NAME)

    return run(
        Options(
            particles=project / "particles.star",
            reference=project / "reference.mrc",
            output=project / NAME,
            symmetry="D2",
        )
    )


def iterate(running: Generator[Event, None, None], number: int) -> None:
    """Let a refinement run until an iteration is whole and told."""
    for event in running:
        if getattr(event, "name", "") == f"half 2, iteration {number}":
            return
