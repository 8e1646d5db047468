"""Whole refinements of simulated particles against the truth."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from tests.refine.ctf_refinement.conftest import mean_defocus, refine, simulate

from cryorefine.ctf.aberrations import even_phase
from cryorefine.ctf.ctf import ctf
from cryorefine.errors import UserError
from cryorefine.refine.ctf_refinement import CtfFit, Finding, MicrographValues
from cryorefine.refine.ctf_refinement.optics_fit import magnified
from cryorefine.refine.ctf_refinement.polynomials import from_zernike, to_zernike


def test_beam_tilt_is_found_in_one_job_within_its_uncertainty(tilted, tilted_refined):
    result, _ = tilted_refined
    group = result.optics[0]
    error = group.beam_tilt - np.array(tilted.truth.optics[0].beam_tilt)
    assert result.reference == "rebuilt"
    assert np.all(group.sigma_beam_tilt < 0.15)
    assert np.all(np.abs(error) < 3 * group.sigma_beam_tilt)


def test_defocus_of_particles_is_found_as_well_as_is_claimed(tilted, tilted_refined):
    result, _ = tilted_refined
    error = mean_defocus(result.particles) - mean_defocus(tilted.truth)
    before = mean_defocus(tilted.particles) - mean_defocus(tilted.truth)
    assert error.std() < 0.4 * before.std()
    assert np.sqrt(np.mean((error / result.particles.sigma_defocus) ** 2)) == pytest.approx(1, abs=0.25)


def test_a_range_that_is_too_narrow_is_told(tilted, tilted_refined):
    def at_the_end(result):
        return [f for f in result.findings if "an end of the range" in f.message and not f.supported]

    assert not at_the_end(tilted_refined[0])
    fit = CtfFit(beam_tilt=True, defocus="per-particle", defocus_range=150.0, symmetry="D2", rounds=2)
    (finding,) = at_the_end(refine(tilted, fit)[0])
    assert 0 < int(finding.message.split()[0]) < 120


def test_every_particle_is_reported_with_its_micrograph(tilted, tilted_refined):
    result, events = tilted_refined
    parts = [e for e in events if isinstance(e, MicrographValues)][-10:]
    assert sorted(np.concatenate([e.particles for e in parts])) == list(range(len(tilted.particles)))
    for part in parts:
        assert set(tilted.micrograph[part.particles]) == {part.micrograph}
        np.testing.assert_array_equal(part.values.defocus_u, result.particles.defocus_u[part.particles])


def test_threads_do_not_change_the_result(tilted):
    fit = CtfFit(beam_tilt=True, defocus="per-particle", symmetry="D2", rounds=1)
    one, three = refine(tilted, fit, threads=1)[0], refine(tilted, fit, threads=3)[0]
    np.testing.assert_array_equal(one.optics[0].beam_tilt, three.optics[0].beam_tilt)
    for field in fields(one.particles):
        first, second = getattr(one.particles, field.name), getattr(three.particles, field.name)
        np.testing.assert_array_equal(first, second)


def test_values_that_are_right_are_left_alone(tilted):
    optics = tilted.truth.optics
    right = replace(tilted, particles=replace(tilted.truth, half=tilted.particles.half))
    result, _ = refine(
        right, CtfFit(beam_tilt=True, trefoil=True, fourth_order=True, symmetry="D2", rounds=1)
    )
    group = result.optics[0]
    np.testing.assert_array_equal(group.beam_tilt, optics[0].beam_tilt)
    assert group.even_aberrations.size == 0
    alone = {f.subject for f in result.findings if not f.supported}
    assert {"beam tilt", "fourth-order aberrations"} <= alone
    np.testing.assert_array_equal(mean_defocus(result.particles), mean_defocus(tilted.truth))


def test_trefoil_and_fourth_order_are_found(tmp_path):
    odd = to_zernike(np.array([0, 0, 0, 0, 40.0, -25.0]), odd=True)
    even = to_zernike(np.array([0, 0, 0, 0, 250.0, 150.0, -90.0, 80.0, 60.0]), odd=False)
    case = simulate(
        tmp_path, beam_tilt=(0.5, 0.8), odd_aberrations=tuple(odd), even_aberrations=tuple(even), count=320
    )
    fit = CtfFit(beam_tilt=True, trefoil=True, fourth_order=True, symmetry="D2")
    group = refine(case, fit)[0].optics[0]
    terms = from_zernike(group.odd_aberrations, odd=True)[4:]
    assert np.hypot(*(terms - (40, -25))) < 12
    assert np.all(np.abs(group.beam_tilt - (0.5, 0.8)) < 4 * group.sigma_beam_tilt)
    # Plain coefficients overlap; what counts is the phase where there is signal.
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-0.2, 0.2, 21), np.linspace(-0.2, 0.2, 21)))
    inside = (np.hypot(x, y) < 0.2) & (np.hypot(x, y) > 1 / 30)
    missed = even_phase(group.even_aberrations, x, y) - even_phase(even, x, y)
    assert np.sqrt(np.mean(missed[inside] ** 2)) < 0.3 * np.std(even_phase(even, x, y)[inside])


def test_magnification_and_its_defocus_are_found(tmp_path):
    matrix = np.array([[1.006, 0.004], [0.004, 0.994]])
    case = simulate(tmp_path, magnification=tuple(matrix.ravel()))
    # Without the matrix, an observer sees the same images with another astigmatism.
    seen = magnified(case.truth.ctf, np.linalg.inv(matrix))
    case = replace(case, particles=replace(case.particles, ctf=seen))
    result, _ = refine(case, CtfFit(magnification=True, symmetry="D2"))
    group = result.optics[0]
    error = group.magnification - matrix.ravel()
    assert np.all(np.abs(error) < 4 * group.sigma_magnification)
    assert np.all(np.abs(error) < 0.003)
    found, true = result.particles, case.truth.ctf
    difference = (found.defocus_u - found.defocus_v) - (true.defocus_u - true.defocus_v)
    before = (seen.defocus_u - seen.defocus_v) - (true.defocus_u - true.defocus_v)
    assert np.sqrt(np.mean(difference**2)) < 0.5 * np.sqrt(np.mean(before**2))


def test_defocus_matrix_follows_the_magnification(tilted):
    change = np.array([[1.01, 0.004], [-0.003, 0.99]])
    before = tilted.truth.ctf.take(slice(0, 3))
    k = np.random.default_rng(1).uniform(-0.05, 0.05, (2, 50))
    moved = change @ k
    # Cs acts at the moved frequencies, so only what is quadratic can agree: switch it off.
    without = [replace(p, spherical_aberration=0.0) for p in (before, magnified(before, change))]
    np.testing.assert_allclose(ctf(without[0], *k), ctf(without[1], *moved), atol=1e-4)


def test_astigmatism_and_phase_shift_per_micrograph(tmp_path):
    case = simulate(tmp_path, spread=100.0)
    given = case.particles.ctf
    wrong = replace(given, defocus_u=given.defocus_u + 150, defocus_v=given.defocus_v - 150, phase_shift=12.0)
    case = replace(case, particles=replace(case.particles, ctf=wrong))
    fit = CtfFit(
        defocus="per-particle", astigmatism="per-micrograph", phase_shift="per-micrograph", symmetry="D2"
    )
    values = refine(case, fit)[0].particles
    vector = (values.defocus_u - values.defocus_v) * np.exp(2j * np.deg2rad(values.defocus_angle))
    true = case.truth.ctf
    truth = (true.defocus_u - true.defocus_v) * np.exp(2j * np.deg2rad(true.defocus_angle))
    error = np.abs(vector - truth)
    assert np.median(error) < 100  # 300 at first
    assert np.sqrt(np.mean(error**2) / 2) < 1.6 * np.median(values.sigma_astigmatism)
    assert np.sqrt(np.mean(values.phase_shift**2)) < 3 * np.median(values.sigma_phase_shift)
    for m in range(10):
        assert np.ptp(values.phase_shift[case.micrograph == m]) < 1e-9


def test_particles_that_are_not_told_apart_take_their_micrographs_values(tmp_path):
    case = simulate(tmp_path, error=80.0, snr=0.2)
    given = case.particles.ctf
    wrong = replace(given, phase_shift=12.0)
    case = replace(case, particles=replace(case.particles, ctf=wrong))
    fit = CtfFit(
        defocus="per-particle", astigmatism="per-particle", phase_shift="per-particle", symmetry="D2"
    )
    result, _ = refine(case, fit)
    values = result.particles
    moved = mean_defocus(values) - mean_defocus(case.particles)
    for m in range(10):
        members = case.micrograph == m
        assert np.ptp(moved[members]) < 1e-6
        assert np.ptp(values.phase_shift[members]) < 1e-9
    assert np.sqrt(np.mean(values.phase_shift**2)) < 3 * np.median(values.sigma_phase_shift)
    # There is nothing wrong with the astigmatism.
    difference, before = (v.defocus_u - v.defocus_v for v in (values, wrong))
    np.testing.assert_allclose(difference, before, atol=1e-6)
    untold = {finding.subject for finding in result.findings if not finding.supported}
    assert untold == {"defocus", "astigmatism", "phase shift"}


def test_envelopes_of_particles_are_relative_to_their_mean(tmp_path):
    case = simulate(tmp_path, gain=0.25)
    values = refine(case, CtfFit(b_factor="per-particle", symmetry="D2", rounds=2))[0].particles
    assert np.average(values.b_factor) == pytest.approx(0, abs=3)
    assert np.average(values.scale) == pytest.approx(1, abs=0.02)
    error = np.log(values.scale / case.truth.ctf.scale)
    assert error.std() < 0.5 * np.log(case.truth.ctf.scale).std()
    assert np.all(np.isfinite(values.sigma_b_factor))


def test_images_without_a_particle_are_found_out(tmp_path):
    case = simulate(tmp_path, empty=0.1, beam_tilt=(1.5, -1.0))
    result, _ = refine(case, CtfFit(beam_tilt=True, symmetry="D2"))
    assert np.median(result.particles.signal[case.empty]) < 0.3
    assert np.median(result.particles.signal[~case.empty]) == pytest.approx(1, abs=0.1)
    assert np.all(np.abs(result.optics[0].beam_tilt - (1.5, -1.0)) < 4 * result.optics[0].sigma_beam_tilt)
    assert any(f.subject == "images" for f in result.findings)


def test_maps_that_show_nothing_of_the_particles_do_not_decide(tilted, rng):
    noise = rng.normal(size=tilted.maps.mask.shape).astype(np.float32)
    case = replace(tilted, maps=replace(tilted.maps, half_maps=(noise, noise)))
    result, _ = refine(case, CtfFit(beam_tilt=True, symmetry="D2", rounds=2))
    group = result.optics[0]
    assert result.reference == "rebuilt"
    assert np.all(np.abs(group.beam_tilt - (1.5, -1.0)) < 4 * group.sigma_beam_tilt)


def test_much_better_supplied_maps_are_used_and_said_so(tilted):
    few = tilted.particles.take(np.arange(40))
    sharp = np.clip(2 - tilted.maps.fsc, 0.99, 1.0)
    case = replace(
        tilted, particles=few, micrograph=np.zeros(40, np.int64), maps=replace(tilted.maps, fsc=sharp)
    )
    result, events = refine(case, CtfFit(defocus="per-micrograph", symmetry="C1", rounds=1))
    assert result.reference == "supplied"
    assert any(isinstance(e, Finding) and e.subject == "reference" and e.warning for e in events)


def test_premultiplied_images_are_refused(tilted):
    optics = tuple(replace(o, ctf_premultiplied=True) for o in tilted.particles.optics)
    case = replace(tilted, particles=replace(tilted.particles, optics=optics))
    with pytest.raises(UserError, match="scope"):
        refine(case, CtfFit(defocus="per-particle"))
