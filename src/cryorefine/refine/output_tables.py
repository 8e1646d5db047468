"""The tables of a refinement's STAR files, under RELION's labels and in its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryorefine.geometry.euler import angles
from cryorefine.geometry.sampling import SamplingGrid
from cryorefine.io.particles import ParticleFile
from cryorefine.io.star import Block
from cryorefine.refine.angular_distribution import distribution_of_poses
from cryorefine.refine.engine import FRACTION, IterationDone, Settings
from cryorefine.refine.maximisation import JOIN_BELOW
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.state import HalfModel, State

F64 = NDArray[np.float64]
# What RELION writes for a resolution of no meaning.
_NONE = 999.0
_LAST_ITERATION = 999
# Decimals of angles in degrees, offsets in A and the like in the particle table.
_DECIMALS = 6
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


@dataclass(frozen=True, eq=False)
class ModelPart:
    """One model and the particles that it stands for: a half set, or all of them.

    Attributes
    ----------
    model : HalfModel
        Spectra, scales and priors.
    members : ndarray of bool, shape (n,)
        Particles of the set.
    distribution : ndarray, shape (directions,)
        Probability of each direction of the asymmetric unit's grid.
    """

    model: HalfModel
    members: NDArray[np.bool_]
    distribution: F64


def output_grid(state: State, settings: Settings) -> SamplingGrid:
    """Directions of the asymmetric unit, which the files list even where searches are local."""
    return SamplingGrid(state.schedule.order, settings.symmetry)


def half_part(state: State, half: int, settings: Settings) -> ModelPart:
    """Model of a half set, 1 or 2."""
    return _part(state, state.halves[half - 1], state.half == half, settings)


def joined_part(state: State, particles: ParticleSet, settings: Settings) -> ModelPart:
    """Model of all particles: the joined map's spectra, and means over both half sets."""
    first, second = state.halves
    counts = np.array([np.sum(state.half == h) for h in (1, 2)], np.float64)
    members = np.stack(
        [np.bincount(particles.group[state.half == h], minlength=len(first.scale)) for h in (1, 2)]
    )
    shares = members / np.maximum(members.sum(axis=0), 1)
    scale = np.where(members.sum(axis=0) > 0, shares[0] * first.scale + shares[1] * second.scale, 1.0)
    means = {
        name: (counts[0] * getattr(first, name) + counts[1] * getattr(second, name)) / counts.sum()
        for name in ("sigma2_noise", "direction_prior", "sigma_offset", "mean_norm", "mean_largest_weight")
    }
    model = replace(first, **means, scale=scale, log_likelihood=first.log_likelihood + second.log_likelihood)
    return _part(state, model, np.isin(state.half, (1, 2)), settings)


def _part(state: State, model: HalfModel, members: NDArray[np.bool_], settings: Settings) -> ModelPart:
    distribution = model.direction_prior
    if len(distribution) == 0:
        # A local search has no prior on directions: count the poses.
        distribution = distribution_of_poses(state.table.poses[members], output_grid(state, settings))
    return ModelPart(model, members, distribution)


def particle_file(file: ParticleFile, particles: ParticleSet, state: State) -> ParticleFile:
    """Particles with what the refinement has found; all other columns stay as they are."""
    table = state.table
    rot, tilt, psi = angles(table.poses)
    columns: dict[str, NDArray[Any]] = {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi}
    for axis, offset in zip("XYZ", table.offsets.T, strict=False):
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
    rounded = {
        label: np.round(values, _DECIMALS) if values.dtype.kind == "f" else values
        for label, values in columns.items()
    }
    return replace(file, particles=file.particles.assign(**rounded))


