"""A quicker start and end of the command line.

A job of a second is mostly start-up. Pandas loads pyarrow wherever it is installed, and Numba all of
scipy.linalg, to find out whether compiled code could multiply matrices, which ours does not. Together that
is a tenth to a fifth of a second. Python's search for garbage takes half a second more: it goes through a
million objects of loaded modules again and again, of which none is garbage before the process ends.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_ASKER = "numba.np.linalg"


def load_less() -> None:
    """Keep pyarrow from pandas and scipy.linalg from Numba, in a process that runs one of our jobs.

    Not for a process that others share: they may need both. Whoever else imports scipy.linalg gets it.
    """
    if "pandas" not in sys.modules:
        sys.modules.setdefault("pyarrow", None)  # type: ignore[arg-type]  # what "not installed" looks like
    if not any(isinstance(finder, _NotForNumba) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NotForNumba())


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


class _NotForNumba:
    """Finds no scipy.linalg where Numba asks for it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "scipy.linalg":
            frame = sys._getframe(1)
            while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            if frame.f_globals.get("__name__") == _ASKER:
                raise ModuleNotFoundError(f"{name} is not loaded for {_ASKER}", name=name)
        return None
