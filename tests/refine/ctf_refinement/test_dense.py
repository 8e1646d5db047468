"""What a GPU computes is what the compiled kernels compute.

Without a GPU, arrays that are as strict as CuPy's stand for it.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from tests.gpu import fake_cupy
from tests.gpu.fixtures import real_cupy
from tests.refine.ctf_refinement.conftest import mean_defocus, simulate

from cryorefine.compute import gpu_turns
from cryorefine.compute.executor import LocalExecutor
from cryorefine.errors import UserWarningMessage
from cryorefine.refine.ctf_refinement.comparison import Comparison
from cryorefine.refine.ctf_refinement.defocus import scan_defocus
from cryorefine.refine.ctf_refinement.division import divide
from cryorefine.refine.ctf_refinement.frame import make_frame
from cryorefine.refine.ctf_refinement.optics_sums import displacement_sums, even_sums, odd_sums
from cryorefine.refine.ctf_refinement.settings import CtfFit
from cryorefine.refine.ctf_refinement.signal import Signal, measure, power_spectra
from cryorefine.refine.ctf_refinement.transfer_fit import derivatives, fit_transfer, table_of


@pytest.fixture(scope="module", params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def gpu(request):
    """CuPy: its stand-in, and the real one where there is a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "host":
            for name, module in fake_cupy.as_module().items():
                patch.setitem(sys.modules, name, module)
        else:
            real_cupy()
        gpu_turns._turns.cache_clear()
        yield "gpu"
        gpu_turns._turns.cache_clear()


@pytest.fixture(scope="module")
def both(gpu, tmp_path_factory):
    """The same comparison on the processor and on a GPU, with weights."""
    case = simulate(tmp_path_factory.mktemp("dense"), count=40, spread=200.0, beam_tilt=(1.0, 0.5))
    even = tuple(np.array([0.0, 0, 0, 0, 0, 0, 150.0, -80.0, 60.0]))
    optics = replace(case.truth.optics[0], even_aberrations=even)
    scaled = replace(case.particles.ctf, b_factor=20.0, scale=0.9)
    particles = replace(case.particles, optics=(optics,), ctf=scaled)
    chunks, frame = divide(particles, case.micrograph, 0), make_frame(case.maps, 24, 1)
    with LocalExecutor(2) as executor:
        comparisons = [
            Comparison(
                particles,
                chunks,
                case.maps,
                frame,
                executor,
                symmetry="D2",
                minimum_resolution=30.0,
                memory=2**28,
                device=device,
            )
            for device in ("cpu", gpu)
        ]
        sigma2, noise = power_spectra(comparisons[0])
        ones = np.ones(40)
        signal = Signal(sigma2, np.full_like(sigma2, 0.9), noise, ones, ones, ones)
        for comparison in comparisons:
            list(comparison.rebuild(1 / sigma2, ones, np.full(25, 2.0)))
        assert [comparison._gpus is None for comparison in comparisons] == [True, False]
        yield *comparisons, signal


def close(one, other) -> None:
    one, other = np.asarray(one), np.asarray(other)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_references(both):
    processor, gpu, _ = both
    for one, other in zip(processor.references(), gpu.references(), strict=True):
        close(one.volume, other.volume)
        close(one.gain, other.gain)
        assert (one.gain > 0).mean() > 0.1


def test_transforms_of_images(both):
    processor, gpu, _ = both
    for chunk in processor.chunks:
        close(processor.spectra(chunk), gpu.spectra(chunk))


def test_what_does_not_fit_is_done_on_the_processor(both, monkeypatch):
    processor, gpu, signal = both
    if "cupy" in sys.modules and not isinstance(sys.modules["cupy"], fake_cupy.Cupy):
        pytest.skip("only the stand-in's memory can be made small")
    monkeypatch.setattr(fake_cupy.ndarray, "largest", 2000)
    with pytest.warns(UserWarningMessage, match="memory is too small"):
        found = odd_sums(gpu, signal)[0]
    for one, other in zip(odd_sums(processor, signal)[0], found, strict=True):
        close(one.cross, other.cross)


def test_slices_less_their_own_part(both):
    processor, gpu, _ = both
    gpu._slices.clear()  # an earlier test may have kept the processor's
    for one, other in zip(processor.each(lambda c: c.slice), gpu.each(lambda c: c.slice), strict=True):
        close(one, other)


def test_spectra_of_signal_and_noise(both):
    processor, gpu, signal = both
    one, other = (measure(comparison, signal) for comparison in (processor, gpu))
    for name in ("sigma2", "slope", "noise", "found", "presence"):
        close(getattr(one, name), getattr(other, name))


def test_sums_for_aberrations(both):
    processor, gpu, signal = both
    for one, other in zip(odd_sums(processor, signal)[0], odd_sums(gpu, signal)[0], strict=True):
        close(one.cross, other.cross)
        close(one.power, other.power)
    for one, other in zip(even_sums(processor, signal)[0], even_sums(gpu, signal)[0], strict=True):
        close(one.linear, other.linear)
        close(one.quadratic, other.quadratic)


def test_scan_of_the_defocus(both):
    processor, gpu, signal = both
    origin = mean_defocus(processor.particles)
    one, other = (scan_defocus(comparison, signal, origin, 1000.0) for comparison in (processor, gpu))
    close(one.score, other.score)
    assert np.ptp(one.score) > 10


def test_displacements_of_pixels(both):
    processor, gpu, signal = both
    one, other = (displacement_sums(comparison, signal)[0] for comparison in (processor, gpu))
    for here, there in zip(one, other, strict=True):
        for k in range(8):
            close(here[k], there[k])
    assert all(np.ptp(sums) > 0 for sums in np.sum(one, axis=0))


def test_derivatives_by_all_parameters(both):
    processor, gpu, signal = both
    table = table_of(processor.particles.ctf) + np.array([0.1, 50.0, 20.0, -30.0, 10.0, 0.1])
    one, other = (derivatives(comparison, signal, table) for comparison in (processor, gpu))
    close(one.score, other.score)
    for k in range(6):
        close(one.gradient[:, k], other.gradient[:, k])
        assert np.ptp(one.gradient[:, k]) > 0
        for j in range(6):
            close(one.information[:, k, j], other.information[:, k, j])


def test_a_joint_fit(both):
    processor, gpu, signal = both
    micrograph = np.arange(40) % 10
    fit = CtfFit(phase_shift="per-micrograph", defocus="per-particle", b_factor="per-micrograph")
    one, other = (
        fit_transfer(
            comparison,
            signal,
            fit,
            micrograph,
            defocus_centre=mean_defocus(processor.particles)[:10],
            defocus_spread=200.0,
        )
        for comparison in (processor, gpu)
    )
    np.testing.assert_allclose(other.table, one.table, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(other.sigma, one.sigma, rtol=1e-2)
    assert np.abs(one.table - table_of(processor.particles.ctf)).max() > 1
