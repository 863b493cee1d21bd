"""Files of a job behind an fsspec URL: S3 and other object stores, or any file system that fsspec knows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from wsiseg.errors import OutputError, UsageError
from wsiseg.jobs.temporary import TEMPORARY, temporary_name, writer_is_gone


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
