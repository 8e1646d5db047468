"""The same seed gives the same map, byte for byte: on any number of threads or workers, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from tests.compute.outside import outside_scheduler
from tests.compute.processes import children_called
from tests.refine.conftest import optics, settings

from cryorefine.errors import UserError
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import Figures, JobAborted, Progress, finish
from cryorefine.jobs.command import command
from cryorefine.jobs.folder import STOP_FILE, request_stop, status
from cryorefine.refine.atoms import random_protein
from cryorefine.refine.checkpoints import iterations_to_continue
from cryorefine.refine.simulation import simulate_particles

FILES = ("run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc", "run_data.star")


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    """Enough particles for several chunks in each half."""
    folder = tmp_path_factory.mktemp("project")
    atoms = random_protein(60, radius=42.0, symmetry="D2")
    return simulate_particles(folder, atoms, [optics()], 300, snr=1.0, micrographs=3)


def options(particles, output, **changes):
    return settings(particles, output, symmetry="D2", **changes)


def outcome(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def undisturbed(particles, tmp_path_factory):
    """Files of a refinement on one thread."""
    folder = tmp_path_factory.mktemp("undisturbed") / "job001"
    finish(refine3d.run(options(particles, folder, threads=1)))
    return outcome(folder)


def test_threads_do_not_change_a_bit(particles, undisturbed, tmp_path):
    finish(refine3d.run(options(particles, tmp_path / "job001", threads=2)))
    assert outcome(tmp_path / "job001") == undisturbed


def test_another_seed_gives_another_map(particles, tmp_path):
    maps = []
    for seed in (1, 1, 2):
        folder = tmp_path / f"job{len(maps)}"
        job = refine3d.run(options(particles, folder, random_seed=seed))
        next(event for event in job if isinstance(event, Figures))
        maps.append((folder / "run_it001_half1_class001.mrc").read_bytes())
        job.close()
    assert maps[0] == maps[1]
    assert maps[0] != maps[2]


def workers_of_a_cluster():
    """Worker processes of the cluster that a job of this process has started, without their nannies."""
    nannies = children_called("cryorefine.compute.worker", psutil.Process())
    return [worker for nanny in nannies for worker in children_called("spawn_main", nanny)]


def test_workers_of_a_cluster_do_not_change_a_bit_even_if_one_is_killed(particles, undisturbed, tmp_path):
    folder = tmp_path / "job001"
    killed = []
    for event in refine3d.run(options(particles, folder, cluster="local:2", threads=2)):
        middle = isinstance(event, Progress) and event.stage == "Iteration 2" and event.done
        if middle and not killed:
            killed.append(workers_of_a_cluster()[0])
            killed[0].kill()
    assert killed
    assert outcome(folder) == undisturbed
    assert not workers_of_a_cluster()
    assert "is gone" in (folder / "run.out").read_text()


@pytest.mark.slow
def test_a_lost_scheduler_costs_an_iteration(particles, undisturbed, tmp_path):
    folder = tmp_path / "job001"
    with outside_scheduler() as (scheduler, address):
        job = refine3d.run(options(particles, folder, scheduler=address))
        for event in job:
            if isinstance(event, Progress) and event.stage == "Iteration 3" and event.done:
                scheduler.kill()
                break
        with pytest.raises(UserError, match="is gone"):
            finish(job)
    assert iterations_to_continue(folder)[-1] == 2
    finish(refine3d.run(refine3d.Options(continue_from=folder, cluster="none")))
    assert outcome(folder) == undisturbed


def start(*words):
    program = [sys.executable, "-m", "cryorefine.cli", "refine3d", *map(str, words)]
    return subprocess.Popen(
        program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {path.name} within two minutes"
        time.sleep(0.02)


def test_a_killed_refinement_goes_on_to_the_same_map(particles, undisturbed, tmp_path):
    folder = tmp_path / "job001"
    process = start(*command(refine3d.JOB, options(particles, folder, threads=1))[2:])
    wait_for(folder / "run_it003_checkpoint.npz", process)
    time.sleep(0.15)  # somewhere in the middle of the fourth
    kill(process)
    assert not (folder / "run_class001.mrc").exists()
    again = start("--continue", folder, "--threads", 2)
    assert again.wait() == 0, again.communicate()[1]
    assert outcome(folder) == undisturbed


def test_a_refinement_goes_on_from_any_iteration_in_another_folder(particles, undisturbed, tmp_path):
    folder, branch = tmp_path / "job001", tmp_path / "job002"
    job = refine3d.run(options(particles, folder, threads=2))
    while getattr(next(job), "values", {}).get("iteration") != 4:
        pass
    request_stop(folder)
    with pytest.raises(JobAborted, match="after a whole iteration"):
        finish(job)
    assert status(folder) == "aborted"
    assert not (folder / STOP_FILE).exists()
    assert iterations_to_continue(folder) == [1, 2, 3, 4]
    again = refine3d.Options(continue_from=folder, continue_iteration=1, threads=2)
    with pytest.raises(UserError, match="give another folder with --output"):
        finish(refine3d.run(again))
    with pytest.raises(UserError, match="cannot go on from iteration 9; it can from 1 to 4"):
        finish(refine3d.run(replace(again, continue_iteration=9, output=branch)))
    finish(refine3d.run(replace(again, output=branch)))
    assert outcome(branch) == undisturbed
    assert iterations_to_continue(folder) == [1, 2, 3, 4]  # as they were


@pytest.mark.slow
def test_many_kills_at_any_moment_change_nothing(particles, undisturbed, tmp_path, rng):
    folder = tmp_path / "job001"
    process = start(*command(refine3d.JOB, options(particles, folder, threads=1))[2:])
    wait_for(folder / "run_it001_checkpoint.npz", process)
    kills = 0
    while process.poll() is None and kills < 12:
        kill(process)
        kills += 1
        process = start("--continue", folder, "--threads", 1)
        time.sleep(rng.uniform(2.0, 5.0))  # long enough to get through an iteration now and then
    assert process.wait() == 0, process.communicate()[1]
    assert kills > 2
    assert outcome(folder) == undisturbed
