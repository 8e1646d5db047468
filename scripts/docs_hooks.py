"""What the manual's site has beside its pages: tables of options, and the scripts that pages link to."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.structure.files import File, Files

from cryorefine.jobs.base import Field, describe, flag_of, value_types
from cryorefine.jobs.registry import load

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- options: ([a-z0-9-]+) -->$", re.MULTILINE)
"""A line that stands for the table of a job's options; invisible where pages are read as they are."""
_ITEM = re.compile(r"\s*([-*]|\d+\.) ")
_OUTSIDE = re.compile(r"\]\(\.\./((?:scripts|benchmarks)/[\w.]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Take the scripts along that pages link to."""
    for page in Path(config.docs_dir).glob("*.md"):
        for name in _OUTSIDE.findall(page.read_text(encoding="utf-8")):
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put tables in the place of their markers, and set lists and tables apart from what stands before."""
    markdown = MARKER.sub(lambda found: options_table(load(found[1])), markdown)
    return set_apart(_OUTSIDE.sub(r"](\1)", markdown))


def set_apart(markdown: str) -> str:
    """Put an empty line before lists and tables that follow a line of text at once.

    GitHub sees them there all the same, Python-Markdown does not.
    """
    lines: list[str] = []
    block: list[str] = []  # the lines since the last empty one
    fenced = False
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            block = [line]
        elif not line.strip():
            block = []
        elif not fenced:
            item = _ITEM.match(line) and not any(map(_ITEM.match, block))
            table = line.startswith("|") and not (block and block[-1].startswith("|"))
            if block and (item or table):
                lines.append("")
                block = []
            block.append(line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def options_table(module: ModuleType) -> str:
    """Return all options of a job in Markdown: a table for each group of the form."""
    types = value_types(module.Options)
    groups: dict[str, list[str]] = {}
    for name, (field, description) in describe(module.Options).items():
        flag = flag_of(name, description)
        if types[name][0] is bool:
            flag = f"{flag}`, `--no-{flag.removeprefix('--')}"
        cells = (
            f"`{flag}`",
            description.label,
            _default(field.default, description.unit),
            _meaning(description),
        )
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        groups.setdefault(description.group, []).append(f"| {row} |")
    head = ["| option | on the form | default | |", "|-|-|-|-|"]
    return "\n\n".join("\n".join([f"**{group}**", "", *head, *rows]) for group, rows in groups.items())


def _default(value: Any, unit: str) -> str:
    if value is dataclasses.MISSING:
        return "*required*"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return ""
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {_in_print(unit)}".rstrip()


def _meaning(description: Field) -> str:
    """Return the help of an option with what it takes."""
    facts = []
    if description.choices:
        facts.append("one of " + ", ".join(f"`{choice}`" for choice in description.choices))
    elif description.unit:
        facts.append(f"in {_in_print(description.unit)}")
    text = re.sub(r"([*_<>])", r"\\\1", description.help)
    return f"{text} ({'; '.join(facts)})" if facts else text


def _in_print(unit: str) -> str:
    return unit.replace("A", "Å").replace("^2", "²").replace("^3", "³")
