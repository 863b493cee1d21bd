"""The feeder: one thread that goes through the slides, cuts tiles out of the ring, and starts batches.

Bounded: it waits for a free slot before it fills a batch, and for the ledger before it begins a slide.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from wsiseg.backends.base import Session
from wsiseg.errors import Interrupted, SlideError, WsisegError
from wsiseg.pipeline.abort import Abort
from wsiseg.pipeline.job import (
    Begin,
    BeginPanel,
    Entry,
    Failed,
    PanelDone,
    RowDone,
    SlideDone,
    SlideJob,
    Tile,
    Work,
)
from wsiseg.pipeline.ledger import Ledger
from wsiseg.pipeline.options import SlideTask
from wsiseg.pipeline.settings import ModelSettings
from wsiseg.slide import DecodePool, NetworkReader, ReadStats
from wsiseg.tiling import Panel
from wsiseg_kernels import cpu

# A tile is empty when fewer than one in this many of its pixels are tissue: dust and JPEG noise are not tissue.
TISSUE_SHARE = 1024


class _Next:
    """The slide after this one: opened in the background, and read ahead when the ledger has room."""

    def __init__(self, task: SlideTask, future: Future[SlideJob]) -> None:
        self.task, self.future = task, future
        self.job: SlideJob | None = None
        self.reader: NetworkReader | None = None


class Feeder(threading.Thread):
    """Feeds every task, in order, to `work`; ends with None in it.

    Args:
        tasks: the slides. prepare: opens one and plans it. session: where batches run.
        free: slots that may be filled; the collector gives them back. work: to the collector.
        progress: called as (job, share of its rows that were handed over).
    """

    def __init__(
        self,
        tasks: Iterable[SlideTask],
        prepare: Callable[[SlideTask], SlideJob],
        session: Session,
        settings: ModelSettings,
        pool: DecodePool,
        ledger: Ledger,
        free: queue.SimpleQueue[int | None],
        work: queue.SimpleQueue[Work | None],
        abort: Abort,
        stop: threading.Event,
        progress: Callable[[SlideJob, float], None],
        on_bad_tile: str = "fail",
    ) -> None:
        super().__init__(name="wsiseg-feeder", daemon=True)
        self._tasks: Iterator[SlideTask] = iter(tasks)
        self._prepare, self._session, self._settings, self._pool = prepare, session, settings, pool
        self._ledger, self._free, self._work, self._abort, self._stop_asked = ledger, free, work, abort, stop
        self._progress, self._on_bad_tile = progress, on_bad_tile
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="wsiseg-open")
        self._reader: NetworkReader | None = None
        self._next: _Next | None = None
        self._entries: list[Entry] = []
        self._slot: int | None = None
        self._filled = 0
        abort.on_abort(self._wake)

    def run(self) -> None:
        try:
            self._look_ahead()
            while self._next is not None:
                self._check()
                self._slide(self._next)
            self._flush()
        except BaseException as error:  # whatever it is, the others must be woken and the caller must see it
            self._abort.fail(error)
        finally:
            for reader in (self._reader, self._next.reader if self._next else None):
                if reader is not None:
                    reader.close()
            self._opener.shutdown(wait=True, cancel_futures=True)
            self._work.put(None)

    def _wake(self) -> None:
        self._free.put(None)
        self._ledger.wake()
        # Readers wake their waiters on close; a reader that is not there yet is never waited for after an abort.
        for reader in (self._reader, self._next.reader if self._next else None):
            if reader is not None:
                reader.close()

    def _check(self) -> None:
        if self._abort:
            raise Interrupted("stopped")
        if self._stop_asked.is_set():
            raise Interrupted("interrupted; the same command goes on where it stopped")

    def _look_ahead(self) -> None:
        task = next(self._tasks, None)
        self._next = None if task is None else _Next(task, self._opener.submit(self._prepare, task))

    def _slide(self, coming: _Next) -> None:
        """Hand over one slide; only its own failure is swallowed here, as an entry of the stream."""
        begun = False
        try:
            job = coming.job or coming.future.result()
        except WsisegError as error:
            self._look_ahead()
            self._emit(Failed(coming.task, error, begun))
            return
        if coming.job is None and not self._ledger.acquire(job.memory.slide_bytes, lambda: bool(self._abort)):
            raise Interrupted("stopped")
        self._look_ahead()
        reader = coming.reader
        begun = True
        self._emit(Begin(job))
        try:
            first = job.resume.panel if job.resume else 0
            for number, panel in list(enumerate(job.memory.panels))[first:]:
                self._reader = reader or self._read(job, number)
                reader = None
                try:
                    self._panel(job, panel, self._reader, number)
                finally:
                    self._reader.close()
                    self._note(job, self._reader.stats)
                    self._reader = None
            self._emit(SlideDone())
        except SlideError as error:
            if self._abort:
                raise
            self._emit(Failed(coming.task, error, begun))
        finally:
            job.slide.close()
            self._ledger.release(job.read_bytes)

    @staticmethod
    def _note(job: SlideJob, stats: ReadStats) -> None:
        """Add what a reader did to the slide's figures."""
        job.times["decode"] = job.times.get("decode", 0.0) + stats.decode_seconds
        job.count("bytes read", stats.stored_bytes)
        job.count("pixels read", stats.pixels)
        if stats.bad_segments:
            job.count("bad tiles", stats.bad_segments)
            job.count("bad pixels", stats.bad_pixels)
            job.warnings.extend(w for w in stats.bad if w not in job.warnings)

    def _read(self, job: SlideJob, number: int) -> NetworkReader:
        panel, row = job.memory.panels[number], job.first_row(number)
        reader = NetworkReader(
            job.slide, job.read, columns=(panel.c0, panel.c1), rows=job.memory.ring_rows, pool=self._pool,
            on_bad_tile=self._on_bad_tile, first_row=job.grid.row_spans()[row][0] if row else 0,
        )  # fmt: skip
        reader.start()
        return reader

    def _read_ahead(self) -> None:
        """Let the next slide be read by threads for which this one has nothing to decode, if there is memory for both.

        Readers are served in the order in which they started, so the next one takes nothing from this one.
        """
        coming = self._next
        if coming is None or coming.reader is not None or not coming.future.done():
            return
        if coming.future.exception() is not None:
            return
        job = coming.future.result()
        if coming.job is None:
            if not self._ledger.try_acquire(job.memory.slide_bytes):
                return
            coming.job = job
        coming.reader = self._read(job, job.resume.panel if job.resume else 0)

    def _panel(self, job: SlideJob, panel: Panel, reader: NetworkReader, number: int) -> None:
        self._emit(BeginPanel(panel, number))
        grid, tile, settings = job.grid, self._settings.tile, self._settings
        height, width = grid.size.height, grid.size.width
        least = max(1, tile * tile // TISSUE_SHARE)
        columns = [grid.x.origin(j) for j in range(panel.j0, panel.j1)]
        spans = grid.row_spans()
        last = len(job.memory.panels) == number + 1
        for row, (keep, need) in list(enumerate(spans))[job.first_row(number) :]:
            self._check()
            reader.release(keep)
            since = time.perf_counter()
            reader.wait(need)
            since = job.spent("wait for reading", since)
            if last:
                # Before this row's tiles, since they can wait for the network while nothing is left to decode.
                self._read_ahead()
            y = grid.y.origin(row)
            for x in columns:
                if self._slot is None:
                    since = job.spent("cut", since)
                    self._slot = self._take()
                    since = job.spent("wait for network", since)
                out = self._session.input(self._slot)[self._filled]
                cpu.gather_tile(
                    reader.ring, y, x, height, width, panel.c0, settings.fill, settings.fill_value, out
                )
                if settings.tissue and cpu.tissue_count(out, least) < least:
                    job.count("empty tiles")
                    continue
                self._entries.append(Tile(y, x))
                self._filled += 1
                job.count("tiles")
                if self._filled == self._session.options.batch:
                    self._flush()
            since = job.spent("cut", since)
            self._emit(RowDone(row))
            self._progress(job, (number + (row + 1) / len(spans)) / len(job.memory.panels))
        self._emit(PanelDone())

    def _take(self) -> int:
        slot = self._free.get()
        if slot is None:
            raise Interrupted("stopped")
        # a row of tiles may take a slow network minutes; whoever asks to stop has not that long
        self._check()
        return slot

    def _emit(self, entry: Entry) -> None:
        """Hand over an entry; with tiles waiting in a half-full batch it stays behind them."""
        self._entries.append(entry)
        if not self._filled:
            self._work.put(Work(None, self._entries))
            self._entries = []

    def _flush(self) -> None:
        """Start the batch that is being filled, full or not."""
        if not self._filled:
            return
        assert self._slot is not None
        slot, count, entries = self._slot, self._filled, self._entries
        self._slot, self._filled, self._entries = None, 0, []
        self._session.start(slot, count)
        self._work.put(Work(slot, entries))
