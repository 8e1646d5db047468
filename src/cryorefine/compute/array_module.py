"""Where arrays live: NumPy on the processor, or CuPy on a GPU."""

from __future__ import annotations

from typing import Any

from cryorefine.errors import UserError


def array_module(device: str) -> Any:
    """Return NumPy or CuPy for a device name, with the GPU selected.

    Parameters
    ----------
    device : str
        "cpu", "auto" (a GPU if there is one) or "gpu:N".

    Raises
    ------
    UserError
        If a GPU is asked for and there is none.
    """
    import numpy

    if device == "cpu":
        return numpy
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # no CuPy, no driver, no device: CuPy has an exception of its own for each
        if device == "auto":
            return numpy
        raise UserError(
            f"--device {device} needs an NVIDIA GPU and CuPy (pip install 'napari-cryorefine[cuda12]'), and "
            f"none could be used ({type(error).__name__}); use --device cpu."
        ) from error
    number = 0 if device == "auto" else int(device.removeprefix("gpu:"))
    if number >= count:
        raise UserError(f"--device {device} does not exist; this machine has gpu:0 to gpu:{count - 1}.")
    cupy.cuda.Device(number).use()
    return cupy


def to_host(array: Any) -> Any:
    """Return a NumPy array, copied from the GPU if it lives there."""
    return array.get() if hasattr(array, "get") else array
