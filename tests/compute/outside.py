"""A Dask scheduler with a worker that somebody else has started."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def outside_scheduler() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Process and address of a scheduler, which soon has a worker."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    here = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *here], **quiet)
    alone = ["--no-nanny", "--no-dashboard", "--death-timeout", "60"]
    worker = subprocess.Popen([sys.executable, "-m", "cryorefine.compute.worker", address, *alone], **quiet)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert scheduler.poll() is None, "the scheduler has ended"
            assert time.monotonic() < deadline, "no scheduler within a minute"
            time.sleep(0.05)
        yield scheduler, address
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
