"""The ring of network rows: every segment is decoded once, shrunk as it is decoded, and kept only while needed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import SlideError
from wsiseg.slide.level import U8, Scratch
from wsiseg.slide.plan import ReadPlan
from wsiseg.slide.pool import DecodePool, Done
from wsiseg.slide.units import UnitWriter

if TYPE_CHECKING:
    from wsiseg.slide.slide import Slide

# No row is ever so far down.
NOBODY = 1 << 62
# So many damaged segments are told one by one.
BAD_TEXTS = 20


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
        x0, x1 = columns or (0, plan.network.width)
        if not 0 <= x0 < x1 <= plan.network.width:
            raise ValueError(f"columns {x0}..{x1} are outside the network grid of {plan.network}")
        rows = min(rows, plan.network.height)
        if rows < min(plan.unit, plan.network.height):
            raise ValueError(f"a ring of {rows} rows is too small; one decoding unit writes {plan.unit}")
        self.ring: U8 = np.empty((rows, x1 - x0, 3), np.uint8)
        self.stats = ReadStats()
        self._r = plan.remaining
        self._writer = UnitWriter(
            slide.levels[plan.level], plan, (x0, x1), self.ring, white=on_bad_tile == "white"
        )
        self._ys, self._columns = self._writer.ys, self._writer.columns
        self._next = 0  # units in row order: row * columns + column
        self._units_done = [0] * (len(self._ys) - 1)  # units of each row that are decoded
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
        self._units_done[:k] = [self._columns] * k
        self._writer.skip(k)

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
        return self._writer.write(unit, scratch)

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
        if done.bad:
            self.stats.bad_segments += len(done.bad)
            self.stats.bad_pixels += done.bad_pixels
            self.stats.bad.extend(done.bad[: BAD_TEXTS - len(self.stats.bad)])
        could = self._fits()
        self._units_done[unit // self._columns] += 1
        while self._done_rows < len(self._units_done) and self._units_done[self._done_rows] == self._columns:
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
        if self._done_rows == len(self._units_done):
            return self._plan.network.height
        return self._ys[self._done_rows] // self._r

    def _fits(self) -> bool:
        """Whether there is another unit, and the rows that it writes are free."""
        row = self._next // self._columns
        if row >= len(self._units_done):
            return False
        last = row == len(self._units_done) - 1
        top = self._plan.network.height if last else -(-self._ys[row + 1] // self._r)
        # Rows that were given up before they were ready are still to be written, and may not be overtaken.
        return top <= min(self._released, self._ready()) + len(self.ring)

    def _stuck(self) -> bool:
        """Whether nothing runs and the next unit waits for rows that only the waiting thread releases."""
        more = self._next < len(self._units_done) * self._columns
        return more and not self._running and not self._fits() and self._releaser == threading.get_ident()
