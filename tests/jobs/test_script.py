"""A job copied as a command or as Python is the same job, and an alias leads to its folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from cryorefine.errors import UserError
from cryorefine.jobs import finish, image_handler, mask_create, refine3d
from cryorefine.jobs.alias import alias_of, checked_alias, give_alias
from cryorefine.jobs.command import add_options, options_from
from cryorefine.jobs.script import as_command, as_python

OPTIONS = [
    (
        mask_create,
        mask_create.Options(
            input=Path("a map's.mrc"),
            output=Path("MaskCreate/job002"),
            threshold=0.143,
            extend=-2.5,
            invert=True,
        ),
    ),
    (
        refine3d,
        refine3d.Options(
            particles=Path("p.star"), reference=Path("r.mrc"), output=Path("Refine3D/job001"), symmetry="D2"
        ),
    ),
]


@pytest.mark.parametrize(("module", "options"), OPTIONS)
def test_a_job_copied_as_a_command_has_the_same_options(module, options):
    words = shlex.split(as_command(module.JOB, options))
    assert words[:2] == ["cryorefine", module.JOB.name]
    parser = argparse.ArgumentParser()
    add_options(parser, module.Options)
    assert options_from(parser.parse_args(words[2:]), module.Options) == options


@pytest.mark.parametrize(("module", "options"), OPTIONS)
def test_a_job_copied_as_python_runs_with_the_same_options(module, options, monkeypatch):
    ran = []

    def run(given):
        ran.append(given)
        yield from ()
        return "the result"

    monkeypatch.setattr(module, "run", run)
    names = {}
    exec(as_python(module, options), names)
    assert ran == [options]
    assert names["result"] == "the result"


def test_python_leaves_out_what_is_not_needed():
    options = image_handler.Options(input=Path("in.mrc"), output=Path("out.mrc"))
    text = as_python(image_handler, options)
    assert text.count("=") == 4  # options, input, output, result
    assert finish.__module__.startswith("cryorefine.jobs")


def test_an_alias_leads_to_the_folder_from_anywhere(tmp_path):
    folder = tmp_path / "Refine3D" / "job001"
    folder.mkdir(parents=True)
    (folder / "run_class001.mrc").touch()
    assert alias_of(folder) == ""
    link = give_alias(folder, "first 3dref")
    assert link == tmp_path / "Refine3D" / "first_3dref"
    assert (link / "run_class001.mrc").is_file()
    assert not link.readlink().is_absolute()
    assert alias_of(folder) == "first_3dref"
    # Another alias takes its place; the same again changes nothing.
    give_alias(folder, "second")
    give_alias(folder, "second")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["job001", "second"]


def test_an_alias_never_hides_another_job(tmp_path):
    for number in ("job001", "job002"):
        (tmp_path / "Refine3D" / number).mkdir(parents=True)
    give_alias(tmp_path / "Refine3D/job001", "first")
    with pytest.raises(UserError, match="first is there already"):
        give_alias(tmp_path / "Refine3D/job002", "first")
    assert alias_of(tmp_path / "Refine3D/job001") == "first"


@pytest.mark.parametrize("alias", ["", "a", "job7", "a/b", "../up", "what?", ".hidden", "-rf"])
def test_what_cannot_be_an_alias_is_said_in_a_sentence(alias):
    with pytest.raises(UserError, match="alias"):
        checked_alias(alias)
