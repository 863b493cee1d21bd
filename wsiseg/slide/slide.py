"""An open slide: what it is, and how to plan reading it."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.geometry import Size
from wsiseg.slide.level import Level
from wsiseg.slide.levelcheck import mismatch
from wsiseg.slide.opened import Opened
from wsiseg.slide.plan import ReadPlan, candidates, plan_read
from wsiseg.slide.rawfile import RawFile
from wsiseg.slide.tiff import open_tiff

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Slide:
    """One slide, open for reading. Use `open_slide`.

    Attributes:
        path, id: the file and its name without the extension.
        size: full size in pixels.
        mpp, mpp_source: microns per pixel (None when unknown) and where that was found.
        levels: resolutions, the full one first.
        format, layout, compression: in words.
        warnings: what is odd about the slide, one line each.
    """

    def __init__(self, path: str, file: RawFile | None, opened: Opened) -> None:
        self.path, self.id = path, slide_id(path)
        self.levels: tuple[Level, ...] = opened.levels
        self.size: Size = opened.levels[0].size
        self.mpp, self.mpp_source = opened.mpp.value, opened.mpp.source
        self.format, self.layout, self.compression = opened.format, opened.layout, opened.compression
        self.warnings: tuple[str, ...] = opened.warnings
        self._lock = threading.Lock()
        self._checked: dict[int, bool] = {}
        self._file = file
        self._closed = False

    def plan(self, scale: int, level: str = "auto") -> ReadPlan:
        """How to read this slide at `scale` slide pixels per network pixel.

        Args:
            level: "auto" takes the smallest level whose down-sampling divides the scale and whose pixels match the full
                size (compared once, at a few places); "0" reads the full size.
        """
        for candidate in candidates(self.levels, scale, level):
            if candidate.index == 0 or not candidate.exact or self._matches(candidate):
                break
        return plan_read(self.size, candidate, scale, self._stored(candidate))

    def _stored(self, level: Level) -> int:
        """Bytes of a level in the file; 0 when unknown, with a warning when that is odd."""
        try:
            return level.source.total_stored()
        except SlideError as error:
            with self._lock:
                if error.reason not in self.warnings:
                    self.warnings += (error.reason,)
            return 0

    def _matches(self, level: Level) -> bool:
        with self._lock:
            if level.index not in self._checked:
                why = mismatch(self.levels[0], level)
                self._checked[level.index] = why is None
                if why is not None:
                    self.warnings += (f"level {level.index} ({level.size}) is not used: {why}",)
            return self._checked[level.index]

    def retain(self) -> None:
        """Keep the file open for a reader."""
        if self._file is not None:
            self._file.retain()

    def release(self) -> None:
        """Undo `retain`."""
        if self._file is not None:
            self._file.release()

    def close(self) -> None:
        """Close the file once no reader uses it. Idempotent."""
        if not self._closed:
            self._closed = True
            self.release()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Slide({self.path!r}, {self.size}, {self.layout}, {self.compression})"


def slide_id(path: str | os.PathLike[str]) -> str:
    """A slide's id: its file's name without the extension."""
    return Path(path).stem


def open_slide(path: str | os.PathLike[str], *, mpp: float | None = None, fast_jpeg: bool = False) -> Slide:
    """Open a slide of any supported format, told by its content.

    Args:
        mpp: microns per pixel, instead of what the file says.
        fast_jpeg: offer JPEG decoded at a lower resolution as levels (see `fastjpeg`); faster, not exact.

    Raises:
        UsageError: fast_jpeg without simplejpeg.
        UnsupportedSlide: a format, compression or pixel type that is not read; the message names it.
        SlideError: missing, unreadable or damaged.
    """
    where = os.fspath(path)
    if os.path.isdir(where):
        from wsiseg.slide.zarrstore import open_zarr

        return Slide(where, None, open_zarr(where, mpp))
    file = RawFile(where)
    try:
        head = os.pread(file.fd, 16, 0)
        if head[:4] in TIFF_MAGIC:
            opened = open_tiff(file, mpp)
        elif head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff":
            from wsiseg.slide.image import open_image

            opened = open_image(file, head, mpp)
        elif not head:
            raise SlideError(where, "is empty")
        else:
            raise SlideError(
                where, "is not a TIFF, zarr, PNG or JPEG file (its first bytes are none of theirs)"
            )
        if fast_jpeg:
            from wsiseg.slide.fastjpeg import fast_levels, require

            require()
            opened = replace(opened, levels=(*opened.levels, *fast_levels(opened.levels)))
        return Slide(where, file, opened)
    except BaseException:
        file.release()
        raise
