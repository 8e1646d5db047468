"""Where arrays live: NumPy on the processor, or CuPy on a GPU."""

from __future__ import annotations

import os
import re
from typing import Any

from cryorefine.errors import UserError

INSTALL = "pip install 'napari-cryorefine[cuda12]', or [cuda13] for CUDA 13"


def is_device(name: str) -> bool:
    """Tell whether a text is the name of a device: cpu, auto, gpu or gpu:0,1."""
    return re.fullmatch(r"cpu|auto|gpu(:\d+(,\d+)*)?", name) is not None


def gpus(device: str) -> list[int]:
    """Return the numbers of the GPUs that a device's name stands for; none for the processor.

    Parameters
    ----------
    device : str
        "cpu", "auto" (all GPUs, or the processor if there is none), "gpu" (all of them) or "gpu:0,1".

    Raises
    ------
    UserError
        If GPUs are asked for that cannot be used; it says what to do.
    """
    if device == "cpu":
        return []
    # The numbers that nvidia-smi gives; without this the fastest GPU would be number 0.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # Lets matrix products give the same bits while several threads multiply; read when CuPy is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        import cupy

        count = int(cupy.cuda.runtime.getDeviceCount())
        if count:
            _load_libraries(cupy.cuda)
        reason = "" if count else "this machine has no NVIDIA GPU"
    except ImportError as error:
        count, reason = 0, f"CuPy cannot be loaded ({error}): {INSTALL}"
    except Exception as error:  # CuPy's own, for no driver, an old driver, no device
        count, reason = 0, _in_words(str(error))
    if device == "auto":
        return list(range(count))
    if reason:
        raise UserError(f"--device {device} cannot be used, since {reason}; or take --device cpu.")
    _, _, listed = device.partition(":")
    numbers = [int(number) for number in listed.split(",")] if listed else list(range(count))
    for number in numbers:
        if number >= count:
            have = "only gpu:0" if count == 1 else f"gpu:0 to gpu:{count - 1}"
            raise UserError(f"--device {device} names GPU {number}, but this machine has {have}.")
    return sorted(set(numbers))


def _load_libraries(cuda: Any) -> None:
    """Load CUDA's libraries, which are packages of their own and otherwise missed in the middle of a job.

    Raises
    ------
    ImportError
        If one is not there.
    """
    for name in ("cublas", "cufft"):
        getattr(cuda, name)
    cuda.nvrtc.getVersion()


def _in_words(error: str) -> str:
    """Say what CuPy's error means."""
    if "InsufficientDriver" in error:
        return "there is no NVIDIA driver, or one that is older than CuPy needs: install a newer driver"
    if "NoDevice" in error:
        return "this machine has no NVIDIA GPU"
    return f"CuPy fails to use a GPU ({error.splitlines()[0] if error else 'no reason given'})"


def array_module(device: str) -> Any:
    """Return NumPy or CuPy, whichever makes arrays for a device.

    Raises
    ------
    UserError
        As :func:`gpus`.
    """
    if gpus(device):
        import cupy

        return cupy
    import numpy

    return numpy


def is_on_gpu(array: Any) -> bool:
    """Tell whether an array lives on a GPU."""
    return hasattr(type(array), "__cuda_array_interface__")


def module_of(array: Any) -> Any:
    """Return NumPy or CuPy, whichever an array belongs to."""
    if is_on_gpu(array):
        import cupy

        return cupy
    import numpy

    return numpy


def to_host(array: Any) -> Any:
    """Return a NumPy array, copied from the GPU if it lives there."""
    return array.get() if is_on_gpu(array) else array
