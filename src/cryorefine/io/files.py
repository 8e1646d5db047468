"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from cryorefine.errors import UserError


@contextlib.contextmanager
def write_whole(path: str | os.PathLike[str], *, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path beside the target; rename it to the target when the block succeeds.

    A reader therefore sees the old file or the new one, never half of one, and a failed or killed
    writer leaves the old file as it was.

    Parameters
    ----------
    path : path-like
        Final name. Its folder must exist.
    flush : bool
        Whether the file is on the disk before it gets its name, so that it outlives a power cut. Not
        worth the time for one of thousands of files that can be made again.

    Yields
    ------
    pathlib.Path
        Name to write to: hidden, in the same folder, with the same suffix, and different for every
        process and thread, so that two writers never share it.

    Raises
    ------
    UserError
        When the folder is missing, the disk is full or the place may not be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{threading.get_ident()}.tmp{target.suffix}")
    try:
        if not target.parent.is_dir():
            raise UserError(
                f"{target} cannot be written: the folder {target.parent} does not exist; make it first."
            )
        if target.is_dir():
            raise UserError(f"{target} cannot be written: it is a folder; choose another name.")
        yield temporary
        # On the disk before it gets its name: after a power cut the name must not stand for nothing.
        if flush:
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise _as_user_error(error, target, temporary) from error
    finally:
        # Also on KeyboardInterrupt and on a generator that is closed half-way.
        temporary.unlink(missing_ok=True)


def folders_of_names(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the folders from which names in a file are looked up, the first one first.

    Names in RELION's files start from the project directory, in which its programs run. So for a file
    below the current directory that comes first, and then the file's own folder and those above it. A file
    that lies elsewhere belongs to another project: there the current directory comes last, because
    it may well hold a job of the same name.

    Parameters
    ----------
    path : path-like
        The file that holds the names.

    Returns
    -------
    tuple of pathlib.Path
        Absolute, without repetition.
    """
    here, folder = Path.cwd(), Path(path).absolute().parent
    # Names like ../other/set.star are of the folder that they lead to.
    folder = Path(os.path.normpath(folder))
    above = (folder, *folder.parents)
    return tuple(dict.fromkeys((here, *above) if here in above else (*above, here)))


def _as_user_error(error: OSError, target: Path, temporary: Path) -> Exception:
    """Return the sentence for an error of the place written to, or the error itself."""
    # NumPy tells that the disk took less than it should by an error without a number.
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "written" in str(error)):
        return UserError(
            f"{target} cannot be written: no space is left on the disk; make room or choose another folder."
        )
    if error.errno == errno.EFBIG:
        return UserError(
            f"{target} cannot be written: files as large as this are not allowed here ({error.strerror}); "
            "raise the limit (ulimit -f) or choose another folder."
        )
    ours = error.filename is None or Path(os.fsdecode(error.filename)) in (target, temporary)
    if ours and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            f"{target} cannot be written: you may not write in {target.parent}; "
            "choose another folder or change its permissions."
        )
    return error
