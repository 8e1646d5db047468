"""What every job shares: fields that describe themselves, and the events of a running job.

A job module defines ``Options`` (a frozen, keyword-only dataclass made of :func:`option` fields),
``Result`` (a frozen dataclass of files and figures), ``JOB`` (a :class:`Job`) and ``run(options)``,
a generator that yields events and returns the result. The napari form, the command line and
job.star are all made from ``Options``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Field:
    """How one option is shown and read: the label on the form, the unit, the range, the help.

    Attributes
    ----------
    label : str
        Label on the form, as in the RELION tutorials.
    help : str
        One or two plain sentences; the tooltip and the ``--help`` text.
    unit : str
        Unit of the value ("A", "degrees", "px", "A/px"); empty when it has none.
    group : str
        Tab of the form ("I/O", "Reference", "CTF", "Optimisation", "Auto-sampling", "Compute").
    minimum, maximum, step : float or None
        Range and step of a number. The step also fixes the decimals that a form shows.
    smallest : str
        The word that a form shows for the minimum, where that stands for something ("all"); empty for the
        number.
    choices : tuple of str
        The only values allowed, where there are few, as they are typed; the value itself has the
        type of the field's annotation ("7.5" for 7.5).
    kind : str
        What a path holds: "map", "mask", "half_map", "particles", "star", "folder" or "" for none.
        Every path but ``output`` must exist when the job starts.
    flag : str
        Name on the command line without dashes, where it differs from the field's name.
    relion : str
        Key in RELION's job.star (section M of the behaviour reference); empty when it has none.
    """

    label: str
    help: str
    unit: str = ""
    group: str = "I/O"
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    smallest: str = ""
    choices: tuple[str, ...] = ()
    kind: str = ""
    flag: str = ""
    relion: str = ""


_KEY = "cryorefine"
_REQUIRED = object()


def option(default: Any = _REQUIRED, **description: Any) -> Any:
    """Make one field of an Options dataclass.

    Parameters
    ----------
    default : object
        Default value; without one, the option must be given.
    **description
        The attributes of :class:`Field`.

    Returns
    -------
    dataclasses.Field
        To be assigned to an annotated name in a frozen dataclass.
    """
    metadata = {_KEY: Field(**description)}
    if default is _REQUIRED:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def describe(options_type: type) -> dict[str, tuple[dataclasses.Field[Any], Field]]:
    """Return name -> (dataclass field, description) of every option, in order of definition."""
    return {f.name: (f, f.metadata[_KEY]) for f in dataclasses.fields(options_type)}


def value_types(options_type: type) -> dict[str, tuple[type, bool]]:
    """Return name -> (type of the value, whether it may be None) of every option.

    Examples
    --------
    A field annotated ``Path | None`` gives ``(Path, True)``, one annotated ``float`` gives
    ``(float, False)``.
    """
    types: dict[str, tuple[type, bool]] = {}
    hints = get_type_hints(options_type)
    for name in describe(options_type):
        hint = hints[name]
        if get_origin(hint) in (Union, UnionType):
            members = [member for member in get_args(hint) if member is not NoneType]
            types[name] = (members[0], len(members) < len(get_args(hint)))
        else:
            types[name] = (hint, False)
    return types


def flag_of(name: str, description: Field) -> str:
    """Return the option's name on the command line, e.g. "--mask-diameter"."""
    return "--" + (description.flag or name.replace("_", "-"))


RESULT_UNITS = {
    "resolution": "A",
    "b_factor": "A^2",
    "pixel_size": "A/px",
    "defocus_change": "A",
    "volume": "A^3",
}
"""Units of the numbers in a job's Result, whose names have none."""


@dataclass(frozen=True)
class Progress:
    """How far a stage has come; ``total`` 0 means unknown."""

    stage: str
    done: int
    total: int
    message: str = ""


@dataclass(frozen=True)
class Notice:
    """One sentence for the person who watches; ``warning`` when something is probably wrong."""

    message: str
    warning: bool = False


@dataclass(frozen=True)
class Product:
    """A file that is whole and ready to be shown: kind is "map", "half_map", "mask", "particles"..."""

    kind: str
    path: Path
    name: str = ""


@dataclass(frozen=True)
class Curve:
    """A named family of curves over spatial frequency, e.g. the FSC of an iteration.

    ``frequency`` is in 1/A, shape (shells,); ``values`` maps a label to an array of that shape.
    """

    name: str
    frequency: Sequence[float]
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figures:
    """Numbers of the moment by name, the unit in the name: {"iteration": 3, "resolution (A)": 7.3}.

    ``details`` are further numbers that the log keeps and nobody asks for at first sight.
    """

    values: Mapping[str, float | int | str]
    details: Mapping[str, float | int | str] = field(default_factory=dict)


Event = Progress | Notice | Product | Curve | Figures
Run = Generator[Event, None, ResultT]


@dataclass(frozen=True)
class Job:
    """Names of a job: on the command line, on the form, as a folder and in RELION's pipeline.

    A job that RELION does not have is labelled "relion.external.cryorefine.NAME": RELION 4 and 5 leave
    out the last words of a label until they know it, and stop at one of which nothing is left.
    """

    name: str
    title: str
    folder: str
    relion_label: str
    summary: str


class JobAborted(Exception):
    """The job stopped because somebody asked for it (RELION_JOB_ABORT_NOW in its folder)."""


def finish(run: Run[ResultT]) -> ResultT:
    """Drain a running job and return its result, ignoring the events."""
    while True:
        try:
            next(run)
        except StopIteration as stop:
            return stop.value
