"""The history of a refinement is read from its files, of this program and of RELION."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.jobs.refinement_folder import NAME, iterate, refinement

from cryorefine.jobs.refinement_history import History, iterations_left


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Project of a refinement that was stopped after iteration 3."""
    project = tmp_path_factory.mktemp("project")
    running = refinement(project)
    iterate(running, 3)
    running.close()
    return project


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """Copy of its folder, with the times of its files."""
    return shutil.copytree(written / NAME, tmp_path / NAME)


def numbers(history: History) -> list[int]:
    return [one.number for one in history.update()]


def test_each_iteration_tells_its_numbers(folder):
    history = History(folder)
    one, _, three = history.update()
    assert (one.number, three.number) == (1, 3)
    assert three.half_maps[1] == folder / "run_it003_half2_class001.mrc"
    assert three.data == folder / "run_it003_data.star"
    assert three.symmetry == "D2"
    assert three.resolution == pytest.approx(16 * 2.5 / 5)
    assert (three.angular_step, three.offset_step) == (15.0, 2.5)
    assert (three.accuracy_angle, three.accuracy_offset) == (2.5, 1.25)
    assert (three.change_angle, three.change_offset) == (4.0, 1.5)
    assert three.largest_weight == pytest.approx(0.5)
    assert np.isfinite(three.seconds)
    assert three.frequency[1] == pytest.approx(1 / 40)
    assert history.progress.stage == "Iteration 3"


def test_files_are_read_once_and_half_written_ones_later(folder):
    history = History(folder)
    hidden = folder / "run_it003_sampling.star"
    text = hidden.read_text()
    hidden.write_text("\ndata_samp")
    assert numbers(history) == [1, 2]
    before = history.iterations
    hidden.write_text(text)
    assert numbers(history) == [1, 2, 3]
    assert history.iterations[0] is before[0]


def test_the_final_iteration_comes_last(tmp_path):
    for _ in refinement(tmp_path, last=3):
        pass
    *_, last = History(tmp_path / NAME).update()
    assert (last.number, last.final, last.name) == (3, True, "iteration 3 (final)")
    assert last.half_maps[0].name == "run_half1_class001_unfil.mrc"
    assert iterations_left(last) == 0
    for name in ("run_optimiser.star", "progress.jsonl"):  # RELION writes neither
        (tmp_path / NAME / name).unlink()
    *_, last = History(tmp_path / NAME).update()
    assert (last.number, last.final) == (3, True)
    assert last.accuracy_angle == 2.5


def test_iterations_of_an_earlier_run_in_the_folder_are_left_out(folder, written):
    (folder / "progress.jsonl").write_text("")
    assert numbers(History(folder)) == []
    lines = (written / NAME / "progress.jsonl").read_text().splitlines(keepends=True)
    (folder / "progress.jsonl").write_text("".join(lines[: len(lines) // 2]))
    history = History(folder)
    assert 1 <= max(numbers(history)) < 3
    (folder / "progress.jsonl").write_text("")  # and anew, while somebody looks
    assert numbers(history) == []


def test_without_events_times_are_those_between_files(folder):
    (folder / "progress.jsonl").unlink()
    for number, when in ((1, 1000), (2, 1060), (3, 1180)):
        os.utime(folder / f"run_it00{number}_optimiser.star", (when, when))
    one, two, three = History(folder).update()
    assert np.isnan(one.seconds)
    assert (two.seconds, three.seconds) == (60, 120)


def test_relions_names_of_a_continued_run_are_understood(folder):
    (folder / "progress.jsonl").unlink()
    for path in folder.glob("run_it003_*"):
        path.rename(path.with_name(path.name.replace("run_it003", "run_ct2_it003")))
    history = History(folder)
    assert numbers(history) == [1, 2, 3]
    assert history.iterations[-1].data.name == "run_ct2_it003_data.star"


def test_iteration_0_of_relion_is_no_iteration(folder):
    (folder / "progress.jsonl").unlink()
    for path in folder.glob("run_it001_*"):
        path.rename(path.with_name(path.name.replace("it001", "it000")))
    assert numbers(History(folder)) == [2, 3]


def test_a_folder_without_a_refinement_has_no_history(tmp_path):
    assert numbers(History(tmp_path / "nowhere")) == []
    assert numbers(History(tmp_path)) == []


def test_at_least_so_many_iterations_are_left(folder):
    *_, last = History(folder).update()
    # 15 degrees at an accuracy of 2.5: 7.5, 3.75 and 1.875 to come, one without gain, one with all data
    assert iterations_left(last) == 5
    assert iterations_left(replace(last, angular_step=1.8)) == 2
    assert iterations_left(replace(last, accuracy_angle=float("nan"))) == 3
