"""Estimates defocus, astigmatism, phase shift, aberrations and magnification from refined particles.

Particles are compared with maps that hold none of their own noise: see
docs/ctf_refinement_method.md.
"""

from cryorefine.refine.ctf_refinement.refinement import refine_ctf
from cryorefine.refine.ctf_refinement.result import (
    AberrationImages,
    CtfEvent,
    CtfResult,
    Finding,
    MicrographValues,
    OpticsSoFar,
    OpticsValues,
    ParticleValues,
    Stage,
)
from cryorefine.refine.ctf_refinement.settings import CtfFit, Level, SuppliedMaps

__all__ = [
    "AberrationImages",
    "CtfEvent",
    "CtfFit",
    "CtfResult",
    "Finding",
    "Level",
    "MicrographValues",
    "OpticsSoFar",
    "OpticsValues",
    "ParticleValues",
    "Stage",
    "SuppliedMaps",
    "refine_ctf",
]
