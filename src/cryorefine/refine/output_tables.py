"""Tables of a refinement's particles, sampling and progress, under RELION's labels and in its units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryorefine.geometry.euler import angles
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.io.particles import ParticleFile
from cryorefine.io.star import Block
from cryorefine.refine.engine import FRACTION, Settings
from cryorefine.refine.maximisation import JOIN_BELOW
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.state import State

F64 = NDArray[np.float64]
# Decimals of angles in degrees, lengths in A and the like.
DECIMALS = 6
# Significant digits of spectra, probabilities and single values.
DIGITS = 9
_LAST_ITERATION = 999
# RELION 3.1.3 refuses to go on from an optimiser.star without these (found by leaving out one at a
# time); they switch off what this refinement does not do.
_NOT_USED_HERE: dict[str, Any] = {
    "rlnSolventMask2Name": "None",
    "rlnTauSpectrumName": "None",
    "rlnMaximumCoarseImageSize": -1,
    "rlnHighresLimitExpectation": -1.0,
    "rlnDoSkipAlign": False,
    "rlnHasLargeSizeIncreaseIterationsAgo": 0,
    "rlnFixSigmaNoiseEstimates": False,
    "rlnFixSigmaOffsetEstimates": False,
}


def output_grid(state: State, settings: Settings) -> SamplingGrid:
    """Directions of the asymmetric unit, which the files list even where searches are local."""
    return SamplingGrid(state.schedule.order, settings.symmetry)


def significant(values: F64) -> F64:
    """Round to the digits that these tables show; the checkpoint keeps every bit."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in np.asarray(values).tolist()])


def rounded(block: dict[str, Any]) -> dict[str, Any]:
    """Round the floating-point values of a list."""
    return {
        label: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for label, value in block.items()
    }


def particle_file(file: ParticleFile, particles: ParticleSet, state: State) -> ParticleFile:
    """Particles with what the refinement has found; all other columns stay as they are."""
    table = state.table
    poses, offsets = table.poses, table.offsets
    if particles.frames is not None:
        poses = np.swapaxes(particles.frames, 1, 2) @ poses
        offsets = np.einsum("nji,nj->ni", particles.frames, offsets)
    rot, tilt, psi = angles(poses)
    columns: dict[str, NDArray[Any]] = {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi}
    for axis, offset in zip("XYZ", offsets.T, strict=False):
        columns[f"rlnOrigin{axis}Angst"] = offset
    columns |= {
        "rlnClassNumber": np.ones(len(rot), np.int64),
        "rlnNormCorrection": table.norm,
        "rlnRandomSubset": state.half,
        "rlnGroupNumber": particles.group + 1,
        "rlnLogLikeliContribution": table.log_likelihood,
        "rlnMaxValueProbDistribution": table.largest_weight,
        "rlnNrOfSignificantSamples": table.significant,
    }
    optics = file.optics
    if state.transfer is not None:
        columns |= {
            "rlnDefocusU": state.transfer.defocus_u,
            "rlnDefocusV": state.transfer.defocus_v,
            "rlnDefocusAngle": state.transfer.defocus_angle,
        }
        tilt = np.round(state.transfer.beam_tilt, DECIMALS)
        optics = optics.assign(rlnBeamTiltX=tilt[:, 0], rlnBeamTiltY=tilt[:, 1])
    rounded = {
        label: np.round(values, DECIMALS) if values.dtype.kind == "f" else values
        for label, values in columns.items()
    }
    return file.replace(optics=optics, particles=file.particles.assign(**rounded))


