"""A stand-in for CuPy: its arrays are NumPy's, but as strict as CuPy's, and its kernels run on the processor.

CuPy refuses to mix its arrays with NumPy's, and to turn one into the other unasked: so does this, so that
code which forgets where an array lives fails here as it would on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from cryorefine.refine.gpu import source

HERE = Path(__file__).parent


class Here(threading.local):
    """The number of the GPU that a thread works on."""

    number = 0


WORKS = Here()


class ndarray(np.ndarray):
    """An array "on the GPU"."""

    __cuda_array_interface__ = None
    largest = 2**62

    def __array_finalize__(self, source):
        # A view lives where its source does, anything new on the GPU that the thread works on.
        self.number = getattr(source, "number", WORKS.number)

    @property
    def device(self):
        return Device(self.number)

    def copy(self):
        return _device(np.array(self.view(np.ndarray)))

    def get(self):
        return np.array(self.view(np.ndarray))

    def astype(self, dtype, copy=True):
        refuse([self])
        return _device(self.view(np.ndarray).astype(_known(dtype), copy=copy))

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        every = [*inputs, *(out or ())]
        refuse(every)
        plain = [_plain(each) for each in inputs]
        if out is not None:
            keywords["out"] = tuple(_plain(each) for each in out)
        if ufunc.__name__ not in CUPY_UFUNCS:
            raise TypeError(f"{ufunc.__name__} is not among what CuPy is known to do")
        result = getattr(ufunc, method)(*plain, **keywords)
        return out[0] if out is not None else _device(result)

    def __array_function__(self, function, kinds, arguments, keywords):
        if function.__name__ not in CUPY_FUNCTIONS + METHODS:
            raise TypeError(f"{function.__name__} is not among what CuPy is known to do")
        refuse([*arguments, *keywords.values()])
        return _device(function(*_plain(list(arguments)), **{k: _plain(v) for k, v in keywords.items()}))

    def __array__(self, *arguments, **keywords):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __getitem__(self, key):
        _check_key(key)
        part = self.view(np.ndarray)[_plain(key)]
        if not isinstance(part, np.ndarray) or part.base is None:
            refuse([self])  # picking runs a kernel, a view needs none
            return _device(part)
        result = _device(part)
        result.number = self.number
        return result

    def __setitem__(self, key, value):
        _check_key(key)
        refuse([self, value])
        self.view(np.ndarray)[_plain(key)] = _plain(value)


# Of NumPy's arrays, what those of CuPy 13 or 14 have not.
NOT_IN_CUPY = "byteswap ctypes mT getfield resize setfield setflags to_device".split()


def _lack(name):
    def missing(self):
        raise AttributeError(f"CuPy's arrays have no {name}")

    return property(missing)


for _name in NOT_IN_CUPY:
    setattr(ndarray, _name, _lack(_name))
ndarray.__contains__ = ndarray.__index__ = None


def _check_key(key):
    keys = key if isinstance(key, tuple) else (key,)
    refuse(keys)
    assert not any(isinstance(each, list) for each in keys)


def refuse(values):
    """Raise where an array of NumPy, or of another GPU, is among values that are computed with on the GPU."""
    for value in values:
        if isinstance(value, (list, tuple)):
            refuse(value)
        elif isinstance(value, ndarray):
            if value.number != WORKS.number:
                raise ValueError(f"an array of GPU {value.number} where GPU {WORKS.number} works")
        elif isinstance(value, np.ndarray) and not isinstance(value, ndarray):
            raise TypeError(f"Unsupported type {type(value)}: a NumPy array among CuPy's")


def _plain(value):
    if isinstance(value, ndarray):
        return value.view(np.ndarray)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(each) for each in value)
    return value


def _device(value):
    if isinstance(value, (list, tuple)):
        return type(value)(_device(each) for each in value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    # CuPy's sums over everything are arrays without dimensions.
    array = np.asarray(value)
    _known(array.dtype)
    if array.base is None and array.nbytes > ndarray.largest:
        raise OutOfMemoryError
    return array.view(ndarray)


def _known(dtype):
    """CuPy's arrays are of plain numbers, in the processor's order of bytes."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8) or not dtype.isnative:
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def asarray(values, dtype=None):
    if isinstance(values, (list, tuple)):
        refuse(values)
    if isinstance(values, ndarray) and values.number != WORKS.number:
        values = values.copy()
    if isinstance(values, ndarray) and dtype in (None, values.dtype):
        return values
    copy = None if isinstance(values, ndarray) else True
    return _device(np.array(_plain(values), dtype=dtype, copy=copy))


def asnumpy(values):
    return values.get() if isinstance(values, ndarray) else np.asarray(values)


def _proxy(name, cupy):
    function = getattr(np, name)

    def call(*arguments, **keywords):
        refuse([a for a in arguments if not isinstance(a, (list, tuple))])
        if name == "bincount":
            # Where NumPy takes lists, and counts what is wider than an index.
            assert arguments[0].ndim == 1
            assert arguments[0].dtype.kind in "iu"
        refuse(keywords.values())
        return _device(function(*_plain(list(arguments)), **{k: _plain(v) for k, v in keywords.items()}))

    return call


class OutOfMemoryError(MemoryError):
    """As of CuPy."""


class Device(contextlib.AbstractContextManager):
    def __init__(self, number=None):
        self.id = WORKS.number if number is None else number
        self._before = []

    def __enter__(self):
        self._before.append(WORKS.number)
        WORKS.number = self.id
        return self

    def __exit__(self, *problem):
        WORKS.number = self._before.pop()

    def synchronize(self):
        return None


