"""A job as text that runs it again: a line for a shell, a few lines of Python."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

from cryorefine.jobs.base import Job, describe
from cryorefine.jobs.command import command


def as_command(job: Job, options: Any) -> str:
    """Return the line that runs a job from a shell, with the options that differ from their defaults."""
    return shlex.join(command(job, options))


def as_python(module: ModuleType, options: Any) -> str:
    """Return the lines of Python that run a job, with the options that differ from their defaults.

    Parameters
    ----------
    module : module
        The job's module, with ``Options`` and ``run``.
    options : Options
        Of that module.

    Returns
    -------
    str
        A script of its own; it leaves the job's Result in ``result``.
    """
    name = module.__name__.rpartition(".")[2]
    values = {}
    for option, (field, _) in describe(type(options)).items():
        value = getattr(options, option)
        if field.default is dataclasses.MISSING or value != field.default:
            values[option] = f"Path({str(value)!r})" if isinstance(value, Path) else repr(value)
    lines = ["from pathlib import Path", ""] if any(v.startswith("Path(") for v in values.values()) else []
    lines += [f"from cryorefine.jobs import finish, {name}", "", f"options = {name}.Options("]
    lines += [f"    {option}={value}," for option, value in values.items()]
    lines += [")", f"result = finish({name}.run(options))", "print(result)", ""]
    return "\n".join(lines)
