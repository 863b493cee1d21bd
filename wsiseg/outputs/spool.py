"""The probability planes of a slide in progress, 8 bit at network resolution, in a file beside the outputs.

What needs probabilities after the runs are known (images of them, mean per object, splitting) reads them back from here
window by window, so memory does not grow with the slide. The file holds C x h x w bytes, of which rows without tissue
take no space on most file systems, and goes when the slide is done. It stays when a run is interrupted: a checkpoint
names it by its token, so a slide that goes on half way has all of its rows, or begins again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Rect, Size
from wsiseg.outputs.files import output_errors

_MAGIC = b"wsisegP1"
_HEADER = 64
_TOKEN = 16  # bytes
_ROWS = 64  # that are made 8 bit at a time

U8 = npt.NDArray[np.uint8]


class ProbabilitySpool:
    """C planes of h x w probabilities as round(255 p), filled in strips and read in windows.

    Args:
        path: of the file; its folder is made.
        classes: C. size: (h, w) of the network grid.

    Not for several threads at once, except that reading may go on while another spool is filled.

    Memory bound: 64 rows of one class in 8 bit, and a row of float32.
    """

    def __init__(self, path: str | os.PathLike[str], classes: int, size: Size) -> None:
        self.path, self.classes, self.size = Path(path), classes, size
        self._file: int | None = None
        self.token = self._found()

    def _found(self) -> str:
        """The token of a file of these planes that an interrupted run left, or ""."""
        try:
            with open(self.path, "rb") as file:
                head = file.read(_HEADER)
                whole = os.fstat(file.fileno()).st_size == _HEADER + self.classes * self.size.pixels
        except OSError:
            return ""
        return head[8 : 8 + _TOKEN].hex() if whole and head.startswith(_MAGIC) else ""

    def begin(self, resume: bool) -> None:
        """Start to take bands: into the file that was found, or into an empty one.

        Raises:
            OutputError: it cannot be written.
        """
        with output_errors(self.path):
            if resume and self.token:
                self._file = os.open(self.path, os.O_RDWR)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A new file, never the old one emptied: another process may still be filling that.
            self.path.unlink(missing_ok=True)
            token = secrets.token_bytes(_TOKEN)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            os.ftruncate(self._file, _HEADER + self.classes * self.size.pixels)
            os.pwrite(self._file, _MAGIC + token, 0)
            self.token = token.hex()

    def add(self, band: npt.NDArray[np.float32], row0: int, col0: int) -> None:
        """Take final probabilities [C, rows, columns] at network row `row0` and column `col0`.

        Raises:
            OutputError: they cannot be written; the file is removed, so that nothing half-written stays.
        """
        assert self._file is not None
        rows, columns = band.shape[1:]
        levels = np.empty((min(rows, _ROWS), columns), np.uint8)
        row = np.empty(columns, np.float32)
        try:
            with output_errors(self.path):
                for index, plane in enumerate(band):
                    for first in range(0, rows, _ROWS):
                        part = plane[first : first + _ROWS]
                        for source, target in zip(part, levels, strict=False):
                            np.multiply(source, np.float32(255), out=row)
                            row += np.float32(0.5)
                            np.clip(row, 0, 255, out=row)
                            target[:] = row  # cut off after adding a half: rounded
                        self._write(index, levels[: len(part)], row0 + first, col0)
        except BaseException:
            self.discard()
            raise

    def _write(self, index: int, levels: U8, row0: int, col0: int) -> None:
        # What was never written reads as zeros.
        if not levels.any():
            return
        if levels.shape[1] == self.size.width:
            self._write_at(levels.data.cast("B"), self._at(index, row0, 0))
            return
        for k, row in enumerate(levels):
            self._write_at(row.data, self._at(index, row0 + k, col0))

    def _write_at(self, data: memoryview, at: int) -> None:
        assert self._file is not None
        while len(data):  # a write may take a part only, and says why it stopped when it is tried again
            done = os.pwrite(self._file, data, at)
            data, at = data[done:], at + done

    def _at(self, index: int, y: int, x: int) -> int:
        return _HEADER + (index * self.size.height + y) * self.size.width + x

    def sync(self) -> None:
        """What was taken so far is on the disk; called before a checkpoint that relies on it.

        Raises:
            OutputError: it cannot be written.
        """
        assert self._file is not None
        with output_errors(self.path):
            os.fdatasync(self._file)

    def band(self, index: int, y0: int, y1: int) -> U8:
        """Rows y0..y1 of the plane of class `index`: uint8 [y1 - y0, w]."""
        return self.window(index, Rect(y0, 0, y1, self.size.width))

    def window(self, index: int, rect: Rect) -> U8:
        """A part of the plane of class `index`: uint8 [h, w].

        Raises:
            OutputError: the file cannot be read.
        """
        assert self._file is not None
        out = np.empty((rect.size.height, rect.size.width), np.uint8)
        with output_errors(self.path):
            if out.shape[1] == self.size.width:
                self._read_at(out.data.cast("B"), self._at(index, rect.y0, 0))
            else:
                for k, row in enumerate(out):
                    self._read_at(row.data, self._at(index, rect.y0 + k, rect.x0))
        return out

    def _read_at(self, into: memoryview, at: int) -> None:
        assert self._file is not None
        while len(into):
            done = os.preadv(self._file, [into], at)
            if not done:
                raise OSError(0, "the file of probabilities was cut short")
            into, at = into[done:], at + done

    def close(self) -> None:
        """Keep the file, for a run that goes on later."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def discard(self) -> None:
        """Remove the file."""
        self.close()
        self.token = ""
        with contextlib.suppress(OSError):
            self.path.unlink()


def spool_path(folder: str | os.PathLike[str], name: str) -> Path:
    """Where the spool of the slide whose outputs are called `name` lies in their folder."""
    return Path(folder) / f".{name[:200]}.probability.spool"
