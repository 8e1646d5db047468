"""benchmarks/gpu.py goes on where a part fails or takes too long, and its parts run on the stand-in."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL = (
    "--small 40 --small-box 32 --count 60 --box 32 --pixel-size 4 --symmetry D2 --ctf-count 100 "
    "--map-size 32 --large-map-size 48 --tilt-size 256 --subtomograms 4"
).split()


@pytest.fixture
def gpu(stand_in, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FOLDER / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("gpu_refinement", None)


def test_a_part_that_fails_or_takes_too_long_is_told_and_the_next_begins(gpu, tmp_path, monkeypatch, capsys):
    def fail(bench):
        raise ValueError("no such kernel")

    def late(bench):
        gpu.head(bench)
        gpu.by_turns(bench, "a job", lambda device: time.sleep(0.01 if device == "gpu:0" else 30), None)

    monkeypatch.setattr(gpu, "warmed", lambda bench: None)
    last = {"card": lambda bench: bench.report("and the last")}
    monkeypatch.setattr(gpu, "RUN", {"stages": fail, "maps": late, **last})
    kept = tmp_path / "gpu.md"
    assert gpu.main(["--parts", "stages", "maps", "card", "--minutes", "0.01", "--keep", str(kept)]) == 1
    told = capsys.readouterr().out
    assert kept.read_text() == told
    assert "stages failed: ValueError: no such kernel" in told
    assert "| a job | 0.01" in told
    assert "maps: stopped after its" in told
    assert told.endswith("and the last\n\nFailed: stages.\n")


@pytest.mark.slow
def test_all_parts(gpu, capsys):
    assert gpu.main([*SMALL, "--minutes", "15"]) == 0
    told = capsys.readouterr().out
    said = "iterations to convergence", "Agreement: poses apart by ", "| reconstruct-particle, 4 |"
    for words in ("| 64-bit atomic additions, 1e11/s |", *said):
        assert words in told


def test_without_a_gpu_there_is_nothing_to_measure(gpu, stand_in, capsys):
    stand_in.cuda.runtime.getDeviceCount = lambda: 0
    assert gpu.main([]) == 0
    assert "Nothing to measure" in capsys.readouterr().out
