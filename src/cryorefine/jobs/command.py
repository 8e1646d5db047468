"""Options as words on a command line, in both directions."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cryorefine.jobs.base import Field, Job, describe, flag_of, value_types

OptionsT = TypeVar("OptionsT")


def command(job: Job, options: Any) -> list[str]:
    """Return the words that start a job from a terminal, ``cryorefine`` first.

    Only options that differ from their defaults are spelled out.
    """
    words = ["cryorefine", job.name]
    for name, (field, description) in describe(type(options)).items():
        value = getattr(options, name)
        if value is None or value == field.default:
            continue
        flag = flag_of(name, description)
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag.removeprefix("--"))
        elif isinstance(value, (int, float)) and value < 0:
            # Two words would make argparse take the value for another flag.
            words.append(f"{flag}={value!r}")
        else:
            words += [flag, repr(value) if isinstance(value, float) else str(value)]
    return words


def add_options(parser: argparse.ArgumentParser, options_type: type) -> None:
    """Give a parser one flag for every option, grouped as the form is in tabs."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    types = value_types(options_type)
    for name, (field, description) in describe(options_type).items():
        if description.group not in groups:
            groups[description.group] = parser.add_argument_group(description.group)
        kind, _optional = types[name]
        settings: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "required": "default" not in _default_of(field),
            "help": _help(description, _default_of(field)),
        }
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["type"] = _reader(kind)
            settings["metavar"] = _metavar(kind, description)
        groups[description.group].add_argument(flag_of(name, description), **settings)


def options_from(namespace: argparse.Namespace, options_type: type[OptionsT]) -> OptionsT:
    """Return the options that a parser of :func:`add_options` has read."""
    names = describe(options_type)
    return options_type(**{name: value for name, value in vars(namespace).items() if name in names})


def _default_of(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return {"default": value}, or {} for an option that must be given."""
    return {} if field.default is dataclasses.MISSING else {"default": field.default}


def _reader(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return kind(text)

    # argparse says "invalid NAME value: ..." when the text cannot be read.
    read.__name__ = {float: "number", int: "whole number", Path: "path"}.get(kind, "text")
    return read


def _metavar(kind: type, description: Field) -> str:
    if kind is Path:
        if description.kind == "folder":
            return "FOLDER"
        return {"map": "MAP.mrc", "mask": "MASK.mrc", "half_map": "HALF_MAP.mrc"}.get(
            description.kind, "FILE.star"
        )
    if kind in (int, float):
        return "N" if kind is int else "X"
    return "TEXT"


def _help(description: Field, default: dict[str, Any]) -> str:
    """Return the help of one flag: label, what it does, unit, range, default."""
    facts = []
    if description.unit:
        facts.append(f"in {description.unit}")
    if description.choices:
        facts.append("one of " + " ".join(description.choices))
    elif description.minimum is not None and description.maximum is not None:
        facts.append(f"{_number(description.minimum)} to {_number(description.maximum)}")
    elif description.minimum is not None:
        facts.append(f"{_number(description.minimum)} or more")
    elif description.maximum is not None:
        facts.append(f"{_number(description.maximum)} or less")
    if not default:
        facts.append("required")
    else:
        value = default["default"]
        if isinstance(value, bool):
            facts.append(f"default {'yes' if value else 'no'}")
        elif value not in (None, ""):
            facts.append(f"default {_number(value) if isinstance(value, float) else value}")
        else:
            facts.append("default none")
    text = f"{description.label}: {description.help} [{'; '.join(facts)}]"
    return text.replace("%", "%%")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)
