"""How much memory there is, and what the C library does with what arrays give back."""

from __future__ import annotations

import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 2**17, 2**16


def physical_memory() -> int:
    """Return the memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process, for the next array, instead of going back to the system.

    Post-processing makes and drops arrays of tens of megabytes one after the other. Fresh pages are
    cleared by the system, which takes a third of its time, and more in a virtual machine. For
    programs that are over in a second: a long one would hold on to its peak.

    Returns
    -------
    bool
        Whether the C library (glibc) can be told so.
    """
    # Huge pages, which NumPy asks for when it is imported, are cleared and searched for at greater cost
    # still: measured 1.1 s of the 2.0 s that post-processing of 256^3 voxels took with them.
    if "numpy" not in sys.modules:
        os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    return _tell_allocator(0, 2**31 - 1)


def return_freed_memory() -> bool:
    """Let freed arrays go back to the system again, as they do unless :func:`keep_freed_memory` was called.

    For large arrays: what is kept has gaps that the next one does not fit into, half of the peak and more.

    Returns
    -------
    bool
        Whether the C library (glibc) can be told so.
    """
    return _tell_allocator(_DEFAULT_MMAP_MAX, _DEFAULT_TRIM_THRESHOLD)


def _tell_allocator(mmap_max: int, trim_threshold: int) -> bool:
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, mmap_max)) and bool(mallopt(_TRIM_THRESHOLD, trim_threshold))
