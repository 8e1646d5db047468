"""Tables of a refinement's models: the map's spectra, noise, groups and views, under RELION's labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryorefine.io.star import Block
from cryorefine.refine.angular_distribution import distribution_of_poses
from cryorefine.refine.engine import IterationDone, Settings
from cryorefine.refine.output_tables import DECIMALS, output_grid, rounded, significant
from cryorefine.refine.particle_set import ParticleSet
from cryorefine.refine.state import HalfModel, State

F64 = NDArray[np.float64]
# What RELION writes for a resolution of no meaning.
_NONE = 999.0


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
        "rlnDataDimensionality": max(group.dimensions for group in particles.optics),
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
            "rlnAccuracyRotations": [round(schedule.accuracy_angle, DECIMALS)],
            "rlnAccuracyTranslationsAngst": [round(schedule.accuracy_shift, DECIMALS)],
            "rlnEstimatedResolution": [_estimated_resolution(model, box * state.pixel_size)],
        }
    )
    spectra = _shells(box, state.pixel_size)
    members = np.bincount(particles.group[part.members], minlength=len(particles.groups))
    groups = pd.DataFrame(
        {
            "rlnGroupNumber": np.arange(1, len(members) + 1),
            "rlnGroupName": list(particles.groups),
            "rlnGroupNrParticles": members,
            "rlnGroupScaleCorrection": np.round(model.scale, DECIMALS),
        }
    )
    blocks: dict[str, Block] = {
        "model_general": rounded(general),
        "model_classes": classes,
        "model_class_1": spectra.assign(
            rlnSsnrMap=significant(model.ssnr),
            rlnGoldStandardFsc=significant(state.fsc),
            rlnReferenceSigma2=significant(model.sigma2),
            rlnReferenceTau2=significant(model.tau2),
        ),
        "model_groups": groups,
    }
    for k, noise in enumerate(model.sigma2_noise, start=1):
        table = spectra.drop(columns="rlnAngstromResolution")
        blocks[f"model_optics_group_{k}"] = table.assign(rlnSigma2Noise=significant(noise))
    blocks["model_pdf_orient_class_1"] = pd.DataFrame(
        {"rlnOrientationDistribution": significant(part.distribution)}
    )
    return blocks


def _estimated_resolution(model: HalfModel, extent: float) -> float:
    """Resolution in A of the last shell before the signal first falls below the noise."""
    below = np.flatnonzero(model.ssnr[1:] < 1)
    shell = int(below[0]) if len(below) else len(model.ssnr) - 1
    return round(extent / shell, DECIMALS) if shell else _NONE


def _shells(box: int, pixel_size: float) -> pd.DataFrame:
    """Index and resolution of every shell, in 1/A and in A."""
    index = np.arange(box // 2 + 1)
    extent = box * pixel_size
    return pd.DataFrame(
        {
            "rlnSpectralIndex": index,
            "rlnResolution": np.round(index / extent, DECIMALS),
            "rlnAngstromResolution": np.round(
                np.where(index > 0, extent / np.maximum(index, 1), _NONE), DECIMALS
            ),
        }
    )
