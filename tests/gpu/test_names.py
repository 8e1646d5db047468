"""What the code asks of CuPy is there: in the stand-in, and in CuPy itself where that is installed.

CuPy can be imported, and its names and arguments looked at, on a machine without a GPU.
"""

from __future__ import annotations

import ast
import inspect
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from tests.gpu import fake_cupy

import cryorefine

ROOT = Path(cryorefine.__file__).parent
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = {"xp", "_xp", "cupy"}  # what the array module is called, as a name or as an attribute


def chain(node: ast.expr) -> list[str]:
    """Return the names of an expression like ``a.b.c``; none where it is something else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [*names, node.id][::-1] if isinstance(node, ast.Name) else []


def asked(node: ast.expr) -> str:
    """Return what an expression asks of the array module: ``float32`` for ``operations.xp.float32``."""
    names = chain(node)
    last = max((i for i, name in enumerate(names) if name in MODULES), default=len(names))
    return ".".join(names[last + 1 :])


def uses() -> dict[str, list[ast.Call]]:
    """Return all that is asked of the array module anywhere, with the calls of it."""
    found: dict[str, list[ast.Call]] = {}
    for path in [*sorted(ROOT.rglob("*.py")), *sorted(BENCHMARKS.glob("gpu*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner and asked(node):
                found.setdefault(asked(node), [])
            if isinstance(node, ast.Call) and asked(node.func):
                found.setdefault(asked(node.func), []).append(node)
    return found


def resolve(module, path: str):
    return reduce(getattr, path.split("."), module)


def test_the_stand_in_has_all_that_is_asked_of_cupy():
    module = fake_cupy.as_module()["cupy"]
    names = uses()
    assert {"asarray", "cuda.Device", "where", "get_default_memory_pool"} <= set(names)
    missing = []
    for name in names:
        try:
            resolve(module, name)
        except AttributeError:
            missing.append(name)
    assert missing == []


def test_cupy_has_all_that_is_asked_of_it():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    for name, calls in uses().items():
        function = resolve(cupy, name)
        if isinstance(function, cupy.ufunc):
            allowed = {"out", "dtype", "casting"}
        elif inspect.isfunction(function):
            allowed = set(inspect.signature(function).parameters)
        else:
            continue  # of those that are compiled nobody knows the arguments
        for call in calls:
            assert {word.arg for word in call.keywords} <= allowed, name
    for name in fake_cupy.CUPY_FUNCTIONS + fake_cupy.METHODS + fake_cupy.CUPY_UFUNCS:
        assert hasattr(cupy, name)


def test_cupy_transforms_and_labels_as_scipy_does():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    import cupyx.scipy.fft
    import cupyx.scipy.ndimage

    assert hasattr(cupyx.scipy.ndimage, "label")
    for name in fake_cupy.CUPYX_TRANSFORMS:
        parameters = set(inspect.signature(getattr(cupyx.scipy.fft, name)).parameters)
        assert parameters >= ({"axes"} if "shift" in name else {"norm", "overwrite_x"})


def test_arrays_of_cupy_lack_no_more_than_those_of_the_stand_in():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    lacking = {name for name in set(dir(np.ndarray)) - set(dir(cupy.ndarray)) if name[:2] != "__"}
    assert lacking <= set(fake_cupy.NOT_IN_CUPY)


def test_what_arrays_of_cupy_lack_the_stand_in_lacks(stand_in):
    array = stand_in.asarray(np.arange(3.0))
    for name in fake_cupy.NOT_IN_CUPY:
        with pytest.raises(AttributeError, match=f"CuPy's arrays have no {name}"):
            getattr(array, name)
    with pytest.raises(TypeError):
        2.0 in array  # noqa: B015
    with pytest.raises(TypeError):
        list(range(3))[stand_in.asarray(np.int64(1))]
