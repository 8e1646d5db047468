"""Memory that arrays give back."""

import subprocess
import sys

import pytest

LOOP = """
import resource
from cryorefine.compute.memory import keep_freed_memory, return_freed_memory
kept = keep_freed_memory() if {keep} else True
if {give_back}:
    return_freed_memory()
import numpy as np
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has mallopt")
def test_arrays_take_the_place_of_those_before_them():
    faults = {}
    for keep, give_back in ((True, False), (False, False), (True, True)):
        words = [sys.executable, "-c", LOOP.format(keep=keep, give_back=give_back)]
        told, number = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        assert told == "True"
        faults[keep, give_back] = int(number)
    assert faults[True, False] < faults[False, False] / 10
    assert faults[True, True] > faults[False, False] / 2