def sampling_blocks(state: State, settings: Settings) -> dict[str, Block]:
    """Tables of a sampling.star."""
    schedule = state.schedule
    grid = output_grid(state, settings)
    general: dict[str, Any] = {
        "rlnIs3DSampling": True,
        "rlnIs3DTranslationalSampling": state.table.offsets.shape[1] == 3,
        "rlnHealpixOrder": schedule.order,
        "rlnSymmetryGroup": settings.symmetry,
        "rlnTiltAngleLimit": -91.0,
        "rlnPsiStep": grid.step,
        "rlnOffsetRange": schedule.offset_range,
        "rlnOffsetStep": schedule.offset_step,
        "rlnHelicalOffsetStep": -1.0,
        "rlnSamplingPerturbInstance": schedule.perturbation,
        "rlnSamplingPerturbFactor": 0.5,
    }
    rot, tilt = grid.directions
    directions = pd.DataFrame(
        {"rlnAngleRot": np.round(rot, DECIMALS), "rlnAngleTilt": np.round(tilt, DECIMALS)}
    )
    return {"sampling_general": rounded(general), "sampling_directions": directions}


def optimiser_blocks(state: State, settings: Settings, files: Mapping[str, str]) -> dict[str, Block]:
    """Table of an optimiser.star.

    Parameters
    ----------
    state : State
        After the iteration.
    settings : Settings
        Of the refinement.
    files : mapping of str to str
        File names by label: rlnOutputRootName, rlnModelStarFile (and rlnModelStarFile2 where each half
        set has its own), rlnExperimentalDataStarFile, rlnOrientSamplingStarFile, rlnSolventMaskName; of
        subtomograms rlnTomoTomogramsFile and rlnTomoTrajectoriesFile.
    """
    schedule, images = state.schedule, settings.images
    general: dict[str, Any] = dict(files)
    general |= {
        "rlnCurrentIteration": state.iteration,
        "rlnNumberOfIterations": _LAST_ITERATION,
        "rlnDoSplitRandomHalves": "rlnModelStarFile2" in files,
        "rlnJoinHalvesUntilThisResolution": JOIN_BELOW,
        "rlnAdaptiveOversampleOrder": 1,
        "rlnAdaptiveOversampleFraction": FRACTION,
        "rlnRandomSeed": settings.seed,
        "rlnParticleDiameter": images.mask_diameter,
        "rlnWidthMaskEdge": round(images.mask_edge),
        "rlnDoZeroMask": images.zero_mask,
        "rlnDoSolventFlattening": True,
        "rlnDoSolventFscCorrection": settings.solvent_fsc,
        "rlnIncrementImageSize": schedule.increment,
        "rlnDoMapEstimation": True,
        "rlnDoAutoRefine": True,
        "rlnAutoLocalSearchesHealpixOrder": schedule.local_order,
        "rlnNumberOfIterWithoutResolutionGain": schedule.without_gain,
        "rlnBestResolutionThusFar": schedule.best_resolution,
        "rlnNumberOfIterWithoutChangingAssignments": schedule.without_change,
        "rlnOverallAccuracyRotations": schedule.accuracy_angle,
        "rlnOverallAccuracyTranslationsAngst": schedule.accuracy_shift,
        "rlnChangesOptimalOrientations": schedule.change_angle,
        "rlnChangesOptimalOffsets": schedule.change_offset,
        "rlnChangesOptimalClasses": 0.0,
        "rlnSmallestChangesOrientations": schedule.smallest_angle,
        "rlnSmallestChangesOffsets": schedule.smallest_offset,
        "rlnSmallestChangesClasses": 0,
        "rlnHasConverged": schedule.converged,
        "rlnHasHighFscAtResolLimit": schedule.high_fsc_at_limit,
        "rlnDoCorrectNorm": settings.correct_norm,
        "rlnDoCorrectScale": True,
        "rlnDoCorrectCtf": images.ctf_correction,
        "rlnDoIgnoreCtfUntilFirstPeak": images.intact_first_peak,
        "rlnCtfDataArePhaseFlipped": images.phase_flipped,
        "rlnDoOnlyFlipCtfPhases": False,
        # From the first iteration on the references are made with the CTF.
        "rlnRefsAreCtfCorrected": True,
        "rlnMaxNumberOfPooledParticles": 1,
    }
    return {"optimiser_general": rounded(general | _NOT_USED_HERE)}
