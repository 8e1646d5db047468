"""What jobs do not use is not loaded when they start, and is there for whoever asks for it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from cryorefine.compute.start import load_less

load_less()
import numba.np.arraymath
import pandas
print("scipy.linalg" in sys.modules, bool(sys.modules.get("pyarrow")))
import scipy.linalg
print(scipy.linalg.norm([3.0, 4.0]), pandas.Series(["a"], dtype="str")[0])
"""


def test_the_command_line_loads_neither_pyarrow_nor_linear_algebra() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "5.0", "a"]
