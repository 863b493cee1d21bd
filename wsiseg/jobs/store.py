"""Files of a job: read whole, written whole. A disk (temporary name, flush, fsync, rename) or an fsspec URL.

Nothing here locks and nothing appends, so any number of nodes may write to one folder. A temporary file carries its
writer's host, process id and start time; `clean` removes those whose writer is certainly gone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from wsiseg.errors import OutputError, UsageError

TEMPORARY = ".wsiseg-tmp"
FOREIGN_AGE = 24 * 3600.0  # seconds after which another host's temporary file counts as abandoned
_serial = itertools.count()


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
            raise _cannot_write(target, error) from error

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
            raise _cannot_write(target, error) from error
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
                raise _cannot_write(folder, error) from error
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


class UrlStore:
    """A prefix behind fsspec. An object store's put is atomic; elsewhere a temporary name is moved into place."""

    PUT_IS_ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "r2", "memory")

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise UsageError(f"{url}: outputs to a URL need fsspec; pip install 'wsiseg[cluster]'") from error
        self.url = url.rstrip("/")
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{url}: {error}") from error
        self.atomic = self.url.split("://", 1)[0] in self.PUT_IS_ATOMIC
        # listings are cached by default and would hide what other nodes wrote
        self.fs.use_listings_cache = False

    def write(self, name: str, *parts: Any, sync: bool = True) -> None:
        data = b"".join(bytes(part) for part in parts)
        target = f"{self.root}/{name}"
        try:
            if self.atomic:
                self.fs.pipe_file(target, data)
                return
            temporary = f"{self.root}/{TEMPORARY}/{temporary_name()}"
            self.fs.makedirs(os.path.dirname(temporary), exist_ok=True)
            self.fs.makedirs(os.path.dirname(target), exist_ok=True)
            self.fs.pipe_file(temporary, data)
            self.fs.mv(temporary, target)
        except OSError as error:
            raise OutputError(f"cannot write {self.url}/{name}: {error}") from error

    def create(self, name: str, data: bytes) -> bool:
        target = f"{self.root}/{name}"
        try:
            self.fs.pipe_file(target, data, mode="create")
            return True
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError, ValueError):
            # a file system without exclusive creation: the window between the look and the write stays open, and
            # both writers of a manifest derive the same bytes from the same listing
            if self.fs.exists(target):
                return False
            self.write(name, data)
            return True

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self.fs.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_line(self, name: str) -> bytes | None:
        try:
            head = bytes(self.fs.cat_file(f"{self.root}/{name}", start=0, end=1 << 14))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if b"\n" not in head and len(head) == 1 << 14:
            head = self.read(name) or b""
        return head.split(b"\n", 1)[0]

    def names(self, folder: str) -> Iterator[str]:
        self.fs.invalidate_cache()
        base = self.fs._strip_protocol(self.root).rstrip("/")
        try:
            found = self.fs.find(f"{self.root}/{folder}")
        except (FileNotFoundError, NotADirectoryError):
            return
        for path in found:
            yield path[len(base) + 1 :]

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{name}")

    def remove_folder(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(f"{self.root}/{folder}", recursive=True)

    def clean(self) -> int:
        gone = [name for name in self.names(TEMPORARY) if writer_is_gone(name.rsplit("/", 1)[1], None)]
        for name in gone:
            self.remove(name)
        return len(gone)


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
        raise _cannot_write(target, error) from error
    for stale in target.parent.glob(f".{target.name}.*"):
        if writer_is_gone(stale.name[len(target.name) + 2 :], stale):
            stale.unlink(missing_ok=True)
    write_temporary(temporary, parts, sync=True)
    try:
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(target, error) from error


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
        raise _cannot_write(path, error) from error
    finally:
        if not whole:
            with contextlib.suppress(OSError):
                path.unlink()
    return path


def _cannot_write(path: Path, error: OSError) -> OutputError:
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
