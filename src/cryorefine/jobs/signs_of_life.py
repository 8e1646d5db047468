"""Is a job alive, and if not, how did it end? Told from its folder, also for jobs of other machines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.jobs import lock
from cryorefine.jobs.events import PROGRESS_FILE
from cryorefine.jobs.folder import EXIT_FILES, STOP_FILE, status
from cryorefine.jobs.pipeline_record import record_failure

KILLED = "The job stopped without a word (killed, or its machine was switched off)."


@dataclass(frozen=True)
class Life:
    """What is known of the process behind a job's folder.

    Attributes
    ----------
    state : str
        "running", "succeeded", "failed", "aborted" or "interrupted" (killed) as told by
        :func:`.folder.status`; "unknown" for a folder of another program that does not say how it ended.
    sentence : str
        The same for a person, with where it runs and for how long nothing has been heard of it.
    here : bool
        Whether it runs on this machine.
    silent : float or None
        Seconds since the last sign of life of a running job, or since the newest file of an unknown one.
    stopping : bool
        Whether it has been asked to stop after its iteration.
    """

    state: str
    sentence: str
    here: bool = True
    silent: float | None = None
    stopping: bool = False


def signs_of_life(folder: Path) -> Life:
    """Tell whether a job lives, without changing anything."""
    state = status(folder)
    if state == "running":
        return _running(folder)
    ours = (folder / PROGRESS_FILE).exists()
    if not ours and state in ("interrupted", "empty"):
        return _of_another_program(folder)
    killed = state == "failed" and _last_line(folder / "run.err") == KILLED
    sentences = {
        "succeeded": "Finished.",
        "failed": KILLED if killed else "Failed; the log says why.",
        "aborted": "Stopped by request.",
        "interrupted": KILLED,
        "empty": "Nothing has run in this folder.",
    }
    return Life(state, sentences[state])


def record_death(folder: Path) -> bool:
    """Mark a job of this program that was killed as failed, in its folder and in RELION's pipeline.

    Only if it is certain: its lock names a process of this machine that is gone, or there is no lock at all.
    A job of another machine may still be alive, and stays as it is.

    Returns
    -------
    bool
        Whether it was marked.
    """
    if not (folder / PROGRESS_FILE).exists() or status(folder) != "interrupted":
        return False
    try:
        held = lock.take(folder)
    except (UserError, OSError):  # somebody goes on with it, or may not write here
        return False
    try:
        if any((folder / name).exists() for name in EXIT_FILES.values()):
            return False
        with (folder / "run.err").open("a", encoding="utf-8") as file:
            file.write(KILLED + "\n")
        record_failure(folder)
        (folder / EXIT_FILES["failed"]).touch()
    except OSError:
        return False
    finally:
        held.release()
    return True


def span_text(seconds: float) -> str:
    """Return "40 s", "3 min", "5 h" or "2 days"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h" if seconds < 36 * 3600 else f"{round(seconds / 86400)} days"


def _running(folder: Path) -> Life:
    owner = lock.holder(folder) or {}
    here = lock.is_here(owner)
    host = owner.get("host", "another machine")
    place = f"process {owner.get('pid', '?')}" + ("" if here else f" on {host}")
    silent = lock.silence(folder) or 0.0
    stopping = (folder / STOP_FILE).exists()
    sentence = f"Running ({place})."
    if stopping:
        sentence = f"Running ({place}); stops after this iteration."
    if silent > lock.SILENT_SECONDS:
        hope = (
            "it is suspended, or its disk is away"
            if here
            else f"if {host} is down or the process was killed, release the folder"
        )
        sentence = f"No sign of life for {span_text(silent)} ({place}): {hope}."
    return Life("running", sentence, here, silent, stopping)


def _of_another_program(folder: Path) -> Life:
    """Tell what the files of a RELION job say that has left no exit file."""
    if (folder / "run_model.star").exists() and (folder / "run_class001.mrc").exists():
        return Life("succeeded", "Finished.", here=False)
    times = [path.stat().st_mtime for path in folder.glob("run*") if path.is_file()]
    if not times:
        return Life("empty", "Nothing has run in this folder.")
    silent = max(0.0, time.time() - max(times))
    return Life(
        "unknown",
        f"It does not say whether it still runs; the newest file is {span_text(silent)} old.",
        here=False,
        silent=silent,
    )


def release(folder: Path) -> None:
    """Take the lock away from a process of another machine that a person knows to be dead.

    Should it live after all, it stops by itself as soon as it notices.
    """
    (folder / lock.LOCK_FILE).unlink(missing_ok=True)


def _last_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").rstrip().rpartition("\n")[2]
    except OSError:
        return ""
