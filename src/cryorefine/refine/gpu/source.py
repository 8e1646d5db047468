"""The CUDA sources as one text, which is compiled when it is first needed."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

WARP = "warp.cuh"
KERNELS = ("poses.cu", "posterior.cu", "images.cu", "volume.cu", "tilts.cu")
OPTIONS = ("-std=c++17",)
THREADS = 256
_compiling = threading.Lock()


def source(files: Sequence[str] = (WARP, *KERNELS)) -> str:
    """Text of some of this package's CUDA files, one after the other."""
    folder = resources.files(__package__)
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in files)


def kernel_names() -> list[str]:
    """Names of the kernels in the sources."""
    return re.findall(r"__global__ void (\w+)\(", source(KERNELS))


@cache
def _module() -> Any:
    import cupy

    # CuPy keeps what it has compiled in its cache on disk, for each kind of GPU.
    return cupy.RawModule(code=source(), options=OPTIONS)


@cache
def _kernel(name: str) -> Any:
    # Of threads that need it at once one compiles it.
    with _compiling:
        return _module().get_function(name)


def launch(name: str, threads: int, *arguments: Any) -> None:
    """Run a kernel on the current GPU.

    Parameters
    ----------
    name : str
        Of the kernel.
    threads : int
        How many are needed; the last block is filled up.
    *arguments
        Arrays on the GPU, and NumPy scalars of just the types that the kernel declares.
    """
    if threads > 0:
        _kernel(name)((-(-threads // THREADS),), (THREADS,), arguments)


def tiles(rows: int, pixels: int) -> int:
    """Threads for one a pixel where each row starts a block of threads of its own."""
    return rows * -(-pixels // THREADS) * THREADS


def i32(value: int) -> np.int32:
    """Return an int as the kernels take it."""
    return np.int32(value)
