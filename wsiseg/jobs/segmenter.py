"""What a worker process runs: a processor made of plain data, with the model and its identity beside it.

The factory of `wsiseg.jobs.pool.WorkerSpec` is "wsiseg.jobs.segmenter:make".
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsiseg.errors import Interrupted
from wsiseg.geometry import Size
from wsiseg.jobs.quick import load_quickly
from wsiseg.jobs.work import WorkerContext
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.options import SlideResult
from wsiseg.pipeline.start import start
from wsiseg.resident import peak_bytes, tighten_allocator

if TYPE_CHECKING:
    from wsiseg.outputs.spool import ProbabilitySpool

REPORT_EVERY = 0.25  # seconds between two progress reports of one worker


class Segmenter:
    """A started processor that reports its progress to the parent.

    Attributes:
        identity: what the results depend on. about: what people are told.
    """

    def __init__(self, config: RunConfig, context: WorkerContext) -> None:
        tighten_allocator()
        self._config, self._context, self._reported = config, context, 0.0
        self._stack = contextlib.ExitStack()
        self._spools: dict[int, ProbabilitySpool] = {}
        sinks = self._spool if config.probabilities else None
        started = self._stack.enter_context(start(config, self._progress, context.checkpoint, sinks))
        self._classes = started.model.spec.classes
        self._processor = started.processor
        self.identity = started.identity
        budget = started.processor.budget
        self.about = {
            "description": started.description,
            "model": started.model.name,
            "batch": started.processor.session.options.batch,
            "slots": started.processor.session.options.slots,
            "resident": budget.resident,
            "budget": budget.share.bytes,
        }

    def process(self, tasks: Iterable[Any], stop: threading.Event | None = None) -> Iterator[Any]:
        """See `wsiseg.pipeline.Processor.process`; a stop ends it without an error."""
        try:
            for outcome in self._processor.process(tasks, stop):
                spool = self._spools.pop(outcome.task.index, None)
                try:
                    if isinstance(outcome, SlideResult):
                        outcome = self._finished(outcome, spool)
                finally:
                    if spool is not None:
                        spool.discard()
                yield outcome
        except Interrupted:
            if stop is None or not stop.is_set():
                raise
        finally:
            # What is left belongs to slides that were stopped half way, which go on from there.
            for spool in self._spools.values():
                spool.close()
            self._spools.clear()

    def _spool(self, task: Any, size: Size) -> ProbabilitySpool:
        """Where the probabilities of a slide are kept until its outputs are written."""
        from wsiseg.outputs.files import safe_name
        from wsiseg.outputs.spool import ProbabilitySpool, spool_path

        path = spool_path(self._config.save_folder, safe_name(task.id))
        spool = self._spools[task.index] = ProbabilitySpool(path, len(self._classes), size)
        return spool

    def _finished(self, result: SlideResult, spool: ProbabilitySpool | None) -> SlideResult:
        """The result with what its probabilities say, after the outputs beside the CSV were written.

        Raises:
            OutputError: one cannot be written.
        """
        if spool is None and not self._config.save:
            return result
        from wsiseg.outputs.geojson import ObjectClass
        from wsiseg.outputs.probability import object_means
        from wsiseg.outputs.save import SlideOutputs, save_outputs
        from wsiseg.slide import open_slide

        began = time.perf_counter()
        means: list[Any] = []
        if spool is not None:
            means = [object_means(runs, spool, k, result.scale) for k, runs in enumerate(result.runs)]
        classes = [
            ObjectClass(name, runs, means[k] if means else None)
            for k, (name, runs) in enumerate(zip(result.classes, result.runs, strict=True))
        ]
        path = result.task.path
        slide = SlideOutputs(
            result.task.id,
            classes,
            result.mpp,
            lambda: open_slide(path),
            result.scale,
            self._processor.settings.thresholds,
            spool,
        )
        if self._config.save:
            save_outputs(self._config.save_folder, self._config.save, slide)
        spent = {f"save {kind}": seconds for kind, seconds in slide.seconds.items()}
        spent["outputs"] = time.perf_counter() - began
        stats = {**result.stats, "times": {**result.stats.get("times", {}), **spent}}
        return replace(result, means=tuple(means), stats=stats, warnings=(*result.warnings, *slide.notes))

    def _progress(self, job: SlideJob, share: float) -> None:
        now = time.monotonic()
        if now - self._reported < REPORT_EVERY and share < 1:
            return
        self._reported = now
        self._context.report(
            {
                "id": job.task.id,
                "share": round(share, 4),
                "pixels": job.size.pixels,
                "times": {k: round(v, 3) for k, v in job.times.items()},
                "peak": peak_bytes(),
            }
        )


def make(payload: Mapping[str, Any], context: WorkerContext) -> Segmenter:
    """The factory.

    Raises:
        ModelError, UsageError, BudgetError: as `wsiseg.pipeline.start.start`.
    """
    config = RunConfig.from_dict(dict(payload))
    load_quickly(config.backend)
    return Segmenter(config, context)
