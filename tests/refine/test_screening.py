"""A local search may look at groups of poses or at some images first, but must not lose what matters."""

from __future__ import annotations

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.jobs import pseudo_subtomo, refine3d
from cryorefine.jobs.base import finish
from cryorefine.refine import posterior
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.coarse import CoarseSearch, _quads
from cryorefine.refine.simulation import simulate_particles
from cryorefine.refine.tilt_project import Acquisition, simulate_project


def test_groups_that_hold_the_probability_are_kept():
    """Two particles: one whose groups look alike, one whose first group outweighs all others."""
    alike, clear = np.zeros(40), -100.0 * np.arange(40)
    owner = np.repeat([0, 1], 40)
    kept = posterior.promising(np.concatenate([alike, clear]), owner, 0.999, 8)
    assert kept[:40].all()
    np.testing.assert_array_equal(kept[40:], np.arange(40) < 8)


@pytest.fixture
def screening(monkeypatch):
    """What screening lost of each particle's probability, and the share of candidates it kept."""
    lost, kept, parts = [], [], []
    screened = CoarseSearch._screened

    def watched(self, candidates, prior):
        result = screened(self, candidates, prior)
        parts.append(self._portion(len(prior)) is not None)
        index, log_prior, owner = _quads(candidates)
        quads = candidates.orientation[index]
        grid = self.parameters.sampling.grid
        dots, norms = self._scores(quads, owner, grid.coarse_matrices, self.coarse)
        count = prior.shape[1]
        scores = dots.swapaxes(2, 3).reshape(len(quads), -1, 4)[:, :count] - norms[:, None]
        total = np.logaddexp.reduce(scores + prior[owner][:, :, None], axis=1) + log_prior
        span = grid.n_orientations
        chosen = np.isin(
            owner[:, None].astype(np.int64) * span + quads, result.owner * span + result.orientation
        )
        for particle in range(len(prior)):
            own = owner == particle
            weight = np.exp(total[own] - total[own].max())
            lost.append(weight[~chosen[own]].sum() / weight.sum())
        kept.append(len(result.orientation) / len(candidates.orientation))
        return result

    monkeypatch.setattr(CoarseSearch, "_screened", watched)
    return lost, kept, parts


@pytest.mark.parametrize("snr", [0.3, 30.0])
def test_screening_keeps_every_particles_probability(tmp_path, refined, screening, snr):
    lost, kept, parts = screening
    made = simulate_particles(
        tmp_path, random_protein(60, radius=42.0, symmetry="D2"), [optics()], 40, snr=snr
    )
    refined(made, symmetry="D2", initial_angular_sampling=3.7, local_search_from=3.7)
    assert not any(parts)
    assert np.mean(lost) < 0.003
    assert np.median(lost) < 1e-3
    if snr > 1:
        assert np.median(kept) < 0.5


@pytest.mark.parametrize("snr", [0.02, 2.0])
def test_tilt_series_lose_nothing_by_looking_at_a_part_of_the_images_first(
    tmp_path, monkeypatch, screening, snr
):
    lost, kept, parts = screening
    monkeypatch.chdir(tmp_path)
    made = simulate_project(
        tmp_path,
        random_protein(60, radius=45, symmetry="D2", sigma=3.0),
        Acquisition(pixel_size=5.0, image_size=160, tilts=21, tilt_step=5.0, thickness=300.0, dose=2.0),
        particles=10,
        box=32,
        snr=snr,
        angle_error=6.0,
        position_error=3.0,
    )
    extracted = finish(
        pseudo_subtomo.run(
            pseudo_subtomo.Options(
                optimisation_set=made.optimisation_set, output=tmp_path / "Extract", box_size=48, crop_size=32
            )
        )
    )
    finish(
        refine3d.run(
            refine3d.Options(
                optimisation_set=extracted.optimisation_set,
                reference=made.map,
                output=tmp_path / "Refine3D",
                absolute_greyscale=True,
                initial_lowpass=25,
                symmetry="D2",
                mask_diameter=110,
                initial_angular_sampling=3.7,
                local_search_from=3.7,
                threads=2,
            )
        )
    )
    assert all(parts)
    assert np.mean(lost) < 0.003
    assert np.median(lost) < 1e-3
    if snr > 1:
        assert np.min(kept) < 0.25
