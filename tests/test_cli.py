"""The command line: every option is there, mistakes are one sentence, and a stop is noted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryorefine import __version__, cli
from cryorefine.compute.blas import prefer_wide_kernels
from cryorefine.io.mrc import read_map, write_map
from cryorefine.jobs.base import describe, flag_of
from cryorefine.jobs.folder import status
from cryorefine.jobs.registry import JOBS, load

SLOW_JOB = """
import time
from dataclasses import dataclass
from pathlib import Path
from cryorefine.jobs.base import Job, Notice, Progress, option
from cryorefine.jobs.folder import in_job_folder

JOB = Job("slow", "Slow", "Slow", "relion.maskcreate", "Take a while")

@dataclass(frozen=True, kw_only=True)
class Options:
    output: Path = option(label="Output", help="A folder.", kind="folder")
    lines: int = option(0, label="Lines", help="Lines to print.")

@dataclass(frozen=True)
class Result:
    output: Path

@in_job_folder(JOB)
def run(options):
    for line in range(options.lines):
        yield Notice(f"line {line} of many")
    for step in range(1000):
        yield Progress("Waiting", step, 1000)
        time.sleep(0.05)
    return Result(options.output)
"""


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cryorefine.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def sphere(tmp_path: Path) -> Path:
    """File of a map of 32^3 voxels of 2.5 A that holds a ball of radius 8 and density 1."""
    z, y, x = np.mgrid[-16:16, -16:16, -16:16]
    write_map(tmp_path / "ball.mrc", (z**2 + y**2 + x**2 <= 64).astype(np.float32), 2.5)
    return tmp_path / "ball.mrc"


@pytest.fixture
def slow(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Function that starts a job which would take a minute, as a process of its own."""
    (tmp_path / "slow_job.py").write_text(SLOW_JOB)
    script = (
        "import sys; from cryorefine import cli; from cryorefine.jobs.registry import JOBS; "
        "JOBS['slow'] = 'slow_job'; sys.exit(cli.main())"
    )

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", script, "slow", "--output", str(tmp_path / "job001"), *words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell lets what it starts in the background ignore the keyboard, and children inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


def wait_until_running(folder: Path) -> None:
    limit = time.monotonic() + 60
    while status(folder) != "running" or not (folder / "progress.jsonl").exists():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_help_lists_the_jobs_in_one_line_each() -> None:
    text = run("--help").stdout
    for name in JOBS:
        assert re.search(rf"^ +{name} +\w", text, re.MULTILINE), name
    assert "run" in text


@pytest.mark.parametrize("name", JOBS)
def test_help_of_a_job_shows_every_option_with_unit_and_default(name: str) -> None:
    text = " ".join(run(name, "--help").stdout.split())
    for option, (field, about) in describe(load(name).Options).items():
        # Usage names an option and what follows it; one flag may be the beginning of another.
        found = re.search(rf" {re.escape(flag_of(option, about))}[ ,]", text)
        assert found, option
        entry = text[found.start() :]
        entry = entry[: entry.index("]")]
        assert about.label in entry.replace("- ", "-"), option
        if about.unit:
            assert f"in {about.unit}" in entry, option
        assert "default" in entry or "required" in entry, option
        if isinstance(field.default, float):
            assert f"{field.default:g}" in entry, option


def test_version() -> None:
    assert run("--version").stdout.strip() == f"cryorefine {__version__}"


def test_a_job_prints_its_result_and_fills_its_folder(sphere: Path, tmp_path: Path) -> None:
    done = run(
        "mask-create", "--input", sphere, "--output", tmp_path / "MaskCreate/job001", "--threshold", "0.5"
    )

    assert done.returncode == 0, done.stderr
    mask = tmp_path / "MaskCreate/job001/mask.mrc"
    assert re.search(rf"^mask +{mask}$", done.stdout, re.MULTILINE)
    assert read_map(mask).data[16, 16, 16] == 1
    assert status(mask.parent) == "succeeded"


@pytest.mark.parametrize("columns", [100, 0])
def test_a_terminal_shows_a_bar_even_if_it_does_not_know_its_width(
    columns: int, sphere: Path, tmp_path: Path
) -> None:
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    termios = pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24 if columns else 0, columns))
    words = ["mask-create", "--input", sphere, "--output", tmp_path / "job001", "--threshold", "0.5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cryorefine.cli", *map(str, words)], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # Linux says so when the other end has closed
        while some := os.read(ours, 4096):
            drawn += some
    os.close(ours)

    assert process.wait() == 0
    assert re.search(rb"Making the mask: 100%\|[^|]+\| 3/3", drawn)
    assert process.stdout is not None
    assert b"mask.mrc" in process.stdout.read()
    process.stdout.close()


