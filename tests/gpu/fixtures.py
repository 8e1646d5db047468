"""The GPU code's fixtures: CuPy where there is a GPU, its stand-in on the processor otherwise."""

import sys

import pytest
from tests.gpu import fake_cupy

from cryorefine.compute import gpu_turns
from cryorefine.refine.gpu import source


@pytest.fixture
def stand_in(monkeypatch):
    """CuPy's stand-in under CuPy's name, one GPU of 1 GB."""
    modules = fake_cupy.as_module()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    forget()
    yield modules["cupy"]
    forget()
    fake_cupy.ndarray.largest = 2**62


@pytest.fixture
def two_gpus(stand_in):
    """The stand-in with two GPUs."""
    stand_in.cuda.runtime.getDeviceCount = lambda: 2
    return stand_in


def forget():
    """Compiled kernels and streams belong to the CuPy that made them."""
    gpu_turns._turns.cache_clear()
    source._module.cache_clear()
    source._kernel.cache_clear()


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """Arrays and kernels: CuPy's stand-in, and CuPy on a GPU where there is one."""
    return request.getfixturevalue("stand_in") if request.param == "host" else real_cupy()


@pytest.fixture(params=["enough memory", "too little", pytest.param("gpu", marks=pytest.mark.gpu)])
def too_little(request):
    """A GPU: the stand-in with enough memory, with too little, and a real one; whether it is too little."""
    if request.param == "gpu":
        real_cupy()
    else:
        request.getfixturevalue("stand_in").largest = 2**10 if request.param == "too little" else 2**30
    return request.param == "too little"


def real_cupy():
    """Return CuPy, or skip the test where no GPU can be used."""
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU can be used: {error}")
    return module
