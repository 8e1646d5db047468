"""RELION's pipeline changed by one process at a time.

RELION guards ``default_pipeline.star`` by a folder ``.relion_lock``, which only one process can make.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.io.pipeline import PIPELINE_FILE, Pipeline, read_pipeline

LOCK_FOLDER = ".relion_lock"
LOCK_SECONDS = 20.0
"""How long to wait for RELION, which holds its lock for moments only."""


@contextlib.contextmanager
def changed_pipeline(project: Path, wait: float | None = None) -> Iterator[Pipeline]:
    """Give the pipeline of a project to be changed, while RELION and others keep away, and write it.

    Parameters
    ----------
    project : Path
        Folder of the project.
    wait : float, optional
        How many seconds to wait for the lock; :data:`LOCK_SECONDS` by default.

    Raises
    ------
    UserError
        If the lock is not free, or the file is damaged or cannot be written; then it stays as it was.
    """
    lock = project / LOCK_FOLDER
    _take(lock, LOCK_SECONDS if wait is None else wait)
    message = lock / f"lock_{PIPELINE_FILE}"
    try:
        message.write_text(f"cryorefine, process {os.getpid()} on {socket.gethostname()}\n")
        pipeline = read_pipeline(project / PIPELINE_FILE)
        before = pipeline.text()
        yield pipeline
        if pipeline.text() != before:
            pipeline.write()
            # Tells an open window of RELION to read it anew.
            (project / ".pipeline_has_changed").touch()
    finally:
        with contextlib.suppress(OSError):
            message.unlink()
        with contextlib.suppress(OSError):
            lock.rmdir()


def _take(lock: Path, wait: float) -> None:
    until = time.monotonic() + wait
    while True:
        try:
            lock.mkdir()
            return
        except FileExistsError:
            if time.monotonic() >= until:
                raise UserError(
                    f"{lock} has been held by another program for {wait:.0f} s; if no RELION runs in "
                    "this project, delete that folder."
                ) from None
            time.sleep(0.1)
        except OSError as error:
            raise UserError(
                f"{lock.parent} cannot be written to ({error.strerror}); change its permissions."
            ) from error
