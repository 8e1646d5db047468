"""Names of devices, and what is said when one cannot be used."""

import sys
import types

import pytest

from cryorefine.compute.array_module import array_module, gpus, is_device
from cryorefine.errors import UserError


def machine(monkeypatch, count=None, error=None):
    """Let CuPy find so many GPUs, or fail to look."""

    def get_device_count():
        if error is not None:
            raise error
        return count

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.ModuleType("cupy.cuda")
    cupy.cuda.runtime = types.SimpleNamespace(getDeviceCount=get_device_count)
    cupy.cuda.nvrtc = types.SimpleNamespace(getVersion=lambda: (12, 9))
    cupy.cuda.cublas = cupy.cuda.cufft = None
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


@pytest.mark.parametrize("name", ["cpu", "auto", "gpu", "gpu:0", "gpu:0,1,12"])
def test_names_of_devices(name):
    assert is_device(name)


@pytest.mark.parametrize("name", ["", "cuda", "gpu:", "gpu:0,", "gpu0", "GPU", "gpu:a"])
def test_no_names_of_devices(name):
    assert not is_device(name)


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu", []), ("auto", [0, 1, 2]), ("gpu", [0, 1, 2]), ("gpu:2,0,2", [0, 2])]
)
def test_gpus_that_a_name_stands_for(monkeypatch, name, expected):
    cupy = machine(monkeypatch, 3)
    assert gpus(name) == expected
    assert (array_module(name) is cupy) == bool(expected)


@pytest.mark.parametrize(
    ("count", "error", "reason"),
    [
        (0, None, "has no NVIDIA GPU"),
        (None, RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"), "has no NVIDIA GPU"),
        (None, RuntimeError("cudaErrorInsufficientDriver: too old"), "install a newer driver"),
        (None, RuntimeError("something else"), "something else"),
    ],
)
def test_no_gpu_is_said_in_one_sentence_with_a_remedy(monkeypatch, count, error, reason):
    machine(monkeypatch, count, error)
    assert gpus("auto") == []
    for name in ("gpu", "gpu:1"):
        with pytest.raises(UserError, match=rf"--device {name} .*{reason}.*--device cpu\.$"):
            gpus(name)


def test_cupy_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpus("auto") == []
    with pytest.raises(UserError, match=r"pip install 'napari-cryorefine\[cuda12\]'"):
        gpus("gpu")


def test_cupy_without_the_libraries_of_cuda(monkeypatch):
    def missing(name):
        raise ImportError(f"Failure finding lib{name}.so.11")

    cuda = machine(monkeypatch, 1).cuda
    del cuda.cufft
    cuda.__getattr__ = missing
    assert gpus("auto") == []
    with pytest.raises(UserError, match=r"libcufft\.so\.11.*pip install 'napari-cryorefine\[cuda12\]'"):
        gpus("gpu")


def test_a_gpu_that_the_machine_lacks(monkeypatch):
    machine(monkeypatch, 2)
    with pytest.raises(UserError, match="names GPU 2, but this machine has gpu:0 to gpu:1"):
        gpus("gpu:0,2")
