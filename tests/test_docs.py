"""The manual says what the program does: commands and scripts in it are valid, and nothing is left out."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest

from cryorefine.jobs.command import add_options, options_from
from cryorefine.jobs.registry import JOBS, load
from cryorefine.jobs.script import as_python

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LARGEST_PICTURE = 250_000


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    wanted = [(indent, text) for indent, kind, text in found if kind == language]
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in wanted]


def commands(page: Path) -> list[list[str]]:
    """Return the words of each cryorefine command in a page."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.partition(" | ")[0], comments=True) for line in lines]
    return [w[1:] for w in words if w and w[0].rpartition("/")[2] == "cryorefine" and w[1] in JOBS]


def options_of(words: list[str]) -> object:
    module = load(words[0])
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_options(parser, module.Options)
    return options_from(parser.parse_args(words[1:]), module.Options)


def page_of(job: str) -> Path:
    """Return the page that holds the table of a job's options."""
    pages = [page for page in PAGES if f"<!-- options: {job} -->" in page.read_text(encoding="utf-8")]
    assert len(pages) == 1, f"{job} has its options on {len(pages)} pages"
    return pages[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one(page):
    for words in commands(page):
        try:
            options_of(words)
        except (SystemExit, argparse.ArgumentError) as error:
            pytest.fail(f"{page.name}: cryorefine {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_of_a_page_names_options_that_exist(page):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith(".Options"):
                continue
            job = ast.unparse(node.func).removesuffix(".Options").replace("_", "-")
            known = load(job).Options.__dataclass_fields__
            assert {keyword.arg for keyword in node.keywords} <= set(known), ast.unparse(node)


@pytest.mark.parametrize("job", JOBS)
def test_the_page_of_a_job_has_all_that_people_look_for(job):
    page = page_of(job)
    text = page.read_text(encoding="utf-8")
    assert re.search(r"\(pictures/form_\w+\.png\)", text), "no picture of its form"
    assert re.search("^## (Files|What goes in and comes out)$", text, re.MULTILINE), "no list of its files"
    assert re.search("^## What (can go wrong|it warns of)$", text, re.MULTILINE), "no list of its troubles"
    first = next(words for words in commands(page) if words[0] == job)
    script = as_python(load(job), options_of(first)).replace("'", '"')
    assert script in blocks(page, "python"), f"its script is not that of its first command:\n{script}"


@pytest.mark.parametrize("job", JOBS)
def test_the_table_of_options_holds_every_flag_with_its_help(job, monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from docs_hooks import on_page_markdown

    from cryorefine.jobs.base import describe, flag_of

    table = on_page_markdown(f"<!-- options: {job} -->").replace("\\", "")
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    for name, (_, description) in describe(load(job).Options).items():
        row = rows.pop(flag_of(name, description))
        assert f"| {description.label} |" in row
        assert description.help in row
    assert not rows


def test_pictures_are_small_and_each_is_used():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in sorted((ROOT / "docs/pictures").iterdir()):
        assert f"pictures/{picture.name}" in text, f"{picture.name} is on no page"
        assert picture.stat().st_size <= LARGEST_PICTURE, f"{picture.name} is too large"
