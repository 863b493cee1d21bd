"""The slide's file: one descriptor for all threads, counted, closed when the last user is done."""

from __future__ import annotations

import io
import os
import threading

from wsiseg.errors import SlideError


class RawFile:
    """A file opened for `pread`. `retain` and `release` count users; the last release closes it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SlideError(self.path, f"cannot be opened: {error.strerror or error}") from error
        status = os.fstat(self.fd)
        if not os.path.isfile(self.path):
            os.close(self.fd)
            raise SlideError(self.path, "is not a regular file")
        self.size = status.st_size
        self._users, self._lock = 1, threading.Lock()
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def retain(self) -> None:
        with self._lock:
            if self._users <= 0:
                raise RuntimeError(f"{self.path} is closed")
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            os.close(self.fd)


class CappedReader(io.RawIOBase):
    """The file as a stream whose `read` never allocates more than the file holds, whatever a header asks for."""

    def __init__(self, file: RawFile) -> None:
        super().__init__()
        self._file, self._at = file, 0
        self.name = file.path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (0, self._at, self._file.size)[whence]
        if base + offset < 0:
            raise OSError("seek before the start of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._file.size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._file.fd, count, self._at) if count else b""
        self._at += len(data)
        return data

    def readinto(self, buffer, /) -> int:  # type: ignore[no-untyped-def]
        view = memoryview(buffer).cast("B")
        if self._at >= self._file.size or not len(view):
            return 0
        done = os.preadv(self._file.fd, [view], self._at)
        self._at += done
        return done
