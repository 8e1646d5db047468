"""The parts that a CTF refinement is made of, each against something slower and more obvious."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from tests.refine.ctf_refinement.conftest import mean_defocus, simulate

from cryorefine.compute.executor import LocalExecutor
from cryorefine.ctf.aberrations import even_phase, odd_phase
from cryorefine.geometry.symmetry import point_group
from cryorefine.refine.ctf_refinement.comparison import Comparison, with_mean_defocus
from cryorefine.refine.ctf_refinement.defocus import Scan, per_micrograph, per_particle, scan_defocus
from cryorefine.refine.ctf_refinement.division import divide
from cryorefine.refine.ctf_refinement.expectation import (
    last_shell,
    phases_moved,
    rebuilt_quality,
    scouting_shell,
)
from cryorefine.refine.ctf_refinement.frame import make_frame
from cryorefine.refine.ctf_refinement.optics_fit import absorb, threshold
from cryorefine.refine.ctf_refinement.optics_sums import odd_sums
from cryorefine.refine.ctf_refinement.padded import multiply_in_place, transform_padded
from cryorefine.refine.ctf_refinement.phase_fit import OddSums, fit_phase, shrunken_covariance
from cryorefine.refine.ctf_refinement.polynomials import (
    even_terms,
    from_zernike,
    odd_terms,
    orthogonal,
    to_zernike,
)
from cryorefine.refine.ctf_refinement.reference import turned_row
from cryorefine.refine.ctf_refinement.signal import Signal, power_spectra
from cryorefine.refine.ctf_refinement.sums import Sums, split_operators
from cryorefine.refine.ctf_refinement.transfer_fit import derivatives, table_of, with_table
from cryorefine.refine.simulation import random_rotations


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Few particles compared with rebuilt references, and plain weights."""
    case = simulate(tmp_path_factory.mktemp("small"), count=60, spread=200.0)
    chunks = divide(case.particles, case.micrograph, 0)
    with LocalExecutor(2) as executor:
        comparison = Comparison(
            case.particles,
            chunks,
            case.maps,
            make_frame(case.maps, 24, 1),
            executor,
            symmetry="D2",
            minimum_resolution=30.0,
            memory=2**28,
        )
        sigma2, noise = power_spectra(comparison)
        ones = np.ones(60)
        signal = Signal(sigma2, np.full_like(sigma2, 0.9), noise, ones, ones, ones)
        list(comparison.rebuild(1 / sigma2, ones, np.full(25, 2.0)))
        yield case, comparison, signal


def test_plain_terms_are_zernike_polynomials_in_other_words(rng):
    x, y = rng.uniform(-0.3, 0.3, (2, 50))
    odd, even = rng.normal(size=6), rng.normal(size=9)
    np.testing.assert_allclose(
        odd @ odd_terms(x, y), odd_phase(to_zernike(odd, odd=True), 0, 0, 300, 2.7, x, y), atol=1e-12
    )
    np.testing.assert_allclose(
        even @ even_terms(x, y), even_phase(to_zernike(even, odd=False), x, y), atol=1e-12
    )
    np.testing.assert_allclose(from_zernike(to_zernike(even, odd=False), odd=False), even, atol=1e-12)


def test_orthogonal_terms_span_the_same_polynomials(rng):
    x, y = rng.uniform(-0.2, 0.2, (2, 300))
    weight = rng.uniform(0, 5, 300)
    terms = even_terms(x, y)
    basis, matrix = orthogonal(terms, weight)
    np.testing.assert_allclose((basis * weight) @ basis.T, np.eye(9), atol=1e-6)
    coefficients = rng.normal(size=9)
    np.testing.assert_allclose((matrix @ coefficients) @ terms, coefficients @ basis, rtol=1e-6)


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (1.5, -0.5), (-2.5, 2.0)])
def test_a_tilt_is_found_though_its_phases_wrap(rng, tilt):
    u = rng.uniform(0.03, 0.35, 3000)
    angle = rng.uniform(0, np.pi, 3000)
    x, y = u * np.cos(angle), u * np.sin(angle)
    terms = odd_terms(x, y)[:4]
    truth = np.array([0.3, -0.2, -65.8 * tilt[0], -65.8 * tilt[1]])
    assert tilt == (0.0, 0.0) or np.abs(truth @ terms).max() > np.pi
    power = np.full(3000, 0.1)
    blocks = []
    for _ in range(20):
        noise = rng.normal(size=(2, 3000)) * np.sqrt(power)
        blocks.append(OddSums(power * np.exp(1j * truth @ terms) + noise[0] + 1j * noise[1], power))
    fit = fit_phase(blocks, terms, u**2, searched=(2, 3), reach=np.full(2, 65.8 * 3))
    error = (fit.coefficients - truth) / np.sqrt(np.diag(fit.covariance))
    assert np.abs(error).max() < 4
    assert 65.8 * 0.1 > np.sqrt(np.diag(fit.covariance))[2]


