"""CtfRefine: defocus of each particle, beam tilt and higher aberrations, measured against the refined map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary
from cryorefine.jobs.base import Job, Run, option
from cryorefine.jobs.folder import in_job_folder

JOB = Job(
    name="ctf-refine",
    title="CtfRefine",
    folder="CtfRefine",
    relion_label="relion.ctfrefine",
    summary="Refine defocus, beam tilt and higher aberrations of particles against their map",
)

NO, PER_MICROGRAPH, PER_PARTICLE = "no", "per-micrograph", "per-particle"
LEVELS = (NO, PER_MICROGRAPH, PER_PARTICLE)
"""How fine a value is fitted: not at all, one for each micrograph, or one for each particle."""


def _level(label: str, help: str, relion: str) -> Any:
    return option(NO, label=label, help=help, group="Fit", choices=LEVELS, relion=relion)


def _switch(label: str, help: str, relion: str) -> Any:
    return option(False, label=label, help=help, group="Fit", relion=relion)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one job is asked to fit."""

    particles: Path | None = option(
        None,
        label="Particles (from Refine3D)",
        help="Particles with poses and half sets, e.g. run_data.star. Needed unless a job is continued.",
        kind="particles",
        relion="fn_data",
    )
    postprocess: Path | None = option(
        None,
        label="Postprocess STAR file",
        help="postprocess.star of these particles' map, made with a mask; it names half maps, mask and FSC. "
        "Needed unless a job is continued.",
        kind="star",
        relion="fn_post",
    )
    output: Path | None = option(
        None,
        label="Output folder",
        help="The folder of this job, e.g. CtfRefine/job024; particles_ctf_refine.star is written there. "
        "Needed unless a job is continued.",
        kind="folder",
    )
    continue_from: Path | None = option(
        None,
        label="Continue from here",
        help="The folder of a job that was stopped; it goes on after its last whole round.",
        kind="folder",
        flag="continue",
    )
    minimum_resolution: float = option(
        30.0,
        label="Minimum resolution for fits",
        help="Coarser detail than this is left out of the fits.",
        unit="A",
        group="Fit",
        minimum=1.0,
        maximum=1000.0,
        step=1.0,
        relion="minres",
    )
    fit_defocus: str = _level("Fit defocus?", "Fit the defocus, within the range below.", relion="do_defocus")
    defocus_range: float = option(
        2000.0,
        label="Range for defocus fit",
        help="Defocus is looked for within this distance of the one in the file; all of the range is tried.",
        unit="A",
        group="Fit",
        minimum=1.0,
        maximum=50000.0,
        step=100.0,
    )
    fit_astigmatism: str = _level(
        "Fit astigmatism?", "Fit size and direction of the astigmatism.", relion="do_astig"
    )
    fit_phase_shift: str = _level(
        "Fit phase-shift?", "Fit the phase shift; for data taken with a phase plate.", relion="do_phase"
    )
    fit_bfactor: str = _level(
        "Fit B-factor?",
        "Fit the B-factor of the CTF and its scale, which are always fitted together.",
        relion="do_bfactor",
    )
    fit_anisotropic_magnification: bool = _switch(
        "Estimate (anisotropic) magnification?",
        "Fit the magnification matrix of each optics group.",
        relion="do_aniso_mag",
    )
    fit_beamtilt: bool = _switch(
        "Estimate beamtilt?", "Fit the beam tilt of each optics group.", relion="do_tilt"
    )
    fit_trefoil: bool = _switch(
        "Also estimate trefoil?",
        "Fit three-fold astigmatism as well, for each optics group; together with the beam tilt.",
        relion="do_trefoil",
    )
    fit_fourth_order: bool = _switch(
        "Estimate 4th order aberrations?",
        "Fit symmetrical aberrations up to the fourth order, for each optics group; an error of Cs is among "
        "them.",
        relion="do_4thorder",
    )
    symmetry: str = option(
        "C1",
        label="Symmetry",
        help="Point group of the map, as in the refinement: Cn, Dn, T, O, or I1 to I4. References without a "
        "particle's own noise are made with it.",
        group="Reference",
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()

    def check(self) -> None:
        """Refuse what cannot be done, before anything is made.

        Raises
        ------
        UserError
            If nothing is selected, or a value has no meaning.
        """
        from cryorefine.geometry.symmetry import point_group

        if self.continue_from is None:
            for name in ("particles", "postprocess"):
                if getattr(self, name) is None:
                    raise UserError(f"CtfRefine needs --{name}, or --continue with the folder of a job.")
        vocabulary.check_device(self.device)
        point_group(self.symmetry)
        if self.continue_from is not None:
            return  # what is fitted stands in the folder
        if self.fit_trefoil and not self.fit_beamtilt:
            raise UserError("--fit-trefoil is fitted together with the beam tilt; add --fit-beamtilt.")
        if not self.fits_particles and not self.fits_optics:
            raise UserError(
                "Nothing is selected to be fitted; choose --fit-defocus per-particle, --fit-beamtilt or "
                "another fit."
            )

    @property
    def fits_particles(self) -> bool:
        """Whether values of particles or micrographs are fitted."""
        levels = (self.fit_defocus, self.fit_astigmatism, self.fit_phase_shift, self.fit_bfactor)
        return any(level != NO for level in levels)

    @property
    def fits_optics(self) -> bool:
        """Whether values of optics groups are fitted."""
        return self.fit_beamtilt or self.fit_fourth_order or self.fit_anisotropic_magnification


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished job leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    particles : Path
        particles_ctf_refine.star, for the next refinement.
    logfile : Path
        logfile.pdf with the aberrations and every micrograph.
    defocus_change : float
        Root mean square change of the defocus in A.
    """

    output: Path
    particles: Path
    logfile: Path
    defocus_change: float


@in_job_folder(JOB, ("threads", "device"))
def run(options: Options) -> Run[Result]:
    """Fit what the options ask for; yields events and returns the result.

    Raises
    ------
    UserError
        If something in the input cannot be worked with.
    """
    from cryorefine.jobs.ctf_refine_session import run_session

    return (yield from run_session(options))
