"""The collector: one thread that takes results in order, blends them, and turns finished rows into runs.

It is the only one that touches an accumulator, and it goes through tiles in grid order, so sums do not depend on
which batch came back first.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session, SkipsTiles
from wsiseg.errors import SlideError
from wsiseg.memory import BAND_ROWS
from wsiseg.pipeline.abort import Abort
from wsiseg.pipeline.found import Found
from wsiseg.pipeline.job import Begin, BeginPanel, Failed, PanelDone, RowDone, SlideDone, SlideJob, Tile, Work
from wsiseg.pipeline.ledger import Ledger
from wsiseg.pipeline.options import SlideFailure, SlideResult
from wsiseg.pipeline.settings import ModelSettings
from wsiseg.pipeline.transitions import ColumnRuns
from wsiseg.tiling import Panel
from wsiseg_kernels import cpu

Outcome = SlideResult | SlideFailure


@dataclass(frozen=True)
class Held:
    """An outcome, and the bytes of the ledger that are released when its receiver is done with it."""

    outcome: Outcome
    bytes: int = 0


class Blender:
    """Weighted sums of one panel, and the band they become.

    Args:
        columns: where the runs of each class are collected.

    Memory bound: C x T x columns sums and C x BAND_ROWS x columns finished probabilities, allocated once per panel.
    """

    def __init__(
        self, job: SlideJob, panel: Panel, columns: Sequence[ColumnRuns], settings: ModelSettings
    ) -> None:
        grid = job.grid
        self.job, self.panel, self._columns, self._axis = job, panel, columns, grid.y
        width = panel.a1 - panel.a0
        self._weights = cpu.gaussian_weights(settings.tile)
        self._den_y = cpu.denominator(grid.size.height, settings.tile, settings.stride)
        self._den_x = cpu.denominator(grid.size.width, settings.tile, settings.stride)[panel.a0 : panel.a1]
        self._sums = np.zeros((len(columns), settings.tile, width), np.float32)
        rows = min(BAND_ROWS, settings.stride, grid.size.height)
        self._band = np.empty((len(columns), rows, width), np.float32)

    def add(self, tile: Tile, probability: npt.NDArray[np.float32]) -> None:
        """Add the probabilities [C, T, T] of a tile."""
        cpu.accumulate(
            self._sums, probability, self._weights, tile.y, tile.x - self.panel.a0, self.job.grid.size.height
        )

    def finish(self, row: int, found_before: bool = False) -> None:
        """Make the rows final that no tile after this row of tiles touches; leave their runs out if they are known."""
        y0, y1 = self._axis.final(row)
        for start in range(y0, y1, self._band.shape[1]):
            self._slice(start, min(y1, start + self._band.shape[1]), found_before)

    def _slice(self, y0: int, y1: int, found_before: bool) -> None:
        """Rows y0..y1 of sums become probabilities, and these runs."""
        band = self._band[:, : y1 - y0]
        since = time.perf_counter()
        cpu.finish(self._sums, y0, y1, self._den_y[y0:y1], self._den_x, band)
        since = self.job.spent("blend", since)
        if found_before:
            return
        for columns, plane in zip(self._columns, band, strict=True):
            if not columns.add(plane, y0, self.panel.a0):
                raise SlideError(
                    self.job.task.path,
                    f"its mask has more than {self.job.memory.max_runs:,} runs, more than the memory plan has room for",
                    "give a larger --memory, or a higher --threshold",
                )
        since = self.job.spent("runs", since)
        if self.job.sink is not None:
            panel = self.panel
            self.job.sink.add(band[:, :, panel.x0 - panel.a0 : panel.x1 - panel.a0], y0, panel.x0)
            self.job.spent("probabilities", since)


class Collector(threading.Thread):
    """Blends what the feeder started, slide after slide, and puts a result or a failure per slide into `results`.

    Args:
        finish: makes a SlideResult of a job and its runs per class; runs in a thread of its own, so that objects of
            one slide are sorted out while the next one is blended.
    """

    def __init__(
        self,
        session: Session,
        settings: ModelSettings,
        ledger: Ledger,
        free: queue.SimpleQueue[int | None],
        work: queue.SimpleQueue[Work | None],
        results: queue.SimpleQueue[Held | None],
        abort: Abort,
        finish: Callable[[SlideJob, list[list[ColumnRuns]]], Outcome],
    ) -> None:
        super().__init__(name="wsiseg-collector", daemon=True)
        self._session, self._settings, self._ledger = session, settings, ledger
        self._free, self._work, self._results, self._abort, self._finish = free, work, results, abort, finish
        self._job: SlideJob | None = None
        self._blender: Blender | None = None
        self._found: Found | None = None
        self._failed = False
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="wsiseg-finish")

    def run(self) -> None:
        try:
            while (work := self._work.get()) is not None:
                if self._abort:
                    self._let_end(work)
                else:
                    self._take(work)
            if self._abort and self._found is not None:
                self._found.keep()
        except BaseException as error:  # whatever it is, the others must be woken and the caller must see it
            self._abort.fail(error)
            while (work := self._work.get()) is not None:
                self._let_end(work)
        finally:
            self._finisher.shutdown(wait=True, cancel_futures=bool(self._abort))
            self._results.put(None)

    def _let_end(self, work: Work) -> None:
        """Wait for a batch whose result nobody wants: nothing may still be running when the session is closed."""
        if work.slot is not None:
            # The first failure has been told already; a device that is gone fails every later batch in the same way.
            with contextlib.suppress(Exception):
                self._session.wait(work.slot)

    def _take(self, work: Work) -> None:
        probabilities: npt.NDArray[np.float32] | None = None
        absent: npt.NDArray[np.bool_] | None = None
        index = 0
        for entry in work.entries:
            if isinstance(entry, Tile):
                assert work.slot is not None
                assert self._job is not None
                since = time.perf_counter()
                if probabilities is None:
                    probabilities = self._session.wait(work.slot)
                    absent = (
                        self._session.absent(work.slot) if isinstance(self._session, SkipsTiles) else None
                    )
                    since = self._job.spent("collector waits", since)
                if absent is not None and absent[index]:
                    self._job.count("tiles without objects")  # adding its zeros would change nothing
                elif self._blender is not None:
                    self._blender.add(entry, probabilities[index])
                    self._job.spent("blend", since)
                index += 1
            else:
                self._mark(entry)
        if work.slot is not None:
            self._free.put(work.slot)

    def _mark(self, entry: object) -> None:
        match entry:
            case Begin(job):
                self._job, self._failed = job, False
                self._found = Found(job, self._settings.thresholds)
            case BeginPanel(panel, number):
                if self._found is not None:
                    assert self._job is not None
                    columns = self._found.begin(number)
                    self._blender = Blender(self._job, panel, columns, self._settings)
            case RowDone(row):
                if self._blender is not None and self._found is not None:
                    try:
                        self._blender.finish(row, self._found.job.found_before(len(self._found.panels), row))
                    except SlideError as error:
                        # The feeder does not know; what it still sends of this slide is let pass.
                        self._fail(error)
                    else:
                        self._found.row_done(row)
            case PanelDone():
                if self._found is not None:
                    self._found.end()
                    self._blender = None
            case SlideDone():
                found, self._job, self._found = self._found, None, None
                if found is not None:
                    self._finisher.submit(self._result, found)
            case Failed(task, error, begun):
                if not begun or not self._failed:
                    failure = SlideFailure(task, str(error), type(error).__name__)
                    if begun and self._job is not None:
                        self._drop(failure)
                    else:
                        self._finisher.submit(self._results.put, Held(failure))

    def _fail(self, error: SlideError) -> None:
        assert self._job is not None
        self._failed = True
        self._drop(SlideFailure(self._job.task, str(error), type(error).__name__))

    def _drop(self, failure: SlideFailure) -> None:
        assert self._job is not None
        found, self._blender, self._found = self._found, None, None
        if found is not None:
            found.settle()
        self._ledger.release(self._job.blend_bytes)
        # Through the finisher, so that results keep the order of the slides.
        self._finisher.submit(self._results.put, Held(failure))

    def _result(self, found: Found) -> None:
        try:
            found.settle()
            # Its runs, and what the caller writes of them, are in memory until the caller asks for the next one.
            self._results.put(Held(self._finish(found.job, found.panels), found.job.blend_bytes))
        except BaseException as error:  # a thread of a pool would swallow it
            self._abort.fail(error)
            self._ledger.release(found.job.blend_bytes)
