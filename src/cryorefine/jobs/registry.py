"""Which jobs there are, each loaded when it is needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from cryorefine.errors import UserError

JOBS: dict[str, str] = {
    "refine3d": "cryorefine.jobs.refine3d",
    "mask-create": "cryorefine.jobs.mask_create",
    "postprocess": "cryorefine.jobs.postprocess",
    "ctf-refine": "cryorefine.jobs.ctf_refine",
    "pseudo-subtomo": "cryorefine.jobs.pseudo_subtomo",
    "reconstruct-particle": "cryorefine.jobs.reconstruct_particle",
    "local-resolution": "cryorefine.jobs.local_resolution",
    "directional-fsc": "cryorefine.jobs.directional_fsc",
    "orientations": "cryorefine.jobs.orientations",
    "confidence": "cryorefine.jobs.confidence",
    "image-handler": "cryorefine.jobs.image_handler",
}
"""Command name -> module, in the order in which the jobs follow each other."""


def load(name: str) -> ModuleType:
    """Return the module of a job: its ``JOB``, ``Options``, ``Result`` and ``run``.

    Job modules import what computes inside their functions, so that loading all of them takes
    milliseconds: menus and ``--help`` are made from them.

    Raises
    ------
    UserError
        If there is no job of that name.
    """
    if name not in JOBS:
        raise UserError(f"There is no job '{name}'; the jobs are {', '.join(JOBS)}.")
    return import_module(JOBS[name])
