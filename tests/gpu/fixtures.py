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
    gpu_turns.turns.cache_clear()
    source._module.cache_clear()
    source._kernel.cache_clear()


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """Arrays and kernels: CuPy's stand-in, and CuPy on a GPU where there is one."""
    if request.param == "host":
        return request.getfixturevalue("stand_in")
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU can be used: {error}")
    return module