def model_blocks(
    part: ModelPart, outcome: IterationDone, particles: ParticleSet, settings: Settings, reference: str
) -> dict[str, Block]:
    """Tables of a model.star.

    Parameters
    ----------
    part : ModelPart
        The model.
    outcome : IterationDone
        Its iteration.
    particles : ParticleSet
        All particles.
    settings : Settings
        Of the refinement.
    reference : str
        Name of the map's file.
    """
    state, model = outcome.state, part.model
    schedule = state.schedule
    box = model.reference.shape[0]
    resolution = 1 / schedule.resolution if schedule.resolution > 0 else _NONE
    general: dict[str, Any] = {
        "rlnReferenceDimensionality": 3,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": box,
        "rlnCurrentResolution": resolution,
        "rlnCurrentImageSize": outcome.current_size,
        "rlnPaddingFactor": float(settings.padding),
        "rlnIsHelix": False,
        "rlnFourierSpaceInterpolator": 1,
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": state.pixel_size,
        "rlnNrClasses": 1,
        "rlnNrBodies": 1,
        "rlnNrGroups": len(particles.groups),
        "rlnNrOpticsGroups": len(particles.optics),
        "rlnTau2FudgeFactor": 1.0,
        "rlnNormCorrectionAverage": model.mean_norm,
        "rlnSigmaOffsetsAngst": model.sigma_offset,
        "rlnOrientationalPriorMode": int(schedule.is_local),
        "rlnSigmaPriorRotAngle": schedule.local_sigma,
        "rlnSigmaPriorTiltAngle": schedule.local_sigma,
        "rlnSigmaPriorPsiAngle": schedule.local_sigma,
        "rlnLogLikelihood": model.log_likelihood,
        "rlnAveragePmax": model.mean_largest_weight,
    }
    classes = pd.DataFrame(
        {
            "rlnReferenceImage": [reference],
            "rlnClassDistribution": [1.0],
            "rlnAccuracyRotations": [schedule.accuracy_angle],
            "rlnAccuracyTranslationsAngst": [schedule.accuracy_shift],
            "rlnEstimatedResolution": [resolution],
        }
    )
    spectra = _shells(box, state.pixel_size)
    members = np.bincount(particles.group[part.members], minlength=len(particles.groups))
    groups = pd.DataFrame(
        {
            "rlnGroupNumber": np.arange(1, len(members) + 1),
            "rlnGroupName": list(particles.groups),
            "rlnGroupNrParticles": members,
            "rlnGroupScaleCorrection": model.scale,
        }
    )
    blocks: dict[str, Block] = {
        "model_general": general,
        "model_classes": classes,
        "model_class_1": spectra.assign(
            rlnSsnrMap=model.ssnr,
            rlnGoldStandardFsc=state.fsc,
            rlnReferenceSigma2=model.sigma2,
            rlnReferenceTau2=model.tau2,
        ),
        "model_groups": groups,
    }
    for k, noise in enumerate(model.sigma2_noise, start=1):
        table = spectra.drop(columns="rlnAngstromResolution")
        blocks[f"model_optics_group_{k}"] = table.assign(rlnSigma2Noise=noise)
    blocks["model_pdf_orient_class_1"] = pd.DataFrame({"rlnOrientationDistribution": part.distribution})
    return blocks


def _shells(box: int, pixel_size: float) -> pd.DataFrame:
    """Index and resolution of every shell, in 1/A and in A."""
    index = np.arange(box // 2 + 1)
    extent = box * pixel_size
    return pd.DataFrame(
        {
            "rlnSpectralIndex": index,
            "rlnResolution": np.round(index / extent, _DECIMALS),
            "rlnAngstromResolution": np.round(
                np.where(index > 0, extent / np.maximum(index, 1), _NONE), _DECIMALS
            ),
        }
    )


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
    directions = pd.DataFrame({"rlnAngleRot": rot, "rlnAngleTilt": tilt})
    return {"sampling_general": general, "sampling_directions": directions}


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
        set has its own), rlnExperimentalDataStarFile, rlnOrientSamplingStarFile.
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
        "rlnSolventMaskName": "None",
        "rlnIncrementImageSize": schedule.increment,
        "rlnDoMapEstimation": True,
        "rlnDoAutoRefine": True,
        "rlnAutoLocalSearchesHealpixOrder": schedule.local_order,
        "rlnNumberOfIterWithoutResolutionGain": schedule.without_gain,
        "rlnBestResolutionThusFar": schedule.resolution,
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
    return {"optimiser_general": general | _NOT_USED_HERE}
