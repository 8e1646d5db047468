"""The GPU code's fixtures: CuPy where there is a GPU, its stand-in on the processor otherwise."""

import shutil
import sys

import pytest
from tests.refine.gpu import fake_cupy

from cryorefine.refine.gpu import source


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed, which compiles the CUDA sources for the processor")
    fake_cupy.compile_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def stand_in(compiled, monkeypatch):
    """CuPy's stand-in under CuPy's name, one GPU of 1 GB."""
    modules = fake_cupy.as_module()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    forget()
    yield modules["cupy"]
    forget()


def forget():
    """Compiled kernels belong to the CuPy that compiled them."""
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
