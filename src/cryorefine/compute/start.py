"""A quicker start of the command line: packages that others look for, and that no job uses, stay away.

A job of a second is mostly start-up. Pandas loads pyarrow wherever it is installed, and Numba all of
scipy.linalg, to find out whether compiled code could multiply matrices, which ours does not. Together that
is a tenth to a fifth of a second.
"""

from __future__ import annotations

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
