"""One living process for each job folder."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from cryorefine.errors import UserError

LOCK_FILE = ".cryorefine_lock"


def take(folder: Path) -> Path:
    """Make this process the owner of a job folder and return the lock file, to be removed at the end.

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
            return path
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
