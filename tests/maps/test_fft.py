"""Transforms are those of scipy.fft, without scipy.fft."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.fft

from cryorefine.maps import fft


@pytest.fixture(params=["inside", "public"], autouse=True)
def routines(request, monkeypatch):
    """The routines inside SciPy, and scipy.fft for a SciPy that keeps them elsewhere."""
    fft._load.cache_clear()
    if request.param == "public":
        monkeypatch.setattr(fft, "find_spec", lambda name: None)
    yield request.param
    fft._load.cache_clear()


@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", "f2", "i2"])
@pytest.mark.parametrize(("shape", "axes"), [((7, 6, 9), (0, 1, 2)), ((7, 6, 9), (1,)), ((8, 5), (0, 1))])
def test_real_values_there_and_back(rng, routines, kind, shape, axes):
    values = (100 * rng.standard_normal(shape)).astype(kind)
    spectrum = fft.real_forward(values, axes, threads=2)
    assert isinstance(fft._routines(), fft._Public) == (routines == "public")
    expected = scipy.fft.rfftn(values.astype("f8"), axes=axes, norm="forward")
    precision = np.complex128 if kind == "f8" else np.complex64
    assert spectrum.dtype == precision
    np.testing.assert_allclose(spectrum, expected, atol=1e-12 if kind == "f8" else 1e-4)
    back = fft.real_backward(spectrum, axes, shape[axes[-1]])
    np.testing.assert_allclose(back, values.astype("f8"), atol=1e-3)


def test_complex_values_in_place_and_elsewhere(rng):
    values = rng.standard_normal((6, 5)) + 1j * rng.standard_normal((6, 5))
    expected = scipy.fft.fft(values, axis=0, norm="forward")
    np.testing.assert_allclose(fft.forward(values, (0,)), expected, atol=1e-14)
    place = values.copy()
    assert fft.forward(place, (0,), out=place) is place
    np.testing.assert_allclose(place, expected, atol=1e-14)
    np.testing.assert_allclose(fft.backward(place, (0,)), values, atol=1e-14)


def test_scipy_itself_stays_unloaded(routines):
    if routines == "public":
        pytest.skip("scipy.fft itself")
    code = "import sys, numpy; from cryorefine.maps import fourier; fourier.forward(numpy.ones((4, 4)))"
    code += "; sys.exit('scipy.fft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_that_begin_at_once_wait_for_the_whole_module(routines, monkeypatch):
    if routines == "public":
        pytest.skip("scipy.fft itself")
    begun, make = [], fft.module_from_spec

    def slowly(spec):
        begun.append(spec)
        time.sleep(0.1)
        return make(spec)

    monkeypatch.setattr(fft, "module_from_spec", slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fft.real_forward(np.ones((4, 4)), (0, 1)), range(4)))
    assert len(begun) == 1
