"""Every job is found by its name, describes itself and costs nothing until it runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from cryorefine.errors import UserError
from cryorefine.jobs.registry import JOBS, load

HEAVY = [
    "numpy",
    "numba",
    "pandas",
    "scipy",
    "starfile",
    "mrcfile",
    "matplotlib",
    "dask",
    "cupy",
    "qtpy",
    "napari",
]


@pytest.mark.parametrize("name", JOBS)
def test_each_job_has_what_forms_and_commands_are_made_from(name: str) -> None:
    module = load(name)

    assert module.JOB.name == name
    assert dataclasses.is_dataclass(module.Options)
    assert dataclasses.is_dataclass(module.Result)
    assert module.Options.__dataclass_params__.frozen
    assert callable(module.run)
    assert module.JOB.summary
    assert not module.JOB.summary.endswith(".")


def test_an_unknown_job_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="no job 'refine2d'; the jobs are refine3d, mask-create"):
        load("refine2d")


def test_describing_all_jobs_loads_nothing_that_computes() -> None:
    script = (
        "import sys, json; import cryorefine.cli; from cryorefine.jobs.registry import JOBS, load; "
        "[load(name) for name in JOBS]; print(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    )

    assert [name for name in HEAVY if name in loaded] == []
