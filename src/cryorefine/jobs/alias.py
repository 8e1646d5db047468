"""A name of one's own for a job, e.g. Refine3D/first3dref for Refine3D/job001, as in RELION's projects."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from cryorefine.errors import UserError


def checked_alias(alias: str) -> str:
    """Return an alias as it will stand beside the job folders, with underscores for its spaces.

    Raises
    ------
    UserError
        If it cannot be the name of a folder in a project of RELION's: shorter than two characters, one
        that begins with "job", or with others in it than letters, digits, ``_``, ``-``, ``.`` and ``+``.
    """
    name = re.sub(r"\s+", "_", alias.strip())
    if len(name) < 2 or not re.fullmatch(r"[\w.+-]+", name) or name.startswith((".", "-")):
        raise UserError(
            f"'{alias}' cannot be the alias of a job; take two or more letters, digits, '_' or '-'."
        )
    if name.startswith("job"):
        raise UserError(f"The alias '{alias}' begins with 'job' as job folders do; take another name.")
    return name


def give_alias(folder: Path, alias: str) -> Path:
    """Make a link with the alias beside a job's folder, in place of the alias it had.

    Parameters
    ----------
    folder : Path
        The job's folder, e.g. Refine3D/job001.
    alias : str
        Its name, e.g. "first3dref".

    Returns
    -------
    Path
        The link, e.g. Refine3D/first3dref.

    Raises
    ------
    UserError
        If the alias cannot be one, or something else has that name.
    """
    name = checked_alias(alias)
    link = folder.parent / name
    target = Path("..") / folder.parent.name / folder.name  # as RELION's links
    former = alias_of(folder)
    if former == name:
        return link
    if os.path.lexists(link):
        raise UserError(f"{link} is there already; give {folder} another alias than '{name}'.")
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise UserError(f"No link {link} could be made ({error.strerror}); go without an alias.") from error
    if former:
        with suppress(OSError):
            (folder.parent / former).unlink()
    return link


def drop_alias(folder: Path) -> None:
    """Remove the alias of a job's folder, if it has one."""
    if alias := alias_of(folder):
        with suppress(OSError):
            (folder.parent / alias).unlink()


def alias_of(folder: Path) -> str:
    """Return the alias of a job's folder, or an empty text where it has none."""
    if not folder.parent.is_dir():
        return ""
    for other in sorted(folder.parent.iterdir()):
        if other.is_symlink() and other.resolve() == folder.resolve():
            return other.name
    return ""
