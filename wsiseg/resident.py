"""How much memory this process and its children hold, as the kernel counts it; and how the allocator is kept tight."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def tighten_allocator() -> None:
    """Make glibc give large blocks back to the system and use two arenas.

    Left to itself it raises its mmap threshold to 32 MB after the first large free, and from then on freed ring and
    batch buffers stay in the heap of whichever of its many arenas held them. Does nothing on another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    mallopt(_M_ARENA_MAX, 2)


def trim() -> None:
    """Give free heap pages back to the system now."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def _status(pid: int | str, field: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # the process has just ended, or there is no /proc: it holds nothing that we can count
    return 0


def children(pid: int) -> list[int]:
    """All descendants of a process, in no order."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids = [int(p) for p in path.read_text().split()]
            except OSError:
                continue
            found += pids
            queue += pids
    return found


def resident_bytes() -> int:
    """Resident bytes of this process now (VmRSS)."""
    return _status("self", "VmRSS")


def peak_bytes() -> int:
    """The most resident bytes this process has had (VmHWM)."""
    return _status("self", "VmHWM")


def tree_bytes(pid: int | None = None) -> int:
    """Resident bytes now of a process and all of its descendants."""
    pid = pid or os.getpid()
    return sum(_status(p, "VmRSS") for p in (pid, *children(pid)))
