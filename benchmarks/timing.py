"""What benchmarks share: run a command and say what it cost; show costs beside RELION's as a table."""

from __future__ import annotations

import datetime
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

OURS = str(Path(sys.executable).with_name("cryorefine"))
MPI = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n"]


class Cost(NamedTuple):
    """Seconds on the clock and of processors in user and system mode, and the largest process's peak.

    What is not known is nan.
    """

    clock: float
    processor: float = math.nan
    memory: float = math.nan  # GB


@dataclass(frozen=True)
class Row:
    """One job: what it cost us and RELION, and how good what each of them made is."""

    job: str
    ours: Cost
    relion: Cost
    quality: str = ""
    relion_quality: str = ""


HEADINGS = (
    "job",
    "ours, s",
    "RELION, s",
    "ratio",
    "ours, processor s",
    "RELION, processor s",
    "ratio",
    "quality, ours",
    "quality, RELION",
)


def relion(program: str) -> str:
    """Return the path of one of RELION's programs; leave with a hint where it is not installed."""
    path = shutil.which(f"relion_{program}")
    if path is None:
        sys.exit(f"relion_{program} is not installed: sudo apt-get install relion")
    return path


def cost(words: list[str], folder: Path, *, replace: str = "", threads: int | None = None) -> Cost:
    """Run a command in a folder from start to exit.

    Parameters
    ----------
    words : list of str
        The program and its options.
    folder : pathlib.Path
        Where it runs.
    replace : str, optional
        What an earlier run left there, to be removed first.
    threads : int, optional
        What the libraries of matrix products are told; they choose unless given.

    Raises
    ------
    subprocess.CalledProcessError
        If the command fails, after its last lines were shown: a failure is quick, but no result.
    """
    if replace:
        shutil.rmtree(folder / replace, ignore_errors=True)
    environment = dict(os.environ)
    # Some set this for their own work; without the byte code kept, every run would compile all modules.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        clock, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.stderr.write(said.read()[-2000:].decode(errors="replace"))
            raise subprocess.CalledProcessError(process.returncode, words)
    return Cost(clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def least(costs: Iterable[Cost]) -> Cost:
    """Return the shortest times of several runs: what else the machine did only ever adds."""
    return Cost(*map(min, zip(*costs, strict=True)))


def by_turns(
    ours: Callable[[], Cost], theirs: Callable[[], Cost], repeat: int, relion_repeat: int = 1
) -> tuple[Cost, Cost]:
    """Run both by turns, ours ``repeat`` times and RELION ``relion_repeat`` times; return the least of each.

    The first of ours may have kernels to compile, so that one run more than RELION's is fair.
    """
    mine, peers = [], []
    for number in range(max(repeat, relion_repeat)):
        if number < repeat:
            mine.append(ours())
        if number < relion_repeat:
            peers.append(theirs())
    return least(mine), least(peers)


def cells(row: Row) -> list[str]:
    """Return the texts of a row; a ratio above 1 says how many times as fast ours is."""
    texts = [row.job]
    for ours, theirs in zip(row.ours[:2], row.relion[:2], strict=True):
        known = not math.isnan(theirs)
        texts.append(f"{ours:.3g}")
        texts += [f"{theirs:.3g}", f"{theirs / ours:.1f}"] if known else ["", ""]
    return [*texts, row.quality, row.relion_quality]


def line(row: Iterable[str]) -> str:
    """Return a line of a markdown table."""
    return "| " + " | ".join(row) + " |"


def heading() -> str:
    """Return the first two lines of the table."""
    return line(HEADINGS) + "\n|" + "-|" * len(HEADINGS)


def show(rows: Iterable[Row]) -> None:
    """Print a markdown table of costs, ratios and quality, each row as soon as it is known."""
    print(heading(), flush=True)
    for row in rows:
        print(line(cells(row)), flush=True)


def machine(threads: int) -> str:
    """Say on what machine, how busy, and beside which RELION something is measured."""
    name = platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [entry for entry in information.read_text().splitlines() if entry.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    told = subprocess.run([relion("refine"), "--version"], capture_output=True, text=True, check=False).stdout
    version = told.partition("version:")[2].split()[0]
    return (
        f"{datetime.date.today():%d %B %Y}, {name}, {os.cpu_count()} cores, {threads} threads, "
        f"RELION {version}, load {os.getloadavg()[0]:.1f} before."
    )
