"""Wires the pipeline: a session, prefetch threads, a feeder, a collector, and slides that overlap.

    tasks -> open and plan -> ring of network rows -> tiles -> batch -> session -> blend -> runs -> objects -> result
             (opener thread)  (decode pool)           (feeder thread)              (collector)     (finisher)

Memory bound: what is resident when the session has warmed up is measured; slides reserve the whole of their plans in
a ledger of the rest of the budget before they begin.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wsiseg.backends.base import Session
from wsiseg.errors import BudgetError, SlideError, WsisegError
from wsiseg.geometry import Size
from wsiseg.memory import MemoryPlan, OutputCost, ReadCost, Share, plan_memory
from wsiseg.objects import clean
from wsiseg.pipeline.abort import Abort
from wsiseg.pipeline.collect import Collector, Held, Outcome
from wsiseg.pipeline.feed import Feeder
from wsiseg.pipeline.job import BandSink, Checkpoint, SlideJob, Work
from wsiseg.pipeline.ledger import Ledger
from wsiseg.pipeline.options import RunOptions, SlideResult, SlideTask, bottleneck
from wsiseg.pipeline.settings import model_settings, slide_settings
from wsiseg.pipeline.transitions import ColumnRuns, join
from wsiseg.pipeline.warm import warm_kernels
from wsiseg.resident import resident_bytes, trim
from wsiseg.runs import Runs
from wsiseg.slide import DecodePool, ReadPlan, open_slide, ring_bytes
from wsiseg.tiling import TileGrid
from wsiseg.units import format_bytes

# Kept free for what no plan sees: allocator slack, thread stacks, Python objects of one slide.
RESERVE_SHARE, RESERVE_LEAST = 0.03, 24 << 20
# Less than this holds no slide's buffers; it is said once and not of every slide.
LEAST_FREE = 20 << 20


def _no_progress(job: SlideJob, share: float) -> None:
    """Nobody wants to know."""


def reserve_of(share: Share) -> int:
    """Bytes of a budget that no plan may use."""
    return max(RESERVE_LEAST, int(share.bytes * RESERVE_SHARE))


@dataclass(frozen=True)
class Budget:
    """What the process may hold, and what was resident when planning began."""

    share: Share
    resident: int

    @property
    def reserve(self) -> int:
        return reserve_of(self.share)

    @property
    def free(self) -> int:
        return self.share.bytes - self.resident - self.reserve


class Processor:
    """Segments slides with one loaded model, inside one budget.

    Args:
        session: a loaded model; the caller closes it.
        options: what the person set. memory: bytes for the whole process, model and interpreter
            included; a `Share` when several processes divide a budget.
        threads: prefetch threads. progress: called from the feeder's thread as (job, share of the slide handed over).
        checkpoints: gives the place where a slide in progress is saved, or None to save nothing.
        output_cost: what the caller needs to write a slide's results, from its size and its network grid's; part of
            the plan.
        sinks: gives what takes a slide's probabilities as they become final, from its task and its network grid's size.

    Raises:
        UsageError: for options that the model cannot take. BudgetError: when not even the model fits.
    """

    def __init__(
        self,
        session: Session,
        options: RunOptions,
        *,
        memory: int | Share,
        threads: int,
        progress: Callable[[SlideJob, float], None] = _no_progress,
        checkpoints: Callable[[Any], Checkpoint] | None = None,
        output_cost: Callable[[Size, Size], OutputCost] | None = None,
        sinks: Callable[[Any, Size], BandSink] | None = None,
    ) -> None:
        self.session, self.options, self.progress = session, options, progress
        self.checkpoints, self.output_cost, self.sinks = checkpoints, output_cost, sinks
        self.settings = model_settings(session.spec, options)
        self.threads = threads
        # Compiled code and caches are part of what is resident, so they are there before it is measured.
        warm_kernels(len(session.spec.classes))
        trim()
        self.budget = Budget(memory if isinstance(memory, Share) else Share(memory), resident_bytes())
        if self.budget.free < LEAST_FREE:
            share, least = self.budget.share, self.budget.resident + self.budget.reserve + LEAST_FREE
            raise BudgetError(
                f"the memory budget is too small: the program and the model hold {format_bytes(self.budget.resident)}, --memory is "
                f"{format_bytes(share.option(share.bytes))}; give --memory {share.argument(least)} or more, or a smaller --tile or --batch"
            )

    def prepare(self, task: SlideTask) -> SlideJob:
        """Open a slide and plan it; reads metadata only.

        Raises:
            SlideError: when it cannot be read. BudgetError: when it cannot be fitted.
        """
        started = time.perf_counter()
        slide = open_slide(task.path, mpp=self.options.mpp_of(task.id), fast_jpeg=self.options.fast_jpeg)
        try:
            settings = slide_settings(self.session.spec, self.options, slide.mpp)
            read = slide.plan(settings.scale, level=self.options.level)
            grid = TileGrid(
                slide.size.over(settings.scale),
                self.settings.tile,
                self.settings.stride,
                self.settings.fill == 0,
            )
            try:
                plan = self.plan(grid, slide.size, read)
            except BudgetError as error:
                raise SlideError(task.path, str(error)) from error
        except BaseException:
            slide.close()
            raise
        warnings = [*slide.warnings, *settings.warnings]
        job = SlideJob(task, slide, slide.size, settings, read, grid, plan, warnings, started)
        if self.sinks is not None:
            job.sink = self.sinks(task, grid.size)
        if self.checkpoints is not None:
            job.checkpoint = self.checkpoints(task)
            job.resume_from(job.checkpoint.load())
        return job

    def plan(self, grid: TileGrid, size: Size, read: ReadPlan) -> MemoryPlan:
        """The memory plan of one slide; see `wsiseg.memory.plan_memory`."""
        cost = ReadCost(read.unit, lambda columns, rows: ring_bytes(read, columns, rows, self.threads))
        return plan_memory(
            grid,
            classes=len(self.session.spec.classes),
            read=cost,
            resident=self.budget.resident,
            budget=self.budget.share,
            reserve=self.budget.reserve,
            full_width=size.width,
            outputs=None if self.output_cost is None else self.output_cost(size, grid.size),
        )

    def process(self, tasks: Iterable[SlideTask], stop: threading.Event | None = None) -> Iterator[Outcome]:
        """Results and failures, one per task, in the tasks' order, while the next slides are already under way.

        Raises:
            Interrupted: after `stop` was set. WsisegError: for a failure that is not one slide's. Whatever it is,
            every thread has ended when it comes out, also when the caller closes the generator half way.
        """
        abort = Abort()
        free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        results: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        for slot in range(self.session.options.slots):
            free.put(slot)
        ledger = Ledger(self.budget.free)
        pool = DecodePool(self.threads)
        feeder = Feeder(
            tasks, self.prepare, self.session, self.settings, pool, ledger, free, work, abort, stop or threading.Event(), self.progress,
            self.options.on_bad_tile,
        )  # fmt: skip
        collector = Collector(self.session, self.settings, ledger, free, work, results, abort, self._finish)
        feeder.start()
        collector.start()
        try:
            while (held := results.get()) is not None:
                yield held.outcome
                ledger.release(held.bytes)
            if abort.cause is not None:
                raise abort.cause
        finally:
            abort.fail(GeneratorExit())
            feeder.join()
            collector.join()
            pool.close()

    def _finish(self, job: SlideJob, panels: list[list[ColumnRuns]]) -> Outcome:
        started = time.perf_counter()
        size = (job.size.height, job.size.width)
        masks = []
        for index in range(len(self.session.spec.classes)):
            starts, lengths = join([panel[index].runs() for panel in panels])
            runs = Runs(starts, lengths, job.size)
            masks.append(clean(runs, min_area=job.settings.min_area, fill_holes=job.settings.fill_holes))
        # of a slide that goes on in its midst, nobody counts the tiles that were run before
        if self.settings.tissue and not job.counts.get("tiles") and job.resume is None:
            job.warnings.append("no tissue was found, so its mask is empty; --tissue none runs every tile")
        now = job.spent("objects", started)
        stats = {
            "times": dict(job.times),
            "counts": dict(job.counts),
            "bottleneck": bottleneck(job.times),
            "planned": job.memory.total,
            "panels": len(job.memory.panels),
        }
        return SlideResult(
            task=job.task,
            size=size,
            mpp=job.slide.mpp,
            scale=job.settings.scale,
            classes=self.session.spec.classes,
            runs=tuple(masks),
            seconds=now - job.started,
            stats=stats,
            warnings=tuple(job.warnings),
        )


def run_all(processor: Processor, tasks: Sequence[SlideTask]) -> list[Outcome]:
    """Every outcome in a list; for callers with few slides.

    Raises:
        WsisegError: see `Processor.process`.
    """
    return list(processor.process(tasks))


__all__ = ["Budget", "Processor", "WsisegError", "run_all"]
