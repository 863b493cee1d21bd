"""Decodes units (a few segments) of a level and shrinks them into the ring of network rows: what a decoding thread does."""

from __future__ import annotations

import threading

import numpy as np

from wsiseg.errors import BadSegment
from wsiseg.geometry import Size
from wsiseg.slide.level import U8, Level, Scratch
from wsiseg.slide.plain import PlainReader
from wsiseg.slide.plan import ReadPlan, assembles, seam_slots, unit_edges
from wsiseg.slide.pool import Done
from wsiseg.slide.seams import Seams
from wsiseg_kernels.cpu import shrink


class UnitWriter:
    """The units of one panel at one scale.

    Args:
        level, plan: what is read and how.
        columns: network columns [x0, x1) of the panel.
        ring: uint8 [rows, x1 - x0, 3]; network row y goes to ring[y % rows].
        white: fill damaged segments with white instead of raising.

    Attributes:
        ys, xs: edges of the units in level pixels; xs are cut to the panel.
        columns: units beside each other; unit number = row * columns + column.

    Thread safety: `write` may run in several threads at once, for different units whose network rows are free.
    """

    def __init__(
        self, level: Level, plan: ReadPlan, columns: tuple[int, int], ring: U8, *, white: bool
    ) -> None:
        self._level, self._plan, self._ring, self._white = level, plan, ring, white
        self._r = r = plan.remaining
        size = plan.level_size
        # The level's own network grid; it can miss the last row or column of the slide's, which is then repeated.
        self._grid = Size(-(-size.height // r), -(-size.width // r))
        self._x0 = min(columns[0], self._grid.width - 1)
        left, right = self._x0 * r, min(size.width, columns[1] * r)
        ys, xs = unit_edges(level.ys, plan.rows_per_unit), unit_edges(level.xs, plan.cols_per_unit)
        first = int(np.searchsorted(xs, left, "right")) - 1
        last = int(np.searchsorted(xs, right, "left"))
        xs = np.clip(xs[first : last + 1], left, right)
        self._seams = Seams(size, r, ys, xs, len(ring), seam_slots(plan, len(ring)))
        self.ys: list[int] = ys.tolist()
        self.xs: list[int] = xs.tolist()
        self.columns = len(self.xs) - 1
        # The segments of each column of units; a panel's edge can leave out some.
        starts = np.searchsorted(level.xs, xs[:-1], "right") - 1
        ends = np.searchsorted(level.xs, xs[1:], "left")
        self._spans: list[tuple[int, int]] = list(zip(starts.tolist(), ends.tolist(), strict=True))
        self._assembles = assembles(level, plan.rows_per_unit, plan.cols_per_unit, r)
        self._row_work = self._seams.has_columns or self._grid != plan.network
        self._plain = PlainReader.of(level, r, ring) if self._seams.none and not self._assembles else None
        self._lock = threading.Lock()
        self._open = [self.columns] * (len(self.ys) - 1)  # units of each row that are not decoded

    def skip(self, rows: int) -> None:
        """Leave out the first `rows` rows of units."""
        self._open[:rows] = [0] * rows

    def write(self, unit: int, scratch: Scratch) -> Done:
        """Decode a unit into the ring.

        Raises:
            BadSegment: a segment is damaged, and nobody wants it white.
        """
        row, col = divmod(unit, self.columns)
        y0, y1 = self.ys[row], self.ys[row + 1]
        x0, x1 = self.xs[col], self.xs[col + 1]
        i0 = row * self._plan.rows_per_unit
        i1 = min(self._level.rows, i0 + self._plan.rows_per_unit)
        j0, j1 = self._spans[col]
        done = Done()
        if not self._assembles or (i1 - i0 == 1 and j1 - j0 == 1):
            for i in range(i0, i1):
                read = (
                    0
                    if self._plain is None
                    else self._plain.read(i, j0, j1, (x0, x1), self._x0, scratch, done)
                )
                for j in range(j0 + read, j1):
                    src, y, x = self._segment(i, j, x0, x1, scratch, done)
                    if self._seams.none:
                        self._shrink(src, y // self._r, x // self._r - self._x0)
                    else:
                        self._place(src, y, x)
        else:
            whole = scratch.take("unit", (y1 - y0) * (x1 - x0) * 3).reshape(y1 - y0, x1 - x0, 3)
            for i in range(i0, i1):
                for j in range(j0, j1):
                    src, y, x = self._segment(i, j, x0, x1, scratch, done)
                    shrink(src, 1, whole[y - y0 : y - y0 + src.shape[0], x - x0 : x - x0 + src.shape[1]])
            self._place(whole, y0, x0)
        self._seams.unit_done(y0, y1, self._ring)
        if self._row_work:
            with self._lock:
                self._open[row] -= 1
                last = self._open[row] == 0
            if last:
                self._seams.row_of_units_done(y0, y1, self._ring)
                self._repeat_edges(row)
        return done

    def _segment(self, i: int, j: int, x0: int, x1: int, scratch: Scratch, done: Done) -> tuple[U8, int, int]:
        """Decode segment (i, j), cut to level columns x0..x1: its pixels and the level pixel of its corner."""
        level = self._level
        y, x = level.ys.item(i), level.xs.item(j)
        try:
            src = level.source.read(i, j, scratch)
        except BadSegment as error:
            if not self._white:
                raise
            height, width = level.ys.item(i + 1) - y, level.xs.item(j + 1) - x
            src = scratch.take("rgb", height * width * 3).reshape(height, width, 3)
            src[:] = 255
            done.bad.append(error.reason)
            done.bad_pixels += height * width * self._plan.downsample**2
        high, wide, _ = src.shape
        done.segments += 1
        done.stored += level.source.stored(i, j)
        done.pixels += high * wide
        if x < x0 or x + wide > x1:
            a, b = max(x0, x), min(x1, x + wide)
            return src[:, a - x : b - x], y, a
        return src, y, x

    def _place(self, src: U8, y0: int, x0: int) -> None:
        """Shrink the whole network pixels of `src` into the ring and add its ragged edges to the seams."""
        r, size = self._r, self._plan.level_size
        y1, x1 = y0 + src.shape[0], x0 + src.shape[1]
        right = self.xs[-1]
        a0, b0 = -(-y0 // r) * r, -(-x0 // r) * r
        a1 = y1 if y1 == size.height else y1 // r * r
        b1 = x1 if x1 == right else x1 // r * r
        if a0 > y0:
            self._seams.add_row(src[: a0 - y0], y0, x0)
        if max(a0, a1) < y1:
            self._seams.add_row(src[max(a0, a1) - y0 :], max(a0, a1), x0)
        if a1 <= a0:
            return
        middle = src[a0 - y0 : a1 - y0]
        if b0 > x0:
            self._seams.add_column(middle[:, : b0 - x0], a0, x0)
        if max(b0, b1) < x1:
            self._seams.add_column(middle[:, max(b0, b1) - x0 :], a0, max(b0, b1))
        if b1 <= b0:
            return
        self._shrink(middle[:, b0 - x0 : b1 - x0], a0 // r, b0 // r - self._x0)

    def _shrink(self, src: U8, row: int, col: int) -> None:
        """Shrink pixels whose corner is a network pixel's into the ring, around its end where needed."""
        r, count = self._r, len(self._ring)
        done, rows = 0, -(-src.shape[0] // r)
        cols = -(-src.shape[1] // r)
        while done < rows:
            at = (row + done) % count
            n = min(rows - done, count - at)
            part = src if n == rows else src[done * r : (done + n) * r]
            shrink(part, r, self._ring[at : at + n, col : col + cols])
            done += n

    def _repeat_edges(self, row: int) -> None:
        """Repeat the last column, and the last row, where the level has one less than the slide's network grid."""
        y0, y1 = self.ys[row] // self._r, -(-self.ys[row + 1] // self._r)
        ring, grid, network, count = self._ring, self._grid, self._plan.network, len(self._ring)
        missing = self._x0 + ring.shape[1] - grid.width
        if missing > 0 and ring.shape[1] > missing:
            for y in range(y0, y1):
                ring[y % count, -missing:] = ring[y % count, -missing - 1]
        if row == len(self._open) - 1:
            for y in range(grid.height, network.height):
                ring[y % count] = ring[(grid.height - 1) % count]
