"""Refine3D: gold-standard refinement of one map from particle images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.jobs import vocabulary, vocabulary_tomo
from cryorefine.jobs.base import Job, Run, option
from cryorefine.jobs.folder import in_job_folder

JOB = Job(
    name="refine3d",
    title="Refine3D",
    folder="Refine3D",
    relion_label="relion.refine3d",
    summary="Refine a map and the poses of its particles, two independent halves at a time",
)

ANGULAR_STEPS = ("30", "15", "7.5", "3.7", "1.8", "0.9", "0.5", "0.2", "0.1")
"""Oversampled angular steps in degrees; the index is the HEALPix order of the coarse grid."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one refinement is asked to do."""

    particles: Path | None = option(
        None,
        label="Input images STAR file",
        help="The particles to refine, as RELION 3.0 to 5 write them. "
        "Needed unless an optimisation set names them or a refinement is continued.",
        kind="particles",
        relion="fn_img",
    )
    reference: Path | None = option(
        None,
        label="Reference map",
        help="The map to start from, rescaled to the particles' pixel and box size. When its name holds "
        "half1 or half2, each half starts from its own half map. Needed unless an optimisation set names "
        "one or a refinement is continued.",
        kind="map",
        relion="fn_ref",
    )
    reference_mask: Path | None = option(
        None,
        label="Reference mask (optional)",
        help="A soft mask, 1 where the particle is and 0 where the solvent is. Without one, a sphere "
        "of the mask diameter is used.",
        kind="mask",
        relion="fn_mask",
    )
    output: Path | None = option(
        None,
        label="Output folder",
        help="The folder of this job, e.g. Refine3D/job001. Needed unless a refinement is continued, "
        "which then goes on in its own folder.",
        kind="folder",
    )
    continue_from: Path | None = option(
        None,
        label="Continue from here",
        help="The folder of a refinement that was stopped; it goes on from its last whole iteration.",
        kind="folder",
        flag="continue",
        relion="fn_cont",
    )
    continue_iteration: int | None = option(
        None,
        label="Continue from iteration",
        help="Go on after this iteration rather than the last whole one, in another output folder. Empty for "
        "the last.",
        flag="from-iteration",
        minimum=1,
        maximum=9999,
        step=1,
    )
    optimisation_set: Path | None = vocabulary_tomo.optimisation_set("Subtomograms")
    tomograms: Path | None = vocabulary_tomo.tomograms("Subtomograms")
    trajectories: Path | None = vocabulary_tomo.trajectories("Subtomograms")
    absolute_greyscale: bool = option(
        False,
        label="Ref. map is on absolute greyscale?",
        help="Whether the reference has the intensities that these particles would give, as a map "
        "reconstructed from them has. Otherwise the first iteration compares by cross-correlation.",
        group="Reference",
        relion="ref_correct_greyscale",
    )
    initial_lowpass: float = option(
        60.0,
        label="Initial low-pass filter",
        help="The reference is low-pass filtered to this resolution first, so that details of it "
        "cannot bias the poses. 0 leaves it as it is.",
        unit="A",
        group="Reference",
        minimum=0.0,
        maximum=1000.0,
        step=1.0,
        relion="ini_high",
    )
    symmetry: str = option(
        "C1",
        label="Symmetry",
        help="Point group of the particle: Cn, Dn, T, O, or I1 to I4.",
        group="Reference",
        relion="sym_name",
    )
    ctf_correction: bool = option(
        True,
        label="Do CTF-correction?",
        help="Apply each particle's contrast transfer function to the projections it is compared with.",
        group="CTF",
        relion="do_ctf_correction",
    )
    ctf_intact_first_peak: bool = option(
        False,
        label="Ignore CTFs until first peak?",
        help="Take the CTF as 1 from zero frequency to its first peak.",
        group="CTF",
        relion="ctf_intact_first_peak",
    )
    reference_ctf_corrected: bool = option(
        True,
        label="Has reference been CTF-corrected?",
        help="Whether the starting map shows densities without the effects of the CTF, as maps from "
        "a refinement, a model or another program do.",
        group="CTF",
    )
    data_phase_flipped: bool = option(
        False,
        label="Have data been phase-flipped?",
        help="Whether the phases of the images were corrected before; then the absolute value of the "
        "CTF is used.",
        group="CTF",
    )
    refine_ctf: bool = option(
        False,
        label="Refine defocus and beam tilt as well?",
        help="Estimate the defocus of every particle and the beam tilt of every optics group anew after "
        "each iteration with a local search, as CtfRefine does. For single particles.",
        group="CTF",
    )
    mask_diameter: float = option(
        200.0,
        label="Mask diameter",
        help="Diameter of the soft circular mask around each particle; slightly more than the particle "
        "is long, less than the box.",
        unit="A",
        group="Optimisation",
        minimum=1.0,
        maximum=5000.0,
        step=1.0,
        relion="particle_diameter",
    )
    zero_mask: bool = option(
        True,
        label="Mask individual particles with zeros?",
        help="Fill the image outside the particle's mask with zeros; otherwise with noise of the "
        "data's spectrum.",
        group="Optimisation",
        relion="do_zero_mask",
    )
    solvent_flattened_fsc: bool = option(
        False,
        label="Use solvent-flattened FSCs?",
        help="Let the FSC that steers the refinement be corrected for the solvent in the reference mask.",
        group="Optimisation",
        relion="do_solvent_fsc",
    )
    initial_angular_sampling: float = option(
        7.5,
        label="Initial angular sampling",
        help="Angular step of the first searches.",
        unit="degrees",
        group="Auto-sampling",
        choices=ANGULAR_STEPS,
        relion="sampling",
    )
    initial_offset_range: float = option(
        5.0,
        label="Initial offset range",
        help="Particles are looked for within this distance of their centres.",
        unit="px",
        group="Auto-sampling",
        minimum=0.0,
        maximum=100.0,
        step=1.0,
        relion="offset_range",
    )
    initial_offset_step: float = option(
        1.0,
        label="Initial offset step",
        help="Step of the first search over offsets.",
        unit="px",
        group="Auto-sampling",
        minimum=0.1,
        maximum=20.0,
        step=0.1,
        relion="offset_step",
    )
    local_search_from: float = option(
        1.8,
        label="Local searches from auto-sampling",
        help="From this angular step on, only the neighbourhood of each particle's best pose is searched.",
        unit="degrees",
        group="Auto-sampling",
        choices=ANGULAR_STEPS,
        relion="auto_local_sampling",
    )
    relax_symmetry: str = option(
        "",
        label="Relax symmetry",
        help="A point group of pseudo-symmetry: local searches also try the poses related by it.",
        group="Auto-sampling",
        relion="relax_sym",
    )
    finer_sampling_faster: bool = option(
        False,
        label="Use finer angular sampling faster?",
        help="Sample finer as soon as the resolution allows it, without waiting for the poses to settle.",
        group="Auto-sampling",
        relion="auto_faster",
    )
    sigma_tilt: float | None = option(
        None,
        label="Prior width on tilt angle",
        help="For subtomograms whose tilt angle is roughly known, as on a membrane or a filament: the "
        "standard deviation of a Gaussian prior around it (rlnAngleTiltPrior, or else the tilt angle that a "
        "particle starts with). Empty for none.",
        unit="degrees",
        group="Auto-sampling",
        minimum=0.0,
        maximum=180.0,
        step=1.0,
        relion="sigma_tilt",
    )
    padding: int = option(
        2,
        label="Padding",
        help="How often the map's box fits into the one that projections are cut from; 1 takes an "
        "eighth of the memory and is a little less accurate.",
        group="Compute",
        minimum=1,
        maximum=2,
        step=1,
        relion="do_pad1",
    )
    threads: int = vocabulary.threads()
    device: str = vocabulary.device()
    scheduler: str = vocabulary.scheduler()
    cluster: str = vocabulary.cluster()
    random_seed: int = option(
        1,
        label="Random seed",
        help="The same seed gives the same halves and the same result.",
        group="Compute",
        minimum=0,
        maximum=2**31 - 1,
        step=1,
    )

    def check(self) -> None:
        """Refuse what cannot be done, before anything is made.

        Raises
        ------
        UserError
            If the particles or the reference are not given, or a value has no meaning.
        """
        if self.continue_from is None:
            for name in ("particles", "reference"):
                if getattr(self, name) is None and self.optimisation_set is None:
                    raise UserError(
                        f"Refine3D needs --{name}, or --optimisation-set, or --continue with the folder of a "
                        "refinement."
                    )
        if self.continue_iteration is not None and self.continue_from is None:
            raise UserError("--from-iteration needs the refinement that it is of; give it with --continue.")
        if self.trajectories is not None and self.tomograms is None and self.optimisation_set is None:
            raise UserError("--trajectories needs the tilt series they belong to; give --tomograms as well.")
        if self.refine_ctf and (self.optimisation_set is not None or self.tomograms is not None):
            raise UserError("--refine-ctf is for single particles; leave it out for subtomograms.")
        if self.refine_ctf and not self.ctf_correction:
            raise UserError("--refine-ctf contradicts --no-ctf-correction; leave one of them out.")
        if self.sigma_tilt and self.optimisation_set is None and self.tomograms is None:
            raise UserError("--sigma-tilt is for subtomograms; give them with --optimisation-set.")
        vocabulary.check_device(self.device)
        vocabulary.check_workers(self.scheduler, self.cluster)
        elsewhere = self.continue_from is not None or self.optimisation_set is not None
        if self.solvent_flattened_fsc and self.reference_mask is None and not elsewhere:
            raise UserError("--solvent-flattened-fsc needs a mask; give one with --reference-mask.")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished refinement leaves.

    Attributes
    ----------
    output : Path
        The job's folder.
    half_maps : tuple of Path
        The two unfiltered half maps, for PostProcess.
    map : Path
        The refined map, joined from both halves and filtered by their FSC.
    data, model : Path
        run_data.star with the poses and run_model.star with spectra and FSC.
    resolution : float
        Resolution without a mask in A (FSC = 0.143).
    iterations : int
        How many iterations it took, the last one included.
    optimisation_set : Path or None
        run_optimisation_set.star, of subtomograms.
    """

    output: Path
    half_maps: tuple[Path, Path]
    map: Path
    data: Path
    model: Path
    resolution: float
    iterations: int
    optimisation_set: Path | None = None


_MAY_CHANGE = (
    "threads",
    "device",
    "scheduler",
    "cluster",
    "mask_diameter",
    "reference_mask",
    "solvent_flattened_fsc",
    "relax_symmetry",
    "finer_sampling_faster",
)


@in_job_folder(JOB, _MAY_CHANGE)
def run(options: Options) -> Run[Result]:
    """Refine a map and the poses of its particles.

    Parameters
    ----------
    options : Options
        What to do; ``options.output`` is the job's folder.

    Yields
    ------
    Event
        Progress of each iteration, its half maps, FSC and figures.

    Returns
    -------
    Result
        Files and resolution.

    Raises
    ------
    UserError
        If something in the input cannot be worked with.
    """
    from cryorefine.jobs.refine3d_session import open_session, run_session

    session = yield from open_session(options)
    return (yield from run_session(session))
