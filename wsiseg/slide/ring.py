"""The ring of network rows: every segment is decoded once, shrunk as it is decoded, and kept only while needed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import BadSegment, SlideError
from wsiseg.geometry import Size
from wsiseg.slide.level import U8, Level, Scratch
from wsiseg.slide.plan import ReadPlan, assembles, seam_slots, unit_edges
from wsiseg.slide.pool import DecodePool, Done
from wsiseg.slide.seams import Seams
from wsiseg_kernels.cpu import shrink

if TYPE_CHECKING:
    from wsiseg.slide.slide import Slide

# No row is ever so far down.
NOBODY = 1 << 62


@dataclass
class ReadStats:
    """What a reader has done so far; seconds are summed over threads.

    `bad` lists the first damaged segments that were filled with white, `bad_segments` and `bad_pixels` count them all;
    pixels are full-size slide pixels.
    """

    decode_seconds: float = 0.0
    wait_seconds: float = 0.0
    stored_bytes: int = 0
    pixels: int = 0
    segments: int = 0
    bad_segments: int = 0
    bad_pixels: int = 0
    bad: list[str] = field(default_factory=list)


class NetworkReader:
    """Reads a panel of a slide at a scale, as network rows in a ring, top to bottom.

    Args:
        slide, plan: what to read and how.
        columns: network columns [x0, x1) of the panel; all by default.
        rows: rows of the ring; `plan.ring_rows(window)` is the least for a consumer that holds `window` rows.
        pool: the threads that decode.
        on_bad_tile: "fail" raises the first damaged segment's error, "white" fills it with white and counts it.
        first_row: network rows above it are not wanted, and not read where a unit allows that.

    Attributes:
        ring: uint8 [rows, x1 - x0, 3] RGB; network row y is ring[y % rows].
        stats: what has been done so far.

    Threads take units in row order. A unit starts only when the rows that it writes are free (below released + rows),
    so a slow consumer bounds the read-ahead. The first failure is raised by every `wait`.

    Memory bound: `ring_bytes(plan, columns, rows, threads)`.
    """

    def __init__(
        self,
        slide: Slide,
        plan: ReadPlan,
        *,
        columns: tuple[int, int] | None = None,
        rows: int,
        pool: DecodePool,
        on_bad_tile: str = "fail",
        first_row: int = 0,
    ) -> None:
        self._slide, self._plan, self._pool = slide, plan, pool
        self._white = on_bad_tile == "white"
        x0, x1 = columns or (0, plan.network.width)
        if not 0 <= x0 < x1 <= plan.network.width:
            raise ValueError(f"columns {x0}..{x1} are outside the network grid of {plan.network}")
        rows = min(rows, plan.network.height)
        if rows < min(plan.unit, plan.network.height):
            raise ValueError(f"a ring of {rows} rows is too small; one decoding unit writes {plan.unit}")
        self._level: Level = slide.levels[plan.level]
        self._r = plan.remaining
        self.ring: U8 = np.empty((rows, x1 - x0, 3), np.uint8)
        self.stats = ReadStats()
        size, r = plan.level_size, plan.remaining
        # The level's own network grid; it can miss the last row or column of the slide's, which is then repeated.
        self._grid = Size(-(-size.height // r), -(-size.width // r))
        self._x0 = min(x0, self._grid.width - 1)
        left, right = self._x0 * r, min(size.width, x1 * r)
        ys, xs = (
            unit_edges(self._level.ys, plan.rows_per_unit),
            unit_edges(self._level.xs, plan.cols_per_unit),
        )
        first = int(np.searchsorted(xs, left, "right")) - 1
        last = int(np.searchsorted(xs, right, "left"))
        xs = np.clip(xs[first : last + 1], left, right)
        self._seams = Seams(size, r, ys, xs, rows, seam_slots(plan, rows))
        self._ys, self._xs = ys.tolist(), xs.tolist()
        self._columns = len(self._xs) - 1
        # The segments of each column of units; a panel's edge can leave out some.
        starts = np.searchsorted(self._level.xs, xs[:-1], "right") - 1
        ends = np.searchsorted(self._level.xs, xs[1:], "left")
        self._spans: list[tuple[int, int]] = list(zip(starts.tolist(), ends.tolist(), strict=True))
        self._assembles = assembles(self._level, plan.rows_per_unit, plan.cols_per_unit, r)
        self._row_work = self._seams.has_columns or self._grid != plan.network
        plain = getattr(self._level.source, "plain", False)
        self._straight = bool(plain) and r == 1 and self.ring.shape[1] == size.width
        self._next = 0  # units in row order: row * columns + column
        self._open = [self._columns] * (len(self._ys) - 1)  # units of each row that are not decoded
        self._units_done = [0] * len(self._open)
        self._done_rows = 0  # rows of units done, without a gap
        self._released = 0
        self._releaser: int | None = None
        self._running = 0
        self._wanted = NOBODY  # the first row that somebody waits for
        self._error: BaseException | None = None
        self._closed = False
        self._started = False
        if first_row:
            self._skip_to(first_row)

    def _skip_to(self, row: int) -> None:
        """Leave out the units above network row `row`, as far as a unit begins on a network row's edge."""
        edges = np.asarray(self._ys[:-1])
        k = int(np.flatnonzero((edges <= row * self._r) & (edges % self._r == 0))[-1])
        self._next, self._done_rows, self._released = k * self._columns, k, row
        self._open[:k], self._units_done[:k] = [0] * k, [self._columns] * k

    # -- the consumer's side

    def start(self) -> None:
        """Let the pool's threads begin."""
        if not self._started:
            self._started = True
            self._slide.retain()
            try:
                self._pool.add(self)
            except BaseException:
                self._slide.release()
                self._started = False
                raise

    def wait(self, y1: int) -> None:
        """Return when network rows below `y1` are in the ring.

        Raises:
            SlideError: a segment could not be read; every later call raises it again.
            RuntimeError: closed meanwhile, or the ring is too small for the rows that are held.
        """
        y1 = min(y1, self._plan.network.height)
        if not self._started:
            self.start()
        began = time.perf_counter()
        with self._pool.lock:
            while True:
                if self._error is not None:
                    raise self._error
                if self._closed or self._pool.closed:
                    raise RuntimeError("the reader is closed")
                if self._ready() >= y1:
                    break
                if self._stuck():
                    raise RuntimeError(
                        f"row {y1} cannot be read: {self._released} is the last row released, the ring has "
                        f"{len(self.ring)} rows and one decoding unit writes up to {self._plan.unit}"
                    )
                self._wanted = min(self._wanted, y1)
                self._pool.lock.wait()
            self.stats.wait_seconds += time.perf_counter() - began

    def release(self, y0: int) -> None:
        """Let rows below `y0` be overwritten."""
        with self._pool.lock:
            self._releaser = threading.get_ident()
            if y0 > self._released:
                self._released = y0
                if self._fits():
                    self._pool.lock.notify_all()

    def close(self) -> None:
        """Stop reading. Idempotent, from any thread; returns when no thread writes into the ring any more."""
        with self._pool.lock:
            first, self._closed = not self._closed, True
            self._pool.lock.notify_all()
        self._pool.remove(self)
        with self._pool.lock:
            while self._running and not threading.current_thread().name.startswith("decode-"):
                self._pool.lock.wait()
        if first and self._started:
            self._slide.release()

    def __enter__(self) -> NetworkReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the pool's side; next_unit and finished run with the pool's lock held

    def next_unit(self) -> int | None:
        if self._closed or self._error is not None or not self._fits():
            return None
        unit, self._next, self._running = self._next, self._next + 1, self._running + 1
        return unit

    def run_unit(self, unit: int, scratch: Scratch) -> Done:
        row, col = divmod(unit, self._columns)
        y0, y1 = self._ys[row], self._ys[row + 1]
        x0, x1 = self._xs[col], self._xs[col + 1]
        i0 = row * self._plan.rows_per_unit
        i1 = min(self._level.rows, i0 + self._plan.rows_per_unit)
        j0, j1 = self._spans[col]
        done = Done()
        if not self._assembles or (i1 - i0 == 1 and j1 - j0 == 1):
            for i in range(i0, i1):
                if self._straight and self._read_straight(i, done):
                    continue
                for j in range(j0, j1):
                    self._place(*self._segment(i, j, x0, x1, scratch, done))
        else:
            whole = scratch.take("unit", (y1 - y0) * (x1 - x0) * 3).reshape(y1 - y0, x1 - x0, 3)
            for i in range(i0, i1):
                for j in range(j0, j1):
                    src, y, x = self._segment(i, j, x0, x1, scratch, done)
                    whole[y - y0 : y - y0 + src.shape[0], x - x0 : x - x0 + src.shape[1]] = src
            self._place(whole, y0, x0)
        self._seams.unit_done(y0, y1, self.ring)
        if self._row_work:
            with self._pool.lock:
                self._open[row] -= 1
                last = self._open[row] == 0
            if last:
                self._seams.row_of_units_done(y0, y1, self.ring)
                self._repeat_edges(row)
        return done

    def finished(self, unit: int, done: Done | BaseException, seconds: float) -> bool:
        self._running -= 1
        self.stats.decode_seconds += seconds
        if isinstance(done, BaseException):
            if self._error is None:
                self._error = done if isinstance(done, SlideError) else self._unexpected(done)
            return True
        self.stats.segments += done.segments
        self.stats.stored_bytes += done.stored
        self.stats.pixels += done.pixels
        could = self._fits()
        self._units_done[unit // self._columns] += 1
        while self._done_rows < len(self._open) and self._units_done[self._done_rows] == self._columns:
            self._done_rows += 1
        # Waking a thread costs as much as reading a plain strip. Whoever waits for a row sleeps until it is there, or
        # until nothing goes on without it; threads that look for units sleep until there are some.
        can = self._fits()
        if self._ready() >= self._wanted or self._closed or not (self._running or can) or (can and not could):
            self._wanted = NOBODY
            return True
        return False

    # -- inside

    def _unexpected(self, error: BaseException) -> SlideError:
        wrapped = SlideError(self._slide.path, f"reading failed: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped

    def _ready(self) -> int:
        if self._done_rows == len(self._open):
            return self._plan.network.height
        return self._ys[self._done_rows] // self._r

    def _fits(self) -> bool:
        """Whether there is another unit, and the rows that it writes are free."""
        row = self._next // self._columns
        if row >= len(self._open):
            return False
        last = row == len(self._open) - 1
        top = self._plan.network.height if last else -(-self._ys[row + 1] // self._r)
        # Rows that were given up before they were ready are still to be written, and may not be overtaken.
        return top <= min(self._released, self._ready()) + len(self.ring)

    def _stuck(self) -> bool:
        """Whether nothing runs and the next unit waits for rows that only the waiting thread releases."""
        more = self._next < len(self._open) * self._columns
        return more and not self._running and not self._fits() and self._releaser == threading.get_ident()

    def _read_straight(self, i: int, done: Done) -> bool:
        """Read an uncompressed strip into the ring without a copy in between; False when it has to be looked at."""
        y0, y1, count = int(self._level.ys[i]), int(self._level.ys[i + 1]), len(self.ring)
        at = y0
        while at < y1:
            n = min(y1 - at, count - at % count)
            if not self._level.source.read_plain(i, at - y0, self.ring[at % count : at % count + n]):  # type: ignore[attr-defined]
                return False
            at += n
        done.segments += 1
        done.stored += self._level.source.stored(i, 0)
        done.pixels += (y1 - y0) * self._plan.level_size.width
        return True

    def _segment(self, i: int, j: int, x0: int, x1: int, scratch: Scratch, done: Done) -> tuple[U8, int, int]:
        """Decode segment (i, j), cut to level columns x0..x1: its pixels and the level pixel of its corner."""
        level = self._level
        y, x = int(level.ys[i]), int(level.xs[j])
        try:
            src = level.source.read(i, j, scratch)
        except BadSegment as error:
            if not self._white:
                raise
            height, width = int(level.ys[i + 1]) - y, int(level.xs[j + 1]) - x
            src = scratch.take("rgb", height * width * 3).reshape(height, width, 3)
            src[:] = 255
            with self._pool.lock:
                self.stats.bad_segments += 1
                self.stats.bad_pixels += height * width * self._plan.downsample**2
                if len(self.stats.bad) < 20:
                    self.stats.bad.append(error.reason)
        done.segments += 1
        done.stored += level.source.stored(i, j)
        done.pixels += src.shape[0] * src.shape[1]
        a, b = max(x0, x), min(x1, x + src.shape[1])
        return src[:, a - x : b - x], y, a

    def _place(self, src: U8, y0: int, x0: int) -> None:
        """Shrink the whole network pixels of `src` into the ring and add its ragged edges to the seams."""
        r, size = self._r, self._plan.level_size
        y1, x1 = y0 + src.shape[0], x0 + src.shape[1]
        right = self._xs[-1]
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
        r, count = self._r, len(self.ring)
        done, rows = 0, -(-src.shape[0] // r)
        cols = -(-src.shape[1] // r)
        while done < rows:
            at = (row + done) % count
            n = min(rows - done, count - at)
            out = self.ring[at : at + n, col : col + cols]
            shrink(src[done * r : (done + n) * r], r, out)
            done += n

    def _repeat_edges(self, row: int) -> None:
        """Repeat the last column, and the last row, where the level has one less than the slide's network grid."""
        y0, y1 = self._ys[row] // self._r, -(-self._ys[row + 1] // self._r)
        grid, network, count = self._grid, self._plan.network, len(self.ring)
        missing = self._x0 + self.ring.shape[1] - grid.width
        if missing > 0 and self.ring.shape[1] > missing:
            for y in range(y0, y1):
                self.ring[y % count, -missing:] = self.ring[y % count, -missing - 1]
        if row == len(self._open) - 1:
            for y in range(grid.height, network.height):
                self.ring[y % count] = self.ring[(grid.height - 1) % count]
