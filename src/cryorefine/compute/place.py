"""Where whole maps are worked on: a GPU as long as its memory suffices, else the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

from cryorefine.compute.array_module import gpus, is_on_gpu, to_host

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
_PIECE = 2**26  # bytes of a map that are brought to a GPU at a time


@contextmanager
def shortage() -> Iterator[None]:
    """Let whatever library says that a GPU's memory is too small say so by a MemoryError."""
    try:
        yield
    except RuntimeError as error:  # of cuFFT, cuBLAS, and CUDA itself
        words = ("ALLOC_FAILED", "MemoryAllocation", "OUT_OF_MEMORY")
        if any(word in str(error) for word in words):
            raise MemoryError(str(error)) from None
        raise


def wait_for_gpu() -> None:
    """Wait until the current GPU has done what this thread has given it to do."""
    import cupy

    cupy.cuda.get_current_stream().synchronize()


class Place:
    """The first of a device's GPUs, or the processor.

    Attributes
    ----------
    notices : list of str
        What a person should know about where the work was done, each one sentence.

    Parameters
    ----------
    device : str
        "cpu", "auto", "gpu" or "gpu:0"; of several GPUs the first.

    Raises
    ------
    UserError
        If a GPU is asked for that cannot be used.
    """

    def __init__(self, device: str = "cpu") -> None:
        numbers = gpus(device)
        self._number = numbers[0] if numbers else None
        self.notices: list[str] = []

    @property
    def on_gpu(self) -> bool:
        """Whether what comes next is tried on a GPU."""
        return self._number is not None

    def put(self, values: Any) -> Any:
        """Return an array, or what has a method ``moved``, where the work is done."""
        if hasattr(values, "moved"):
            return values.moved(self.put)
        if self._number is None:
            return to_host(values)
        import cupy

        # A map that was left in its file may have another order of bytes, which CuPy refuses.
        if values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("="))
        with self.current():
            if is_on_gpu(values) or values.nbytes <= 2 * _PIECE or values.ndim < 2:
                return cupy.asarray(values)
            # On its way a map is copied to memory that the system must not move, of which there is little.
            result = cupy.empty(values.shape, values.dtype)
            planes = max(1, _PIECE // values[0].nbytes)
            for first in range(0, len(values), planes):
                result[first : first + planes] = cupy.asarray(values[first : first + planes])
            return result

    def current(self) -> AbstractContextManager[Any]:
        """Return a context in which CuPy works on the GPU; one without effect for the processor."""
        if self._number is None:
            return nullcontext()
        import cupy

        device: AbstractContextManager[Any] = cupy.cuda.Device(self._number)
        return device

    def do(self, function: Callable[P, ResultT], *arguments: P.args, **keywords: P.kwargs) -> ResultT:
        """Call a function with its maps brought here; where a GPU's memory is too small, on the processor.

        Parameters
        ----------
        function : callable
            Works where its arguments are. It may be called twice.
        *arguments
            Arrays of more than one axis, and what has a method ``moved``, are brought here.
        **keywords
            Are left where they are.
        """
        try:
            return self.here(function, *arguments, **keywords)
        except MemoryError:
            if not self.on_gpu:
                raise
        # Only here is what the failed attempt held let go.
        self.leave()
        return self.here(function, *arguments, **keywords)

    def holds(self, size: int) -> bool:
        """Tell whether so many bytes are free on the GPU."""
        from cryorefine.compute.gpu_turns import free_bytes

        with self.current():
            return free_bytes() >= size

    def leave(self) -> None:
        """Work on the processor from now on, since the GPU's memory is too small."""
        from cryorefine.compute.gpu_turns import free_memory

        with self.current():
            free_memory()
        self._number = None
        self.notices.append(
            "The GPU's memory is too small for maps of this size, so that the processor works on them."
        )

    def here(self, function: Callable[..., ResultT], *arguments: Any, **keywords: Any) -> ResultT:
        """Call a function as :meth:`do` does, but raise a MemoryError where the GPU's memory is too small."""
        with self.current(), shortage():
            return function(
                *(self.put(a) if _is_map(a) or hasattr(a, "moved") else a for a in arguments), **keywords
            )


def _is_map(value: Any) -> bool:
    return getattr(value, "ndim", 0) > 1
