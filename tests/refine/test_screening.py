"""A local search may look at groups of poses first, but must not lose what matters."""

from __future__ import annotations

import numpy as np
import pytest
from tests.refine.conftest import optics

from cryorefine.refine import posterior
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.coarse import CoarseSearch, _quads
from cryorefine.refine.simulation import simulate_particles


def test_groups_that_hold_the_probability_are_kept():
    """Two particles: one whose groups look alike, one whose first group outweighs all others."""
    alike, clear = np.zeros(40), -100.0 * np.arange(40)
    owner = np.repeat([0, 1], 40)
    kept = posterior.promising(np.concatenate([alike, clear]), owner, 0.999, 8)
    assert kept[:40].all()
    np.testing.assert_array_equal(kept[40:], np.arange(40) < 8)


@pytest.mark.parametrize("snr", [0.3, 30.0])
def test_screening_keeps_every_particles_probability(tmp_path, refined, monkeypatch, snr):
    lost, kept = [], []
    screened = CoarseSearch._screened

    def watched(self, candidates, prior):
        result = screened(self, candidates, prior)
        quads, log_prior, owner = _quads(candidates)
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
    made = simulate_particles(
        tmp_path, random_protein(60, radius=42.0, symmetry="D2"), [optics()], 40, snr=snr
    )
    refined(made, symmetry="D2", initial_angular_sampling=3.7, local_search_from=3.7)
    assert np.mean(lost) < 0.003
    assert np.median(lost) < 1e-3
    if snr > 1:
        assert np.median(kept) < 0.5
