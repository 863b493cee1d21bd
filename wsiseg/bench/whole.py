"""The whole pipeline, for a limited time: the same slide again and again, so that slides overlap as in a real run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import Interrupted, SlideError
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.options import SlideFailure, SlideTask
from wsiseg.pipeline.processor import Processor
from wsiseg.resident import peak_bytes, trim

PATIENCE = 1.25  # a slide that is not through after this many times the wanted seconds is stopped where it is


@dataclass(frozen=True)
class Whole:
    """What one measurement of the pipeline did.

    Attributes:
        wall, cpu: seconds on the clock and CPU seconds of the process.
        slides: how many were done; a share of one when it was stopped.
        tiles, empty, absent: tiles that were run, skipped without tissue, and of those run not decoded for want of objects.
        pixels: level pixels that were decoded.
        peak, planned: bytes resident at most, and what the plan says.
        waits: seconds that the feeder waited, by what for.
    """

    wall: float
    cpu: float
    slides: float
    tiles: int
    empty: int
    absent: int
    pixels: int
    peak: int
    planned: int
    waits: dict[str, float]


class Progress:
    """Collects the jobs of a processor; give `note` to it as its progress function."""

    def __init__(self) -> None:
        self.jobs: dict[int, tuple[SlideJob, float]] = {}

    def note(self, job: SlideJob, share: float) -> None:
        self.jobs[id(job)] = (job, share)


def run_whole(processor: Processor, progress: Progress, path: str, seconds: float) -> Whole:
    """Segment `path` again and again for about `seconds`; a slide that takes longer is stopped half way.

    Raises:
        SlideError: when the slide cannot be done.
    """
    progress.jobs.clear()
    stop = threading.Event()
    trim()
    _reset_peak()
    began, cpu = time.perf_counter(), time.process_time()

    def tasks() -> Iterator[SlideTask]:
        index = 0
        while index == 0 or time.perf_counter() - began < seconds:
            yield SlideTask(index, Path(path).stem, path)
            index += 1

    timer = threading.Timer(seconds * PATIENCE, stop.set)
    timer.daemon = True
    timer.start()
    try:
        with contextlib.suppress(Interrupted):
            for outcome in processor.process(tasks(), stop):
                if isinstance(outcome, SlideFailure):
                    raise SlideError(path, outcome.error.removeprefix(f"{path}: "))
    finally:
        timer.cancel()
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    jobs = list(progress.jobs.values())
    waits: dict[str, float] = {}
    for job, _ in jobs:
        for name in ("wait for reading", "wait for network", "cut"):
            waits[name] = waits.get(name, 0.0) + job.times.get(name, 0.0)

    def count(name: str) -> int:
        return sum(job.counts.get(name, 0) for job, _ in jobs)

    return Whole(
        wall=wall,
        cpu=spent,
        slides=sum(share for _, share in jobs),
        tiles=count("tiles"),
        empty=count("empty tiles"),
        absent=count("tiles without objects"),
        pixels=count("pixels read"),
        peak=peak_bytes(),
        planned=max((job.memory.total for job, _ in jobs), default=0),
        waits=waits,
    )


def _reset_peak() -> None:
    """Let the kernel count the most resident bytes from now on, where it can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
