"""Jobs that go on after they were stopped, with the options that they began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

from cryorefine.errors import UserError
from cryorefine.jobs.base import Job

OptionsT = TypeVar("OptionsT")

CONTINUE_FILE = "continue_job.star"
"""The options with which a job went on the last time."""
_ABOUT_GOING_ON = ("output", "continue_from", "continue_iteration")
_EITHER = (("scheduler", "cluster"),)
"""Options of which one, given anew, takes the place of the other."""


def continued_options(job: Job, options: OptionsT, may_change: Collection[str]) -> OptionsT:
    """Return the options of a job that goes on, with what may be changed on the way.

    What was changed when the job went on before stays changed.

    Parameters
    ----------
    job : Job
        The kind of job.
    options : dataclass instance
        What was asked for; ``continue_from`` is the folder of the job that was stopped.
    may_change : collection of str
        Options that may differ from those that the job began with.

    Raises
    ------
    UserError
        If the folder holds no such job, or another option differs from what the job began with.
    """
    from cryorefine.jobs.relion_job import read_job

    asked: Any = options
    path = asked.continue_from / "job.star"
    if not path.exists():
        raise UserError(
            f"{asked.continue_from} holds no {job.title} job that can go on (job.star is missing); start a "
            "new one."
        )
    saved: Any = read_job(path).options
    if not isinstance(saved, asked.__class__):
        raise UserError(f"{path} is no {job.title} job's file; give the folder of a {job.title} job.")
    changes = {name: getattr(asked, name) for name in _ABOUT_GOING_ON if hasattr(asked, name)}
    changed_before = asked.continue_from / CONTINUE_FILE
    if changed_before.exists():
        earlier = read_job(changed_before).options
        given = {f.name: getattr(earlier, f.name) for f in dataclasses.fields(asked) if f.name in may_change}
        defaults = {f.name: f.default for f in dataclasses.fields(asked)}
        saved = _with(saved, {k: v for k, v in given.items() if v != defaults[k]})
    for field in dataclasses.fields(asked):
        value = getattr(asked, field.name)
        if field.name in changes or value == field.default:
            continue
        if field.name not in may_change and value != getattr(saved, field.name):
            flag = field.name.replace("_", "-")
            raise UserError(
                f"--{flag} {value} differs from {getattr(saved, field.name)} in {path}; a job that is "
                "continued keeps it: leave the option out or start a new job."
            )
        changes[field.name] = value
    result: OptionsT = _with(saved, changes)
    return result


def _with(saved: Any, changes: dict[str, Any]) -> Any:
    defaults = {field.name: field.default for field in dataclasses.fields(saved)}
    for pair in _EITHER:
        for given, other in (pair, pair[::-1]):
            if given in changes and other not in changes:
                changes = changes | {other: defaults[other]}
    return dataclasses.replace(saved, **changes)
