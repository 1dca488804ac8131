"""How the process asks the system for memory."""

import ctypes
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
_FOR_ANY_FILE, _TIMES_A_FILE = 3 * 2**28, 8

_lock = threading.Lock()
_before: list[tuple[int, int]] = []  # the limits as they were, once for each who limits


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


@contextmanager
def limited_memory(file: str | Path) -> Iterator[None]:
    """Refuse the process memory beyond what reading a file may need: 0.75 GiB and 8 times its size.

    A damaged HDF5 file of some kilobytes can make the HDF5 library ask for memory without end;
    refused, it gives up in good order. The limit is on what all threads ask the system for
    meanwhile, and ends with the last who set one; what the process holds already, in use or freed
    and kept, does not count. On Linux only; elsewhere nothing happens.

    Parameters
    ----------
    file
        The file; one that is missing counts as empty.
    """
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        yield
        return
    try:
        needed = _FOR_ANY_FILE + _TIMES_A_FILE * os.stat(file).st_size
    except OSError:
        needed = _FOR_ANY_FILE
    with _lock:
        now, most = resource.getrlimit(resource.RLIMIT_AS)
        first = _before[0][0] if _before else now
        _before.append((first, most))
        wanted = size + needed if len(_before) == 1 else max(now, size + needed)
        wanted = wanted if first == resource.RLIM_INFINITY else min(wanted, first)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
    try:
        yield
    finally:
        with _lock:
            limits = _before.pop()
            if not _before:
                resource.setrlimit(resource.RLIMIT_AS, limits)