def test_defocus_scan_is_the_likelihood_at_every_defocus(small):
    case, comparison, signal = small
    origin = mean_defocus(case.particles)
    scan = scan_defocus(comparison, signal, origin, 1000.0)
    for step in (0, len(scan.change) // 3, len(scan.change) - 1):
        moved = with_mean_defocus(case.particles.ctf, origin + scan.change[step])
        direct = derivatives(comparison, signal, table_of(moved)).score
        again = scan.score[:, step]
        best = derivatives(
            comparison,
            signal,
            table_of(with_mean_defocus(case.particles.ctf, origin + scan.change[scan.score.argmax(axis=1)])),
        ).score
        np.testing.assert_allclose(again, direct - best, atol=0.02 * np.ptp(scan.score))


def test_derivatives_are_those_of_the_likelihood(small):
    case, comparison, signal = small
    table = table_of(case.particles.ctf)
    table[:, 4:] = 10.0, 0.9
    now = derivatives(comparison, signal, table)
    for column, step in enumerate((1e-2, 5.0, 5.0, 5.0, 1.0, 1e-2)):
        sides = []
        for sign in (1, -1):
            moved = table.copy()
            moved[:, column] += sign * step
            sides.append(derivatives(comparison, signal, moved).score)
        numerical = (sides[0] - sides[1]) / (2 * step)
        scale = np.abs(now.gradient[:, column]).max()
        np.testing.assert_allclose(numerical, now.gradient[:, column], atol=0.02 * scale)
    assert np.linalg.eigvalsh(now.information[:, :4, :4]).min() >= -1e-6 * now.information.max()


def test_a_table_of_parameters_gives_the_parameters_back(small):
    parameters = small[0].particles.ctf
    back = with_table(parameters, table_of(parameters))
    np.testing.assert_allclose(back.column("defocus_u"), parameters.column("defocus_u"))
    np.testing.assert_allclose(back.column("defocus_angle"), parameters.column("defocus_angle"))


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_no_particle_is_compared_with_its_own_noise(tmp_path, symmetry):
    """Images of noise correlate with their half map, which is made of them, but not less their own part."""
    case = simulate(tmp_path, count=80, empty=1.0)
    with LocalExecutor(2) as executor:
        comparison = Comparison(
            case.particles,
            divide(case.particles, case.micrograph, 0),
            case.maps,
            make_frame(case.maps, 24, 1),
            executor,
            symmetry=symmetry,
            minimum_resolution=30.0,
            memory=2**28,
        )
        sigma2, _ = power_spectra(comparison)
        list(comparison.rebuild(1 / sigma2, np.ones(80), np.full(25, 1.0)))

        def shares() -> np.ndarray:
            return np.concatenate(list(comparison.each(share)))

        def share(compared) -> np.ndarray:
            model = compared.slice * compared.transfer()
            cross = np.sum((model.conj() * compared.image).real, axis=1)
            power = np.sum(np.abs(model) ** 2, axis=1) * np.sum(np.abs(compared.image) ** 2, axis=1)
            return cross / np.sqrt(power)

        apart = shares()
        comparison._built = None
        comparison._slices.clear()
        together = shares()
    assert abs(apart.mean()) < 3 * apart.std() / np.sqrt(len(apart))
    assert together.mean() > 20 * abs(apart.mean())


def test_a_slice_less_its_own_part_is_that_of_the_other_particles(small):
    """What is taken away by arithmetic is what leaving the particle out takes away."""
    case, _, _ = small
    frame = make_frame(case.maps, 24, 1)
    weight = np.ones(60)
    out = np.flatnonzero(case.particles.half == 1)[:6]

    def predictions(weight) -> list[tuple[np.ndarray, np.ndarray]]:
        with LocalExecutor(1) as executor:
            comparison = Comparison(
                case.particles,
                divide(case.particles, case.micrograph, 0),
                case.maps,
                frame,
                executor,
                symmetry="C1",
                minimum_resolution=30.0,
                memory=2**28,
            )
            sigma2, _ = power_spectra(comparison)
            list(comparison.rebuild(1 / sigma2, weight, np.full(25, 2.0)))
            found = {}
            for c in comparison.each(lambda c: c):
                good = c.plane.compared & (c.plane.plane.shell < 22)
                for row, particle in enumerate(c.chunk.particles):
                    found[particle] = c.slice[row, good], (c.image * c.transfer())[row, good]
            return [found[i] for i in out]

    def correlation(one, other) -> float:
        return float(np.vdot(one, other).real / np.linalg.norm(one) / np.linalg.norm(other))

    nearly, differences, shares = predictions(weight), [], []
    for k, particle in enumerate(out):
        rest = weight.copy()
        rest[particle] = 1e-6
        exact, image = predictions(rest)[k]
        assert correlation(nearly[k][0], exact) > 0.85
        differences.append(correlation(nearly[k][0], image) - correlation(exact, image))
        shares.append(correlation(exact, image))
    assert abs(np.mean(differences)) < 0.1 * np.mean(shares)


def test_maps_in_larger_boxes_are_transformed_without_the_zeros(rng):
    density = rng.normal(size=(12, 12, 12)).astype(np.float32)
    whole = np.zeros((20, 20, 20), np.float32)
    whole[4:16, 4:16, 4:16] = density
    whole = np.fft.ifftshift(whole)
    spectrum = transform_padded(density, 20, 1)
    np.testing.assert_allclose(spectrum, np.fft.rfftn(whole) / 20**3, atol=1e-7)
    other = rng.normal(size=(20, 20, 20)).astype(np.float32)
    window = np.where(whole != 0, rng.uniform(1, 2, whole.shape), 0).astype(np.float32)
    product = np.fft.rfftn(other).astype(np.complex64)
    multiply_in_place(product, window, 6, 1)
    # Forward transforms divide by the number of voxels and backward ones do not: together, by nothing.
    np.testing.assert_allclose(product, np.fft.rfftn(other * window), atol=2e-3)


def test_blocks_hold_whole_micrographs_where_there_are_enough(small):
    case, _, _ = small
    micrograph = np.arange(60) % 30
    for many, parts in ((micrograph, 20), (case.micrograph, 20)):
        block, half = np.empty(60, int), np.empty(60, int)
        for chunk in divide(case.particles, many, 0):
            block[chunk.particles], half[chunk.particles] = chunk.block, chunk.half
        np.testing.assert_array_equal(half, case.particles.half - 1)
        assert len(set(block)) == parts
        assert np.bincount(block).max() <= 4
    for m in range(30):
        assert len(set(micrograph_blocks(case, micrograph)[micrograph == m])) == 1


def micrograph_blocks(case, micrograph) -> np.ndarray:
    block = np.empty(len(micrograph), int)
    for chunk in divide(case.particles, micrograph, 0):
        block[chunk.particles] = chunk.block
    return block


def gaussian_scan(value, sigma, change):
    return -0.5 * ((change - value[:, None]) / sigma[:, None]) ** 2


def test_weak_particles_end_near_their_micrograph_and_strong_ones_stay(rng):
    micrograph = np.arange(400) % 4
    truth = np.array([0.0, 300, -200, 100])[micrograph] + rng.normal(scale=60, size=400)
    sigma = np.where(np.arange(400) < 200, 20.0, 200.0)
    seen = truth + sigma * rng.normal(size=400)
    change = np.arange(-2000, 2001, 10.0)
    scan = Scan(change, gaussian_scan(seen, sigma, change).astype(np.float32))
    estimate = per_particle(scan, np.zeros(400), micrograph, np.ones(400))
    assert estimate.spread == pytest.approx(60, rel=0.15)
    np.testing.assert_allclose(estimate.centre, (0, 300, -200, 100), atol=25)
    error = estimate.change - truth
    assert error[:200].std() == pytest.approx(19, rel=0.15)  # 1/sqrt(1/20^2 + 1/60^2)
    assert error[200:].std() == pytest.approx(57.5, rel=0.15)
    assert np.sqrt(np.mean((error / estimate.sigma) ** 2)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("spread", "told"), [(0.0, False), (60.0, True)])
def test_particles_are_told_apart_only_where_they_differ(rng, spread, told):
    micrograph = np.arange(200) % 4
    origin = np.array([0.0, 300, -200, 100])[micrograph]
    seen = 40 + rng.normal(scale=spread, size=200) + 50 * rng.normal(size=200)
    change = np.arange(-2000, 2001, 10.0)
    scan = Scan(change, gaussian_scan(seen, np.full(200, 50.0), change).astype(np.float32))
    estimate = per_particle(scan, origin, micrograph, np.ones(200))
    assert (estimate.gain > threshold(1)) == told


def test_a_defocus_beyond_the_range_is_noticed_where_the_image_is_clear():
    change = np.arange(-1000, 1001, 10.0)
    seen, sigma = np.array([0.0, 950, 1200, -1200, 1200]), np.array([100.0, 100, 100, 100, 3000])
    scan = Scan(change, gaussian_scan(seen, sigma, change).astype(np.float32))
    estimate = per_particle(scan, np.zeros(5), np.arange(5), np.ones(5))
    np.testing.assert_array_equal(estimate.beyond, [False, False, True, True, False])
    whole = per_micrograph(scan, np.arange(5))
    np.testing.assert_array_equal(whole.beyond, estimate.beyond)


def test_chance_has_more_to_gain_from_more_values():
    from scipy.stats import chi2

    for count in (1, 2, 7, 100, 101, 5000):
        assert 2 * threshold(count) == pytest.approx(chi2.isf(1e-3, count), rel=2e-3)


def test_a_particle_far_from_the_others_is_not_pulled_to_them(rng):
    seen = np.r_[rng.normal(scale=30, size=60), 900.0]
    change = np.arange(-2000, 2001, 10.0)
    scan = Scan(change, gaussian_scan(seen, np.full(61, 25.0), change).astype(np.float32))
    estimate = per_particle(scan, np.zeros(61), np.zeros(61, int), np.ones(61))
    assert estimate.change[-1] == pytest.approx(900, abs=10)
    assert estimate.spread < 60


def test_a_micrograph_adds_up_what_its_particles_say(rng):
    seen = 120 + rng.normal(scale=100, size=50)
    change = np.arange(-1000, 1001, 10.0)
    scan = Scan(change, gaussian_scan(seen, np.full(50, 100.0), change).astype(np.float32))
    estimate = per_micrograph(scan, np.zeros(50, int))
    assert estimate.change[0] == pytest.approx(seen.mean(), abs=0.5)
    assert estimate.sigma[0] == pytest.approx(100 / np.sqrt(50), rel=0.02)


def test_defocus_like_aberrations_go_to_the_particles(small):
    case, _, _ = small
    x, y = np.random.default_rng(2).uniform(-0.2, 0.2, (2, 40))
    values = np.array([0.1, 20.0, 8.0, -5.0, 300.0, 0, 0, 0, 0])
    left, moved = absorb(values, case.particles.ctf, 300.0, [1, 2, 3])
    from cryorefine.ctf.ctf import phase

    before = phase(case.particles.ctf, x, y, values @ even_terms(x, y))
    np.testing.assert_allclose(phase(moved, x, y, left @ even_terms(x, y)), before, atol=1e-6)
    np.testing.assert_allclose(left[:5], (0.1, 0, 0, 0, 300))


def test_phases_move_with_defocus_and_tilt(small):
    """100 A of defocus are pi lambda u^2 times as much, and a tilt's phases are u^3 times a cosine."""
    particles = small[0].particles
    moved = with_mean_defocus(particles.ctf, mean_defocus(particles) + 100.0)
    defocus = np.pi * 0.019688 / 4.0**2 * 100
    assert phases_moved(particles, replace(particles, ctf=moved), 4.0) == pytest.approx(defocus, rel=1e-3)
    optics = replace(particles.optics[0], beam_tilt=(0.5, 0.0))
    tilt = 2 * np.pi * 2.7e7 * 0.019688**2 * 0.5e-3 / 4.0**3
    tilted = replace(particles, optics=(optics,))
    assert phases_moved(particles, tilted, 4.0) == pytest.approx(tilt / np.sqrt(2), rel=1e-3)


def test_quality_of_rebuilt_maps():
    fsc = 1 / (1 + np.exp((np.arange(60) - 30) / 4))
    assert rebuilt_quality(fsc, fsc) == pytest.approx(1)
    assert rebuilt_quality(fsc / 2, fsc) == pytest.approx(0.5)


@pytest.mark.parametrize("symmetry", ["C1", "C2", "D2", "C3", "D4", "T", "O", "I"])
def test_cosets_and_turns_make_the_whole_group(symmetry):
    group = point_group(symmetry)
    inserted, turns = split_operators(group.operators)
    products = (inserted[:, None] @ turns[None]).reshape(-1, 3, 3)
    assert len(products) == len(group)
    for operator in group.operators:
        assert np.abs(products - operator).max(axis=(1, 2)).min() < 1e-6


def test_turning_the_grid_is_inserting_every_slice_in_all_its_places(small, rng):
    _, comparison, _ = small
    frame, plane = comparison.frame, comparison.planes[0].plane
    data = (rng.normal(size=(3, plane.pixels)) + 1j * rng.normal(size=(3, plane.pixels))).astype(np.complex64)
    weight = rng.uniform(1, 2, (3, plane.pixels)).astype(np.float32)
    poses = random_rotations(3, rng)
    operators, seen = point_group("D4").operators, 0.0
    slow, quick = Sums.empty(frame), Sums.empty(frame)
    inserted, turns = split_operators(operators)
    for operator in operators:
        slow.insert(poses @ operator, plane, frame.padding, data, weight)
    for operator in inserted:
        quick.insert(poses @ operator, plane, frame.padding, data, weight)
    assert len(inserted) < len(operators)
    limit = frame.limit
    one, other = (np.zeros((limit + 1, 3), np.float32) for _ in range(2))
    for each in (slow, quick):
        each.complete()
    for z, y in product(range(-limit, limit + 1, 3), range(-limit, limit + 1, 4)):
        last = int(np.sqrt(max(limit**2 - z**2 - y**2, 0)))
        for sums, some, row in ((slow, turns[:1], one[:last]), (quick, turns, other[:last])):
            turned_row(sums.parts.reshape(-1), sums.parts.shape[:3], some, z, y, row)
        np.testing.assert_allclose(one[:last], other[:last], atol=1e-3)
        seen = max(seen, float(np.abs(one[:last]).max(initial=0.0)))
    assert seen > 1


def test_what_does_not_fit_in_memory_is_made_again_the_same(small):
    case, comparison, signal = small
    poor = Comparison(
        case.particles,
        comparison.chunks,
        case.maps,
        comparison.frame,
        comparison.executor,
        symmetry="D2",
        minimum_resolution=30.0,
        memory=0,
    )
    sigma2, _ = power_spectra(poor)
    list(poor.rebuild(1 / sigma2, np.ones(60), np.full(25, 2.0)))
    # References are those of the values at the time of rebuilding, whatever has been fitted since.
    tilted = replace(case.particles.optics[0], beam_tilt=(1.0, 0.0))
    poor.update(replace(case.particles, optics=(tilted,)))
    comparison.update(replace(case.particles, optics=(tilted,)))
    try:
        for one, other in zip(odd_sums(poor, signal)[0], odd_sums(comparison, signal)[0], strict=True):
            np.testing.assert_allclose(one.cross, other.cross, rtol=1e-6, atol=1e-9)
    finally:
        comparison.update(case.particles)


def test_a_first_look_goes_as_far_as_images_tell_of_their_defocus():
    shells = np.arange(81)
    fsc = 1 / (1 + np.exp((shells - 40) / 3.0))
    assert 35 <= scouting_shell(fsc) < last_shell(fsc)
    sharp = np.where(shells <= 40, 0.9, 0.0)
    told = shells[: 40 + 1] ** 6.0
    assert told[: scouting_shell(sharp) + 1].sum() >= 0.95 * told.sum() > told[: scouting_shell(sharp)].sum()


def test_a_comparison_up_to_a_shell_is_that_of_fewer_pixels(small):
    _, comparison, _ = small
    whole, inner = comparison.up_to(24), comparison.up_to(16)
    for each in (whole, inner):
        each.use_supplied(other=True)
    few, many = (next(c.each(lambda compared: compared)) for c in (inner, whole))
    inside = many.plane.plane.shell <= 16
    np.testing.assert_array_equal(few.image, many.image[:, inside])
    # Its grid is coarser, so slices agree as well as interpolation lets them.
    assert inner.frame.box < whole.frame.box
    slices = [array.ravel().view(np.float32) for array in (few.slice, many.slice[:, inside])]
    assert np.corrcoef(*slices)[0, 1] > 0.99


def test_few_samples_draw_a_covariance_towards_a_plain_one(rng):
    """The error of variances from 20 blocks becomes smaller; many samples, or one clear direction, decide."""
    truth = np.diag([1.0, 1.0, 1.2, 0.8])
    root = np.sqrt(truth)
    samples = rng.normal(size=(200, 20, 4)) @ root
    samples -= samples.mean(axis=1, keepdims=True)
    plain = np.array([s.T @ s / 20 for s in samples])
    drawn = np.array([shrunken_covariance(s) for s in samples])
    np.testing.assert_allclose(np.trace(drawn, axis1=1, axis2=2), np.trace(plain, axis1=1, axis2=2))
    assert np.mean((drawn - truth) ** 2) < 0.6 * np.mean((plain - truth) ** 2)
    clear = rng.normal(size=(2000, 4)) * [10.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(np.diag(shrunken_covariance(clear)), [100, 1, 1, 1], rtol=0.25)
