"""Temporary files that say who writes them, so that what a dead writer left can be removed without a lock."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from wsiseg.errors import OutputError

TEMPORARY = ".wsiseg-tmp"  # the folder of a store that they are in
FOREIGN_AGE = 24 * 3600.0  # seconds after which another host's temporary file counts as abandoned
_serial = itertools.count()


def write_temporary(path: Path, parts: Any, sync: bool) -> Path:
    """Writes and flushes `path`, which must not exist; removes it again when that fails."""
    whole = False
    try:
        with open(path, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        whole = True
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if not whole:
            with contextlib.suppress(OSError):
                path.unlink()
    return path


def cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}")


def host_name() -> str:
    """This host's name in characters that fit a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def temporary_name() -> str:
    """A name that no other process and no other call uses, and that says who writes it."""
    pid = os.getpid()
    return f"{host_name()}.{pid}.{process_start(pid) or 0}.{next(_serial)}.tmp"


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: with the id it names a process for good. None: it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # a zombie has ended; under an init that does not reap it stays listed for ever
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def writer_is_gone(name: str, path: Path | None) -> bool:
    """Whether the writer of a temporary file is certainly dead (this host), or the file is a day old (another host)."""
    match = re.fullmatch(r"([A-Za-z0-9-]+)\.(\d+)\.(\d+)\.\d+\.tmp", name)
    if not match:
        return False
    if match[1] == host_name():
        return process_start(int(match[2])) != int(match[3])
    try:
        return path is not None and time.time() - path.stat().st_mtime > FOREIGN_AGE
    except OSError:
        return False


def clean_folder(folder: Path) -> int:
    """Removes temporary files of writers that are gone, and the folder when nothing is left in it."""
    removed = 0
    # A path that leads through a file is refused by the first write, which says so.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(folder)):
            if writer_is_gone(entry.name, Path(entry.path)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
                    removed += 1
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return removed