class Stream(contextlib.AbstractContextManager):
    def __init__(self, non_blocking=False):
        self.non_blocking = non_blocking

    def __exit__(self, *problem):
        return None

    def synchronize(self):
        return None


class MemoryPool:
    def free_bytes(self):
        return 0

    def free_all_blocks(self):
        return None


class PlanCache:
    """Of transforms, which have no plans here."""

    def set_size(self, size):
        return None

    def get_curr_memsize(self):
        return 0

    def clear(self):
        return None


CURRENT = Stream()
PLANS = PlanCache()


class RawModule:
    """Kernels compiled by g++."""

    library: ctypes.CDLL | None = None

    def __init__(self, code, options=()):
        assert "__global__" in code
        self.options = options
        if RawModule.library is None:
            RawModule.library = compile_kernels()

    def get_function(self, name):
        run = getattr(self.library, f"run_{name}")
        sizes = (ctypes.c_int * 64)()
        count = getattr(self.library, f"sizes_{name}")(sizes)
        expected = list(sizes[:count])

        def kernel(grid, block, arguments):
            assert len(grid) == len(block) == 1
            assert 0 < grid[0] < 2**31
            values, pointers = [], []
            for argument in arguments:
                if isinstance(argument, ndarray):
                    refuse([argument])
                    assert argument.flags.c_contiguous, "a kernel was given an array with gaps"
                    values.append(ctypes.c_void_p(argument.view(np.ndarray).ctypes.data))
                    pointers.append(8)
                else:
                    assert isinstance(argument, np.generic), (
                        f"{type(argument)} has no size that a kernel knows"
                    )
                    values.append(np.ctypeslib.as_ctypes(np.array(argument)))
                    pointers.append(argument.itemsize)
            assert pointers == expected, f"{name} takes {expected}, not {pointers}"
            list_of = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            run(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), list_of)

        return kernel


def compile_kernels() -> ctypes.CDLL:
    """Compile the CUDA sources for the processor, with g++."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed, which compiles the CUDA sources for the processor")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "source.inc").write_text(source.source(source.KERNELS))
        names = [f"KERNEL({name})\n" for name in source.kernel_names()]
        (folder / "names.inc").write_text("".join(names))
        library = folder / "kernels.so"
        command = [
            "g++",
            "-std=c++17",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            f"-I{folder}",
        ]
        subprocess.run([*command, str(HERE / "host.cpp"), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


class Cupy(types.ModuleType):
    """The module, with a largest array that the GPU's memory holds, in bytes."""

    largest = property(lambda self: ndarray.largest, lambda self, number: setattr(ndarray, "largest", number))


def as_module(gpus: int = 1, memory: int = 2**30) -> dict[str, types.ModuleType]:
    """Return modules to stand for cupy and parts of cupyx.scipy in ``sys.modules``."""
    import scipy.fft
    import scipy.ndimage

    cupy = Cupy("cupy")
    for name in CUPY_FUNCTIONS:
        setattr(cupy, name, _proxy(name, cupy))
    cupy.largest = memory
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: gpus,
        memGetInfo=lambda: (memory, memory),
        getDeviceProperties=lambda number: {"name": b"stand-in"},
        driverGetVersion=lambda: 13000,
    )
    cupy.__version__ = "0"
    pool = MemoryPool()
    here = sys.modules[__name__]
    cupy.cuda = types.SimpleNamespace(
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        get_current_stream=lambda: CURRENT,
        memory=here,
        cublas=None,
        cufft=None,
        nvrtc=types.SimpleNamespace(getVersion=lambda: (12, 9)),
    )
    cupy.ndarray, cupy.asarray, cupy.asnumpy, cupy.RawModule = ndarray, asarray, asnumpy, RawModule
    cupy.get_default_memory_pool = lambda: pool
    cupy.fft = types.SimpleNamespace(config=types.SimpleNamespace(get_plan_cache=lambda: PLANS))
    transforms = types.ModuleType("cupyx.scipy.fft")
    for name in CUPYX_TRANSFORMS:
        function = getattr(scipy.fft, name)
        setattr(transforms, name, _transform(function))
    images = types.ModuleType("cupyx.scipy.ndimage")
    images.label = _transform(scipy.ndimage.label)
    modules = {"cupy": cupy, "cupyx.scipy.fft": transforms, "cupyx.scipy.ndimage": images}
    for name in ("cupyx", "cupyx.scipy"):
        modules[name] = types.ModuleType(name)
    modules["cupyx"].scipy, modules["cupyx.scipy"].fft = modules["cupyx.scipy"], transforms
    return modules


def _transform(function):
    def call(values, *arguments, **keywords):
        assert isinstance(values, ndarray)
        refuse([values])
        assert "workers" not in keywords
        return _device(function(values.view(np.ndarray), *arguments, **keywords))

    return call


# What the code asks of CuPy and NumPy alike; all of it is in CuPy 13 and 14.
CUPY_FUNCTIONS = """
abs add arange array ascontiguousarray bincount clip concatenate cos cumsum empty empty_like exp flatnonzero
flip floor interp log maximum minimum multiply ones ones_like rint roll sin sinc sqrt square stack sum take
tensordot unique where zeros zeros_like
""".split()
METHODS = "any all max min mean".split()  # of arrays, which NumPy makes functions of
CUPY_UFUNCS = """
absolute add bitwise_and bitwise_or conjugate cos divide equal exp floor floor_divide greater greater_equal
invert less less_equal log logical_or matmul maximum minimum multiply negative power rint sin sqrt square
subtract
""".split()
CUPYX_TRANSFORMS = "fft fftn fftshift ifft ifftn ifftshift irfft irfftn rfft rfftn".split()
