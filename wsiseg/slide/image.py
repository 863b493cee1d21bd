"""Plain PNG and JPEG files, for small images: decoded whole, as one segment."""

from __future__ import annotations

import os
from typing import Any

import imagecodecs
import numpy as np

from wsiseg.errors import BadSegment, SlideError, UnsupportedSlide
from wsiseg.geometry import Size
from wsiseg.slide import limits
from wsiseg.slide.level import U8, Level, Scratch, edges
from wsiseg.slide.mpp import pick_mpp
from wsiseg.slide.opened import Opened
from wsiseg.slide.orientation import Turn, exif_orientation, turn
from wsiseg.slide.rawfile import RawFile
from wsiseg.slide.streams import BadStream, Frame, jpeg_frame


def open_image(file: RawFile, head: bytes, mpp: float | None) -> Opened:
    """Open a PNG or JPEG.

    Raises:
        UnsupportedSlide, SlideError: with the reason.
    """
    png = head[:4] == b"\x89PNG"
    name = "PNG" if png else "JPEG"
    start = os_read(file, 0, min(file.size, 1 << 20))
    try:
        frame = (
            png_frame(start)
            if png
            else jpeg_frame(start if file.size <= 1 << 20 else os_read(file, 0, file.size))
        )
    except BadStream as error:
        if not png and b"MPF\0" in start[:65536]:
            raise UnsupportedSlide(file.path, "a JPEG file of several pictures (MPO) is not read") from error
        raise SlideError(file.path, f"the {name} file is damaged: {error}") from error
    limits.check_size(file.path, frame.size.height, frame.size.width)
    if frame.size.pixels > limits.MAX_IMAGE_PIXELS:
        raise UnsupportedSlide(
            file.path,
            f"a {name} of {frame.size} pixels is decoded whole; at most {limits.MAX_IMAGE_PIXELS // 10**6} Mpx are read",
            "convert it to a tiled TIFF",
        )
    if not png and frame.samples == 4:
        raise UnsupportedSlide(file.path, "CMYK JPEG files are not read")
    turned = turn(1 if png else exif_orientation(start))
    source = ImageSource(file, frame, png, turned)
    size = Size(frame.size.width, frame.size.height) if turned.transpose else frame.size
    level = Level(
        0,
        size,
        1,
        edges(size.height, size.height),
        edges(size.width, size.width),
        source,
        source.scratch,
        name,
    )
    picked = pick_mpp([], mpp)
    return Opened((level,), "one image", name, picked, picked.warnings, name)


def os_read(file: RawFile, offset: int, count: int) -> bytes:
    """Bytes of the file; fewer at its end."""
    return os.pread(file.fd, count, offset)


def png_frame(data: bytes) -> Frame:
    """Size of a PNG.

    Raises:
        BadStream: no header.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise BadStream("its header is cut")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(data[25], 0)
    return Frame(Size(height, width), samples, bits=data[24])


class ImageSource:
    """A `SegmentSource` of one segment."""

    def __init__(self, file: RawFile, frame: Frame, png: bool, turned: Turn) -> None:
        self._file, self._frame, self._png, self._turn = file, frame, png, turned
        pixels = frame.size.pixels
        self.scratch = {
            "stored": file.size,
            "decoded": pixels * 4 * max(1, frame.bits // 8),
            "rgb": pixels * 3,
        }

    def stored(self, row: int, col: int) -> int:
        return self._file.size

    def total_stored(self) -> int:
        return self._file.size

    def read(self, row: int, col: int, scratch: Scratch) -> U8:
        data = os_read(self._file, 0, self._file.size)
        try:
            return self._turn.apply(
                self._from_png(imagecodecs.png_decode(data)) if self._png else self._jpeg(data)
            )
        except (RuntimeError, ValueError, MemoryError, BadStream) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise BadSegment(self._file.path, f"the image is damaged: {reason}") from error

    def _jpeg(self, data: bytes) -> U8:
        size = self._frame.size
        out = np.empty((size.height, size.width, 3), np.uint8)
        return imagecodecs.jpeg8_decode(data, outcolorspace=2, out=out)

    def _from_png(self, got: Any) -> U8:
        if got.shape[:2] != (self._frame.size.height, self._frame.size.width):
            raise BadStream("its pixels are not what its header says")
        if got.dtype == np.uint16:
            got = (got >> 8).astype(np.uint8)
        if got.ndim == 2:
            got = got[..., None]
        if got.shape[2] in (2, 4):
            alpha = got[..., -1:].astype(np.uint32)
            product = got[..., :-1] * alpha + 128
            got = (((product + (product >> 8)) >> 8) + (255 - alpha)).astype(np.uint8)
        if got.shape[2] == 1:
            got = np.repeat(got, 3, axis=2)
        return np.ascontiguousarray(got, dtype=np.uint8)
