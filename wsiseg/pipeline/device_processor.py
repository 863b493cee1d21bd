"""The processor for GPUs: slides go to the devices in turn, and of each only network rows and finished bands move.

One thread per device goes through its slides: it waits for network rows, sends them up, cuts and runs tiles there, and
makes runs of the bands that come back, while the decode pool reads on. Results come out in the tasks' order.

Memory bound: as `Processor`, plus two staging buffers of T rows and two of a band per device.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session
from wsiseg.errors import Interrupted, SlideError, WsisegError
from wsiseg.pipeline.abort import Abort
from wsiseg.pipeline.collect import Outcome
from wsiseg.pipeline.device_panel import DeviceModel, DevicePanel
from wsiseg.pipeline.feed import TISSUE_SHARE, Feeder
from wsiseg.pipeline.found import Found
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.ledger import Ledger
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.slide import DecodePool, NetworkReader
from wsiseg.tiling import Panel
from wsiseg_kernels import cpu

MakeModel = Callable[[], DeviceModel]


class DeviceProcessor(Processor):
    """See `Processor`; `models` has one entry per device, (its number, what makes its model in the thread that uses it)."""

    def __init__(
        self, session: Session, options: RunOptions, models: Sequence[tuple[int, MakeModel]], **settings: Any
    ) -> None:
        super().__init__(session, options, **settings)
        self._models = list(models)

    def process(self, tasks: Iterable[SlideTask], stop: threading.Event | None = None) -> Iterator[Outcome]:
        """See `Processor.process`."""
        abort, source, lock = Abort(), enumerate(tasks), threading.Lock()
        results: queue.SimpleQueue[tuple[int, Outcome] | None] = queue.SimpleQueue()
        ledger, pool = Ledger(self.budget.free), DecodePool(self.threads)
        abort.on_abort(ledger.wake)

        def take() -> tuple[int, SlideTask] | None:
            with lock:
                return None if abort else next(source, None)

        def work(number: int, make: MakeModel) -> None:
            try:
                worker = _Worker(self, number, make, pool, ledger, abort, stop or threading.Event())
                while (item := take()) is not None:
                    results.put((item[0], worker.slide(item[1])))
            except BaseException as error:  # whatever it is, the others must stop and the caller must see it
                abort.fail(error)
            finally:
                results.put(None)

        threads = [
            threading.Thread(target=work, args=pair, name=f"wsiseg-cuda-{pair[0]}", daemon=True)
            for pair in self._models
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._in_order(results, len(threads))
            if abort.cause is not None:
                raise abort.cause
        finally:
            abort.fail(GeneratorExit())
            for thread in threads:
                thread.join()
            pool.close()

    @staticmethod
    def _in_order(results: queue.SimpleQueue[tuple[int, Outcome] | None], workers: int) -> Iterator[Outcome]:
        waiting: dict[int, Outcome] = {}
        coming = 0
        while workers:
            item = results.get()
            if item is None:
                workers -= 1
                continue
            waiting[item[0]] = item[1]
            while coming in waiting:
                yield waiting.pop(coming)
                coming += 1


class _Worker:
    """One device and the slides that it gets."""

    def __init__(
        self,
        processor: DeviceProcessor,
        number: int,
        make: MakeModel,
        pool: DecodePool,
        ledger: Ledger,
        abort: Abort,
        stop: threading.Event,
    ) -> None:
        from numba import cuda

        from wsiseg_kernels import cuda as kernels

        cuda.select_device(number)  # the current device belongs to the thread
        self._cuda, self._kernels, self._model = cuda, kernels, make()
        self._processor, self._pool, self._ledger, self._abort, self._stop = (
            processor,
            pool,
            ledger,
            abort,
            stop,
        )
        tile = processor.settings.tile
        self._tile = np.empty((tile, tile, 3), np.uint8)

    def slide(self, task: SlideTask) -> Outcome:
        """The result of one slide, or its failure.

        Raises:
            Interrupted: when somebody else failed or the person stopped.
        """
        try:
            job = self._processor.prepare(task)
        except WsisegError as error:
            return SlideFailure(task, str(error), type(error).__name__)
        try:
            if not self._ledger.acquire(job.memory.slide_bytes, lambda: bool(self._abort)):
                raise Interrupted("stopped")
            try:
                found = Found(job, self._processor.settings.thresholds)
                try:
                    for number in range(len(found.panels), len(job.memory.panels)):
                        self._panel(job, found, number)
                except Interrupted:
                    found.keep()
                    raise
                finally:
                    found.settle()
                return self._processor._finish(job, found.panels)
            finally:
                self._ledger.release(job.memory.slide_bytes)
        except SlideError as error:
            if self._abort:
                raise
            return SlideFailure(task, str(error), type(error).__name__)
        finally:
            job.slide.close()

    def _panel(self, job: SlideJob, found: Found, number: int) -> None:
        panel, settings, columns = job.memory.panels[number], self._processor.settings, found.begin(number)

        def deliver(band: npt.NDArray[np.float32], y0: int, row: int) -> None:
            if job.found_before(number, row):
                return
            since = time.perf_counter()
            for one, plane in zip(columns, band, strict=True):
                if not one.add(plane, y0, panel.a0):
                    raise SlideError(
                        job.task.path,
                        f"its mask has more than {job.memory.max_runs:,} runs",
                        "give a larger --memory, or a higher --threshold",
                    )
            since = job.spent("runs", since)
            if job.sink is not None:
                job.sink.add(band[:, :, panel.x0 - panel.a0 : panel.x1 - panel.a0], y0, panel.x0)
                job.spent("probabilities", since)
            found.row_done(row)

        first = job.first_row(number)
        reader = NetworkReader(
            job.slide, job.read, columns=(panel.c0, panel.c1), rows=job.memory.ring_rows, pool=self._pool,
            on_bad_tile=self._processor.options.on_bad_tile, first_row=job.grid.row_spans()[first][0] if first else 0,
        )  # fmt: skip
        self._abort.on_abort(reader.close)
        reader.start()
        try:
            on_device = DevicePanel(
                self._cuda, self._kernels, self._model, job.grid, panel, settings, reader.ring.shape[0], deliver
            )  # fmt: skip
            self._rows(job, panel, number, reader, on_device)
            on_device.close()
        finally:
            reader.close()
            Feeder._note(job, reader.stats)
        found.end()

    def _rows(
        self, job: SlideJob, panel: Panel, number: int, reader: NetworkReader, on_device: DevicePanel
    ) -> None:
        grid, settings, tile = job.grid, self._processor.settings, self._tile
        height, width = grid.size.height, grid.size.width
        least = max(1, tile.shape[0] ** 2 // TISSUE_SHARE)
        spans = grid.row_spans()
        for row, (keep, need) in list(enumerate(spans))[job.first_row(number) :]:
            self._check()
            reader.release(keep)
            on_device.skip_to(keep)
            since = time.perf_counter()
            reader.wait(need)
            since = job.spent("wait for reading", since)
            on_device.upload(reader.ring, need)
            y = grid.y.origin(row)
            for j in range(panel.j0, panel.j1):
                self._check()
                x = grid.x.origin(j)
                if settings.tissue:
                    cpu.gather_tile(
                        reader.ring, y, x, height, width, panel.c0, settings.fill, settings.fill_value, tile
                    )
                    if cpu.tissue_count(tile, least) < least:
                        job.count("empty tiles")
                        continue
                on_device.add_tile(y, x)
                job.count("tiles")
            on_device.end_row(row)
            job.spent("device", since)
            self._processor.progress(job, (number + (row + 1) / len(spans)) / len(job.memory.panels))

    def _check(self) -> None:
        if self._abort:
            raise Interrupted("stopped")
        if self._stop.is_set():
            raise Interrupted("interrupted; the same command goes on where it stopped")
