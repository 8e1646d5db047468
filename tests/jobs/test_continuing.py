"""A refinement that goes on keeps what it began with, and what was changed on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cryorefine.errors import UserError
from cryorefine.io.star import write_star
from cryorefine.jobs.continuing import CONTINUE_FILE, continued_options
from cryorefine.jobs.refine3d import JOB, Options
from cryorefine.jobs.relion_job import write_job

MAY_CHANGE = ("reference_mask", "threads", "scheduler", "cluster")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Options of a refinement whose folder holds its job.star."""
    monkeypatch.chdir(tmp_path)
    for name in ("p.star", "map.mrc", "a.mrc", "b.mrc"):
        Path(name).touch()
    options = Options(
        particles=Path("p.star"), reference=Path("map.mrc"), output=Path("Refine3D/job001"), symmetry="D2"
    )
    options.output.mkdir(parents=True)
    write_star(options.output / "job.star", write_job(JOB, options))
    return options


def going_on(begun: Options, **changes: object) -> Options:
    asked = Options(**{"output": begun.output, "continue_from": begun.output} | changes)
    settled = continued_options(JOB, asked, MAY_CHANGE)
    if settled.output == begun.output:
        write_star(begun.output / CONTINUE_FILE, write_job(JOB, settled))
    return settled


def test_what_is_not_given_is_as_it_was(begun: Options) -> None:
    assert going_on(begun) == replace(begun, continue_from=begun.output)


def test_a_mask_that_was_changed_stays_changed_when_the_job_goes_on_again(begun: Options) -> None:
    assert going_on(begun, reference_mask=Path("a.mrc")).reference_mask == Path("a.mrc")
    assert going_on(begun, threads=1).reference_mask == Path("a.mrc")
    last = going_on(begun)
    assert (last.reference_mask, last.threads) == (Path("a.mrc"), 1)
    assert going_on(begun, reference_mask=Path("b.mrc")).reference_mask == Path("b.mrc")


def test_a_refinement_that_branched_off_can_go_on_by_itself(begun: Options) -> None:
    branch = going_on(begun, output=Path("Refine3D/job002"), continue_iteration=3)
    assert branch.symmetry == "D2"
    branch.output.mkdir()
    write_star(branch.output / "job.star", write_job(JOB, branch))
    again = going_on(branch)
    assert again.particles == begun.particles
    assert (again.continue_from, again.continue_iteration) == (branch.output, None)


def test_what_may_not_change_is_named(begun: Options) -> None:
    with pytest.raises(UserError, match="--symmetry C3 differs from D2"):
        going_on(begun, symmetry="C3")


def test_an_iteration_without_its_refinement_is_refused() -> None:
    with pytest.raises(UserError, match="--continue"):
        Options(continue_iteration=3, particles=Path("p.star"), reference=Path("m.mrc")).check()


def test_a_cluster_takes_the_place_of_a_scheduler_and_the_other_way_round(begun: Options) -> None:
    on_scheduler = replace(begun, scheduler="tcp://node1:8786")
    write_star(begun.output / "job.star", write_job(JOB, on_scheduler))
    assert going_on(begun).scheduler == "tcp://node1:8786"
    for given in ({"cluster": "local:2"}, {}):  # the second time with what was given the first time
        again = going_on(begun, **given)
        assert (again.scheduler, again.cluster) == ("", "local:2")
    back = going_on(begun, scheduler="tcp://node2:8786")
    assert (back.scheduler, back.cluster) == ("tcp://node2:8786", "")
