"""Sums for network pixels that lie across an edge between two decoding units, so that they are exact means too.

A seam row is a network row that two rows of units contribute to; a seam column likewise. Only these are summed; whole
network pixels inside a unit are shrunk directly. A seam row is kept whole, so the pixels where both kinds cross belong
to it and seam columns hold only the rows in between.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Size
from wsiseg.slide.level import U8
from wsiseg_kernels.cpu import shrink_add

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]


class Seams:
    """The sums of one reader.

    Args:
        size: the level's size in its own pixels.
        scale: level pixels per network pixel.
        ys, xs: edges of the units that are read, in level pixels; xs are cut to the panel.
        rows: rows of the ring.
        slots: seam rows that can be open at once.
    """

    def __init__(self, size: Size, scale: int, ys: I64, xs: I64, rows: int, slots: int) -> None:
        self._size, self._scale, self._x0 = size, scale, int(xs[0])
        self._lock = threading.Lock()
        self._rows: dict[int, U32] = {}
        self._pending = _contributions(ys, size.height, scale, len(xs) - 1)
        self._has_rows = len(self._pending) > 0
        width = -(-(int(xs[-1]) - self._x0) // scale)
        slots = min(slots, len(self._pending))
        self._free: list[U32] = [np.zeros((1, width, 3), np.uint32) for _ in range(slots)]
        inner = xs[1:-1]
        self._cols = np.unique(inner[inner % scale != 0] // scale)
        self._col_sums: U32 = np.zeros((rows if len(self._cols) else 1, len(self._cols), 3), np.uint32)
        counts = (
            np.minimum(size.width, (np.arange(width) + 1) * scale + self._x0)
            - np.arange(width) * scale
            - self._x0
        )
        self._width_counts = counts.astype(np.uint32)

    @property
    def none(self) -> bool:
        """Whether no edge lies inside a network pixel."""
        return not self._has_rows and not self.has_columns

    @property
    def has_columns(self) -> bool:
        return len(self._cols) > 0

    def add_row(self, src: U8, y0: int, x0: int) -> None:
        """Add pixels, all of one seam row, with their corner at level pixel (y0, x0)."""
        row = y0 // self._scale
        with self._lock:
            sums = self._rows.get(row)
            if sums is None:
                sums = self._rows[row] = self._free.pop()
            shrink_add(src, 0, x0 - self._x0, self._scale, sums)

    def add_column(self, src: U8, y0: int, x0: int) -> None:
        """Add pixels of whole network rows, all of one seam column."""
        slot = int(np.searchsorted(self._cols, x0 // self._scale))
        with self._lock:
            shrink_add(src, y0, slot * self._scale + x0 % self._scale, self._scale, self._col_sums)

    def unit_done(self, y0: int, y1: int, ring: U8) -> None:
        """Note that a unit of level rows y0..y1 has added its part; finish seam rows of which it was the last."""
        if not self._pending:
            return
        for row in _touched(y0, y1, self._size.height, self._scale):
            with self._lock:
                self._pending[row] -= 1
                sums = self._rows.pop(row) if self._pending[row] == 0 else None
            if sums is not None:
                high = min(self._scale, self._size.height - row * self._scale)
                _mean(sums[0], (self._width_counts * np.uint32(high))[:, None], ring[row % len(ring)])
                sums[:] = 0
                with self._lock:
                    self._free.append(sums)

    def row_of_units_done(self, y0: int, y1: int, ring: U8) -> None:
        """Finish the seam columns of a row of units (level rows y0..y1) after its last unit."""
        if not len(self._cols):
            return
        first = -(-y0 // self._scale)
        last = -(-y1 // self._scale) if y1 == self._size.height else y1 // self._scale
        wide = self._width_counts[self._cols - self._x0 // self._scale][:, None]
        for row in range(first, last):
            high = min(self._scale, self._size.height - row * self._scale)
            sums = self._col_sums[row % len(self._col_sums)]
            means = np.empty(sums.shape, np.uint8)
            _mean(sums, wide * np.uint32(high), means)
            ring[row % len(ring), self._cols - self._x0 // self._scale] = means
            sums[:] = 0


def _mean(sums: U32, counts: U32, out: U8) -> None:
    np.copyto(out, (sums + counts // 2) // counts, casting="unsafe")


def _touched(y0: int, y1: int, height: int, scale: int) -> set[int]:
    """Seam rows that a unit of level rows y0..y1 contributes to."""
    rows = set()
    if y0 % scale:
        rows.add(y0 // scale)
    if y1 % scale and y1 != height:
        rows.add(y1 // scale)
    return rows


def _contributions(ys: I64, height: int, scale: int, columns: int) -> dict[int, int]:
    pending: dict[int, int] = {}
    for y0, y1 in zip(ys[:-1].tolist(), ys[1:].tolist(), strict=True):
        for row in _touched(y0, y1, height, scale):
            pending[row] = pending.get(row, 0) + columns
    return pending
