"""Uncompressed RGB from the file into the ring: where there is nothing to decode the interpreter's share of the work would
be the largest, so the segments of a unit are read and shrunk in one compiled call that leaves the GIL alone.
"""

from __future__ import annotations

import numpy as np

from wsiseg.slide.level import U8, Level, Scratch
from wsiseg.slide.pool import Done
from wsiseg.slide.tiffsource import TiffSource
from wsiseg_kernels.cpu.files import read_plain
from wsiseg_kernels.cpu.shrink import NARROW, ROOM

# Read at a time: it is to stay in a processor's second-level cache until it is shrunk.
PIECE_BYTES = 1 << 18


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
        number = read_plain(
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
