"""A quicker start and end of the command line.

A job of a second is mostly start-up. Pandas loads pyarrow wherever it is installed, and Numba all of
scipy.linalg, to find out whether compiled code could multiply matrices, which ours does not, and a reader of
YAML for a file of settings. Together that is a tenth to a fifth of a second. Before the first kernel comes
from Numba's cache, Numba loads everything that it would need to compile one: another tenth. Python's search
for garbage takes half a second more: it goes through a million objects of loaded modules again and again, of
which none is garbage before the process ends.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_KEPT_FROM = {"scipy": "numba", "scipy.linalg": "numba.np.linalg", "yaml": "numba.core.config"}
"""Modules that one module of Numba's asks for without need."""
_CACHE = "numba.core.caching"


def load_less() -> None:
    """Keep from pandas and Numba what our jobs do not use, in a process that runs one of them.

    Not for a process that others share: they may need it all. Whoever else imports scipy.linalg gets it.
    """
    if "pandas" not in sys.modules:
        sys.modules.setdefault("pyarrow", None)  # type: ignore[arg-type]  # what "not installed" looks like
    if not any(isinstance(finder, _LessForNumba) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LessForNumba())


def search_garbage_rarely() -> None:
    """Let fifty thousand new objects come together before Python looks for garbage among them.

    Only objects that refer to each other wait for that; all others go at once, as ever.
    """
    gc.set_threshold(50_000)


def end_at_once() -> None:
    """Leave all objects to the system, which takes back the memory of a process that ends as one piece.

    To be called last: no garbage among them is ever found.
    """
    gc.freeze()


class _LessForNumba:
    """Finds nothing where Numba asks for what it will not use, and a quicker way to its cache."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _CACHE:
            found = PathFinder.find_spec(name, path, target)
            if found is not None and found.loader is not None:
                found.loader = _QuickCache(found.loader)  # type: ignore[assignment]
            return found
        if name in _KEPT_FROM:
            frame = sys._getframe(1)
            while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            if frame.f_globals.get("__name__") == _KEPT_FROM[name]:
                raise ModuleNotFoundError(f"{name} is not loaded for {_KEPT_FROM[name]}", name=name)
        return None


class _QuickCache:
    """Loads Numba's cache, and lets it give out kernels before all that compiles them is loaded.

    A kernel needs the few functions that count references to arrays, and nothing else. Where none is found,
    the compiler loads the rest, as it does in any case.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        cache = getattr(module, "Cache", None)
        whole = getattr(cache, "load_overload", None)
        if whole is None or not hasattr(cache, "_load_overload"):
            return  # another Numba, which goes its own way

        def load_overload(self: Any, signature: Any, context: Any) -> Any:
            from numba.core.runtime.nrt import rtsys

            rtsys.initialize(context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(signature, context)

        cache.load_overload = load_overload  # type: ignore[union-attr]
