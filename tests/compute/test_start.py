"""What jobs do not use is not loaded when they start, and a process of its own searches for no garbage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


KERNELS = """
import sys
from cryorefine.compute.start import load_less

load_less()
sys.path.insert(0, {folder!r})
import numpy as np
from kernels import doubled, tripled
print(doubled(np.arange(3.0)).sum(), "numba.np.npyimpl" in sys.modules)
print(tripled(np.arange(3.0)).sum())
"""
DOUBLED = """
import numpy as np
from numba import njit

@njit(cache=True)
def doubled(values):
    result = np.empty(len(values))  # what counts references to arrays is needed
    for i in range(len(values)):
        result[i] = 2 * values[i]
    return result

@njit
def tripled(values):
    return np.multiply(values, 3)
"""


def test_a_kernel_from_the_cache_needs_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(DOUBLED)
    words = [sys.executable, "-c", KERNELS.format(folder=str(tmp_path))]
    first, second = (
        subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)
    )
    assert first == ["6.0", "True", "9.0"]
    assert second == ["6.0", "False", "9.0"]


COUNTED = """
import gc, sys
sys.argv = ["cryorefine", {words}]
from cryorefine.cli import main

runs = []
gc.callbacks.append(lambda phase, info: runs.append(phase))
code = main({given})
print(code, len(runs), gc.get_freeze_count() > 0)
"""


def run_counted(given: str, folder: str) -> list[str]:
    script = COUNTED.format(words=f"'project', {folder!r}", given=given)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_a_process_of_its_own_searches_for_no_garbage(tmp_path: Path) -> None:
    assert run_counted("", str(tmp_path)) == ["0", "0", "True"]


def test_a_process_that_others_share_is_left_as_it_is(tmp_path: Path) -> None:
    code, runs, frozen = run_counted(f"['project', {str(tmp_path)!r}]", str(tmp_path))
    assert (code, frozen) == ("0", "False")
    assert int(runs) > 0
