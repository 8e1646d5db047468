"""Fourier transforms along some axes, by the routines inside scipy.fft without what SciPy wraps them in.

Importing scipy.fft loads special functions and array interfaces, and each of its calls asks which
kind of array it has got: together a third of the time of a short job that transforms planes one by
one. The routines (PocketFFT, M. Reinecke) are a module of their own inside SciPy, which is loaded
here from its file; where it is not found there, the functions of scipy.fft do the same.

Forward transforms divide by the number of elements, backward ones do not. Arrays on a GPU are
transformed there.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.array_module import is_on_gpu

_NAME = "pypocketfft"
_DIVIDED, _AS_IT_IS = 2, 0
_loading = threading.Lock()


def real_forward(values: NDArray[Any], axes: tuple[int, ...], threads: int = 1) -> NDArray[Any]:
    """Transform real values; the last of the axes comes out half as long, plus one."""
    return _routines_for(values).r2c(_floating(values), axes, True, _DIVIDED, None, threads)


def forward(
    values: NDArray[Any], axes: tuple[int, ...], threads: int = 1, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Transform complex values, into ``out`` if that is given; it may be the values themselves."""
    return _routines_for(values).c2c(values, axes, True, _DIVIDED, out, threads)


def backward(
    values: NDArray[Any], axes: tuple[int, ...], threads: int = 1, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Undo :func:`forward`."""
    return _routines_for(values).c2c(values, axes, False, _AS_IT_IS, out, threads)


def real_backward(values: NDArray[Any], axes: tuple[int, ...], size: int, threads: int = 1) -> NDArray[Any]:
    """Undo :func:`real_forward`; ``size`` is the length of the last axis, which the values do not tell."""
    return _routines_for(values).c2r(values, axes, size, False, _AS_IT_IS, None, threads)


def _floating(values: NDArray[Any]) -> NDArray[Any]:
    """Return real values in single or double precision, in the processor's order of bytes."""
    kind = np.result_type(values.dtype, np.float32)
    return values.astype(kind if kind.itemsize <= 8 else np.float64, copy=False)


def _routines_for(values: Any) -> Any:
    return _OnGpu() if is_on_gpu(values) else _routines()


def _routines() -> Any:
    # Of threads that transform for the first time at once, all but one would find half a module.
    with _loading:
        return _load()


@lru_cache(maxsize=1)
def _load() -> Any:
    package = find_spec("scipy")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        for suffix in EXTENSION_SUFFIXES:
            file = Path(folder) / "fft" / "_pocketfft" / (_NAME + suffix)
            spec = spec_from_file_location(_NAME, file)
            if file.is_file() and spec is not None and spec.loader is not None:
                module = module_from_spec(spec)
                try:
                    spec.loader.exec_module(module)
                except ImportError:  # it leans on libraries that SciPy has to load first
                    break
                return module
    return _Public()


class _Public:
    """The functions of scipy.fft, called as the routines are."""

    def functions(self, threads: int) -> tuple[Any, dict[str, int]]:
        """Return the module, and what its functions are told of threads."""
        import scipy.fft

        return scipy.fft, {"workers": threads or -1}

    def r2c(self, values: Any, axes: Any, _forward: bool, _norm: int, _out: None, threads: int) -> Any:
        fft, workers = self.functions(threads)
        return fft.rfftn(values, axes=axes, norm="forward", **workers)

    def c2r(
        self, values: Any, axes: Any, size: int, _forward: bool, _norm: int, _out: None, threads: int
    ) -> Any:
        fft, workers = self.functions(threads)
        shape = [values.shape[axis] for axis in axes[:-1]] + [size]
        return fft.irfftn(values, s=shape, axes=axes, norm="forward", **workers)

    def c2c(self, values: Any, axes: Any, forward: bool, _norm: int, out: Any, threads: int) -> Any:
        fft, workers = self.functions(threads)
        function = fft.fftn if forward else fft.ifftn
        result = function(values, axes=axes, norm="forward", **workers)
        if out is None:
            return result
        out[...] = result
        return out


class _OnGpu(_Public):
    """The same functions of CuPy, for arrays of its own."""

    def functions(self, threads: int) -> tuple[Any, dict[str, int]]:
        """Return the module; a GPU has no threads to be told of."""
        import cupyx.scipy.fft

        return cupyx.scipy.fft, {}

    def c2r(
        self, values: Any, axes: Any, size: int, _forward: bool, _norm: int, _out: None, threads: int
    ) -> Any:
        # Components of a moved image at the Nyquist frequency are no mates any more. Along one axis cuFFT
        # leaves out the imaginary parts that should not be there, as PocketFFT does; what it makes of them
        # along several axes at once is undefined.
        fft, _ = self.functions(threads)
        if len(axes) > 1:
            values = fft.ifftn(values, axes=axes[:-1], norm="forward")
        own = len(axes) > 1
        return fft.irfft(values, size, axis=axes[-1], norm="forward", overwrite_x=own)
