"""Clusters that a job starts for itself: processes on this machine, or jobs of a SLURM queue."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cryorefine.compute.array_module import gpus
from cryorefine.compute.worker import CALM
from cryorefine.errors import UserError

EXAMPLES = "local:4, or slurm:jobs=20,cores=8,memory=32GB"
_WORKER = "cryorefine.compute.worker"
# Seconds without the scheduler after which a worker ends itself: the job was killed.
_DEATH_TIMEOUT = 60
_ALLOWED_FAILURES = 10
_SLURM = {
    "jobs": r"[1-9]\d*",
    "cores": r"[1-9]\d*",
    "memory": r"\d+(\.\d+)? ?[KMGT]i?B",
    "queue": r"\S+",
    "account": r"\S+",
    "walltime": r"[\d:-]+",
    "gpus": r"1",
    "interface": r"\S+",
    "local-directory": r"\S+",
}


@dataclass(frozen=True)
class ClusterPlan:
    """What ``--cluster`` asks for: "local" or "slurm", workers, and the queue's settings by name."""

    kind: str
    workers: int
    settings: dict[str, str] = field(default_factory=dict)


def parse_cluster(text: str) -> ClusterPlan:
    """Read what ``--cluster`` says.

    Parameters
    ----------
    text : str
        ``local:N`` for N processes on this machine, or ``slurm:name=value,...``.

    Raises
    ------
    UserError
        If it says nothing of the kind, or dask-jobqueue is needed and missing.

    Examples
    --------
    >>> parse_cluster("slurm:jobs=20,cores=8").settings
    {'cores': '8'}
    """
    kind, _, rest = text.partition(":")
    if kind == "local":
        if not re.fullmatch(r"[1-9]\d*", rest):
            raise UserError(f"--cluster {text} does not say how many processes; give e.g. local:4.")
        return ClusterPlan("local", int(rest))
    if kind != "slurm":
        raise UserError(f"--cluster {text} is not a cluster; give one like {EXAMPLES}.")
    settings: dict[str, str] = {}
    for word in filter(None, rest.split(",")):
        name, equals, value = word.partition("=")
        if not equals or name not in _SLURM:
            raise UserError(f"--cluster {text}: {word} is none of {', '.join(f'{n}=' for n in _SLURM)}.")
        if not re.fullmatch(_SLURM[name], value):
            raise UserError(f"--cluster {text}: {value} is no value of {name}; give one like {EXAMPLES}.")
        settings[name] = value
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise UserError(
            "--cluster slurm needs dask-jobqueue, which is not installed: pip install "
            "'napari-cryorefine[cluster]'."
        )
    return ClusterPlan("slurm", int(settings.pop("jobs", "1")), settings)


