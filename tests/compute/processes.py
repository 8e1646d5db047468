"""Processes that a test looks for among those of the machine."""

from __future__ import annotations

from contextlib import suppress

import psutil


def children_called(words: str, parent: psutil.Process) -> list[psutil.Process]:
    """Living children of a process with certain words in their command line.

    One that ends meanwhile, or has ended and waits for its parent to notice, has no command line any more.
    """
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in parent.children():
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(child.cmdline()):
                    found.append(child)
    return found
