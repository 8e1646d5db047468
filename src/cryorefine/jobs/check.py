"""Are the options of a job sensible, and its input files there? Asked before anything is made."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, TypeVar

from cryorefine.errors import UserError
from cryorefine.jobs.base import Field, describe, flag_of, value_types

OptionsT = TypeVar("OptionsT")


def checked(options: OptionsT) -> OptionsT:
    """Return the options with every path as a ``Path``, after looking at each of them.

    A number that need not be given may be -1, as in RELION, where that is below its range.

    Checked are the ranges and choices of the fields, that every path but ``output`` exists and can
    be read, and what the class itself demands in a method ``check()``, if it has one.

    Parameters
    ----------
    options : dataclass instance
        Options of a job; paths may also be given as text.

    Raises
    ------
    UserError
        Naming the option, its value and what to do.
    """
    kind = type(options)
    changes: dict[str, Any] = {}
    types = value_types(kind)
    for name, (_, description) in describe(kind).items():
        value = getattr(options, name)
        if value is None:
            continue
        expected, optional = types[name]
        flag = flag_of(name, description)
        if optional and value == -1 and description.minimum is not None and description.minimum > -1:
            changes[name] = None  # RELION's word for what is not given
            continue
        if expected is Path:
            changes[name] = path = Path(os.path.expanduser(value))
            if name != "output":
                _check_path(path, description, flag)
        elif expected in (int, float):
            _check_number(value, expected, description, flag)
        elif description.choices and value not in description.choices:
            _refuse_choice(value, description, flag)
    replaced: OptionsT = dataclasses.replace(options, **changes)  # type: ignore[type-var]
    if hasattr(replaced, "check"):
        replaced.check()
    return replaced


def _check_path(path: Path, description: Field, flag: str) -> None:
    try:
        if not path.exists():
            raise UserError(f"{flag} {path} does not exist; check the name, or the folder you are in.")
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be reached ({error.strerror}).") from error
    if description.kind == "folder":
        if not path.is_dir():
            raise UserError(f"{flag} {path} is a file; give a folder.")
    elif path.is_dir():
        raise UserError(f"{flag} {path} is a folder; give a file in it.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{flag} {path} may not be read by you; ask its owner for permission.")


def _check_number(value: Any, expected: type, description: Field, flag: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int if expected is int else (int, float)):
        raise UserError(f"{flag} {value!r} is not {'a whole' if expected is int else 'a'} number.")
    if not math.isfinite(value):
        raise UserError(f"{flag} {value} is not a finite number.")
    if description.choices:
        if not any(math.isclose(value, float(choice)) for choice in description.choices):
            _refuse_choice(value, description, flag)
        return
    unit = f" {description.unit}" if description.unit else ""
    if description.minimum is not None and value < description.minimum:
        raise UserError(f"{flag} {value:g} is too small; the least is {description.minimum:g}{unit}.")
    if description.maximum is not None and value > description.maximum:
        raise UserError(f"{flag} {value:g} is too large; the most is {description.maximum:g}{unit}.")


def _refuse_choice(value: Any, description: Field, flag: str) -> None:
    raise UserError(f"{flag} {value} is not a choice; give one of {', '.join(description.choices)}.")
