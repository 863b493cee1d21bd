"""What a worker process runs: a processor made of plain data, with the model and its identity beside it.

The factory of `wsiseg.jobs.pool.WorkerSpec` is "wsiseg.jobs.segmenter:make".
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wsiseg.errors import Interrupted
from wsiseg.jobs.quick import load_quickly
from wsiseg.jobs.work import WorkerContext
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.options import SlideResult
from wsiseg.pipeline.start import start
from wsiseg.resident import peak_bytes, tighten_allocator

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
        started = self._stack.enter_context(start(config, self._progress, context.checkpoint))
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
                if isinstance(outcome, SlideResult) and self._config.save:
                    self._save(outcome)
                yield outcome
        except Interrupted:
            if stop is None or not stop.is_set():
                raise

    def _save(self, result: SlideResult) -> None:
        """Write the outputs beside the CSV, before the slide's record says that it is done."""
        from wsiseg.outputs.geojson import ObjectClass
        from wsiseg.outputs.save import SlideOutputs, save_outputs
        from wsiseg.slide import open_slide

        classes = [ObjectClass(name, runs) for name, runs in zip(result.classes, result.runs, strict=True)]
        path = result.task.path
        save_outputs(
            self._config.save_folder,
            self._config.save,
            SlideOutputs(result.task.id, classes, result.mpp, lambda: open_slide(path)),
        )

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