def test_a_job_file_is_run_where_it_stands_or_elsewhere(sphere: Path, tmp_path: Path) -> None:
    folder = tmp_path / "MaskCreate" / "job001"
    run("mask-create", "--input", sphere, "--output", folder, "--threshold", "0.25", "--extend", "1")

    again = run("run", folder / "job.star", "--output", tmp_path / "job002")
    assert again.returncode == 0, again.stderr
    first, second = (read_map(place / "mask.mrc").data for place in (folder, tmp_path / "job002"))
    assert np.array_equal(first, second)

    refused = run("run", folder / "job.star")
    assert refused.returncode == 2
    assert "already holds a finished job" in refused.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "mask-create --input nowhere.mrc --output job",
            "--input nowhere.mrc does not exist; check the name",
        ),
        ("mask-create --output job", "give --input, or --new-box and --outer-radius"),
        ("postprocess --output job", "the following arguments are required: --half-map; see"),
        (
            "mask-create --input a.mrc --output job --treshold 1",
            "has no option --treshold; did you mean --threshold?",
        ),
        (
            "mask-create --input a.mrc --output job --lowpass high",
            "--lowpass: invalid number value: 'high'; see",
        ),
        (
            "mask-create --input a.mrc --output job --soft-edge -3",
            "--soft-edge -3 is too small; the least is 0 px",
        ),
        ("refine3d --output job", "needs --particles"),
        ("refine3d --output job --padding 3", "--padding 3 is too large; the most is 2"),
        ("refine3d --output job --initial-angular-sampling 8", "is not a choice; give one of 30, 15, 7.5"),
        ("refine2d", "invalid choice: 'refine2d'"),
        ("run nowhere.star", "nowhere.star"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2_and_makes_nothing(
    words: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "a.mrc").write_text("")
    done = run(*words.split(), cwd=tmp_path)

    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mrc"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_job_is_marked_as_aborted(
    number: signal.Signals, code: int, slow: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = slow()
    wait_until_running(tmp_path / "job001")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == code
    assert "Traceback" not in errors
    assert status(tmp_path / "job001") == "aborted"


def test_a_job_stops_when_its_folder_asks_it_to(
    slow: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = slow()
    wait_until_running(tmp_path / "job001")
    (tmp_path / "job001" / "RELION_JOB_ABORT_NOW").touch()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "stopped by request" in errors
    assert status(tmp_path / "job001") == "aborted"


def test_a_reader_that_goes_away_ends_the_job_without_a_traceback(
    slow: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = slow("--lines", "100000")
    assert process.stdout is not None
    assert process.stdout.readline() == "line 0 of many\n"
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()

    assert process.wait(timeout=60) == 141
    assert errors == ""
    assert status(tmp_path / "job001") == "aborted"


def test_an_exit_code_comes_back_to_a_caller_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["postprocess", "--half-map", "nowhere.mrc", "--output", "job"]) == 2
    assert capsys.readouterr().err.startswith("cryorefine: --half-map nowhere.mrc does not exist")


ZEN_5 = """processor\t: 0
vendor_id\t: AuthenticAMD
flags\t\t: fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl
"""


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (ZEN_5, "SKYLAKEX"),
        (ZEN_5.replace("avx512vl", ""), None),
        (ZEN_5.replace("AuthenticAMD", "GenuineIntel"), None),
    ],
)
def test_openblas_uses_its_wide_kernels_on_amd_processors_that_have_them(
    cpuinfo: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.delitem(sys.modules, "numpy")

    assert prefer_wide_kernels(tmp_path / "cpuinfo") is (expected is not None)
    assert os.environ.get("OPENBLAS_CORETYPE") == expected
    monkeypatch.setenv("OPENBLAS_CORETYPE", "mine")
    assert not prefer_wide_kernels(tmp_path / "cpuinfo")


def test_the_jobs_of_a_project_are_listed(tmp_path: Path) -> None:
    (tmp_path / "Refine3D/job012").mkdir(parents=True)
    (tmp_path / "Refine3D/job012/RELION_JOB_EXIT_SUCCESS").touch()
    (tmp_path / "Refine3D/first").symlink_to("../Refine3D/job012")
    listed = run("project", cwd=tmp_path)
    assert listed.stdout.split()[:3] == ["Refine3D/job012", "first", "succeeded"]
    refused = run("project", "nowhere", cwd=tmp_path)
    assert refused.returncode == 2
    assert "nowhere is not a folder" in refused.stderr