def make_cluster(text: str, threads: int, device: str, folder: Path) -> Cluster:
    """Return the cluster that ``--cluster`` asks for, not started yet.

    Parameters
    ----------
    text : str
        As for :func:`parse_cluster`.
    threads : int
        Threads of this machine for its processes together; 0 means as many as there are cores.
    device : str
        On GPUs a process has one thread, and on this machine a GPU of its own.
    folder : Path
        Where the workers' logs go.
    """
    plan = parse_cluster(text)
    if plan.kind == "slurm":
        return SlurmCluster(plan, folder, single_thread=device.startswith("gpu") or "gpus" in plan.settings)
    numbers = gpus(device)
    each = 1 if numbers else max(1, (threads or len(os.sched_getaffinity(0))) // plan.workers)
    return LocalCluster(plan.workers, each, gpu_names(numbers, plan.workers), folder)


def gpu_names(numbers: list[int], workers: int) -> list[str]:
    """Return the GPU that each worker is to see, as CUDA names them, in turn; none without GPUs.

    Parameters
    ----------
    numbers : list of int
        GPUs as this process counts them; its own GPU 0 may be the machine's third.
    workers : int
        How many workers.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [given.split(",")[k] if given else str(k) for k in numbers]
    return [names[k % len(names)] for k in range(workers)] if names else []


def worker_device(device: str) -> str:
    """Return the device that a worker takes: of GPUs the first that it sees, for it sees its own."""
    return "gpu:0" if device.startswith("gpu") else device


class Cluster(ABC):
    """A scheduler in this process, and workers elsewhere.

    Attributes
    ----------
    dashboard : bool
        Whether the scheduler has a page to look at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "workers"
        self.dashboard = importlib.util.find_spec("bokeh") is not None
        self.scheduler: Any = None

    @abstractmethod
    def start(self) -> str:
        """Start it and return the scheduler's address; workers may come later."""

    @abstractmethod
    def tend(self) -> None:
        """Replace workers that are gone for good."""

    def problem(self) -> str:
        """Return why no worker will ever come, or nothing."""
        return ""

    def stop(self) -> None:
        """End it, workers included."""
        if self.scheduler is not None:
            self.scheduler.close(timeout=10)
            self.scheduler = None

    def _settings(self) -> Any:
        import dask

        return dask.config.set({"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES} | CALM)


class LocalCluster(Cluster):
    """Worker processes on this machine.

    Parameters
    ----------
    workers, threads : int
        How many, and threads of each.
    gpus : list of str
        The GPU of each worker, as CUDA names them; empty without GPUs.
    folder : Path
        Where the logs go.
    """

    def __init__(self, workers: int, threads: int, gpus: list[str], folder: Path) -> None:
        super().__init__(folder)
        self.workers, self.threads, self.gpus = workers, threads, gpus
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.failures = 0

    def start(self) -> str:
        """Start scheduler and workers."""
        import distributed

        make: Any = distributed.LocalCluster
        with self._settings():
            self.scheduler = make(
                n_workers=0,
                threads_per_worker=1,
                dashboard_address=":0" if self.dashboard else None,
                silence_logs=50,
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for k in range(self.workers):
            self._start(k)
        return str(self.scheduler.scheduler_address)

    def _start(self, k: int) -> None:
        words = [sys.executable, "-m", _WORKER, self.scheduler.scheduler_address]
        words += ["--nthreads", str(self.threads), "--name", f"worker{k + 1}", "--no-dashboard"]
        words += ["--death-timeout", str(_DEATH_TIMEOUT)]
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[k]
        with self._log(k).open("ab") as log:
            self.processes[k] = self._open(words, environment, log)

    def _open(self, words: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C is for the job, which then ends its workers in good order.
        return subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def _log(self, k: int) -> Path:
        return self.folder / f"worker{k + 1}.log"

    def tend(self) -> None:
        """Start workers again that have ended; their nannies see to processes that were killed."""
        for k, process in list(self.processes.items()):
            if process.poll() is not None:
                self.failures += 1
                if self.failures <= 3 * self.workers:
                    self._start(k)

    def problem(self) -> str:
        """Return what the last worker said when none can be kept alive."""
        if any(process.poll() is None for process in self.processes.values()):
            return ""
        lines = self._log(0).read_text(errors="replace").strip().splitlines() or ["nothing"]
        return f"No worker of --cluster stays alive; see {self._log(0)}, which ends in: {lines[-1][:200]}"

    def stop(self) -> None:
        """End the workers, then the scheduler."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + 10
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        super().stop()


class SlurmCluster(Cluster):
    """Workers that are jobs of a SLURM queue, each one process.

    What is not given is taken from dask-jobqueue's own settings (``~/.config/dask/jobqueue.yaml``).

    Parameters
    ----------
    plan : ClusterPlan
        How many jobs, and what each asks for.
    folder : Path
        Where their logs go.
    single_thread : bool
        One thread a job, whatever its cores: the work is done by a GPU.
    """

    def __init__(self, plan: ClusterPlan, folder: Path, *, single_thread: bool) -> None:
        super().__init__(folder)
        self.plan, self.single_thread = plan, single_thread
        self.tended = 0.0

    def start(self) -> str:
        """Start the scheduler on this machine and put the jobs into the queue."""
        from dask_jobqueue.slurm import SLURMCluster

        if shutil.which("sbatch") is None:
            raise UserError("--cluster slurm: there is no sbatch here; start the job where SLURM is.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._settings():
            try:
                self.scheduler = SLURMCluster(**self.options())
            except ValueError as error:
                raise UserError(
                    "--cluster slurm does not say what each job needs; give at least cores= and memory=, as "
                    f"in {EXAMPLES}."
                ) from error
        self._ask()
        self.scheduler.scale(jobs=self.plan.workers)
        self.tended = time.monotonic()
        return str(self.scheduler.scheduler_address)

    def _ask(self) -> None:
        """Ask the queue whether it would take such a job; dask-jobqueue would tell nobody that it did not."""
        script = self.folder / "job.sh"
        script.write_text(self.scheduler.job_script())
        words = ["sbatch", "--test-only", str(script)]
        asked = subprocess.run(words, capture_output=True, text=True, check=False)
        if asked.returncode:
            said = " ".join(asked.stderr.split()) or "no reason given"
            raise UserError(f"--cluster slurm: the queue refuses {script}: {said}")

    def options(self) -> dict[str, Any]:
        """Return the arguments of dask-jobqueue's cluster."""
        given = self.plan.settings
        options: dict[str, Any] = {
            "processes": 1,
            "job_name": "cryorefine",
            "worker_command": _WORKER,
            "worker_extra_args": ["--no-dashboard"],
            "death_timeout": _DEATH_TIMEOUT,
            "log_directory": str(self.folder),
            "silence_logs": "critical",
            "scheduler_options": {"dashboard_address": ":0", "dashboard": self.dashboard},
        }
        options |= {name: given[name] for name in ("memory", "queue", "account", "walltime") if name in given}
        options |= {name: given[name] for name in ("interface",) if name in given}
        if "local-directory" in given:
            options["local_directory"] = given["local-directory"]
        if "cores" in given:
            cores = int(given["cores"])
            options |= {"job_cpu": cores, "cores": 1 if self.single_thread else cores}
        if "gpus" in given:
            options["job_extra_directives"] = [f"--gres=gpu:{given['gpus']}"]
        return options

    def tend(self) -> None:
        """Put jobs into the queue again whose workers have ended."""
        if time.monotonic() - self.tended > _DEATH_TIMEOUT:
            self.tended = time.monotonic()
            self.scheduler.scale(jobs=self.plan.workers)
