"""Files of a job: read whole, written whole. A disk (temporary name, flush, fsync, rename) or an fsspec URL.

Nothing here locks and nothing appends, so any number of nodes may write to one folder. A temporary file carries its
writer's host, process id and start time; `clean` removes those whose writer is certainly gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from wsiseg.errors import OutputError
from wsiseg.jobs.temporary import (
    TEMPORARY,
    cannot_write,
    clean_folder,
    temporary_name,
    write_temporary,
    writer_is_gone,
)
from wsiseg.jobs.urlstore import UrlStore


class Store(Protocol):
    """A folder of small files. Names are relative, with forward slashes."""

    url: str

    def write(self, name: str, *parts: Any, sync: bool = True) -> None:
        """Replaces `name` by the bytes of `parts`, at once: a reader sees all of the old or all of the new."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes `name` only if it does not exist; False when somebody else was first."""

    def read(self, name: str) -> bytes | None:
        """The whole file, or None when there is none."""

    def read_line(self, name: str) -> bytes | None:
        """The first line without its end, or None when there is no such file."""

    def names(self, folder: str) -> Iterator[str]:
        """Names of all files below `folder`, in any order."""

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is fine."""

    def remove_folder(self, folder: str) -> None:
        """Removes a folder and everything in it."""

    def clean(self) -> int:
        """Removes temporary files of writers that are gone; returns how many."""


def open_store(url: str | os.PathLike[str]) -> Store:
    """The store behind a path or an fsspec URL such as s3://bucket/folder."""
    text = os.fspath(url)
    return UrlStore(text) if is_url(text) else DiskStore(Path(text))


def is_url(text: str) -> bool:
    """True for s3://..., memory://...; a plain path or file:// is a disk."""
    return "://" in text and not text.startswith("file://")


class DiskStore:
    """A folder on a disk, local or shared (NFS, Lustre)."""

    def __init__(self, root: Path) -> None:
        self.root = Path(str(root).removeprefix("file://")).absolute()
        self.url = str(self.root)
        self._known: set[Path] = set()

    def write(self, name: str, *parts: Any, sync: bool = True) -> None:
        temporary = self._write_temporary(parts, sync)
        target = self._target(name)
        try:
            os.replace(temporary, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise cannot_write(target, error) from error

    def create(self, name: str, data: bytes) -> bool:
        # link() fails when the name exists, also over NFS, where O_EXCL once did not
        temporary = self._write_temporary((data,), sync=True)
        target = self._target(name)
        try:
            os.link(temporary, target)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise cannot_write(target, error) from error
        finally:
            temporary.unlink()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_line(self, name: str) -> bytes | None:
        try:
            with open(self.root / name, "rb") as file:
                return file.readline().rstrip(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> Iterator[str]:
        for directory, _, files in os.walk(self.root / folder):
            prefix = os.path.relpath(directory, self.root).replace(os.sep, "/")
            for file in files:
                yield f"{prefix}/{file}"

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.root / name).unlink()

    def remove_folder(self, folder: str) -> None:
        for name in list(self.names(folder)):
            self.remove(name)
        for directory, _, _ in os.walk(self.root / folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        self._known.clear()

    def clean(self) -> int:
        return clean_folder(self.root / TEMPORARY)

    def _target(self, name: str) -> Path:
        target = self.root / name
        self._make(target.parent)
        return target

    def _make(self, folder: Path) -> None:
        if folder not in self._known:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(folder, error) from error
            self._known.add(folder)

    def _write_temporary(self, parts: tuple[Any, ...], sync: bool) -> Path:
        folder = self.root / TEMPORARY
        self._make(folder)
        try:
            return write_temporary(folder / temporary_name(), parts, sync)
        except OutputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        # another process of this job found the folder empty and removed it
        self._known.discard(folder)
        self._make(folder)
        return write_temporary(folder / temporary_name(), parts, sync)


def write_whole(path: str | os.PathLike[str], parts: Iterable[bytes]) -> None:
    """Replaces one file (a path or URL) at once; its temporary file lies beside it.

    Raises:
        OutputError: saying what could not be written and why.
    """
    text = os.fspath(path)
    if is_url(text):
        folder, _, name = text.rpartition("/")
        UrlStore(folder).write(name, *parts)
        return
    target = Path(text.removeprefix("file://")).absolute()
    temporary = target.parent / f".{target.name}.{temporary_name()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    for stale in target.parent.glob(f".{target.name}.*"):
        if writer_is_gone(stale.name[len(target.name) + 2 :], stale):
            stale.unlink(missing_ok=True)
    write_temporary(temporary, parts, sync=True)
    try:
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(target, error) from error
