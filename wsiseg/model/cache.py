"""A small cache of derived files (exported graphs, timing caches) in the user's cache folder.

Entries are written by rename, so that processes may share it without locks, and the oldest go when it grows too big.
A cache that cannot be read or written is the same as an empty one: it never fails a run.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from wsiseg.errors import OutputError
from wsiseg.model.onnxio import write_atomic

LIMIT = 4 * 1024**3  # bytes of all entries; the oldest are removed beyond it


def folder() -> Path:
    """`$WSISEG_CACHE`, else `wsiseg` in `$XDG_CACHE_HOME` or `~/.cache`."""
    given = os.environ.get("WSISEG_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsiseg"


def get(name: str) -> bytes | None:
    """The entry `name`, or None. Using an entry makes it the youngest."""
    path = folder() / name
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return data or None


def put(name: str, data: bytes, limit: int = LIMIT) -> None:
    """Keep `data` as `name`, and drop the oldest entries while all together are larger than `limit` bytes."""
    if len(data) > limit:
        return
    with contextlib.suppress(OutputError, OSError):
        write_atomic(folder() / name, data)
        entries = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder().iterdir() if p.is_file())
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= limit:
                break
            if path.name != name:
                path.unlink(missing_ok=True)
                total -= size
