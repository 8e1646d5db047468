"""RELION 5's own estimates, from RELION's own cost and references: every label means the same here.

The comparison is set up as RELION does it: whole supplied half maps as references, the FSC as the weight
of each pixel, no noise model. Its results on these simulated images are in the shared data.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.refine.ctf_refinement.conftest import mean_defocus

from cryorefine.compute.executor import LocalExecutor
from cryorefine.ctf.aberrations import beam_tilt_scale, even_phase, odd_phase
from cryorefine.io.mrc import read_map
from cryorefine.io.particles import parse_vector, read_particles
from cryorefine.io.star import read_star
from cryorefine.refine.ctf_refinement import CtfFit, SuppliedMaps
from cryorefine.refine.ctf_refinement.comparison import Comparison, with_mean_defocus
from cryorefine.refine.ctf_refinement.defocus import per_micrograph, scan_defocus
from cryorefine.refine.ctf_refinement.division import divide
from cryorefine.refine.ctf_refinement.frame import make_frame
from cryorefine.refine.ctf_refinement.optics_fit import fit_odd
from cryorefine.refine.ctf_refinement.optics_sums import even_sums, odd_sums
from cryorefine.refine.ctf_refinement.phase_fit import EvenSums, fit_phase
from cryorefine.refine.ctf_refinement.polynomials import even_terms, to_zernike
from cryorefine.refine.ctf_refinement.signal import Signal, power_spectra
from cryorefine.refine.ctf_refinement.transfer_fit import (
    ASTIGMATISM_COS,
    ASTIGMATISM_SIN,
    DEFOCUS,
    fit_transfer,
)
from cryorefine.refine.loading import load_particles


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "data" / "sim_betagal_ctf"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="module")
def as_relion(golden):
    """Comparison and weights as RELION has them."""
    relion = golden / "relion5"
    file, particles = load_particles(
        read_particles(golden / "refined.star"), golden / "refined.star", seed=0, ctf_correction=True
    )
    maps = [read_map(relion / name).data for name in ("half1_unfil.mrc", "half2_unfil.mrc", "mask.mrc")]
    fsc = read_star(relion / "post.star")["fsc"]["rlnFourierShellCorrelationCorrected"].to_numpy(float)
    supplied = SuppliedMaps((maps[0], maps[1]), maps[2], fsc, 1.4)
    names = file.particles["rlnMicrographName"].to_numpy(dtype=object)
    micrograph = np.unique(names, return_inverse=True)[1]
    with LocalExecutor(2) as executor:
        shells = int(np.flatnonzero(fsc >= 0.143).max())
        frame = make_frame(supplied, shells, 2)
        chunks = divide(particles, micrograph, 0)
        comparison = Comparison(
            particles, chunks, supplied, frame, executor, symmetry="C1", minimum_resolution=30.0, memory=2**30
        )
        weight = np.where(fsc >= 0.143, fsc, 0)[: shells + 1]
        # A common factor on all weights changes no estimate; this one gives them about the right units.
        weight /= float(np.median(power_spectra(comparison)[0]))
        count = len(particles)
        signal = Signal(
            (1 / np.maximum(weight, 1e-30))[None],
            np.ones((1, shells + 1)),
            *(np.ones(count) for _ in range(4)),
        )
        yield file, particles, micrograph, comparison, signal


def test_beam_tilt(as_relion):
    _, particles, _, comparison, signal = as_relion
    optics = particles.optics[0]
    fit = fit_odd(odd_sums(comparison, signal)[0], comparison.planes[0], optics, optics, trefoil=False)
    tilt = -fit.values[2:4] / beam_tilt_scale(300, 2.7)
    np.testing.assert_allclose(tilt, (0.758299, -0.46688), atol=0.01)


def test_trefoil(as_relion, golden):
    _, particles, _, comparison, signal = as_relion
    optics = particles.optics[0]
    row = read_particles(golden / "relion5" / "particles_trefoil_4thorder.star").optics.iloc[0]
    plane = comparison.planes[0]
    x, y = plane.x, plane.y
    shell = plane.plane.shell
    inside = plane.compared & (shell < 55)
    odd = fit_odd(odd_sums(comparison, signal)[0], plane, optics, optics, trefoil=True)
    theirs = odd_phase(
        parse_vector(row["rlnOddZernike"]), row["rlnBeamTiltX"], row["rlnBeamTiltY"], 300, 2.7, x, y
    )
    ours = odd_phase(to_zernike(odd.values, odd=True), 0, 0, 300, 2.7, x, y)
    assert np.std((ours - theirs)[inside]) < 0.03 < 0.2 * np.std(theirs[inside])


def test_fourth_order(as_relion, golden):
    _, _, _, comparison, signal = as_relion
    row = read_particles(golden / "relion5" / "particles_trefoil_4thorder.star").optics.iloc[0]
    plane = comparison.planes[0]
    # RELION leaves out frequencies below 1/20 A in this fit, whatever the others do.
    sums = [
        EvenSums(*(np.where(plane.square > 1 / 400, v, 0) for v in (s.linear, s.quadratic)))
        for s in even_sums(comparison, signal)[0]
    ]
    fit = fit_phase(sums, even_terms(plane.x, plane.y), plane.square)
    inside = plane.compared & (plane.plane.shell < 55) & (plane.square > 1 / 400)
    theirs = even_phase(parse_vector(row["rlnEvenZernike"]), plane.x, plane.y)
    ours = even_phase(to_zernike(fit.coefficients, odd=False), plane.x, plane.y)
    # There is nothing to be found: both fitted the same noise.
    assert np.std((ours - theirs)[inside]) < 0.003
    assert np.corrcoef(ours[inside], theirs[inside])[0, 1] > 0.9


def test_defocus_after_the_beam_tilt(as_relion, golden):
    file, particles, _, comparison, signal = as_relion
    theirs = read_particles(golden / "relion5" / "particles_beamtilt_defocus.star").particles
    tilted = replace(particles.optics[0], beam_tilt=(0.758299, -0.46688))
    comparison.update(replace(particles, optics=(tilted,)))
    start = per_micrograph(scan_defocus(comparison, signal, mean_defocus(particles), 2000.0), np.arange(700))
    best = with_mean_defocus(particles.ctf, mean_defocus(particles) + start.change)
    comparison.update(replace(comparison.particles, ctf=best))
    # No prior: every particle for itself.
    fit = CtfFit(defocus="per-micrograph")
    everyone = np.arange(len(particles))
    table = fit_transfer(comparison, signal, fit, everyone, defocus_centre=None, defocus_spread=0.0).table
    comparison.update(particles)
    ours = table[:, DEFOCUS]
    order = {name: i for i, name in enumerate(theirs["rlnImageName"])}
    row = [order[name] for name in file.particles["rlnImageName"]]
    both = (theirs["rlnDefocusU"] + theirs["rlnDefocusV"]).to_numpy(float)[row] / 2
    difference = np.abs(ours - both)
    assert np.median(difference) < 1.5
    assert np.percentile(difference, 90) < 4


def test_astigmatism_per_micrograph(as_relion, golden):
    file, _, micrograph, comparison, signal = as_relion
    theirs = read_particles(golden / "relion5" / "particles_micrograph_defocus_astigmatism.star").particles
    fit = CtfFit(defocus="per-micrograph", astigmatism="per-micrograph")
    table = fit_transfer(comparison, signal, fit, micrograph, defocus_centre=None, defocus_spread=0.0).table
    order = {name: i for i, name in enumerate(theirs["rlnImageName"])}
    row = [order[name] for name in file.particles["rlnImageName"]]
    u, v, a = (theirs[f"rlnDefocus{c}"].to_numpy(float)[row] for c in ("U", "V", "Angle"))
    vector = (u - v) / 2 * np.exp(2j * np.deg2rad(a))
    assert np.abs(table[:, DEFOCUS] - (u + v) / 2).max() < 2
    ours = table[:, ASTIGMATISM_COS] + 1j * table[:, ASTIGMATISM_SIN]
    assert np.abs(ours - vector).max() < 2 < 0.05 * np.abs(vector).max()
