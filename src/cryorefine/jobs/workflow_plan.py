"""How far a project has come and what comes next, all at once: for the panel, scripts and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from cryorefine.jobs.base import Field, describe, flag_of
from cryorefine.jobs.folder import suggest_folder
from cryorefine.jobs.lineage import Lineage
from cryorefine.jobs.project import Project, read_project
from cryorefine.jobs.registry import load
from cryorefine.jobs.script import as_command
from cryorefine.jobs.workflow import SINGLE_PARTICLES, SUBTOMOGRAMS, WORKFLOWS, Step, Workflow
from cryorefine.jobs.workflow_starts import Start, find_starts, with_rescaled
from cryorefine.jobs.workflow_state import StepState, next_step, read_states
from cryorefine.jobs.workflow_values import Given, suggestions_for, values_for


@dataclass(frozen=True)
class Plan:
    """A workflow in a project.

    Attributes
    ----------
    workflow : Workflow
        Which one.
    project : Project
        The jobs that there are.
    states : tuple of StepState
        How its steps stand.
    next : Step or None
        The step to do next.
    """

    workflow: Workflow
    project: Project
    states: tuple[StepState, ...]
    next: Step | None
    _lineage: Lineage
    _starts: Mapping[str, Start]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing yet: no job of the workflow, and nothing to start from."""
        return not self._starts and all(state.job is None for state in self.states)

    def values(self, step: Step) -> list[Given]:
        """Return what the jobs before a step, and the tutorials, have for its options."""
        return values_for(step, self.states, self._lineage, self._starts)

    def suggestions(self, step: Step, values: Mapping[str, Any]) -> Iterator[Given]:
        """Yield what follows from the files themselves, given all values of the form; takes a moment."""
        return suggestions_for(step, values, self.states, self._starts)

    def filled(self, step: Step) -> list[Given]:
        """Return the values of a step and what follows from them, with the folder of its job."""
        module = load(step.job)
        defaults = {name: _default(field) for name, (field, _) in describe(module.Options).items()}
        given = {one.option: one for one in self.values(step)}
        known = defaults | {name: one.value for name, one in given.items()}
        given |= {one.option: one for one in self.suggestions(step, known)}
        if module.JOB.folder:
            folder = suggest_folder(module.JOB, self.project.folder)
            given["output"] = Given("output", folder, "the next number")
        return list(given.values())


def read_plan(
    folder: Path | str = ".",
    workflow: str = "",
    chosen: Mapping[str, str] | None = None,
    known: Mapping[str, Start] | None = None,
) -> Plan:
    """Read how far a project has come. Nothing is changed.

    Parameters
    ----------
    folder : path
        The folder of a project, with or without RELION.
    workflow : str
        A name in :data:`.workflow.WORKFLOWS`; by default that of the newest job, or of what lies there.
    chosen : mapping of str to str, optional
        Key of a step -> name of the job to be taken from instead of the newest one.
    known : mapping of str to Start, optional
        What there is to start from besides the files of the project.

    Raises
    ------
    UserError
        If there is no such folder.
    """
    project = read_project(folder)
    lineage = Lineage(project)
    starts = find_starts(project, known)
    found = WORKFLOWS[workflow] if workflow else _workflow_of(lineage, starts)
    states = with_rescaled(read_states(found, project, chosen, lineage), starts)
    return Plan(found, project, tuple(states), next_step(states), lineage, starts)


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan as text: its steps, and the command of the next one with where its values are from."""
    rows = []
    for number, state in enumerate(plan.states, start=1):
        name = state.job.name if state.job is not None else "-"
        status = "done" if state.status == "succeeded" else state.status
        rows.append((f"{number}", state.step.title, status, name, state.headline))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)) for row in rows]
    lines = [line.rstrip() for line in lines]
    if plan.project.warning:
        lines.append(f"Warning: {plan.project.warning}")
    return lines if plan.next is None else [*lines, "", *_next_lines(plan, plan.next)]


def _next_lines(plan: Plan, step: Step) -> list[str]:
    module = load(step.job)
    described = describe(module.Options)
    given = {one.option: one for one in plan.filled(step)}
    needed = [name for name, (field, _) in described.items() if _must_be_given(field, name, given)]
    values = {name: Path(_placeholder(described[name][1])) for name in needed}
    values |= {name: one.value for name, one in given.items()}
    lines = [f"Next: {step.title}. {step.purpose}", as_command(module.JOB, module.Options(**values))]
    return lines + [f"  {flag_of(name, described[name][1])}: {one.reason}" for name, one in given.items()]


def _must_be_given(field: Any, name: str, given: Mapping[str, Given]) -> bool:
    return name not in given and field.default is MISSING


def _placeholder(about: Field) -> str:
    return {"map": "MAP.mrc", "half_map": "HALF_MAP.mrc", "folder": "FOLDER"}.get(about.kind, "FILE.star")


def _default(field: Any) -> Any:
    return None if field.default is MISSING else field.default


def _workflow_of(lineage: Lineage, starts: Mapping[str, Start]) -> Workflow:
    for job in lineage.project.jobs:
        if family := lineage.family(job):
            return WORKFLOWS[family]
    return SUBTOMOGRAMS if "optimisation set" in starts else SINGLE_PARTICLES
