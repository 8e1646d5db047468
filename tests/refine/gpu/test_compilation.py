"""Every kernel compiles for the GPUs of today, by NVIDIA's compiler, which needs no GPU."""

import pytest

from cryorefine.refine.gpu import source

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason="cuda-bindings and nvidia-cuda-nvrtc-cu12 are not installed"
)


def compiled(text: str, architecture: int) -> tuple[str, bytes]:
    """Return what the compiler says, and the binary."""
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernels.cu", 0, [], [])
    options = [*source.OPTIONS, f"--gpu-architecture=sm_{architecture}"]
    nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    # It writes into what it is given. That must be a bytes object of its own: those of length 1 are Python's.
    log = b" " * (size + 1)
    nvrtc.nvrtcGetProgramLog(program, log)
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    binary = b" " * (size + 1)
    nvrtc.nvrtcGetCUBIN(program, binary)
    return log[:size].decode().strip("\0 \n"), binary


@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_kernels_compile_without_a_warning(architecture):
    log, binary = compiled(source.source(), architecture)
    assert log == ""
    for name in source.kernel_names():
        assert f".text.{name}".encode() in binary
