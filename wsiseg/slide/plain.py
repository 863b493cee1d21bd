"""Uncompressed RGB from the file into the ring: where there is nothing to decode the interpreter's share of the work would
be the largest, so the segments of a unit are read and shrunk in one compiled call that leaves the GIL alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from wsiseg.slide.level import U8, Level, Scratch
from wsiseg.slide.pool import Done
from wsiseg.slide.tiffsource import TiffSource
from wsiseg_kernels.cpu.jit import kernel, kernel_for
from wsiseg_kernels.cpu.shrink import NARROW, ROOM, copy_block, shrink_block

# ssize_t pread(int, void *, size_t, off_t) of the C library that every process has.
_copy, _shrink = copy_block.inner, shrink_block.inner
# Of half a second cache.
PIECE_BYTES = 1 << 18

_pread: Any = types.ExternalFunction(
    "pread", types.intp(types.int32, types.voidptr, types.uintp, types.int64)
)


@kernel
def _fetch(fd, offset, count, out):  # type: ignore[no-untyped-def]
    """Read `count` bytes at `offset` to where `out` begins; False when the file does not give them."""
    done = 0
    while done < count:
        got = _pread(fd, out[done:].ctypes, count - done, offset + done)
        if got <= 0:
            return False
        done += got
    return True


@kernel_for(
    "int64(int32, int64, Array(int64, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), UniTuple(int64, 5), "
    "UniTuple(int64, 6), uint8[::1], uint8[:, :, ::1], uint16[:, ::1])"
)
def _read(fd, end, offsets, counts, segments, place, buffer, ring, work):  # type: ignore[no-untyped-def]
    """Read segments beside each other into the ring; returns how many of them went well, one after the other.

    Args:
        fd, end: the file and its size.
        offsets, counts: the file's tables.
        segments: number of the first in the tables, how many, rows and columns of pixels in each, least bytes of each.
        place: level column of the first one's corner; level columns a..b that are wanted; network row and column where the
            ring's part begins, the column counted from the ring's; level pixels per network pixel.
        buffer: uint8, room for `scale` rows of a segment and more. ring: uint8 [rows, w, 3]. work: as of `shrink_block`.
    """
    first, number, high, wide, least = segments
    x, a, b, row, col, scale = place
    line, rows = wide * 3, len(ring)
    # Network rows that are read at a time: what is shrunk next is then in the processor's second cache.
    pieces = max(1, buffer.size // (line * scale))
    straight = scale == 1 and number == 1 and b - a == wide and ring.shape[1] == wide
    for k in range(number):
        offset, left = offsets[first + k], x + k * wide
        if offset < 8 or counts[first + k] < least or offset + counts[first + k] > end:
            return k
        x0, x1 = max(a, left) - left, min(b, left + wide) - left
        u0 = col + (left + x0 - a) // scale
        u1 = u0 + -(-(x1 - x0) // scale)
        done, made = 0, -(-high // scale)
        while done < made:
            at = (row + done) % rows
            n = min(made - done, rows - at)
            if not straight:
                n = min(n, pieces)
            y0, y1 = done * scale, min(high, (done + n) * scale)
            out = ring[at : at + n, u0:u1]
            target = ring[at : at + n].reshape(n * ring.shape[1] * 3) if straight else buffer
            if not _fetch(fd, offset + y0 * line, (y1 - y0) * line, target):
                return k
            if not straight:
                part = buffer[: (y1 - y0) * line].reshape(y1 - y0, wide, 3)[:, x0:x1]
                if scale == 1:
                    _copy(part, out)
                else:
                    _shrink(part, scale, out, work)
            done += n
    return number


class PlainReader:
    """Reads segments whose bytes in the file are the pixels: uncompressed 8-bit RGB, upright, whole network pixels each.

    Args:
        source: of such a level. level: its edges. scale: level pixels per network pixel, at most `NARROW`. ring: uint8
            [rows, w, 3].

    Safe from several threads.
    """

    def __init__(self, source: TiffSource, level: Level, scale: int, ring: U8) -> None:
        self._source, self._level, self._scale, self._ring = source, level, scale, ring
        layout = source.layout
        self._offsets, self._counts = (
            np.ascontiguousarray(t, np.int64) for t in (layout.offsets, layout.counts)
        )
        self._wide = layout.segment.width

    @classmethod
    def of(cls, level: Level, scale: int, ring: U8) -> PlainReader | None:
        """One for the level, where it is such."""
        source = level.source
        if isinstance(source, TiffSource) and source.plain and scale <= NARROW:
            return cls(source, level, scale, ring)
        return None

    def read(
        self, i: int, j0: int, j1: int, columns: tuple[int, int], x0: int, scratch: Scratch, done: Done
    ) -> int:
        """Read segments j0..j1 of row i, cut to level columns, as far as they are whole; returns how many that were.

        The first one that is missing or damaged is left for those who can say what it has. x0: the ring's network column.
        """
        level, layout, wide = self._level, self._source.layout, self._wide
        top, x = level.ys.item(i), j0 * wide
        high, first = level.ys.item(i + 1) - top, i * level.cols + j0
        a, b = columns
        line = wide * 3
        buffer = scratch.take("stored", min(high * line, max(PIECE_BYTES // line, self._scale) * line))
        number = _read(
            self._source.descriptor, self._source.file_size, self._offsets, self._counts,
            (first, j1 - j0, high, wide, layout.segment_bytes(i)),
            (x, a, b, top // self._scale, a // self._scale - x0, self._scale),
            buffer, self._ring, np.empty((2, wide * 3 + ROOM), np.uint16),
        )  # fmt: skip
        if number:
            done.segments += number
            done.stored += int(self._counts[first : first + number].sum())
            done.pixels += high * (min(x + number * wide, level.size.width) - x)
        return int(number)
