"""Each stage of the pipeline alone, on a real slide: what it costs when nothing else runs.

Amounts: decode and shrink in level pixels, inference and blending in tiles, runs in network rows, encoding in runs,
writing in bytes.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.backends.base import Session
from wsiseg.bench.clock import Cost, on_threads
from wsiseg.outputs.submission import write_submission
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.processor import Processor
from wsiseg.pipeline.transitions import ColumnRuns
from wsiseg.runs import Runs
from wsiseg.slide import DecodePool, NetworkReader
from wsiseg.slide.level import Scratch
from wsiseg_kernels import cpu

SHRINK_BLOCKS = (
    8  # decoded segments that each thread shrinks again and again: they stay in its cache, as in the pipeline
)


def decode(job: SlideJob, threads: int, seconds: float) -> Cost:
    """Decode the segments of the level that is read, each once and then again, and drop the pixels."""
    level = job.slide.levels[job.read.level]
    places = itertools.cycle(itertools.product(range(level.rows), range(level.cols)))
    lock = threading.Lock()

    def worker() -> Callable[[], float | None]:
        scratch = Scratch()

        def step() -> float:
            with lock:
                place = next(places)
            got = level.source.read(*place, scratch)
            return float(got.shape[0] * got.shape[1])

        return step

    return on_threads(threads, seconds, worker)


def shrink(job: SlideJob, threads: int, seconds: float) -> Cost:
    """Shrink decoded segments to network pixels; costs nothing at the level's own scale."""
    scale, level = job.read.remaining, job.slide.levels[job.read.level]
    if scale == 1:
        return Cost(0.0, 0.0, 0.0)
    middle = level.rows // 2
    places = [(middle, min(level.cols - 1, level.cols // 2 + k)) for k in range(SHRINK_BLOCKS)]
    scratch = Scratch()
    blocks = [np.ascontiguousarray(level.source.read(*place, scratch)) for place in places]

    def worker() -> Callable[[], float | None]:
        mine = itertools.cycle(
            [(b, np.empty((-(-b.shape[0] // scale), -(-b.shape[1] // scale), 3), np.uint8)) for b in blocks]
        )

        def step() -> float:
            block, out = next(mine)
            cpu.shrink(block, scale, out)
            return float(block.shape[0] * block.shape[1])

        return step

    return on_threads(threads, seconds, worker)


def fill_slots(processor: Processor, job: SlideJob) -> int:
    """Put tiles of the slide's middle rows into every slot of the session; returns how many tiles a slot holds."""
    session, settings, panel = processor.session, processor.settings, job.memory.panels[0]
    spans = job.grid.row_spans()
    row = len(spans) // 2
    columns = [job.grid.x.origin(j) for j in range(panel.j0, panel.j1)]
    height, width = job.grid.size.height, job.grid.size.width
    with (
        DecodePool(processor.threads) as pool,
        NetworkReader(
            job.slide, job.read, columns=(panel.c0, panel.c1), rows=job.memory.ring_rows, pool=pool
        ) as reader,
    ):
        for before, until in spans[: row + 1]:
            reader.release(before)
            reader.wait(until)
        x = itertools.cycle(columns)
        for slot in range(session.options.slots):
            for out in session.input(slot):
                cpu.gather_tile(
                    reader.ring, job.grid.y.origin(row), next(x), height, width, panel.c0, settings.fill, settings.fill_value, out
                )  # fmt: skip
    return session.options.batch


def infer(session: Session, seconds: float) -> Cost:
    """Bare inference: the tiles lie ready in every slot and all slots are in flight."""
    slots, batch = session.options.slots, session.options.batch
    began, before = time.perf_counter(), time.process_time()
    for slot in range(slots):
        session.start(slot, batch)
    done = 0
    for slot in itertools.cycle(range(slots)):
        session.wait(slot)
        done += 1
        if time.perf_counter() - began >= seconds:
            break
        session.start(slot, batch)
    last = slot
    for k in range(1, slots):
        session.wait((last + k) % slots)
        done += 1
    return Cost(time.perf_counter() - began, time.process_time() - before, float(done * batch))


def probabilities(session: Session) -> npt.NDArray[np.float32]:
    """What the network says of the tiles of slot 0, float32 [B, C, T, T]."""
    session.start(0, session.options.batch)
    return session.wait(0).copy()


class BlendAndRuns:
    """Blending, finishing and run extraction of one panel on one thread, as the collector does it.

    Memory bound: the panel's sums and one band, as planned for the slide.
    """

    def __init__(self, processor: Processor, job: SlideJob, probability: npt.NDArray[np.float32]) -> None:
        settings, grid, panel = processor.settings, job.grid, job.memory.panels[0]
        self._grid, self._panel, self._job, self._settings = grid, panel, job, settings
        self._tiles = probability
        width, classes = panel.a1 - panel.a0, probability.shape[1]
        self._weights = cpu.gaussian_weights(settings.tile)
        self._den_y = cpu.denominator(grid.size.height, settings.tile, settings.stride)
        self._den_x = cpu.denominator(grid.size.width, settings.tile, settings.stride)[panel.a0 : panel.a1]
        self._sums = np.zeros((classes, settings.tile, width), np.float32)
        self._band = np.empty((classes, min(settings.stride, grid.size.height), width), np.float32)

    def run(self, seconds: float) -> tuple[Cost, Cost, Runs]:
        """(blending in tiles, run extraction in network rows, the runs of what was blended)."""
        panel, grid, job = self._panel, self._grid, self._job
        scale = job.settings.scale
        x0, x1 = panel.x0 * scale, min(panel.x1 * scale, job.size.width)
        columns = ColumnRuns(x0, x1, job.size, scale, self._settings.thresholds[0], job.memory.max_runs)
        tiles, picked = 0, itertools.cycle(self._tiles)
        rows = 0
        clock = {"blend": [0.0, 0.0], "runs": [0.0, 0.0]}
        began = time.perf_counter()
        for row in range(grid.y.count):
            wall, spent = time.perf_counter(), time.thread_time()
            for j in range(panel.j0, panel.j1):
                cpu.accumulate(
                    self._sums, next(picked), self._weights, grid.y.origin(row), grid.x.origin(j) - panel.a0, grid.size.height
                )  # fmt: skip
                tiles += 1
            y0, y1 = grid.y.final(row)
            band = self._band[:, : y1 - y0]
            if y1 > y0:
                cpu.finish(self._sums, y0, y1, self._den_y[y0:y1], self._den_x, band)
            wall, spent = _add(clock["blend"], wall, spent)
            if y1 > y0:
                columns.add(band[0], y0, panel.a0)
                rows += y1 - y0
            _add(clock["runs"], wall, spent)
            if time.perf_counter() - began >= seconds:
                break
        wall, spent = time.perf_counter(), time.thread_time()
        starts, lengths = columns.close().runs()
        _add(clock["runs"], wall, spent)
        self._sums[:] = 0
        blend, found = (
            Cost(wall, spent, amount)
            for (wall, spent), amount in ((clock["blend"], tiles), (clock["runs"], rows))
        )
        return blend, found, Runs(starts, lengths, job.size)


def _add(total: list[float], wall: float, spent: float) -> tuple[float, float]:
    now, cpu_now = time.perf_counter(), time.thread_time()
    total[0] += now - wall
    total[1] += cpu_now - spent
    return now, cpu_now


def encode(runs: Runs, seconds: float) -> tuple[Cost, str]:
    """Runs to the CSV's digits; the amount is runs."""
    text = ""

    def worker() -> Callable[[], float | None]:
        def step() -> float:
            nonlocal text
            text = runs.to_rle()
            return float(len(runs.starts))

        return step

    return on_threads(1, seconds, worker), text


def write(text: str, seconds: float) -> Cost:
    """The CSV to the disk, flushed; the amount is files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.csv"

        def worker() -> Callable[[], float | None]:
            def step() -> float:
                write_submission(path, [("bench", text)])
                return 1.0

            return step

        return on_threads(1, seconds, worker)
