"""Writing files so that a name never stands for half a result, and so that a failure is one line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from wsiseg.errors import OutputError


@contextlib.contextmanager
def output_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns an OSError while `path` is being written into an OutputError of one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that gets the name `path` when the block ends well, and vanishes when it does not.

    It is written under a temporary name in the same folder, flushed to the disk, and renamed. A device or a pipe
    (/dev/stdout) is written to as it is: a rename would put a file in its place.

    Raises:
        OutputError: in one line, for whatever the system says (no such folder, not allowed, no space left).
    """
    target = Path(path)
    partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    with output_errors(target):
        if target.is_dir():
            raise OutputError(f"{target}: is a folder; give the name of a file")
        if is_special(target):
            with open(target, "wb") as file:
                yield file
            return
        try:
            with open(partial, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def is_special(path: Path) -> bool:
    """Whether the path exists and is neither a file nor a folder: a device, a pipe, a socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


def refuse_special(path: Path) -> None:
    """Refuses a device or a pipe for what cannot be written from its beginning to its end.

    Raises:
        OutputError: in one line.
    """
    if is_special(path):
        raise OutputError(f"{path}: is not a file; this format needs one")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a small file whole or not at all.

    Raises:
        OutputError: see `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data)


def safe_name(slide_id: str) -> str:
    """A slide's id as part of a file's name: what a file system, a shell or a browser takes amiss becomes "_".

    Letters and digits of any script, spaces, dots, dashes and brackets stay; different ids that would become the same
    name, or one too long, get a hash at the end.
    """
    kept = "".join(c if c.isalnum() or c in " ._-()[]+=,@" else "_" for c in slide_id).strip(" .")
    if kept and kept == slide_id and len(kept.encode()) <= 150:
        return kept
    digest = hashlib.sha256(slide_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept.encode()[:150].decode(errors='ignore')}-{digest}"
