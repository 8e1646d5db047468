"""One living process for each job folder, which gives a sign of life while it works there."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from cryorefine.errors import UserError

LOCK_FILE = ".cryorefine_lock"
BEAT_SECONDS = 20.0
"""How often a job touches its lock."""
SILENT_SECONDS = 180.0
"""After how long without a touch something is probably wrong; file servers may lag by a minute."""


class Lock:
    """The lock that this process holds on a job folder.

    A thread touches the file every :data:`BEAT_SECONDS`, so that other machines see that somebody lives.

    Attributes
    ----------
    lost : bool
        Whether somebody took the lock away, and perhaps works in the folder now.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self.lost = False
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="cryorefine heart-beat", daemon=True).start()

    def release(self) -> None:
        """Leave the folder to others; a lock that somebody else has taken since stays."""
        self._over.set()
        if not self.lost and self._is_mine():
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                if not self._is_mine():
                    self.lost = True
                    return
                os.utime(self._path)
            except OSError:
                continue  # the file server is away for a moment

    def _is_mine(self) -> bool:
        try:
            return self._path.read_text() == self._text
        except FileNotFoundError:
            return False


def take(folder: Path) -> Lock:
    """Make this process the owner of a job folder and return its lock, to be released at the end.

    A lock whose process has died on this machine is cleared away. Whether a process of another
    machine lives cannot be known from here, so its lock holds.

    Raises
    ------
    UserError
        If another process works in the folder.
    """
    path = folder / LOCK_FILE
    mine = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid())})
    while True:
        try:
            with path.open("x") as file:
                file.write(mine)
            return Lock(path, mine)
        except FileExistsError:
            owner = holder(folder)
            if owner is not None:
                raise UserError(
                    f"{folder} is in use by process {owner.get('pid', '?')} on {owner.get('host', '?')}; "
                    f"wait for it or give another --output (or, if that process is gone, delete {path})."
                ) from None
            path.unlink(missing_ok=True)


def holder(folder: Path) -> dict[str, Any] | None:
    """Return {"pid", "host", "started"} of the process that works in a folder, None if none does."""
    try:
        owner: dict[str, Any] = json.loads((folder / LOCK_FILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        # Being written at this moment, or left empty by a process that was killed just then.
        return {} if time.time() - (folder / LOCK_FILE).stat().st_mtime < 10 else None
    if owner.get("host") != socket.gethostname():
        return owner
    return owner if _start_of(owner["pid"]) == owner["started"] != "" else None


def silence(folder: Path) -> float | None:
    """Return for how many seconds the owner of a folder has given no sign of life, None without a lock."""
    try:
        return max(0.0, time.time() - (folder / LOCK_FILE).stat().st_mtime)
    except OSError:
        return None


def is_here(owner: dict[str, Any]) -> bool:
    """Whether the process of a lock runs on this machine, so that its death would be known."""
    return owner.get("host") == socket.gethostname()


def _start_of(pid: int) -> str:
    """Return when a process of this machine started, in its own clock ticks; "" if there is none.

    A process number alone is not enough: after a restart of the machine somebody else has it.
    """
    try:
        # The name in the second field may hold spaces and brackets: count from the last bracket.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return ""
    if os.name == "posix":  # no /proc on macOS
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
    return "unknown"
