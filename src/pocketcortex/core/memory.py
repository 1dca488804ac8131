"""How the process asks the system for memory."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make the C library keep large blocks it is given back, and return whether it could.

    Training frees and asks for the same tens of megabytes at every step. By default glibc returns
    such blocks to the system, which then hands out and clears fresh pages each time: on a CPU a
    third of a student's training time. Only glibc has this switch; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def physical_bytes() -> int:
    """Return the machine's memory in bytes; what others use of it is not taken off."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
