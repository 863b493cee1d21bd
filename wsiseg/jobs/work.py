"""Tasks to records inside one process: what a worker does, and `run_local`, which is that with nothing around it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from wsiseg.errors import Interrupted
from wsiseg.jobs.checkpoint import Checkpoint
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide, measure
from wsiseg.jobs.pace import Prices
from wsiseg.jobs.records import Record
from wsiseg.jobs.stage import Stage


class Processor(Protocol):
    """What turns slides into results. `tasks` has `.index`, `.id` and `.path`; results come in the same order.

    A result has `.task`, `.size`, `.mpp`, `.scale`, `.runs` (each with `to_rle()`), `.classes`, `.seconds`, `.stats`,
    `.warnings`; a failure has `.task`, `.error`, `.kind`. When `stop` is set, it ends or raises Interrupted as soon as it
    can, without results for the slides that it drops.
    """

    def process(self, tasks: Iterable[Any], stop: threading.Event | None = None) -> Iterator[Any]: ...


@dataclass
class WorkerContext:
    """What a processor's factory is given besides its own payload.

    Attributes:
        worker: number of this worker on its machine, from 0.
        folder: of the job.
        digest: of model and options; known from the first task on.
        prices: what saving a slide in progress costs here.
        report: sends plain data to the parent's `on_event`, for progress inside a slide.
    """

    worker: int
    folder: JobFolder
    digest: str = ""
    prices: Prices = field(default_factory=Prices)
    report: Callable[[Mapping[str, Any]], None] = field(default=lambda data: None)

    def checkpoint(self, task: Slide) -> Checkpoint:
        """The checkpoint of a task that `process` was given."""
        return Checkpoint(self.folder.store, task, self.digest, self.prices)


@dataclass
class Summary:
    """How a run ended.

    Attributes:
        total: slides of this run's part of the manifest.
        skipped: had a record before.
        done, failed: made a record now.
        failures: all failed records, of now and before.
        interrupted: a signal ended it early.
    """

    total: int = 0
    skipped: int = 0
    done: int = 0
    failed: int = 0
    failures: list[Record] = field(default_factory=list)
    interrupted: bool = False

    @property
    def missing(self) -> int:
        return self.total - self.skipped - self.done - self.failed

    def add(self, record: Record) -> None:
        """Counts a new record."""
        if record.status == "done":
            self.done += 1
        else:
            self.failed += 1
            self.failures.append(record)

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some slides failed, 75 interrupted and resumable."""
        return 75 if self.missing else 1 if self.failures else 0


def work(
    folder: JobFolder,
    slides: Iterable[Slide],
    processor: Processor,
    digest: Callable[[], str],
    stop: threading.Event,
    stage: Stage | None = None,
) -> Iterator[Record]:
    """Processes `slides` and yields each record once it is on the disk.

    `slides` is pulled by the processor, from whichever thread it likes, as far ahead as it likes.
    """
    taken: dict[int, Slide] = {}
    changed: list[Slide] = []

    def feed() -> Iterator[Slide]:
        for slide in slides:
            if measure(slide.path) != (slide.size, slide.mtime):
                changed.append(slide)
                continue
            taken[slide.index] = slide
            yield replace(slide, path=stage.take(slide)) if stage else slide

    def refuse_changed() -> Iterator[Record]:
        while changed:
            slide = changed.pop(0)
            there = measure(slide.path)[0] >= 0
            error = (
                "changed since the manifest was written"
                if there
                else "is gone since the manifest was written"
            )
            yield folder.write_failed(
                slide, digest(), f"{slide.path}: the file {error}; run again", "SlideError"
            )

    for result in processor.process(feed(), stop):
        slide = taken.pop(result.task.index)
        if hasattr(result, "error"):
            # a user looks for the slide where it was, not where it was copied to
            error = result.error.replace(result.task.path, slide.path)
            record = folder.write_failed(slide, digest(), error, result.kind)
        else:
            record = folder.write_done(slide, digest(), result)
        Checkpoint(folder.store, slide, digest()).discard()
        if stage:
            stage.drop(slide.index)
        yield record
        yield from refuse_changed()
    yield from refuse_changed()


def run_local(
    manifest: Manifest,
    folder: JobFolder,
    processor: Processor,
    identity: Mapping[str, Any],
    stop: threading.Event | None = None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Summary:
    """Processes what has no record yet, in this process. Nothing is merged.

    Raises:
        UsageError: when the folder's records were made with another identity.
    """
    stop = stop or threading.Event()
    folder.clean()
    digest = folder.claim(identity)
    folder.write_manifest(manifest)
    found = folder.forget_failures(folder.scan(manifest.slides, digest))
    summary = Summary(total=len(manifest.slides), skipped=len(found))
    rest = [slide for slide in manifest.slides if slide.key not in found]
    with contextlib.suppress(Interrupted):
        for record in work(folder, _until(rest, stop), processor, lambda: digest, stop):
            summary.add(record)
            on_record(record)
    summary.interrupted = stop.is_set()
    return summary


def _until(slides: Iterable[Slide], stop: threading.Event) -> Iterator[Slide]:
    for slide in slides:
        if stop.is_set():
            return
        yield slide
